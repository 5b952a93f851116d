"""``python -m bench.giving``: the cost for a node's own training when it gives its blocks to a late node.

One real node trains. In turns it either trains undisturbed, or a late node fetches all of its blocks again and again,
at the default upload limit. The bench compares the times of the steps in the two kinds of turns of one run.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.console import Console

from bench.harness import Row, parser, write_results
from deca_node.daemon.settings.address import Address
from deca_node.daemon.transfer.fetcher import Fetcher
from deca_node.daemon.wire.endpoint import Endpoint
from deca_node.lab.demo.inputs import make_inputs
from deca_node.lab.demo.toy_model import Recipe
from deca_node.lab.rigs.processes import LOOPBACK, LocalNodes, NodeProcess, free_ports
from deca_node.protocol.agreed.agreement import Agreement
from deca_node.storage.manifest import newest_manifest

NAME = "donor"
POLL_SECONDS = 0.5


def main() -> None:
    """Measure, print the ratio and write ``giving.json``."""
    options = parser("Step times of a donor, with and without a late node that fetches from it.")
    options.add_argument("--hidden", type=int, default=384, help="width of the model")
    options.add_argument("--turns", type=int, default=6, help="turns of each kind")
    options.add_argument("--turn-seconds", type=float, default=8.0, help="length of a turn")
    arguments = options.parse_args()
    if arguments.quick:
        arguments.hidden, arguments.turns, arguments.turn_seconds = 64, 2, 2.0
    with tempfile.TemporaryDirectory() as folder, LocalNodes() as nodes:
        row = asyncio.run(measure(Path(folder), nodes, arguments))
    Console().print(
        f"median step {row['alone_seconds']:.4f} s alone, {row['giving_seconds']:.4f} s while giving "
        f"{row['mb_per_second']:.1f} MB/s: ratio {row['ratio']:.3f}"
    )
    Console().print(f"written to {write_results('giving', arguments, row)}")


async def measure(folder: Path, nodes: LocalNodes, arguments: argparse.Namespace) -> Row:
    """The median step in both kinds of turns, and the bytes that were given."""
    model = make_inputs(folder, [NAME], Recipe(hidden=arguments.hidden, steps=1))
    address = Address(LOOPBACK, free_ports(1)[0])
    flags = {
        "--insecure": True,
        "--listen": address,
        "--wait-for": 1,
        "--peers": folder / "none.txt",
        "--model": model.path,
        "--data": folder / "data" / f"{NAME}.jsonl",
        "--rounds": 1000,
        "--inner-steps": 20,
        "--sequence-length": 128,
        "--batch-size": 4,
        "--threads": 1,
        "--trainer-priority": "idle",
        "--eval-every": "never",
    }
    node = nodes.start(NAME, folder / NAME, flags)
    await until(lambda: len(blocks_of(node)) >= 5, node)
    late = Fetching(folder / "late", address, node)
    alone, giving = [], []
    for _ in range(arguments.turns):
        alone += await turn(node, arguments.turn_seconds, None)
        giving += await turn(node, arguments.turn_seconds, late.fetch_for_ever)
    seconds = arguments.turns * arguments.turn_seconds
    return {
        "parameters": model.parameters,
        "alone_seconds": statistics.median(alone),
        "giving_seconds": statistics.median(giving),
        "ratio": statistics.median(giving) / statistics.median(alone),
        "steps": len(alone) + len(giving),
        "mb_per_second": late.fetcher.traffic["bytes"] / 1e6 / seconds,
    }


class Fetching:
    """A late node that fetches without end."""

    def __init__(self, folder: Path, address: Address, donor: NodeProcess) -> None:
        endpoint = Endpoint(Address(LOOPBACK, 0))
        self.fetcher = Fetcher(folder, endpoint.channel, lambda sentence, level="info": None, name="late")
        self._address = address
        self._donor = donor

    async def fetch_for_ever(self) -> None:
        """Fetch all blocks of the donor again and again."""
        while True:
            manifest = newest_manifest(self._donor.directory)
            assert manifest is not None
            record = json.loads((self._donor.directory / "run.json").read_text())
            agreement = Agreement(record["agreement"])
            sizes = [pair.rpartition(":") for pair in agreement.fields["blocks"].split()]
            # int8 with one float32 per group of 256: the size of a difference to the start.
            expected = {name: int(n) + 4 * -(-int(n) // 256) for name, _, n in sizes}
            await self.fetcher.fetch({NAME: self._address}, 0, {}, agreement, expected)
            self.fetcher.clear()


async def turn(node: NodeProcess, seconds: float, work: Callable[[], Awaitable[None]] | None) -> list[float]:
    """The times of the steps that end within a turn."""
    before = len(steps_of(node))
    task = asyncio.ensure_future(work()) if work else None
    await asyncio.sleep(seconds)
    if task:
        if task.done():
            task.result()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    return steps_of(node)[before:]


def blocks_of(node: NodeProcess) -> list[str]:
    """The blocks that the newest checkpoint can give."""
    manifest = newest_manifest(node.directory)
    return list(manifest.blocks) if manifest else []


def steps_of(node: NodeProcess) -> list[float]:
    """Seconds of every step with a gradient so far."""
    path = node.directory / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("}")]
    return [float(record["step_seconds"]) for record in records if "loss" in record and record["kind"] == "step"]


async def until(condition: Callable[[], bool], node: NodeProcess) -> None:
    """Poll a condition. Raises RuntimeError if the node ends."""
    end = time.monotonic() + 300
    while not condition():
        if node.process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"the node ended too early:\n{node.log_text(20)}")
        await asyncio.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main()
