"""``python -m bench.flood``: how fast a node answers its probes while strangers hold half-open connections to it.

Each port gets the same number of connections that never finish anything: to HTTP the first half of a request, to the
peers' port half of HTTP/2's preface. A connection that the node closes is opened again five seconds later, so the flood
does not end. Meanwhile /livez, /readyz and the gRPC health service are asked in turn, each on a new connection, from
another address of this machine (as an orchestrator would) and from the flood's own.

The server is the node's network side without a trainer: the same endpoint, services and HTTP server, in a process of
its own.
"""

import argparse
import asyncio
import contextlib
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import uvloop
from grpc_health.v1 import health_pb2 as pb
from rich.console import Console
from rich.table import Table

from bench.harness import ROOT, Row, parser, write_results
from deca_node.daemon.settings.address import Address
from deca_node.daemon.status.facts import NodeAdmin, Status
from deca_node.daemon.web.server import Server, application
from deca_node.daemon.wire.endpoint import Endpoint
from deca_node.daemon.wire.health import SERVICE, Health
from deca_node.process.inherited import raise_the_limit_of_open_files

LOOPBACK = "127.0.0.1"
FLOOD_FROM = {"another address": "127.0.0.2", "the same address": "127.0.0.1"}
HALF = {"http": b"GET /livez HTTP/1.1\r\nHost: node\r\nX-Slow: ", "grpc": b"PRI * HTTP/2.0\r\n"}
TARGET_SECONDS = 0.1
ANSWER_SECONDS = 5.0
PAUSE_SECONDS = 0.02
REOPEN_SECONDS = 5.0
DIALLING = 200
"""Connections that the flood opens side by side."""


class Idle(NodeAdmin):
    """A node with nothing to tell."""

    def status(self) -> Status:
        return Status(time=time.time(), name="north", run="flood", phase="visiting", started=True, ready=True)

    def members(self) -> list[Any]:
        return []

    async def ask(self, verb: object) -> str:
        return ""


async def serve() -> None:
    """Answer until standard input ends; prints both ports."""
    endpoint, health = Endpoint(Address(LOOPBACK, 0)), Health()
    endpoint.add(health.handlers())
    await endpoint.start()
    await health.say(serving=True)
    http = Server(application(Idle()))
    bound = await http.listen_tcp(Address(LOOPBACK, 0))
    print(json.dumps({"http": bound.port, "grpc": endpoint.address.port}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await http.close()
    await endpoint.stop()


async def hold(port: int, source: str, said: bytes, seats: asyncio.Semaphore, count: dict[str, int]) -> None:
    """One stranger: connects, sends half of something, and does so again when it is cut."""
    while True:
        try:
            async with seats:
                reader, writer = await asyncio.open_connection(LOOPBACK, port, local_addr=(source, 0))
        except OSError:
            count["refused"] += 1
            await asyncio.sleep(REOPEN_SECONDS)
            continue
        count["open"] += 1
        try:
            writer.write(said)
            await reader.read()
        except OSError:
            pass
        finally:
            count["open"] -= 1
            count["cut"] += 1
            writer.transport.abort()
        await asyncio.sleep(REOPEN_SECONDS)


async def flood(job: Row) -> None:
    """Hold the connections until standard input ends; prints the counts when the flood stands, and at the end."""
    count = {"open": 0, "cut": 0, "refused": 0}
    seats = asyncio.Semaphore(DIALLING)
    works = [
        asyncio.ensure_future(hold(port, job["source"], HALF[name].ljust(1), seats, count))
        for name, port in job["ports"].items()
        for _ in range(job["connections"])
    ]
    await asyncio.sleep(job["rise_seconds"])
    print(json.dumps(count), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(json.dumps(count), flush=True)
    for work in works:
        work.cancel()


async def ask_http(port: int, path: str) -> bool:
    """Whether the probe was answered with 200."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n".encode())
        return (await reader.read()).startswith(b"HTTP/1.1 200")
    finally:
        writer.close()


async def ask_health(port: int) -> bool:
    """Whether the gRPC health service says SERVING."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{port}", options=options) as channel:
        check: Any = channel.unary_unary(f"/{SERVICE}/Check", response_deserializer=pb.HealthCheckResponse.FromString)
        answer = await check(pb.HealthCheckRequest().SerializeToString())
        return bool(answer.status == pb.HealthCheckResponse.SERVING)


async def probe(ports: dict[str, int], seconds: float) -> dict[str, Row]:
    """Ask everything in turn for so long. Returns seconds and failures of each."""
    asked: dict[str, Callable[[], Awaitable[bool]]] = {
        "/livez": lambda: ask_http(ports["http"], "/livez"),
        "/readyz": lambda: ask_http(ports["http"], "/readyz"),
        "gRPC health": lambda: ask_health(ports["grpc"]),
    }
    times: dict[str, list[float]] = {what: [] for what in asked}
    failed = dict.fromkeys(asked, 0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for what, ask in asked.items():
            began, good = time.perf_counter(), False
            with contextlib.suppress(OSError, grpc.aio.AioRpcError, TimeoutError):
                async with asyncio.timeout(ANSWER_SECONDS):
                    good = await ask()
            times[what].append(time.perf_counter() - began)
            failed[what] += not good
        await asyncio.sleep(PAUSE_SECONDS)
    return {what: {**_figures(seen), "failed": failed[what]} for what, seen in times.items()}


def _figures(seen: list[float]) -> Row:
    cuts = statistics.quantiles(seen, n=100, method="inclusive")
    return {"count": len(seen), "p50": cuts[49], "p99": cuts[98], "max": max(seen)}


def arm(name: str, connections: int, seconds: float, rise: float) -> list[Row]:
    """One flood, or none, against a server of its own."""
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    command = [sys.executable, "-m", "bench.flood"]
    with subprocess.Popen([*command, "--serve"], **pipes) as server:
        ports = json.loads(server.stdout.readline())
        job = {"ports": ports, "source": FLOOD_FROM.get(name), "connections": connections, "rise_seconds": rise}
        counts: list[Row] = []
        if name in FLOOD_FROM:
            with subprocess.Popen([*command, "--strangers", json.dumps(job)], **pipes) as strangers:
                counts.append(json.loads(strangers.stdout.readline()))
                seen = uvloop.run(probe(ports, seconds))
                counts.append(json.loads(strangers.communicate()[0]))
        else:
            seen = uvloop.run(probe(ports, seconds))
        server.communicate()
    flooded = (
        {"connections_per_port": connections, "open": counts[-1]["open"], "cut": counts[-1]["cut"]} if counts else {}
    )
    return [{"flood from": name, "asked": what, **figures, **flooded} for what, figures in seen.items()]


def main() -> None:
    """Measure without a flood and with both floods, print the table and write ``flood.json``."""
    options = parser("Seconds until a node answers its probes under half-open connections.")
    options.add_argument("--connections", type=int, default=5000, help="half-open connections to each port")
    options.add_argument("--seconds", type=float, default=20.0, help="seconds per arm")
    options.add_argument("--rise-seconds", type=float, default=10.0, help="seconds until the flood stands")
    options.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options.add_argument("--strangers", type=json.loads, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    raise_the_limit_of_open_files()
    if arguments.serve or arguments.strangers:
        uvloop.run(serve() if arguments.serve else flood(arguments.strangers))
        return
    connections = 50 if arguments.quick else arguments.connections
    seconds, rise = (1.0, 0.5) if arguments.quick else (arguments.seconds, arguments.rise_seconds)
    rows = [row for name in ("none", *FLOOD_FROM) for row in arm(name, connections, seconds, rise)]
    show(rows)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    content = {"open_files": limit, "target_seconds": TARGET_SECONDS, "rows": rows}
    Console().print(f"written to {write_results('flood', arguments, content)}")


def show(rows: list[Row]) -> None:
    """The table."""
    table = Table(title="Milliseconds until a probe on a new connection was answered")
    for column in ("flood from", "asked", "n", "failed", "p50", "p99", "max", "held", "cut"):
        table.add_column(column, justify="left" if column in {"flood from", "asked"} else "right")
    for each in rows:
        spread = [f"{1000 * each[name]:.1f}" for name in ("p50", "p99", "max")]
        counts = [str(each.get(name, "")) for name in ("open", "cut")]
        table.add_row(each["flood from"], each["asked"], str(each["count"]), str(each["failed"]), *spread, *counts)
    Console().print(table)


if __name__ == "__main__":
    main()
