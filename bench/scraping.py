"""``python -m bench.scraping``: whether a node needs more memory when it is scraped for an hour.

Two real nodes train together, slowly. One of them is asked for everything that a cluster asks of a node, but many times
as often: metrics, probes and status every second, the data of the page every two seconds, and `deca-node status` over
the socket every five seconds. The other node does the same training and answers nothing. The memory of both daemons is
recorded every minute. The extra growth of the scraped daemon is the cost of scraping.
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
from deca_node.api.client import NodeClient
from deca_node.lab.demo.toy_model import Recipe
from deca_node.lab.rigs.processes import LocalNodes

SLOW = {"--max-upload": 0.4, "--inner-steps": 20, "--sequence-length": 16, "--batch-size": 1, "--codec": "int8"}
"""A bandwidth at which a step takes about a second, so that the machine stays free and the run lasts."""
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
"""The first part of the time, in which buffers reach their size. Growth is counted from its end."""


def main() -> None:
    """Measure, print the growth and write ``scraping.json``."""
    options = parser("Memory of a daemon that is scraped, and of one that is not.")
    options.add_argument("--minutes", type=float, default=60.0, help="minutes of scraping")
    options.add_argument(
        "--sample-seconds", type=float, default=60.0, help="seconds between two readings of the memory"
    )
    arguments = options.parse_args()
    if arguments.quick:
        arguments.minutes, arguments.sample_seconds = 0.2, 1.0
    with tempfile.TemporaryDirectory() as folder, LocalNodes() as nodes:
        pair = start_pair(Path(folder), nodes, RECIPE, SLOW)
        row = measure(pair, 60 * arguments.minutes, arguments.sample_seconds)
    show(row)
    Console().print(f"written to {write_results('scraping', arguments, row)}")


def measure(pair: tuple[Served, ...], seconds: float, sample_seconds: float) -> Row:
    """Scrape the first node for so long. Returns the memory of both over time."""
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
    """Seconds until the whole answer has arrived."""
    if path != "the socket":
        return node.get(path)[0]
    began = time.perf_counter()
    json.loads(NodeClient(node.process.directory).get("/v1/status"))
    return time.perf_counter() - began


def memory(node: Served) -> float:
    """MiB that belong to the daemon alone: resident, without files and memory shared with its trainer."""
    facts = Path(f"/proc/{node.process.process.pid}/status")
    if facts.exists():
        line = next(line for line in facts.read_text().splitlines() if line.startswith("RssAnon:"))
        return round(int(line.split()[1]) / 1024, 3)
    return round(psutil.Process(node.process.process.pid).memory_info().rss / MIB, 3)


def growth(curve: list[Row], which: str) -> Row:
    """A least-squares fit to everything after the first part, and the medians of its first and last sixth."""
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
    """Print the result."""
    console = Console()
    for which, grown in row["growth"].items():
        text = f"{grown['settled_mib']:.1f} MiB once settled, {grown['end_mib']:.1f} at the end"
        console.print(f"{which}: {text} ({grown['mib_per_hour']:+.2f} MiB per hour)")
    console.print(f"{sum(row['answers'].values())} answers in {row['seconds'] / 60:.0f} minutes")


if __name__ == "__main__":
    main()
