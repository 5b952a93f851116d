"""``python -m bench.slow_neighbour``: what a neighbour that reads 10 kB/s costs the others.

Four real nodes are neighbours of each other. The others reach one of them only over a line that gives it 10 kB/s to
read, and it can call no one. Then the same four run again, with the slow node alone and without a line, so that the
machine has as much to do. The bench compares the step times of the other three, waits included, and the peak memory of
their processes. The slow node costs a few seconds per attempt to open its edge, so the ratio falls with the length of a
visit. In a long run the doubling pauses between attempts make it fall further.
"""

import argparse
import json
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

import psutil
from rich.console import Console

from bench.harness import MIB, Row, parser, write_results
from deca_node.lab.demo.inputs import make_inputs
from deca_node.lab.demo.toy_model import Recipe
from deca_node.lab.rigs.processes import LOOPBACK, LocalNodes, NodeProcess, free_ports
from deca_node.lab.rigs.proxy import Faults, Proxy

OTHERS, SLOW = ("a", "b", "c"), "z"
ARMS = ("without", "with")
RUN_SECONDS_MAX = 900.0
TARGET_RATIO = 1.1


def main() -> None:
    """Measure in turns, print the ratio and write ``slow_neighbour.json``."""
    options = parser("Step time and memory of three nodes with and without a neighbour that reads slowly.")
    options.set_defaults(threads=1, batch=4)
    options.add_argument("--hidden", type=int, default=384, help="width of the model")
    options.add_argument("--steps", type=int, default=64, help="gradient steps per visit")
    options.add_argument("--rate", type=int, default=10_000, help="what the slow node reads, in bytes per second")
    options.add_argument("--repeats", type=int, default=1, help="turns")
    arguments = options.parse_args()
    if arguments.quick:
        arguments.hidden, arguments.steps, arguments.repeats = 64, 12, 1
    with tempfile.TemporaryDirectory() as folder:
        make_inputs(Path(folder), [*OTHERS, SLOW], Recipe(hidden=arguments.hidden, layers=2, steps=1))
        rows = [run(Path(folder), turn, arm, arguments) for turn in range(arguments.repeats) for arm in ARMS]
    found = summary(rows)
    for row in rows:
        Console().print(row)
    Console().print(
        f"mean step {found['with_seconds']:.4f} s with the slow neighbour, {found['without_seconds']:.4f} s without: "
        f"ratio {found['ratio']:.3f} (at most {TARGET_RATIO}); median {found['ratio_of_medians']:.3f}; memory at most "
        f"{found['with_peak_mib']} and {found['without_peak_mib']} MiB"
    )
    Console().print(f"written to {write_results('slow_neighbour', arguments, {**found, 'turns': rows})}")


def run(folder: Path, turn: int, arm: str, arguments: argparse.Namespace) -> Row:
    """One run of all four nodes. Returns the figures of the other three."""
    place = folder / f"{turn}-{arm}"
    place.mkdir()
    ports = dict(zip((*OTHERS, SLOW), free_ports(4), strict=True))
    flags = {
        "--insecure": True,
        "--model": folder / "model",
        "--topology": "full",
        "--rounds": 1,
        "--inner-steps": arguments.steps,
        "--sequence-length": arguments.length,
        "--batch-size": arguments.batch,
        "--threads": arguments.threads,
        "--trainer-priority": "idle",
        "--eval-every": "never",
        "--finish-timeout-seconds": 1,
        # For the first wait, before there is any measurement. The defaults suit models a thousand times as large.
        "--open-timeout-seconds": 4,
        "--step-timeout-seconds": 1,
    }
    with ExitStack() as stack:
        proxy = stack.enter_context(Proxy(ports[SLOW], Faults(bytes_per_second=arguments.rate)))
        nodes = stack.enter_context(LocalNodes())
        addresses = {name: f"{LOOPBACK}:{ports[name]}" for name in OTHERS}
        if arm == "with":
            addresses[SLOW] = f"{LOOPBACK}:{proxy.port}"
        peers = peers_file(place / "peers.txt", addresses)
        others = [start(nodes, name, peers, place, folder, flags) for name in OTHERS]
        start_slow(nodes, arm, ports[SLOW], proxy.port, peers, place, folder, flags)
        memory = dict.fromkeys(OTHERS, 0)
        nodes.wait(RUN_SECONDS_MAX, lambda: watch(others, memory))
    steps = [step for node in others for step in steps_of(node)]
    seconds = [float(step["step_seconds"]) for step in steps]
    dropped = sum(int(steps_of(node)[-1].get("edges_dropped", 0)) for node in others)
    mean, median = statistics.mean(seconds), statistics.median(seconds)
    row = {"turn": turn, "arm": arm, "mean_seconds": round(mean, 4), "median_seconds": round(median, 4)}
    return row | {"steps": len(steps), "edges_dropped": dropped, "peak_mib": max(memory.values()) // MIB}


def start(
    nodes: LocalNodes, name: str, peers: Path, place: Path, folder: Path, flags: dict[str, object]
) -> NodeProcess:
    """Start one of the other three nodes."""
    data = folder / "data" / f"{name}.jsonl"
    return nodes.start(name, place / name, {**flags, "--peers": peers, "--data": data})


def start_slow(
    nodes: LocalNodes,
    arm: str,
    port: int,
    through: int,
    peers: Path,
    place: Path,
    folder: Path,
    flags: dict[str, object],
) -> None:
    """Start the slow node, behind the proxy and with no address to call, or alone."""
    nowhere = f"http://{LOOPBACK}:{free_ports(1)[0]}"
    environment = {"http_proxy": nowhere, "grpc_proxy": nowhere, "no_proxy": ""} if arm == "with" else {}
    address = f"{LOOPBACK}:{port}"
    own = {"--listen": address, "--data": folder / "data" / f"{SLOW}.jsonl"}
    if arm == "with":
        own |= {"--peers": peers, "--advertise": f"{LOOPBACK}:{through}"}
    else:
        own |= {"--peers": peers_file(place / "peers-alone.txt", {SLOW: address})}
    nodes.start(SLOW, place / SLOW, {**flags, **own}, environment=environment)


def peers_file(path: Path, addresses: dict[str, str]) -> Path:
    """One line for each node."""
    path.write_text("".join(f"{name}@{address}\n" for name, address in addresses.items()), encoding="utf-8")
    return path


def watch(nodes: list[NodeProcess], memory: dict[str, int]) -> None:
    """Keep the peak memory of each node's processes together. Shared memory counts in each process."""
    for node in nodes:
        try:
            root = psutil.Process(node.process.pid)
            held = sum(process.memory_info().rss for process in (root, *root.children(recursive=True)))
        except psutil.Error:
            continue
        memory[node.name] = max(memory[node.name], held)


def steps_of(node: NodeProcess) -> list[Row]:
    """The records of all steps with a gradient."""
    lines = (node.directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if line["kind"] == "step" and "loss" in line]


def summary(rows: list[Row]) -> Row:
    """Medians over the turns. Ratios are taken within each turn."""
    by_arm = {arm: [row for row in rows if row["arm"] == arm] for arm in ARMS}
    pairs = list(zip(by_arm["with"], by_arm["without"], strict=True))
    return {
        **{f"{arm}_seconds": statistics.median(row["mean_seconds"] for row in of) for arm, of in by_arm.items()},
        **{f"{arm}_peak_mib": max(row["peak_mib"] for row in of) for arm, of in by_arm.items()},
        "ratio": statistics.median(mine["mean_seconds"] / other["mean_seconds"] for mine, other in pairs),
        "ratio_of_medians": statistics.median(m["median_seconds"] / o["median_seconds"] for m, o in pairs),
    }


if __name__ == "__main__":
    main()
