"""``python -m bench.scraping``: whether being scraped for an hour costs a node memory.

Two real nodes train together, slowly. One of them is asked for everything that is asked of a node in a cluster, many
times as often as there: metrics, probes and status every second, what the page draws from every two, and `deca-node
status`' way through the socket every five. The other, which does the same work, is left alone. Memory of both daemons
is taken down every minute; what the scraped one grows beyond the other is what scraping costs.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import psutil
from rich.console import Console

from bench.harness import MIB, Row, parser, write_results
from bench.served import Served, start_pair
from deca_node.cli.client import NodeClient
from deca_node.lab.demo.toy_model import Recipe
from deca_node.lab.rigs.processes import LocalNodes

SLOW = {"--max-upload": 0.4, "--inner-steps": 20, "--sequence-length": 16, "--batch-size": 1, "--codec": "int8"}
"""So little bandwidth that a step takes about a second: the machine is free for others, and the run lasts."""
RECIPE = Recipe(hidden=32, layers=2, steps=1)

EVERY_SECONDS = {
    "/metrics": 1.0,
    "/livez": 1.0,
    "/readyz": 1.0,
    "/v1/status": 1.0,
    "/v1/members": 2.0,
    "/v1/history?since=0": 2.0,
    "/v1/map": 2.0,
    "/v1/events": 2.0,
    "the socket": 5.0,
}
SETTLING = 1 / 6
"""The first part of the time in which buffers reach their size; growth is counted from its end."""


def main() -> None:
    """Measure, print what grew, and write ``scraping.json``."""
    options = parser("Memory of a node's daemon that is scraped, beside one that is not.")
    options.add_argument("--minutes", type=float, default=60.0, help="how long to scrape")
    options.add_argument("--sample-seconds", type=float, default=60.0, help="from one look at the memory to the next")
    arguments = options.parse_args()
    if arguments.quick:
        arguments.minutes, arguments.sample_seconds = 0.2, 1.0
    with tempfile.TemporaryDirectory() as folder, LocalNodes() as nodes:
        pair = start_pair(Path(folder), nodes, RECIPE, SLOW)
        row = measure(pair, 60 * arguments.minutes, arguments.sample_seconds)
    show(row)
    Console().print(f"written to {write_results('scraping', arguments, row)}")


def measure(pair: tuple[Served, ...], seconds: float, sample_seconds: float) -> Row:
    """Scrape the first node for so long; curves of both."""
    scraped, alone = pair
    began = time.monotonic()
    due = dict.fromkeys(EVERY_SECONDS, began)
    answered = dict.fromkeys(EVERY_SECONDS, 0)
    slowest = dict.fromkeys(EVERY_SECONDS, 0.0)
    curve: list[Row] = []
    while (now := time.monotonic()) < began + seconds:
        for path in [path for path, at in due.items() if at <= now]:
            slowest[path] = max(slowest[path], ask(scraped, path))
            answered[path] += 1
            due[path] = max(due[path] + EVERY_SECONDS[path], now)
        if now - began >= len(curve) * sample_seconds:
            memories = {"scraped": memory(scraped), "alone": memory(alone)}
            curve.append({"minute": round((now - began) / 60, 2), **memories})
        time.sleep(max(0.0, min(due.values()) - time.monotonic()))
    grown = {which: growth(curve, which) for which in ("scraped", "alone")}
    return {
        "seconds": seconds,
        "every_seconds": EVERY_SECONDS,
        "answers": answered,
        "slowest_seconds": {path: round(value, 4) for path, value in slowest.items()},
        "steps": {"scraped": scraped.steps, "alone": alone.steps},
        "growth": grown,
        "ratio": grown["scraped"]["end_mib"] / grown["scraped"]["settled_mib"],
        "curve": curve,
    }


def ask(node: Served, path: str) -> float:
    """Seconds until the whole answer was there."""
    if path != "the socket":
        return node.get(path)[0]
    began = time.perf_counter()
    json.loads(NodeClient(node.process.directory).get("/v1/status"))
    return time.perf_counter() - began


def memory(node: Served) -> float:
    """MiB of the daemon's own: resident, without files and without what it shares with its trainer."""
    facts = Path(f"/proc/{node.process.process.pid}/status")
    if facts.exists():
        line = next(line for line in facts.read_text().splitlines() if line.startswith("RssAnon:"))
        return round(int(line.split()[1]) / 1024, 3)
    return round(psutil.Process(node.process.process.pid).memory_info().rss / MIB, 3)


def growth(curve: list[Row], which: str) -> Row:
    """Least squares over what comes after settling, and the medians of the first and the last sixth of that."""
    settled = curve[int(len(curve) * SETTLING) :]
    minutes, values = [row["minute"] for row in settled], [row[which] for row in settled]
    slope = statistics.linear_regression(minutes, values).slope if len(settled) > 1 else 0.0
    part = max(1, len(settled) // 6)
    return {
        "mib_per_hour": round(60 * slope, 3),
        "settled_mib": statistics.median(values[:part]),
        "end_mib": statistics.median(values[-part:]),
    }


def show(row: Row) -> None:
    """What a person wants to know."""
    console = Console()
    for which, grown in row["growth"].items():
        text = f"{grown['settled_mib']:.1f} MiB once settled, {grown['end_mib']:.1f} at the end"
        console.print(f"{which}: {text} ({grown['mib_per_hour']:+.2f} MiB per hour)")
    console.print(f"{sum(row['answers'].values())} answers in {row['seconds'] / 60:.0f} minutes")


if __name__ == "__main__":
    main()
