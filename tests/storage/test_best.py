"""The best model: a candidate takes its place whole, others go, and an earlier run's stays."""

import json
from pathlib import Path

import pytest

from deca_node.protocol.agreed.stopping import candidate
from deca_node.storage.best import BEST, NOTE, keep_best, repair_best
from deca_node.storage.folder import node_directory
from tests.storage.failing_disk import Kill, KilledError


def write(directory: Path, number: int) -> None:
    folder = directory / candidate(number)
    folder.mkdir()
    (folder / "model").write_text(str(number))


def best(directory: Path) -> str | None:
    path = directory / BEST / "model"
    return path.read_text() if path.exists() else None


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_candidate_becomes_the_best_and_earlier_ones_go(tmp_path: Path) -> None:
    for number in (1, 2, 3, 10):
        write(tmp_path, number)
    assert keep_best(tmp_path, 2, 2.5, until=3)
    assert (best(tmp_path), names(tmp_path)) == ("2", [BEST, candidate(10)])
    assert json.loads((tmp_path / BEST / NOTE).read_text()) == {"round": 2, "heldout_loss": 2.5}
    assert keep_best(tmp_path, 10, 2.25, until=10)
    assert (best(tmp_path), names(tmp_path)) == ("10", [BEST])


def test_without_its_candidate_the_best_stays(tmp_path: Path) -> None:
    """As after a restart that lost it, or where it was kept before."""
    write(tmp_path, 1)
    keep_best(tmp_path, 1, 2.5, until=1)
    write(tmp_path, 2)
    assert not keep_best(tmp_path, 1, 2.5, until=2)
    assert (best(tmp_path), names(tmp_path)) == ("1", [BEST])


def test_a_crash_at_any_moment_leaves_a_whole_best_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoints").mkdir()
    write(tmp_path, 1)
    keep_best(tmp_path, 1, 2.5, until=1)
    for call in range(100):
        write(tmp_path, 2)
        killed = False
        with Kill(call).watched(monkeypatch):
            try:
                keep_best(tmp_path, 2, 2.25, until=2)
            except KilledError:
                killed = True
        with node_directory(tmp_path):
            assert best(tmp_path) in ("1", "2")
            assert not [name for name in names(tmp_path) if name.startswith(".")]
            keep_best(tmp_path, 9, 0.0, until=9)
        if not killed:
            return
    raise AssertionError("never ran to its end")


def test_a_new_run_sets_the_best_of_an_earlier_one_aside(tmp_path: Path) -> None:
    write(tmp_path, 1)
    keep_best(tmp_path, 1, 2.5, until=1)
    write(tmp_path, 2)
    repair_best(tmp_path, fresh=False)
    assert names(tmp_path) == [BEST, candidate(2)]
    repair_best(tmp_path, fresh=True)
    (aside,) = names(tmp_path)
    assert aside.startswith(f"{BEST}-") and (tmp_path / aside / "model").read_text() == "1"
