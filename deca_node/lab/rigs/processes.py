"""Real nodes on this machine: ``deca-node start`` as child processes, over loopback.

The demo and the tests start nodes just as a person would in several terminals.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from deca_node.api.local import LOOPBACK, free_ports
from deca_node.protocol.errors import DecaError

TICK_SECONDS = 0.2
END_SECONDS = 10.0

__all__ = [
    "LOOPBACK",
    "LocalNodes",
    "LocalRunError",
    "NodeProcess",
    "free_ports",
    "is_free",
    "usual_ports",
    "write_peers",
]


class LocalRunError(DecaError):
    """A node of a local run failed or did not finish in time. The message has the end of its log."""


def is_free(port: int) -> bool:
    """Whether no process listens at this port of the loopback address now."""
    with socket.socket() as asked:
        asked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            asked.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def usual_ports(first: int, count: int) -> list[int]:
    """The ports from ``first`` on where all are free, and any free ones otherwise.

    Systems give ports below 32768 to no outgoing connection. So the port of a node that is away stays free for it.
    """
    usual = list(range(first, first + count))
    return usual if all(map(is_free, usual)) else free_ports(count)


def write_peers(path: Path, names: Iterable[str], ports: Sequence[int] = ()) -> Path:
    """A peers file for nodes of these names, on these ports of this machine, or on free ones."""
    named = list(names)
    lines = [f"{name}@{LOOPBACK}:{port}\n" for name, port in zip(named, ports or free_ports(len(named)), strict=True)]
    path.write_text("".join(lines), encoding="utf-8")
    return path


@dataclass
class NodeProcess:
    """One running node: its name, its folder, its log and its process."""

    name: str
    directory: Path
    log: Path
    process: "subprocess.Popen[bytes]" = field(repr=False)

    def log_text(self, lines_max: int | None = None) -> str:
        """The log so far, or its last lines."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return text if lines_max is None else "\n".join(text.splitlines()[-lines_max:])


class LocalNodes:
    """Several nodes. The end of the ``with`` block ends those that still run, and no other process."""

    def __init__(self) -> None:
        self.nodes: list[NodeProcess] = []

    def __enter__(self) -> "LocalNodes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes:
            if node.process.poll() is None:
                node.process.kill()
            node.process.wait(END_SECONDS)

    def start(
        self,
        name: str,
        directory: Path,
        flags: Mapping[str, object],
        *,
        verb: Sequence[str] = ("start",),
        environment: Mapping[str, str] | None = None,
        within: Sequence[str] = (),
    ) -> NodeProcess:
        """Start a node with ``deca-node start``, or run another verb, with these flags. A flag with the value True has
        no argument. ``environment`` is added to this process's own. ``within`` is a command that runs the node, such as
        ``ip netns exec NAME``."""
        directory.parent.mkdir(parents=True, exist_ok=True)
        command = [*within, sys.executable, "-P", "-m", "deca_node", *verb, "--name", name, "--dir", str(directory)]
        for flag, value in flags.items():
            command += [flag] if value is True else [flag, str(value)]
        log = directory.with_suffix(".log")
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
            )
        node = NodeProcess(name, directory, log, process)
        self.nodes.append(node)
        return node

    def wait(self, timeout: float, tick: Callable[[], None] = lambda: None) -> None:
        """Wait until every node has ended with exit code 0. ``tick`` is called at intervals.

        Raises LocalRunError as soon as a node ends with another code, or when the time is over.
        """
        end = time.monotonic() + timeout
        while running := [node for node in self.nodes if node.process.poll() is None]:
            self._check()
            if time.monotonic() > end:
                names = ", ".join(node.name for node in running)
                raise LocalRunError(f"{names} did not finish within {timeout:g} s:\n{running[0].log_text(20)}")
            tick()
            try:
                running[0].process.wait(TICK_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        self._check()
        tick()

    def _check(self) -> None:
        for node in self.nodes:
            code = node.process.poll()
            if code not in (None, 0):
                raise LocalRunError(f"node {node.name} ended with exit code {code}:\n{node.log_text(20)}")
