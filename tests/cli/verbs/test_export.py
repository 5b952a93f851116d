"""``deca-node export``: what it takes from the node's folder, and where it will not write."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deca_node.numerics.saving.averaging import Averaged
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.errors import StorageError
from deca_node.storage.folder import write_origin

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

    monkeypatch.setattr("deca_node.numerics.saving.export.export", make)
    (folder / "run.json").write_text(json.dumps({"start_model": "./start"}))
    assert deca("export", *flags, "out") == (10, "", "error: stopped here\n")
    assert asked == [folder, flags[1] if flags else "./start", Path("out")]


def test_nobody_knows_the_start(deca: Deca, folder: Path) -> None:
    outcome = deca("export", "out")
    assert (outcome.code, "give it with --model" in outcome.err) == (3, True)


def test_what_is_there_is_not_overwritten(deca: Deca, folder: Path) -> None:
    (folder / "final").mkdir()
    Path("mine").write_text("my notes")
    outcome = deca("export", "mine")
    assert (outcome.code, outcome.err) == (10, "error: mine exists already; name a new folder\n")


def test_json(deca: Deca, folder: Path) -> None:
    (folder / "final").mkdir()
    assert json.loads(deca("export", "mine", "--json").out) == {"path": "mine", "complete": True}


# --- the mean of several --------------------------------------------------------------------------------


@pytest.fixture
def members(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Two nodes' folders, one complete; and what is asked of the code below."""
    other = folder.parent / "south"
    (folder / "final").mkdir()
    (other / "checkpoints").mkdir(parents=True)
    for node in (folder, other):
        (node / "run.json").write_text(json.dumps({"agreement": {"rounds": "4"}, "start_model": "./start"}))
    asked: list[Any] = []

    def make(directory: Path, start_model: str, out: Path, note: Any) -> Any:
        out.mkdir(parents=True)
        asked.append((directory, start_model))
        return SimpleNamespace(position=Step(3, 2))

    def average(folders: list[Path], out: Path, report: Any) -> Averaged:
        asked.append([(path, path.is_dir()) for path in folders])
        return Averaged(len(folders), 5, 1000, 0.25)

    monkeypatch.setattr("deca_node.numerics.saving.export.export", make)
    monkeypatch.setattr("deca_node.numerics.saving.averaging.average", average)
    return asked


def test_the_mean_of_a_complete_copy_an_unfinished_and_an_exported_one(deca: Deca, members: list[Any]) -> None:
    Path("exported").mkdir()
    outcome = deca("export", "--average", "mean", "deca-data/north", "deca-data/south", "exported")
    assert outcome.code == 0
    assert outcome.out == "The mean of 3 copies is in mean. The consensus distance of the copies was 2.50e-01.\n"
    assert "the run in deca-data/south is not complete; its model as of activation 3 step 2 is used" in outcome.err
    made = Path(".mean.copies") / "1"
    folders = [FOLDER / "final", made, Path("exported")]
    assert members == [(Path("deca-data/south"), "./start"), [(folder, True) for folder in folders]]
    assert not made.parent.exists()


def test_the_mean_for_programs(deca: Deca, members: list[Any]) -> None:
    found = json.loads(deca("export", "--json", "--average", "mean", "deca-data/north", "deca-data/south").out)
    assert found == {"path": "mean", "copies": 2, "tensors": 5, "parameters": 1000, "consensus_distance": 0.25}
    assert len(members) == 2


def test_nodes_of_two_runs_have_no_mean(deca: Deca, members: list[Any]) -> None:
    (FOLDER / "run.json").write_text(json.dumps({"agreement": {"rounds": "9"}}))
    outcome = deca("export", "--average", "mean", "deca-data/north", "deca-data/south")
    assert (outcome.code, members) == (7, [])
    assert outcome.err == "error: the run differs: rounds is 9 at deca-data/north and 4 at deca-data/south\n"


def test_a_copy_that_a_node_trained_alone_is_averaged_only_if_told(deca: Deca, members: list[Any]) -> None:
    write_origin(FOLDER / "final", "no other node took part")
    words = ("--average", "mean", "deca-data/south", "deca-data/north")
    outcome = deca("export", *words)
    assert (outcome.code, members) == (7, [])
    assert "the copy in deca-data/north is not the others': no other node took part; leave it out" in outcome.err
    assert deca("export", "--anyway", *words).code == 0
    exported = deca("export", "own", "--json")
    assert json.loads(exported.out)["alone"] == "no other node took part"
    outcome = deca("export", "--average", "mean2", "deca-data/south", "own")
    assert outcome.code == 7, "the mark goes with the exported model"


@pytest.mark.parametrize("words", ["mean a b", "mean a", "--average mean a", "--average mean"])
def test_how_many_copies(deca: Deca, words: str) -> None:
    outcome = deca("export", *words.split())
    assert (outcome.code, "--average needs OUT and at least two COPYs" in outcome.err) == (2, True)


def test_no_such_copy(deca: Deca, folder: Path) -> None:
    assert deca("export", "--average", "mean", str(folder), "b") == (10, "", "error: there is no folder b\n")


def test_no_such_folder(deca: Deca) -> None:
    assert deca("export", "--dir", "nowhere", "out") == (10, "", "error: there is no folder nowhere\n")
