"""Inputs of a testbed: a model that loads, and private records for every node."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from deca_node.lab.demo import inputs
from deca_node.lab.demo.toy_model import Progress, Recipe, ToyModel


def no_training(folder: Path, recipe: Recipe | None, _progress: Progress | None = None) -> ToyModel:
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
