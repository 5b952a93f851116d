"""The node's folder: locked while a node runs, and repaired at its start."""

import os
from pathlib import Path

import pytest

from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.stopping import NOTHING_TOLD, Heldout
from deca_node.protocol.errors import StorageError
from deca_node.storage.durable import replace_folder
from deca_node.storage.folder import (
    FINAL,
    HELDOUT,
    ORIGIN,
    alone_because,
    node_directory,
    read_heldout,
    write_heldout,
    write_origin,
)
from tests.storage.failing_disk import Kill, KilledError


def save(directory: Path, text: str) -> None:
    with replace_folder(directory / FINAL) as aside:
        (aside / "config.json").write_text(text)


def test_a_start_repairs_a_model_whose_saving_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, "earlier")
    for call in range(100):
        kill, killed = Kill(call), False
        with kill.watched(monkeypatch):
            try:
                save(tmp_path, f"new {call}")
            except KilledError:
                killed = True
        with node_directory(tmp_path) as directory:
            assert (directory / FINAL / "config.json").read_text() in (
                "earlier",
                *(f"new {n}" for n in range(call + 1)),
            )
            assert sorted(path.name for path in directory.iterdir()) == [FINAL, "lock"]
        if not killed:
            break
    assert call > 10
    assert (tmp_path / FINAL / "config.json").read_text() == f"new {call}"


def test_a_start_removes_a_file_that_was_half_written(tmp_path: Path) -> None:
    for name in ("page.json.partial", "heldout.json", "notes.partial"):
        (tmp_path / name).write_text("{")
    (tmp_path / "checkpoints").mkdir()
    with node_directory(tmp_path) as directory:
        left = {path.name for path in directory.iterdir()}
    assert left == {"heldout.json", "notes.partial", "checkpoints", "lock"}


def test_a_second_node_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with node_directory(tmp_path), pytest.raises(StorageError, match="another node runs in"), node_directory(tmp_path):
        pass


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StorageError, match=r"cannot use .*file as this node's folder"),
        node_directory(tmp_path / "file"),
    ):
        pass


def test_a_tuned_model_says_why_it_is_one_nodes_own(tmp_path: Path) -> None:
    assert alone_because(tmp_path) == ""
    write_origin(tmp_path, "no other node took part")
    assert alone_because(tmp_path) == "no other node took part"
    (tmp_path / ORIGIN).write_text("[]")
    assert alone_because(tmp_path) == ""


def test_a_refused_start_leaves_the_process_number_of_the_node_that_runs(tmp_path: Path) -> None:
    with node_directory(tmp_path):
        with pytest.raises(StorageError), node_directory(tmp_path):
            pass
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_what_was_told_of_held_out_losses_is_read_again_in_the_same_run(tmp_path: Path) -> None:
    run = RunSettings(early_stop_rounds=2)
    heldout = Heldout(((0, 3.25), (1, None)), 12)
    write_heldout(tmp_path, run, heldout)
    assert read_heldout(tmp_path, run) == heldout
    assert read_heldout(tmp_path, RunSettings(early_stop_rounds=3)) == NOTHING_TOLD


@pytest.mark.parametrize("content", ["", "[]", '{"run": 1, "losses": [[0]], "stop_at": null}', '{"losses": 1e999}'])
def test_a_damaged_file_of_held_out_losses_is_none(content: str, tmp_path: Path) -> None:
    """Nothing is lost that the others do not know."""
    (tmp_path / HELDOUT).write_text(content)
    assert read_heldout(tmp_path, RunSettings()) == NOTHING_TOLD


def test_a_folder_without_checkpoints_begins_a_run_without_losses(tmp_path: Path) -> None:
    run = RunSettings(early_stop_rounds=2)
    write_heldout(tmp_path, run, Heldout(((0, 3.25),)))
    with node_directory(tmp_path):
        assert read_heldout(tmp_path, run) == NOTHING_TOLD
    write_heldout(tmp_path, run, Heldout(((0, 3.25),)))
    (tmp_path / "checkpoints").mkdir()
    with node_directory(tmp_path):
        assert read_heldout(tmp_path, run) != NOTHING_TOLD
