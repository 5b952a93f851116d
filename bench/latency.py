"""``python -m bench.latency``: how long a node takes to answer while it sends and receives as fast as it can.

Two processes send each other frames without a pause. Each has the network of a node (one port, one exchange stream, one
control link), and a process beside it that uses a core at a trainer's priority. Meanwhile pings travel over the control
link and, as the alternative, as small messages on the exchange stream. A meter records how late the event loop wakes
its tasks.

The arms: no traffic; only the trainers, which shows the cost of the machine's own scheduler; frames at 1 Gbit/s each
way, as over a common link; and frames as fast as possible. Each node and its trainer have their own half of the cores,
as on a machine of their own. In the last two arms the two nodes share all cores. In each arm a process that only sleeps
measures how late the scheduler wakes it.
"""

import argparse
import asyncio
import gc
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from typing import Any, NamedTuple

import uvloop
from rich.console import Console
from rich.table import Table

from bench.harness import MIB, ROOT, Row, own_cores, parser, write_results
from deca_node.daemon.links import control_session
from deca_node.daemon.links.conduct import Refusals
from deca_node.daemon.links.control import ControlLinks
from deca_node.daemon.links.greeting import Identity
from deca_node.daemon.links.session import FrameRules
from deca_node.daemon.links.transport import Transport
from deca_node.daemon.settings.address import Address
from deca_node.daemon.trainer.arena import Arena, FrameStore, shared_file
from deca_node.daemon.wire.endpoint import Endpoint
from deca_node.daemon.wire.meters import LagMeter, RecentSamples
from deca_node.daemon.wire.throttle import Throttle
from deca_node.daemon.wire_pb import exchange_pb2 as pb
from deca_node.process.memory import settle_memory
from deca_node.process.priority import answer_promptly, give_way
from deca_node.protocol import events as e
from deca_node.protocol.agreed.agreement import Agreement
from deca_node.protocol.agreed.frames import FrameId, FrameKind

NAMES = ("north", "south")
HELD_MAX = 4
FRAMES_QUEUED = 2
FRAME_BYTES = 32 * MIB
WARM_UP_SECONDS = 2.0
PING_SECONDS = 0.02
TARGET_SECONDS = 0.005
PRIORITY = "idle"
"""What the trainers stand back as. The targets and all earlier results are of this class, which is no default."""


class Load(NamedTuple):
    """Whether a trainer runs beside each node, the bytes per second each way (0: no limit, None: no frames), and
    whether each node has its own cores."""

    trainers: bool
    bytes_per_second: float | None
    cores_apart: bool = True


LOADS = {
    "at rest": Load(trainers=False, bytes_per_second=None),
    "trainers alone": Load(trainers=True, bytes_per_second=None),
    "1 Gbit/s": Load(trainers=True, bytes_per_second=125e6),
    "all it can": Load(trainers=True, bytes_per_second=0.0),
    "1 Gbit/s, cores shared": Load(trainers=True, bytes_per_second=125e6, cores_apart=False),
    "all it can, cores shared": Load(trainers=True, bytes_per_second=0.0, cores_apart=False),
}
BURN = "while True: pass"
SLEEP = """
import json, sys, time
late, end = [], time.monotonic() + float(sys.argv[1])
while (due := time.monotonic() + 0.02) < end:
    time.sleep(0.02)
    late.append(time.monotonic() - due)
print(json.dumps(late))
"""


def main() -> None:
    """Measure, print the table and write ``latency.json``. With ``--party`` this process is one of the two nodes."""
    options = parser("Round-trip times and event-loop lag of two nodes, at rest and under full load.")
    options.add_argument("--seconds", type=float, default=20.0, help="seconds per arm")
    options.add_argument("--party", default="", help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.party:
        print(json.dumps(uvloop.run(Party(json.loads(arguments.party)).life())))
        return
    seconds = 3.0 if arguments.quick else arguments.seconds
    rows = [row for name in LOADS for row in arm(name, seconds)]
    show(rows)
    written = write_results("latency", arguments, {"job": {"seconds": seconds}, "target": TARGET_SECONDS, "rows": rows})
    Console().print(f"written to {written}")


def arm(name: str, seconds: float) -> list[Row]:
    """Run two child processes, under load each with a busy one beside it. Every number is the worse of the two."""
    load = LOADS[name]
    ports = free_ports(2)
    jobs = [{"index": index, "ports": ports, "load": name, "seconds": seconds} for index in range(2)]
    burning = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(2 * load.trainers)]
    try:
        for trainer in burning:
            give_way(trainer.pid, PRIORITY)
        commands = [[sys.executable, "-m", "bench.latency", "--party", json.dumps(job)] for job in jobs]
        parties = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for command in commands]
        for processes in (burning, parties) if load.cores_apart else ():
            for index, process in enumerate(processes):
                os.sched_setaffinity(process.pid, own_cores(index, 2))
        # They start beside the parties after these have warmed up.
        time.sleep(WARM_UP_SECONDS)
        sleeper = [sys.executable, "-c", SLEEP, str(seconds)]
        late = json.loads(subprocess.run(sleeper, stdout=subprocess.PIPE, text=True, check=True).stdout)
        answers = [party.communicate(timeout=120 + 3 * seconds)[0] for party in parties]
    finally:
        for process in burning:
            process.kill()
            process.wait()
    if any(party.returncode for party in parties):
        raise SystemExit("a party failed; its output is above")
    reports = [json.loads(answer.splitlines()[-1]) for answer in answers]
    rate = sum(report["received_bytes"] for report in reports) / seconds / 1e9
    kinds = ("control ping", "exchange ping", "event-loop lag")
    figures = {kind: worse(*(report[kind] for report in reports)) for kind in kinds}
    scheduler = RecentSamples(len(late))
    for each in late:
        scheduler.add(each)
    figures["a sleeper's lag"] = asdict(scheduler.figures())
    return [{"load": name, "what": kind, "gigabytes_per_second": rate, **found} for kind, found in figures.items()]


def worse(left: Row, right: Row) -> Row:
    """The worse of the two reports for every number."""
    return {"count": min(left["count"], right["count"])} | {q: max(left[q], right[q]) for q in ("p50", "p99", "max")}


def free_ports(count: int) -> list[int]:
    """Free ports of loopback."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def show(rows: list[Row]) -> None:
    """The table."""
    table = Table(title="Milliseconds, the worse of two nodes")
    for column in ("", "", "n", "p50", "p99", "max", "GB/s"):
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        figures = [f"{1e3 * row[q]:.2f}" for q in ("p50", "p99", "max")]
        table.add_row(row["load"], row["what"], str(row["count"]), *figures, f"{row['gigabytes_per_second']:.2f}")
    Console().print(table)


class Party:
    """The network of one node, and its measurements."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._job = job
        self._name, self._peer = NAMES[job["index"]], NAMES[1 - job["index"]]
        own, peer = (Address("127.0.0.1", job["ports"][index]) for index in (job["index"], 1 - job["index"]))
        self._own, self._there = own, peer
        self._rate = LOADS[job["load"]].bytes_per_second
        self._round_trips = RecentSamples(100_000)
        self._asked: dict[int, float] = {}
        self._received = 0
        self._up = asyncio.Event()

    async def life(self) -> Row:
        """Meet, warm up, measure, and wait a little for the other node."""
        settle_memory()
        answer_promptly()
        control_session.PING_SECONDS = PING_SECONDS  # Much more often than a node does, for enough samples of a p99.
        self._start()
        await self._endpoint.start()
        self._transport.set_peers({self._peer: self._there})
        self._transport.meet(Agreement({}), self._store, FrameRules(lambda *_: FRAME_BYTES, HELD_MAX))
        self._links.send(self._peer, str(self._there), b"hello")
        await self._up.wait()
        gc.freeze()
        tasks = [asyncio.ensure_future(self._ping())]
        if self._rate is not None:
            tasks.append(asyncio.ensure_future(self._send()))
        await asyncio.sleep(WARM_UP_SECONDS)
        report = await self._measure()
        await asyncio.sleep(WARM_UP_SECONDS)
        for task in tasks:
            task.cancel()
        await self._links.close()
        await self._transport.close()
        await self._endpoint.stop()
        return report

    def _start(self) -> None:
        self._store = FrameStore(Arena(shared_file(), FRAME_BYTES, 2 * HELD_MAX), kept_free=HELD_MAX)
        self._endpoint = Endpoint(self._own)
        identity = Identity(self._name, os.getpid(), lambda: 0, str(self._own))
        self._transport = Transport(identity, self._endpoint, self._heard, Refusals(), Throttle(self._rate or 0.0))
        self._links = ControlLinks(identity, self._endpoint, _ignore, _ignore, _ignore, Refusals())

    async def _measure(self) -> Row:
        lag = LagMeter()
        lag.start()
        before, self._round_trips = self._received, RecentSamples(100_000)
        await asyncio.sleep(self._job["seconds"])
        lag.close()
        return {
            "control ping": asdict(self._links.rtt()[self._peer]),
            "exchange ping": asdict(self._round_trips.figures()),
            "event-loop lag": asdict(lag.figures()),
            "received_bytes": self._received - before,
        }

    async def _send(self) -> None:
        """Send frames without a pause, with two in the queue at any time."""
        for inner in range(1 << 30):
            frame = FrameId(self._name, FrameKind.UPDATE, 0, inner)
            self._store.reserve(frame, FRAME_BYTES)
            self._transport.send_frame(self._peer, frame)
            self._store.release(frame)
            while self._store.held_from(self._name) >= FRAMES_QUEUED:  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    async def _ping(self) -> None:
        """The alternative to a control link: the smallest message, on the stream that carries frames."""
        for number in range(1 << 30):
            self._asked[number] = time.perf_counter()
            self._transport.send(self._peer, pb.Frame(close=pb.Close(activation=number, reason="ping")))
            await asyncio.sleep(0.1)

    def _heard(self, event: e.NetworkEvent) -> None:
        match event:
            case e.PeerUp():
                self._up.set()
            case e.UpdateReceived():
                self._received += FRAME_BYTES
                self._store.release(event.update)
            case e.CloseReceived(reason="ping"):
                close = pb.Close(activation=event.activation, reason="pong")
                self._transport.send(self._peer, pb.Frame(close=close))
            case e.CloseReceived():
                with suppress(KeyError):
                    self._round_trips.add(time.perf_counter() - self._asked.pop(event.activation))


def _ignore(*_: Any) -> None:
    """Ignores all events."""


if __name__ == "__main__":
    main()
