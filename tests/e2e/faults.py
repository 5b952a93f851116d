"""What is done to nodes in tests of faults, and how what came of it is measured and shown."""

import faulthandler
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from deca_node.api.client import NodeClient, read
from deca_node.daemon.status.facts import MemberRow
from deca_node.lab.rigs.processes import LocalNodes, NodeProcess
from deca_node.protocol.errors import NoAnswerError
from tests.e2e.testbed import metrics, until
from tests.patience import PATIENCE_SECONDS

POLL_SECONDS = 0.05

# --- figures ----------------------------------------------------------------------------------------


def figure(promise: str, **values: Any) -> None:
    """Show what was measured (``pytest -s``), and add it to the file that FAULTS_FIGURES names, a line of JSON each."""
    line = json.dumps({"promise": promise, **values})
    print(f"\n{line}")  # noqa: T201 - to be seen
    if path := os.environ.get("FAULTS_FIGURES"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def allow(seconds: float) -> None:
    """This test may take longer than others may; after so long every stack is printed, and the process ends."""
    faulthandler.dump_traceback_later(seconds, exit=True)


def seconds_until(condition: Callable[[], Any], what: str, limit: float = PATIENCE_SECONDS) -> float:
    """Poll as ``until`` does; how long it took."""
    began = time.monotonic()
    until(condition, what, limit)
    return round(time.monotonic() - began, 2)


def throughout(seconds: float, condition: Callable[[], Any], what: str) -> None:
    """See that something holds all the while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert condition(), what
        time.sleep(POLL_SECONDS)


# --- what nodes know --------------------------------------------------------------------------------


def states(node: NodeProcess) -> dict[str, str]:
    """What `deca-node members` shows of everybody's state; nothing while the node does not answer."""
    return {row.name: row.state for row in member_rows(node)}


def member_rows(node: NodeProcess) -> list[MemberRow]:
    """What `deca-node members --json` gives."""
    try:
        return read(list[MemberRow], NodeClient(node.directory).get("/v1/members"))
    except NoAnswerError:
        return []


def one_view(nodes: Sequence[NodeProcess]) -> bool:
    """Whether each of these nodes sees all of these alive, and nobody else."""
    names = {node.name for node in nodes}
    return all({name for name, state in states(node).items() if state == "alive"} == names for node in nodes)


def all_see(nodes: Sequence[NodeProcess], name: str, *wanted: str) -> bool:
    """Whether all of these nodes see ``name`` in one of these states."""
    return all(states(node).get(name) in wanted for node in nodes)


def two_views(some: Sequence[NodeProcess], others: Sequence[NodeProcess]) -> bool:
    """Whether on either side everybody of the other is dead."""
    pairs = ((some, others), (others, some))
    return all(all_see(near, node.name, "dead") for near, far in pairs for node in far)


def steps_done(node: NodeProcess) -> int:
    """The newest step's place in the run; replayed steps count once."""
    return max((int(record["ordinal"]) for record in metrics(node, "step")), default=-1)


def wait_for_steps(nodes: Sequence[NodeProcess], more: int, what: str) -> None:
    """Until each of these nodes has done so many steps more than now."""
    wanted = {node.name: steps_done(node) + more for node in nodes}
    until(lambda: all(steps_done(node) >= wanted[node.name] for node in nodes), what)


def checkpoints(node: NodeProcess) -> list[Path]:
    """The folders of its checkpoints, oldest first."""
    return sorted(path.parent for path in (node.directory / "checkpoints").glob("*-*/manifest.json"))


# --- what is done to them ---------------------------------------------------------------------------


def processes_of(node: NodeProcess) -> list[psutil.Process]:
    """The node's own process, and its trainer's."""
    try:
        daemon = psutil.Process(node.process.pid)
        return [daemon, *daemon.children()]
    except psutil.NoSuchProcess:
        return []


def kill(nodes: LocalNodes, node: NodeProcess) -> None:
    """kill -9 of node and trainer, which are not to be waited for any more."""
    for process in processes_of(node):
        process.kill()
    node.process.wait(PATIENCE_SECONDS)
    nodes.nodes.remove(node)


def ended(nodes: LocalNodes, node: NodeProcess) -> int:
    """Wait for a node's own end; returns its exit code."""
    code = node.process.wait(PATIENCE_SECONDS)
    nodes.nodes.remove(node)
    return code


@contextmanager
def stopped(node: NodeProcess) -> Iterator[None]:
    """SIGSTOP to node and trainer; in the end, SIGCONT."""
    with ExitStack() as stack:
        for process in processes_of(node):
            process.suspend()
            stack.callback(process.resume)
        yield


class SmallDisk:
    """A disk of a few megabytes at ``path``; the test is skipped where none can be mounted."""

    def __init__(self, path: Path, mebibytes: int) -> None:
        self._path = path
        self._mebibytes = mebibytes

    def __enter__(self) -> "SmallDisk":
        self._path.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={self._mebibytes}m", "tmpfs", str(self._path)]
        try:
            subprocess.run(mount, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("no small disk can be mounted here: that takes root")
        return self

    def __exit__(self, *problem: object) -> None:
        subprocess.run(["umount", "--lazy", str(self._path)], check=True, capture_output=True)

    @property
    def _ballast(self) -> Path:
        return self._path / "ballast"

    def fill(self) -> None:
        """Leave not a byte."""
        with self._ballast.open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while file.write(bytes(size)) == size:
                        pass
                except OSError:
                    continue

    def make_room(self) -> None:
        """Take the ballast away."""
        self._ballast.unlink()
