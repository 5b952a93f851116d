"""A stand-in for a running node: it answers with a status from the test, and remembers the requests it gets."""

import asyncio
import dataclasses
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deca_node.daemon.logs import EventLog
from deca_node.daemon.status.facts import (
    CheckpointRow,
    Histogram,
    MemberRow,
    PeerRow,
    Position,
    RunRow,
    Spread,
    Status,
    Verb,
)
from deca_node.daemon.web.admin_socket import AdminSocket
from deca_node.protocol.errors import DecaError

POSITION = Position(
    round=2,
    rounds=4,
    block=3,
    blocks=26,
    block_name="layers.1",
    step=17,
    steps=50,
    activation=28,
    activations=130,
    done=1417,
    total=5278,
)

STATUS = Status(
    version="0.1",
    time=1000.0,
    name="north",
    run="wards",
    fingerprint="ab" * 32,
    phase="visiting",
    stage="waiting",
    started=True,
    ready=True,
    awaits="updates: south",
    doing="training block 3 of 26 (layers.1), waiting for updates: south",
    uptime_seconds=3700.0,
    position=POSITION,
    steps_per_second=2.0,
    remaining_seconds=1930.5,
    train_loss=2.5,
    heldout_loss=2.75,
    heldout_when="round 1",
    heldout_accuracy=0.8125,
    heldout_macro_f1=0.75,
    consensus_distance=1.25e-4,
    figures={"loss": 2.5, "learning_rate": 5e-5, "grad_norm": 1.5, "compute_seconds": 0.4, "mix_seconds": float("nan")},
    step_seconds=Histogram((0.5, 1.0), (3, 5), 6, 4.5),
    peers=(
        PeerRow(
            name="south",
            address="127.0.0.1:7002",
            state="up",
            neighbour=True,
            edge="open",
            behind=1,
            activation=28,
            refusal="it closed its edge: north did not open it in time",
            refused=880.0,
            rtt=Spread(0.0012, 0.0034, 0.005),
            sent_bytes={"update": 5 * 2**20, "control": 100},
            received_bytes={"update": 4 * 2**20},
        ),
        PeerRow(name="west", address="127.0.0.1:7003", state="refused", why="rounds is 4 at north and 5 at west"),
    ),
    members={"alive": 2, "suspect": 1},
    checkpoint=CheckpointRow(activation=28, step=0, path="checkpoints/000028-00000", written=960.0, age_seconds=40.0),
    loop_lag=Spread(0.0002, 0.0011, 0.003),
    counters={"edges_dropped": 1, "flows_applied": 40},
    refusals={"mismatch": 2},
    certificate_expires=90_000.0,
)

MEMBERS = (
    MemberRow(name="north", address="127.0.0.1:7001", state="alive", boot=0x1F, incarnation=2, ready_from=0),
    MemberRow(name="south", address="127.0.0.1:7002", state="suspect", boot=5),
)


RUN = (
    RunRow(name="north", state="alive", own=True, phase="visiting", done=1417, total=5278, round=2, block=3, loss=2.5),
    RunRow(name="south", state="suspect", phase="loading", sent_bytes=5, page="127.0.0.1:9641", age_seconds=3.0),
)


class FakeAdmin:
    """A test may replace ``now`` between two requests. ``refusal`` is raised for every request if it is set."""

    def __init__(self, **changes: Any) -> None:
        self.now = dataclasses.replace(STATUS, **changes)
        self.refusal = ""
        self.asked: list[Verb] = []

    def status(self) -> Status:
        return self.now

    def members(self) -> Sequence[MemberRow]:
        return MEMBERS

    def run(self) -> Sequence[RunRow]:
        return RUN

    async def ask(self, verb: Verb) -> str:
        self.asked.append(verb)
        if self.refusal:
            raise DecaError(self.refusal)
        return f"{verb} will be done"


class RunningAdmin:
    """A stand-in behind a real socket in ``directory``, on an event loop in its own thread."""

    def __init__(self, directory: Path, door: FakeAdmin) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "lock").touch()
        self.log = logging.getLogger("fake")
        self.log.setLevel("INFO")
        self.log.propagate = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._socket = self._run(self._open(door, directory))

    async def _open(self, door: FakeAdmin, directory: Path) -> AdminSocket:
        events = EventLog(kept=5)
        self.log.handlers[:] = [events]
        admin = AdminSocket(door, events, directory)
        await admin.open()
        return admin

    def say(self, message: str) -> None:
        """Write a log line on the loop's thread, as a node does."""

        async def write() -> None:
            self.log.info(message)

        self._run(write())

    def close(self) -> None:
        if self._thread.is_alive():
            self._run(self._socket.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)
