"""A node's folder after a crash at every point of a run: a start goes on from the newest checkpoint, bit for bit.

tests/storage/power_cuts.py says which states a crash can leave.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from deca_node.protocol.agreed.agreement import agree
from deca_node.storage.folder import node_directory
from tests.numerics.saving.checkpoint_runs import SETTINGS, Notes, make
from tests.numerics.saving.crash_runs import NODE, WRITTEN, Right, Starts, begin, whole_run
from tests.patience import PATIENCE_SECONDS
from tests.storage.power_cuts import Recorder, State

KILLED_IN_PARTS = 12
"""Each part takes every twelfth call, so that no test takes too long on a slow machine."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def no_flushing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders of these tests need not outlast anything."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recorder, Right]:
    agreement = agree(SETTINGS, make(tmp_path_factory.mktemp("model")).ready().model)
    home = tmp_path_factory.mktemp("run")
    recorder = Recorder(home)
    with pytest.MonkeyPatch.context() as patch, recorder.watching(patch):
        right = whole_run(home, agreement, recorder.say)
    return recorder, right


def test_a_start_goes_on_after_a_crash_at_any_point(recorded: tuple[Recorder, Right], tmp_path: Path) -> None:
    recorder, right = recorded
    starts = Starts(right, tmp_path)
    for state in recorder.states.values():
        starts.check(state)
    assert recorder.points > 300, "calls of the run"
    assert len(recorder.states) > 1000, "folders that crashes left"
    assert len(starts.restored) > len(WRITTEN)


@pytest.mark.slow
def test_a_start_that_crashes_itself_loses_nothing(recorded: tuple[Recorder, Right], tmp_path: Path) -> None:
    """Every crash at every point of a start after every crash; and from there the run goes to the same end."""
    recorder, right = recorded
    starts, seen = Starts(right, tmp_path, to_the_end=True), set()
    for first in recorder.states.values():
        with starts.left_by(first) as folder:
            again = Recorder(folder)
            with pytest.MonkeyPatch.context() as patch, again.watching(patch), node_directory(folder / NODE) as node:
                begin(node, right.agreement, Notes())
        for second in again.states.values():
            state = State(second.point, first.said, second.killed, second.tree)
            if (key := (state.said, frozenset(state.tree.items()))) not in seen:
                seen.add(key)
                starts.check(state)
    assert len(seen) > len(recorder.states)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(KILLED_IN_PARTS))
def test_a_process_that_is_killed_at_any_call_is_followed_by_one_that_goes_on(part: int, tmp_path: Path) -> None:
    script = Path(__file__).with_name("killed_runs.py")
    root = Path(__file__).parents[3]
    command = [sys.executable, "-P", "-W", "ignore", str(script), str(tmp_path), str(part), str(KILLED_IN_PARTS)]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[0]) > 300, done.stdout
