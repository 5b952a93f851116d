"""Inputs of a testbed: a model that loads, and private records for every node."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from deca_node.lab.demo import inputs
from deca_node.lab.demo.toy_model import EachStep, Recipe, ToyModel


def no_training(folder: Path, recipe: Recipe | None, _progress: EachStep | None = None) -> ToyModel:
    assert recipe is not None
    return ToyModel(folder, parameters=recipe.steps, loss=0.0, cached=False)


def test_each_node_has_records_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "make_toy_model", no_training)
    done = CliRunner().invoke(inputs.main, [str(tmp_path), "north", "east", "--steps", "7"])
    assert done.exit_code == 0, done.output
    assert "7 parameters" in done.output
    north, east = ((tmp_path / "data" / f"{name}.jsonl").read_text().splitlines() for name in ("north", "east"))
    assert all(json.loads(line)["text"] for line in north + east)
    assert not set(north) & set(east)


def test_equal_arguments_give_equal_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "make_toy_model", no_training)
    for folder in ("one", "two"):
        inputs.make_inputs(tmp_path / folder, ["north", "east"], Recipe())
    one, two = ((tmp_path / folder / "data" / "east.jsonl").read_bytes() for folder in ("one", "two"))
    assert one == two


def test_the_training_of_the_model_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes minutes on a slow machine, while `docker compose up` waits for it. One line in ten seconds is enough."""
    said: list[str] = []
    now = iter([0.0, *range(4, 24, 4)])
    tell = inputs._told(said.append, clock=lambda: float(next(now)))
    for step in range(1, 6):
        tell(step, 50, 7.0)
    assert said == ["step 3 of 50, loss 7.000, 188 s left"]


def test_the_command_prints_the_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def training(folder: Path, recipe: Recipe | None, progress: EachStep | None = None) -> ToyModel:
        assert progress is not None
        progress(1, 2, 7.0)
        return no_training(folder, recipe)

    monkeypatch.setattr(inputs, "PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(inputs, "make_toy_model", training)
    done = CliRunner().invoke(inputs.main, [str(tmp_path), "north", "--steps", "2"])
    assert "step 1 of 2, loss 7.000" in done.output
