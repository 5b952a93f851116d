"""``bench.links``: what it makes of the runs, and the share of a core that its trainers have."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.links import share
from bench.links.__main__ import ALONE, summary
from bench.links.share import Share, trainer_of
from bench.links.wire import NotPermittedError
from deca_node.lab.processes import NodeProcess

PARENT = """
import subprocess, sys
command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
other = subprocess.Popen(command, stdin=subprocess.PIPE)
trainer = subprocess.Popen([*command, "a.trainer_process"], stdin=subprocess.PIPE)
print(trainer.pid, flush=True)
sys.stdin.read()
"""


def row(turn: int, arm: str, seconds: float, mean: float) -> dict[str, object]:
    return {"turn": turn, "arm": arm, "step_seconds": seconds, "step_seconds_mean": mean, "waiting_seconds": 0.0}


def test_ratios_are_taken_within_a_turn() -> None:
    found = summary(
        [
            *(row(0, ALONE, seconds, seconds) for seconds in (0.9, 1.1)),
            row(0, "overlap int4", 1.2, 1.3),
            row(1, ALONE, 2.0, 2.0),
            row(1, "overlap int4", 2.2, 3.0),
        ],
        counted=[0, 1],
    )
    assert found["over_alone_all"] == {ALONE: [1.0, 1.0], "overlap int4": [1.2, 1.1]}
    assert found["over_alone"]["overlap int4"] == 1.15
    assert found["mean_over_alone"]["overlap int4"] == pytest.approx(1.4)


def test_turns_in_which_the_machine_changed_are_told_of_and_do_not_count() -> None:
    rows = [
        row(turn, arm, seconds, seconds)
        for turn, ours in enumerate((1.1, 1.9, 1.2))
        for arm, seconds in ((ALONE, 1.0), ("overlap int4", ours))
    ]
    assert summary(rows, counted=[0, 2])["over_alone"]["overlap int4"] == 1.15
    assert summary(rows, counted=[])["over_alone"]["overlap int4"] == 1.2
    assert summary(rows, counted=[0, 2])["over_alone_all"]["overlap int4"] == [1.1, 1.9, 1.2]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[tuple[NodeProcess, int]]:
    """A process with two children, and the number of the one that trains."""
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield NodeProcess("north", tmp_path, tmp_path / "log", process), int(process.stdout.readline())  # type: ignore[arg-type]


def test_of_a_nodes_children_the_trainer_is_found(node: tuple[NodeProcess, int]) -> None:
    assert trainer_of(node[0]).pid == node[1]


def test_without_control_groups_it_says_so(
    node: tuple[NodeProcess, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share, "ROOT_V1", tmp_path / "v1")
    monkeypatch.setattr(share, "ROOT_V2", tmp_path / "v2")
    with Share(0.5) as halves, pytest.raises(NotPermittedError, match="no share of a core can be given"):
        halves.limit([node[0]])
    with Share(0.0) as unlimited:
        unlimited.limit([node[0]])
