"""``python -m bench.probes``: how fast a node answers its probes while it trains at full speed.

Two real nodes train together without a pause, with one thread each. One of them is asked in turn for everything that an
orchestrator or a person asks for, each time on a new connection, and for ``deca-node status``. The latter goes over the
socket in the node's folder as in the command, with and without a new Python process. The other arm is the same node,
paused, in the same run.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.harness import Row, parser, write_results
from bench.served import Served, start_pair
from deca_node.api.client import NodeClient, read
from deca_node.daemon.status.facts import Status, Verb
from deca_node.lab.demo.toy_model import Recipe
from deca_node.lab.rigs.processes import LocalNodes

BUSY = {"--inner-steps": 20, "--sequence-length": 128, "--batch-size": 4}
RECIPE = Recipe(hidden=128, layers=4, steps=1)
PAUSE_SECONDS = 0.02
TARGETS = {"/livez": 0.1, "status": 1.0}
"""The promised seconds at the 99th percentile."""
COMMANDS = 20
"""Runs of the whole command, each with a new Python. It is by far the slowest."""


def main() -> None:
    """Measure both arms, print the table and write ``probes.json``."""
    options = parser("Seconds until a node answers while it trains.")
    options.add_argument("--seconds", type=float, default=60.0, help="seconds per arm")
    arguments = options.parse_args()
    seconds = 3.0 if arguments.quick else arguments.seconds
    commands = 2 if arguments.quick else COMMANDS
    with tempfile.TemporaryDirectory() as folder, LocalNodes() as nodes:
        row = measure(start_pair(Path(folder), nodes, RECIPE, BUSY), seconds, commands, arguments)
    show(row)
    Console().print(f"written to {write_results('probes', arguments, row)}")


def measure(pair: tuple[Served, ...], seconds: float, commands: int, arguments: argparse.Namespace) -> Row:
    """The arm under load, then the arm at rest."""
    node = pair[0]
    before = node.steps
    training = arm(node, seconds, commands)
    steps = node.steps - before
    for each in pair:
        NodeClient(each.process.directory).ask(Verb.PAUSE)
    while read(Status, NodeClient(node.process.directory).get("/v1/status")).phase != "paused":
        time.sleep(PAUSE_SECONDS)
    rest = arm(node, seconds, commands)
    rows = [{"arm": name, "what": what, **figures} for name, made in (("training", training), ("at rest", rest))
            for what, figures in made.items()]  # fmt: skip
    return {
        "seconds": seconds,
        "steps_while_asked": steps,
        "targets": TARGETS,
        "rows": rows,
        "ratio": training["/livez"]["p99"] / rest["/livez"]["p99"],
    }


def arm(node: Served, seconds: float, commands: int) -> dict[str, Row]:
    """Ask all kinds of questions in turn, again and again. Returns the seconds of every answer."""
    client = NodeClient(node.process.directory)
    asked: dict[str, Callable[[], object]] = {
        "/livez": lambda: node.get("/livez"),
        "/readyz": lambda: client.get("/readyz"),
        "/metrics": lambda: node.get("/metrics"),
        "/v1/status": lambda: node.get("/v1/status"),
        "status": lambda: read(Status, client.get("/v1/status")),
    }
    times: dict[str, list[float]] = {what: [] for what in asked}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for what, ask in asked.items():
            times[what].append(timed(ask))
        time.sleep(PAUSE_SECONDS)
    command = [sys.executable, "-m", "deca_node", "status", "--dir", str(node.process.directory)]
    whole = [timed(lambda: subprocess.run(command, check=True, capture_output=True)) for _ in range(commands)]
    return {what: figures(seen) for what, seen in {**times, "deca-node status": whole}.items()}


def timed(work: Callable[[], object]) -> float:
    """The seconds that a call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def figures(seen: list[float]) -> Row:
    """The distribution of the seconds."""
    cuts = statistics.quantiles(seen, n=100, method="inclusive")
    return {"count": len(seen), "p50": cuts[49], "p99": cuts[98], "max": max(seen)}


def show(row: Row) -> None:
    """The table."""
    table = Table(title="Milliseconds until the whole answer has arrived")
    for column in ("arm", "asked", "n", "p50", "p99", "max"):
        table.add_column(column, justify="left" if column in {"arm", "asked"} else "right")
    for each in row["rows"]:
        spread = [f"{1000 * each[name]:.1f}" for name in ("p50", "p99", "max")]
        table.add_row(each["arm"], each["what"], str(each["count"]), *spread)
    Console().print(table)
    Console().print(
        f"{row['steps_while_asked']} steps meanwhile; /livez at p99, training to rest: ratio {row['ratio']:.1f}"
    )


if __name__ == "__main__":
    main()
