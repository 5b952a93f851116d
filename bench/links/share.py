"""A share of a core for each trainer, so that what carries the network has the rest, as beside an accelerator.

On few cores a trainer that takes all of one pays for whatever else runs: its node's network, and the wire that
:mod:`bench.links.wire` plays. That says nothing about the line. With a share, in all arms alike, steps take the same
processor time per second whether there is a line or not.
"""

import os
import time
from pathlib import Path
from types import TracebackType

import psutil

from bench.links.wire import NotPermittedError
from deca_node.lab.processes import NodeProcess

ROOT_V1, ROOT_V2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
PERIOD_MICROSECONDS = 10_000
"""Short against a step."""

START_SECONDS_MAX = 60.0
END_SECONDS_MAX = 10.0


class Share:
    """Control groups of one run, a trainer in each; leaving the ``with`` block removes them. ``cores`` 0: no limit.

    Raises NotPermittedError where the machine has no control groups for processor time that we may make.
    """

    def __init__(self, cores: float) -> None:
        self._cores = cores
        self._made: list[Path] = []

    def __enter__(self) -> "Share":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        end = time.monotonic() + END_SECONDS_MAX
        for folder in self._made:
            # A trainer ends by itself, a moment after its node.
            while (folder / "cgroup.procs").read_text() and time.monotonic() < end:
                time.sleep(0.05)
            folder.rmdir()

    def limit(self, nodes: list[NodeProcess]) -> None:
        """Wait for every node's trainer and limit it."""
        if not self._cores:
            return
        for node in nodes:
            folder = self._make(f"deca-links-{os.getpid()}-{len(self._made)}")
            (folder / "cgroup.procs").write_text(str(trainer_of(node).pid))

    def _make(self, name: str) -> Path:
        quota = round(self._cores * PERIOD_MICROSECONDS)
        try:
            if ROOT_V1.is_dir():
                folder = self._folder(ROOT_V1 / name)
                (folder / "cpu.cfs_period_us").write_text(str(PERIOD_MICROSECONDS))
                (folder / "cpu.cfs_quota_us").write_text(str(quota))
            else:
                (ROOT_V2 / "cgroup.subtree_control").write_text("+cpu")
                folder = self._folder(ROOT_V2 / name)
                (folder / "cpu.max").write_text(f"{quota} {PERIOD_MICROSECONDS}")
        except OSError as error:
            raise NotPermittedError(f"no share of a core can be given: {error}") from error
        return folder

    def _folder(self, folder: Path) -> Path:
        folder.mkdir()
        self._made.append(folder)
        return folder


def trainer_of(node: NodeProcess) -> psutil.Process:
    """The child of a node that trains. Raises TimeoutError where there is none in time."""
    parent, end = psutil.Process(node.process.pid), time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < end:
        for child in parent.children():
            if any("trainer_process" in word for word in child.cmdline()):
                return child
        time.sleep(0.05)
    raise TimeoutError(f"{node.name} started no trainer within {START_SECONDS_MAX:g} s")
