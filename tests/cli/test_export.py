"""``deca-node export``: what it takes from the node's folder, and where it will not write."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deca_node.protocol.errors import StorageError

Deca = Callable[..., Any]
FOLDER = Path("deca-data") / "north"


@pytest.fixture
def folder(deca: Deca) -> Path:
    """A node's folder, the only one below ./deca-data."""
    FOLDER.mkdir(parents=True)
    (FOLDER / "lock").touch()
    return FOLDER


def test_a_complete_run_needs_only_a_copy(deca: Deca, folder: Path) -> None:
    (folder / "final").mkdir()
    (folder / "final" / "config.json").write_text("{}")
    Path("mine").mkdir()
    assert deca("export", "mine") == (0, "The tuned model is in mine.\n", "")
    assert (Path("mine") / "config.json").read_text() == "{}"
    assert sorted(path.name for path in Path().iterdir()) == ["deca-data", "mine"]


@pytest.mark.parametrize("flags", [(), ("--model", "./other")])
def test_an_unfinished_one_is_made_of_its_start_and_its_checkpoint(
    deca: Deca, folder: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    asked: list[Any] = []

    def make(directory: Path, start_model: str, out: Path, note: Any) -> None:
        asked.extend([directory, start_model, out])
        raise StorageError("stopped here")

    monkeypatch.setattr("deca_node.numerics.export.export", make)
    (folder / "run.json").write_text(json.dumps({"start_model": "./start"}))
    assert deca("export", *flags, "out") == (10, "", "error: stopped here\n")
    assert asked == [folder, flags[1] if flags else "./start", Path("out")]


def test_nobody_knows_the_start(deca: Deca, folder: Path) -> None:
    outcome = deca("export", "out")
    assert (outcome.code, "give --model" in outcome.err) == (3, True)


def test_what_is_there_is_not_overwritten(deca: Deca, folder: Path) -> None:
    (folder / "final").mkdir()
    Path("mine").write_text("my notes")
    outcome = deca("export", "mine")
    assert (outcome.code, outcome.err) == (10, "error: mine is there already; name a folder that is not\n")


def test_no_such_folder(deca: Deca) -> None:
    assert deca("export", "--dir", "nowhere", "out") == (10, "", "error: there is no folder nowhere\n")
