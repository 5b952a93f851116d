"""``python -m bench.donor``: how fast late nodes get block versions from donors, and the effect on the donors.

Donors are child processes on loopback; the late nodes share this process. Each row shows the time until every late node
had everything, and the delays of the donors' event loops meanwhile (those of the worst donor). The row to compare with
is a donor that serves no node for as long. 200 Mbit/s is the default limit, and 0 is no limit.
"""

import argparse
import asyncio
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.harness import MIB, ROOT, Row, parser, write_results
from deca_node.daemon.settings.address import Address
from deca_node.daemon.transfer.fetcher import Fetcher
from deca_node.daemon.wire.endpoint import Endpoint
from deca_node.protocol.agreed.agreement import Agreement
from deca_node.protocol.agreed.frames import KEYFRAME_GROUP_BYTES
from deca_node.protocol.agreed.schedule import Step
from deca_node.storage import manifest as m

RUN = Agreement({"run_name": "bench"})
BLOCKS = 8

# Donors, late nodes, upload limit of each donor in Mbit/s.
CASES = ((1, 0, 0), (1, 1, 0), (1, 4, 0), (2, 1, 0), (4, 1, 0), (4, 1, 200))


def main() -> None:
    """Measure, print the table and write ``donor.json``."""
    options = parser("Block versions from donors to late nodes, over loopback.")
    options.add_argument("--mib", type=int, default=256, help="size of all block versions together")
    arguments = options.parse_args()
    if arguments.quick:
        arguments.mib = 16
    nbytes = arguments.mib * MIB // BLOCKS // KEYFRAME_GROUP_BYTES * KEYFRAME_GROUP_BYTES
    with tempfile.TemporaryDirectory() as folder:
        write_donor(Path(folder) / "donor", nbytes, arguments.seed)
        rows = [asyncio.run(measure(Path(folder), *case, nbytes)) for case in CASES]
    show(rows, arguments)
    Console().print(f"written to {write_results('donor', arguments, {'mib': arguments.mib, 'rows': rows})}")


def write_donor(path: Path, nbytes: int, seed: int) -> None:
    """A node's folder with one checkpoint. All donors serve the same folder, read-only."""
    rng = random.Random(seed)
    blocks = {}
    for index in range(BLOCKS):
        name = f"layers.{index}"
        blocks[name] = m.StoredBlock(
            index,
            store(path, m.value_name(name, index), b""),
            store(path, m.delta_name(name, index), rng.randbytes(nbytes)),
        )
    manifest = m.Manifest(RUN, Step(BLOCKS, 0), blocks, None, m.DataPlace(0, 0, 1), {}, 0.0)
    m.folder_of(path, manifest.position).mkdir(parents=True)
    m.write_manifest(m.folder_of(path, manifest.position), manifest)


def store(path: Path, name: str, data: bytes) -> m.StoredFile:
    """Write a file and its sum."""
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_bytes(data)
    return m.StoredFile(name, len(data), hashlib.sha256(data).hexdigest())


async def measure(folder: Path, donors: int, late: int, mbit: int, nbytes: int) -> Row:
    """Measure one row."""
    command = [sys.executable, "-m", "bench.donor.party", str(folder / "donor"), str(mbit)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    parties = [subprocess.Popen(command, **pipes) for _ in range(donors)]  # noqa: ASYNC220
    ports = [int(party.stdout.readline()) for party in parties]
    addresses = {f"donor{i}": Address("127.0.0.1", port) for i, port in enumerate(ports)}
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder) as here:
        traffic = await asyncio.gather(*(fetch(Path(here) / str(i), addresses, nbytes) for i in range(late)))
        if not late:
            await asyncio.sleep(3.0)
    seconds = time.perf_counter() - start
    reports = [json.loads(party.communicate("")[0]) for party in parties]
    worst = {name: max(report[name] for report in reports) for name in reports[0] if name.startswith("late")}
    total = sum(traffic, Counter[str]())
    return {
        "donors": donors,
        "late_nodes": late,
        "mbit": mbit,
        "seconds": round(seconds, 2),
        "mb_per_second": round(total["bytes"] / 1e6 / seconds, 1),
        "bytes_resent": total["bytes_resent"],
        "donor_cpu_seconds": round(sum(report["cpu_seconds"] for report in reports) / donors, 2),
        **worst,
    }


async def fetch(directory: Path, donors: dict[str, Address], nbytes: int) -> "Counter[str]":
    """Fetch everything as one late node."""
    fetcher = Fetcher(directory, Endpoint(Address("127.0.0.1", 0)).channel, lambda sentence, level="info": None)
    expected = {f"layers.{index}": nbytes for index in range(BLOCKS)}
    fetched = await fetcher.fetch(donors, 0, {}, RUN, expected)
    assert len(fetched.deltas) == BLOCKS
    return fetcher.traffic


def show(rows: list[Row], arguments: argparse.Namespace) -> None:
    """The table."""
    table = Table(title=f"{arguments.mib} MiB of block versions over loopback")
    for column in rows[0]:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
