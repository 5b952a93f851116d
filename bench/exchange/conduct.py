"""Starts the parties of one contestant, leads them through a few exchanges, and ends them."""

import json
import os
import selectors
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import psutil

from bench.exchange.meter import Meter, Usage
from bench.exchange.party import Job
from bench.exchange.trust import certify
from bench.harness import ROOT, own_cores

START_SECONDS_MAX = 120.0
EXCHANGE_SECONDS_MAX = 120.0
END_SECONDS = 10.0

Answer = dict[str, Any]


class PartyFailedError(Exception):
    """A contestant failed. The message has the end of one party's log."""


@dataclass(frozen=True)
class Contestant:
    """One way to exchange. ``environment`` is "" for our own. ``one_process``: it starts its nodes by itself.
    ``mutual_tls``: its nodes have certificates and show them."""

    name: str
    label: str
    module: str
    option: str = ""
    environment: str = ""
    one_process: bool = False
    mutual_tls: bool = False
    exchanges: int = 3


@dataclass(frozen=True)
class Exchange:
    """One exchange, from the begin of the first party to the end of the last."""

    seconds: float
    usage: Usage


@dataclass(frozen=True)
class Performance:
    """The figures of a contestant in one start of its processes."""

    exchanges: tuple[Exchange, ...]
    error: float
    facts: dict[str, str]


def measure(contestant: Contestant, python: Path, contents: Sequence[str], elements: int) -> Performance:
    """Let a contestant exchange ``contents``, one node for each, in a ring. Raises PartyFailedError."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(folder / "parent"))
        listener.listen()
        listener.settimeout(START_SECONDS_MAX)
        jobs = make_jobs(folder, contents, elements, contestant)
        parties = Parties(contestant, python, folder, jobs)
        stack.callback(parties.end)
        parties.meet(listener)
        return parties.perform(contestant.exchanges)


def make_jobs(folder: Path, contents: Sequence[str], elements: int, contestant: Contestant) -> list[Job]:
    """A job per node. A node's neighbours are those beside it on the ring."""
    count = len(contents)
    peers = tuple(("127.0.0.1", port) for port in free_ports(2 * count))
    if contestant.mutual_tls:
        certify(folder, [str(party) for party in range(count)])
    return [
        Job(
            socket=str(folder / "parent"),
            party=party,
            neighbours=tuple(sorted({(party - 1) % count, (party + 1) % count})),
            peers=peers,
            contents=tuple(contents),
            elements=elements,
            folder=str(folder),
            option=contestant.option,
            certificates=str(folder) if contestant.mutual_tls else "",
        )
        for party in range(1 if contestant.one_process else count)
    ]


class Parties:
    """The processes of one contestant, and the connections to them."""

    def __init__(self, contestant: Contestant, python: Path, folder: Path, jobs: Sequence[Job]) -> None:
        self._log = folder / "log"
        self._connections: list[socket.socket] = []
        self._facts: dict[str, str] = {}
        self._processes: list[subprocess.Popen[bytes]] = []
        for job in jobs:
            path = folder / f"job-{job.party}.json"
            path.write_text(json.dumps(asdict(job)), encoding="utf-8")
            command = [str(python), "-m", f"bench.exchange.parties.{contestant.module}", str(path)]
            with self._log.open("ab") as log:
                nodes = 1 if contestant.one_process else len(job.contents)
                cores = own_cores(job.party, nodes)
                process = subprocess.Popen(
                    command,
                    cwd=folder,
                    env=environment_of(len(job.contents), folder),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
                # Set before this process has threads, so that they and its children inherit it.
                os.sched_setaffinity(process.pid, cores)
                self._processes.append(process)
        self._meter = Meter(process.pid for process in self._processes)

    def meet(self, listener: socket.socket) -> None:
        """Wait until every party is ready."""
        listener.settimeout(1.0)
        deadline = time.monotonic() + START_SECONDS_MAX
        while len(self._connections) < len(self._processes):
            try:
                self._connections.append(listener.accept()[0])
            except TimeoutError:
                if time.monotonic() > deadline or any(process.poll() is not None for process in self._processes):
                    raise PartyFailedError(self._last_words()) from None
        for answer in self._answers():
            self._facts |= answer["ready"]

    def perform(self, count: int) -> Performance:
        """A first exchange to warm up, which is also checked, and then ``count`` measured exchanges."""
        self._exchange()
        error = max(answer["error"] for answer in self._all("check"))
        return Performance(tuple(self._exchange() for _ in range(count)), error, self._facts)

    def end(self) -> None:
        """Close the connections. Processes that do not end by themselves soon are killed."""
        started = self._meter.processes()
        for connection in self._connections:
            connection.close()
        _, alive = psutil.wait_procs(started, timeout=END_SECONDS)
        for process in alive:
            process.kill()
        for child in self._processes:
            child.wait()

    def _exchange(self) -> Exchange:
        self._all("prepare")
        self._meter.start()
        answers = self._all("exchange")
        usage = self._meter.stop()
        seconds = max(answer["ended"] for answer in answers) - min(answer["began"] for answer in answers)
        return Exchange(seconds, usage)

    def _all(self, word: str) -> list[Answer]:
        for connection in self._connections:
            connection.sendall(f"{word}\n".encode())
        return self._answers()

    def _answers(self) -> list[Answer]:
        """Read a line from every party. If one has ended or is too late, all fail."""
        lines = dict.fromkeys(self._connections, b"")
        with selectors.DefaultSelector() as selector:
            for connection in self._connections:
                selector.register(connection, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(EXCHANGE_SECONDS_MAX)
                if not ready:
                    raise PartyFailedError("no answer in time")
                for key, _ in ready:
                    connection = cast(socket.socket, key.fileobj)
                    received = connection.recv(1 << 16)
                    if not received:
                        raise PartyFailedError(self._last_words())
                    lines[connection] += received
                    if received.endswith(b"\n"):
                        selector.unregister(connection)
        return [json.loads(lines[connection]) for connection in self._connections]

    def _last_words(self) -> str:
        lines = [line.strip() for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines()]
        return next((line for line in reversed(lines) if line), "it did not answer in time")[:300]


def environment_of(nodes: int, folder: Path) -> dict[str, str]:
    """No more threads than a node has cores, and waiting threads that sleep."""
    threads = str(max(1, (psutil.cpu_count(logical=False) or 1) // nodes))
    settings = {"PYTHONPATH": str(ROOT), "HOME": str(folder), "PYTHONUNBUFFERED": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return os.environ | settings | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface at which no process listens."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
