"""Four nodes and their guests, the network between them, their certificates, and what can be done to them.

Nothing here takes root: a full disk is a limit on the size of files that a running process is given (EFBIG, where a
full disk says ENOSPC), a partition is a proxy that holds back bytes, and the wall clock is that of a process.
"""

# First of all, as in a node: grpc reads once, when it is imported, which versions of TLS it may speak.
import deca_node.daemon  # noqa: F401  # isort: skip

import asyncio
import contextlib
import json
import random
import resource
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from deca_node.api.client import NodeClient
from deca_node.lab.rigs.processes import NodeProcess
from deca_node.protocol.errors import NoAnswerError
from deca_node.protocol.node.phases import Phase
from tests.daemon.conftest import Federation
from tests.e2e.faults import kill, processes_of, stopped
from tests.e2e.networks import Switchboard
from tests.e2e.testbed import ROOT, SHIMS, WORDS, Testbed, ask, metrics, until
from tests.patience import PATIENCE_SECONDS
from tests.soak.figures import Sample
from tests.soak.schedule import GUESTS, NAMES, Fault

SAMPLE_SECONDS = 2.0
LINES, WORDS_PER_LINE, LIKED = 400, 24, 12
RUN: dict[str, Any] = {
    "insecure": None,
    "inner_steps": 20,
    "batch_size": 4,
    "learning_rate": 2e-3,
    "topology": "full",
    "checkpoint_every": 10,
    "open_timeout_seconds": 20,
    "step_timeout_seconds": 10,
    "finish_timeout_seconds": 180,
    "eval_sequences": 256,
}


class SlowSwitchboard(Switchboard):
    """A switchboard whose nodes may have slow links: ``rates`` are in bytes per second, by name."""

    def __init__(self, testbed: Testbed, names: Iterable[str], late: Iterable[str] = ()) -> None:
        super().__init__(testbed, tuple(names), tuple(late))
        self.rates: dict[str, float] = {}

    async def _pump(self, pair: tuple[str, str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            await self._passable(pair)
            if rate := min((self.rates[name] for name in pair if name in self.rates), default=0.0):
                await asyncio.sleep(len(data) / rate)
            writer.write(data)
            await writer.drain()
        await self._passable(pair)
        raise EOFError


class World(Testbed):
    """A test bed in which nodes may be started again. ``troubles`` are sentences about what must not happen.

    A step takes ``pace`` seconds or more, with neighbours or without.
    """

    def __init__(self, folder: Path, model: Path, rounds: int, pace: float) -> None:
        super().__init__(folder, model)
        self.troubles: list[str] = []
        self.samples: list[Sample] = []
        self.running: dict[str, NodeProcess] = {}
        self.starts = 0
        self._done_before: dict[str, int] = {}
        self.rounds = rounds
        self._pace = pace
        self._settled: set[tuple[str, int]] = set()
        self._federation = Federation(folder / "certificates")
        self._fingerprint = self._federation.begin()
        self.network = SlowSwitchboard(self, NAMES, GUESTS)
        self._guests = list(GUESTS)
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "World":
        self.network.__enter__()
        self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._sampler.join()
        super().__exit__(kind, problem, trace)
        self.network.__exit__(kind, problem, trace)

    def data(self, name: str) -> Path:
        """Text that no model can learn by heart: half of the words are drawn anew, by each node from others."""
        path = self.folder / f"{name}.jsonl"
        if not path.exists():
            rng = random.Random(f"text:{name}")
            liked = rng.sample(WORDS, LIKED)
            lines = [" ".join(self._sentence(rng, liked)) for _ in range(LINES)]
            path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
        return path

    def _sentence(self, rng: random.Random, liked: list[str]) -> Iterator[str]:
        at = rng.randrange(LIKED)
        for _ in range(WORDS_PER_LINE):
            yield liked[at]
            at = (5 * at + 1) % LIKED if rng.random() < 0.5 else rng.randrange(LIKED)

    # --- what is done to nodes ------------------------------------------------------------------------

    def up(self, name: str) -> NodeProcess:
        """Start a node, for the first time or again."""
        files = self._federation.folder / name
        if not files.exists():
            self.renew(name)
        log = (self.folder / "out" / name).with_suffix(".log")
        if log.exists():
            log.rename(log.with_suffix(f".{self.starts}.log"))
        environment = self.network.environment(name) | {
            "PYTHONPATH": f"{SHIMS / 'soak'}:{ROOT}",
            "SOAK_CLOCK": str(self._clock(name)),
            "LINKS_PACE_SECONDS": str(self._pace),
        }
        tls = {"tls_cert": files / f"{name}.crt", "tls_key": files / f"{name}.key", "tls_ca": files / "ca.crt"}
        listen = {"listen": self.network.address(name)} if name in GUESTS else {}
        self.starts += 1
        self._clock(name).write_text("0")
        node = self.start(name, environment, **RUN, **tls, **listen, rounds=self.rounds)
        self._done_before[name] = len(metrics(node, "step"))
        self.running[name] = node
        return node

    def happen(self, fault: Fault) -> bool:
        """Let it happen, and see to its end; False if it does not fit the moment.

        A node that has not yet trained since its start may end where its trainer dies or its disk is full.
        """
        node = self.running.get(fault.names[0])
        if fault.kind in ("full", "kill_trainer") and not (node and self._trains(node)):
            return False
        match fault.kind:
            case "part":
                self.network.part(fault.names)
                time.sleep(fault.seconds)
                self.network.heal()
            case "slow":
                self.network.rates = {fault.names[0]: fault.amount}
                time.sleep(fault.seconds)
                self.network.rates = {}
            case "clock":
                self._clock(fault.names[0]).write_text(str(fault.amount))
            case "renew":
                self.renew(fault.names[0])
            case "guest":
                self._guest()
            case _ if node is not None:
                self._happen_to(node, fault)
        return True

    def _trains(self, node: NodeProcess) -> bool:
        """Whether the node has done a step since its start."""
        return len(metrics(node, "step")) > self._done_before[node.name]

    def _happen_to(self, node: NodeProcess, fault: Fault) -> None:
        match fault.kind:
            case "kill":
                kill(self.nodes, node)
                time.sleep(fault.seconds)
                self.up(node.name)
            case "kill_trainer":
                for process in processes_of(node)[1:]:
                    process.kill()
            case "stop":
                node.process.terminate()
                self.ended(node)
                time.sleep(fault.seconds)
                self.up(node.name)
            case "pause":
                with stopped(node):
                    time.sleep(fault.seconds)
            case "full":
                with full_disk(processes_of(node)):
                    time.sleep(fault.seconds)
            case "reread":
                node.process.send_signal(signal.SIGHUP)

    def renew(self, name: str) -> None:
        """A new key and a new certificate for a node, also while it runs."""
        self._federation.node(name, self._fingerprint)

    def _guest(self) -> None:
        """A guest joins; where there is one, it leaves for good."""
        there = next((node for name, node in self.running.items() if name in GUESTS), None)
        if there is None:
            self.up(self._guests.pop(0))
            return
        with contextlib.suppress(AssertionError):
            ask(there, "leave")
            self.ended(there)
            return
        # A guest that is still starting has no socket yet.
        kill(self.nodes, there)
        del self.running[there.name]

    def ended(self, node: NodeProcess) -> None:
        """Wait for a node that was asked to end."""
        code = node.process.wait(PATIENCE_SECONDS)
        self.nodes.nodes.remove(node)
        del self.running[node.name]
        if code:
            self.troubles.append(f"{node.name} ended with {code}: {node.log_text(1)}")

    def look_after(self) -> None:
        """Start again each node that has ended by itself, which it must not have done before the run was over."""
        for name, node in list(self.running.items()):
            code = node.process.poll()
            if code is None or (code == 0 and (node.directory / "final").exists()):
                continue
            self.troubles.append(f"{name} ended by itself with {code}: {node.log_text(1)}")
            self.nodes.nodes.remove(node)
            del self.running[name]
            if name in NAMES:
                self.up(name)

    def calm(self) -> None:
        """Undo whatever lasts. Guests leave, and all clocks are right again."""
        self.network.heal()
        self.network.rates = {}
        for name in NAMES:
            self._clock(name).write_text("0")
        if any(name in GUESTS for name in self.running):
            self._guest()

    def gather(self) -> None:
        """Hold the run until every node has loaded its model: on a slow machine that takes longer than what is left."""
        holding = [node for name, node in self.running.items() if name in NAMES and self._trains(node)]
        for node in holding:
            with contextlib.suppress(AssertionError):
                ask(node, "pause")
        try:
            for name in NAMES:
                until(partial(_loaded, self.running[name]), f"{name} to load its model")
        except AssertionError as problem:
            self.troubles.append(str(problem))
        for node in holding:
            with contextlib.suppress(AssertionError):
                ask(node, "resume")

    def _clock(self, name: str) -> Path:
        return self.folder / f"{name}.clock"

    # --- what is watched ------------------------------------------------------------------------------

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            for name, node in list(self.running.items()):
                if (name, node.process.pid) not in self._settled and not self._trains(node):
                    continue
                self._settled.add((name, node.process.pid))
                with contextlib.suppress(psutil.Error):
                    for role, process in zip(("the daemon", "the trainer"), processes_of(node), strict=False):
                        rss = process.memory_info().rss
                        self.samples.append(Sample(name, role, process.pid, time.monotonic(), rss))


def _loaded(node: NodeProcess) -> bool:
    """Whether the node is past loading, or over."""
    if node.process.poll() is not None:
        return True
    try:
        return bool(json.loads(NodeClient(node.directory).get("/v1/status"))["phase"] != Phase.LOADING)
    except NoAnswerError:
        return False


@contextlib.contextmanager
def full_disk(processes: Iterable[psutil.Process]) -> Iterator[None]:
    """Processes that cannot write a byte to a file."""
    limited: list[tuple[psutil.Process, tuple[int, int]]] = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            before = process.rlimit(resource.RLIMIT_FSIZE)
            process.rlimit(resource.RLIMIT_FSIZE, (0, before[1]))
            limited.append((process, before))
    try:
        yield
    finally:
        for process, before in limited:
            with contextlib.suppress(psutil.Error):
                process.rlimit(resource.RLIMIT_FSIZE, before)
