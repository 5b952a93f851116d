"""Kill a real process at every call that changes the disk: ``python killed_runs.py FOLDER FIRST EACH``.

For each call a child does the run of crash_runs.py and kills itself there. A second child starts in the folder that is
left, checks where it goes on, and goes to the end. The calls are those from FIRST on, each EACH-th of them. Prints the
number of the last.
"""

import itertools
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from deca_node.protocol.agreed.agreement import agree
from deca_node.protocol.agreed.schedule import Step
from tests.numerics.saving.checkpoint_runs import SETTINGS, make
from tests.numerics.saving.crash_runs import Right, Said, Starts, whole_run
from tests.storage.power_cuts import CHANGES


def kill_at(call: int) -> None:
    """From now on, kill this process just before its call number ``call`` (from 0) that changes the disk."""
    left = [call]

    def counted(name: str, change: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if name != "open" or args[1] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return change(*args, **kwargs)

        return wrapped

    for name in CHANGES:
        setattr(os, name, counted(name, getattr(os, name)))


def in_a_child(work: Callable[[], object]) -> int:
    """The signal that ended a child, or its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            if code:
                traceback.print_exc()
            os._exit(code)
    return abs(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def run_and_start(folder: Path, right: Right, call: int) -> bool:
    """Kill a run at a call, and start again; whether the run came to its end before that call."""
    home, told = folder / str(call), folder / f"{call}.said"
    home.mkdir()
    book = told.open("w+", buffering=1)

    def say(said: Said) -> None:
        book.write(f"{said[0]} {said[1].activation} {said[1].inner}\n")

    def killed() -> None:
        kill_at(call)
        whole_run(home, right.agreement, say)

    def after() -> None:
        lines = [line.split() for line in told.read_text().splitlines()]
        said = [(what, Step(int(activation), int(inner))) for what, activation, inner in lines]
        Starts(right, folder, to_the_end=True).start(home, said, f"killed at call {call}")

    ended = in_a_child(killed)
    assert ended in (0, signal.SIGKILL), f"the run to call {call} failed"
    assert in_a_child(after) == 0, f"the start after call {call} failed"
    book.close()
    shutil.rmtree(home)
    return ended == 0


def main(folder: Path, first: int, each: int) -> None:
    torch.set_num_threads(1)
    # A killed process loses nothing that the system has. Flushing would take most of the time.
    os.fsync = lambda _descriptor: None
    agreement = agree(SETTINGS, make(folder / "model").ready().model)
    right = whole_run(folder / "right", agreement, lambda _said: None)
    calls = next(call for call in itertools.count(first, each) if run_and_start(folder, right, call))
    sys.stdout.write(f"{calls} calls\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
