"""``python -m bench.codec``: the speeds of the codecs, compiled and in torch.

Speeds are in GB/s of the float32 numbers that are encoded or decoded. The calls of the engine run in three ways:
compiled; in torch on slices that fit the cache, as the codecs do without compiled code; and in torch on the whole
tensor at once. All three must give the same bytes. They take turns in one process, and the medians are over the turns.
``copy`` is torch's ``copy_`` of the same numbers: the speed of the memory when it reads and writes four bytes per
element.

``--device cuda`` compares the Triton kernels with torch in the same way. The codes then lie in the GPU's memory.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from bench.harness import MIB, Row, parser, write_results
from bench.trial import settle
from deca_node.numerics.codecs import base, table
from deca_node.numerics.codecs.base import Codec
from deca_node.numerics.codecs.formats import CODECS, KEYFRAME_CODEC
from deca_node.numerics.device import choose_device
from deca_node.numerics.exchange.flows import FlowBytes, PublicCopies

BUILT = table.TABLE
FLOAT_BYTES = 4

CPU = torch.device("cpu")

Job = Callable[[], object]


class Work:
    """The data of one codec's jobs: a node's end of one edge, and the codes of both ends."""

    def __init__(self, codec: Codec, elements: int, seed: int, device: torch.device = CPU) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.codec, self.elements, self.device = codec, elements, device
        self.x = torch.randn(elements, generator=generator).to(device)
        self.y = torch.zeros_like(self.x)
        keyframe = torch.zeros(KEYFRAME_CODEC.nbytes(elements), dtype=torch.uint8, device=device)
        self.public = PublicCopies(codec, elements, lambda a, b: self.y[a:b], keyframe, device)
        self.public.open("peer", 0.5, keyframe, keyframe)
        self.ours, self.out = (torch.zeros(codec.nbytes(elements), dtype=torch.uint8, device=device) for _ in range(2))
        codec.encode(self.x, self.ours)
        self.flows = [FlowBytes("peer", self.ours.clone(), self.ours)]
        self.bound = torch.zeros(1)

    def restart(self) -> None:
        """Restore the state before a timed job, with all memory touched."""
        for tensor in (self.y, self.public.x_hat, self.public.edges["peer"].e):
            tensor.fill_(0.5)
        self.out.zero_()

    def jobs(self) -> dict[str, tuple[Job, Tensor]]:
        """The timed jobs by name, and the tensor that each leaves behind."""
        return {
            "encode": (lambda: self.codec.encode(self.x, self.out), self.out),
            "difference": (lambda: self.public.difference(self.x, self.out), self.public.x_hat),
            "check": (self.check, self.bound),
            "decode and add": (self.decode_and_add, self.y),
            "absorb": (self.absorb, self.public.edges["peer"].e),
        }

    def check(self) -> None:
        """The checks of a neighbour's codes before they are used."""
        self.bound.fill_(self.codec.largest(self.ours, self.elements))

    def decode_and_add(self) -> None:
        """y += q."""
        for start, stop in self.slices():
            self.y[start:stop].add_(self.codec.decode(self.ours, start, stop))

    def absorb(self) -> None:
        """e += q_j - q_i."""
        for start, stop in self.slices():
            for _ in self.public.advance(self.flows, start, stop):
                pass

    def slices(self) -> Iterator[tuple[int, int]]:
        """The slices into which the engine cuts a block."""
        size = base.slice_elements(self.device)
        return ((start, min(start + size, self.elements)) for start in range(0, self.elements, size))


@contextmanager
def way(name: str, elements: int) -> Iterator[None]:
    """Make the codecs work in one of the three ways."""
    before = table.TABLE, base.CACHE_ELEMENTS, base.ACCELERATOR_ELEMENTS
    table.TABLE = BUILT if name == "compiled" else {}
    if name == "torch, whole":
        base.CACHE_ELEMENTS = base.ACCELERATOR_ELEMENTS = elements
    try:
        yield
    finally:
        table.TABLE, base.CACHE_ELEMENTS, base.ACCELERATOR_ELEMENTS = before


WAYS = ("compiled", "torch, slices", "torch, whole")


def main() -> None:
    """Measure, print the table and write ``codec.json``."""
    options = parser("Speed of the codecs, compiled and in torch.")
    options.set_defaults(threads=1)
    options.add_argument("--mib", type=int, default=256, help="size of the block as float32, in MiB")
    options.add_argument("--repeats", type=int, default=7, help="turns")
    options.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    arguments = options.parse_args()
    device = choose_device(arguments.device)
    names = [name for name, kind in BUILT if kind == device.type]
    if why := not_built(device):
        sys.exit(why)
    if arguments.quick:
        arguments.mib, arguments.repeats = 4, 3
    torch.set_num_threads(arguments.threads)
    elements = arguments.mib * MIB // FLOAT_BYTES
    rows = [row for name in names for row in measure(CODECS[name], elements, arguments, device)]
    copying = copy_job(elements, device)
    copy = speeds([seconds(copying, lambda: None, device) for _ in range(arguments.repeats)], elements)
    show(rows, copy, arguments)
    job = {"device": str(device), "threads": arguments.threads, "mib": arguments.mib, "repeats": arguments.repeats}
    path = write_results("codec", arguments, {"job": job, "copy": copy, "rows": rows})
    Console().print(f"written to {path}")


def not_built(device: torch.device) -> str:
    """Why there is no compiled code to measure on this kind of device; empty if there is some."""
    if device.type == "cuda":
        return "" if find_spec("triton") else "Triton is not installed, which compiles the kernels for CUDA"
    if ("int8", device.type) in BUILT:
        return ""
    return "the compiled codecs are not built; python tools/build_native.py builds them"


def measure(codec: Codec, elements: int, arguments: argparse.Namespace, device: torch.device) -> list[Row]:
    """One row per job and way."""
    work = Work(codec, elements, arguments.seed, device)
    rows = []
    for job, (run, result) in work.jobs().items():
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
        for _ in range(arguments.repeats):
            expected: Tensor | None = None
            for name in WAYS:
                with way(name, elements):
                    times[name].append(seconds(run, work.restart, device))
                expected = result.clone() if expected is None else expected
                if not torch.equal(result, expected):
                    sys.exit(f"{job} of {codec.name} does not give the same numbers {name} as {WAYS[0]}")
        rows += [{"codec": codec.name, "job": job, "way": name, **speeds(times[name], elements)} for name in WAYS]
    return rows


def seconds(run: Job, prepare: Job, device: torch.device) -> tuple[float, float]:
    """Seconds of a job until the device has done it, and its CPU time."""
    prepare()
    settle(device)
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    settle(device)
    return time.perf_counter() - wall, time.process_time() - cpu


def copy_job(elements: int, device: torch.device) -> Job:
    """Copy a block from memory to memory."""
    x, y = torch.ones(elements, device=device), torch.zeros(elements, device=device)
    return lambda: y.copy_(x)


def speeds(times: list[tuple[float, float]], elements: int) -> Row:
    """GB/s of float32: the median by wall time, the median by CPU time, and the value of each turn."""
    passed, cpu = ([FLOAT_BYTES * elements / 1e9 / t for t in column] for column in zip(*times, strict=True))
    return {
        "gb_per_second": round(statistics.median(passed), 2),
        "gb_per_cpu_second": round(statistics.median(cpu), 2),
        "gb_per_second_all": [round(value, 2) for value in passed],
    }


def show(rows: list[Row], copy: Row, arguments: argparse.Namespace) -> None:
    """Print the table: a line per codec and job, a column per way."""
    table = Table(
        title=f"GB/s of float32, {arguments.mib} MiB, torch threads: {arguments.threads}",
        caption=f"In brackets: per second of CPU time. copy_ of the same numbers: {figure(copy)}.",
    )
    for heading in ("codec", "job", *WAYS):
        table.add_column(heading, justify="right" if heading in WAYS else "left")
    for codec, job in dict.fromkeys((row["codec"], row["job"]) for row in rows):
        table.add_row(codec, job, *(figure(row) for row in rows if (row["codec"], row["job"]) == (codec, job)))
    Console().print(table)


def figure(row: Row) -> str:
    """One speed as text."""
    return f"{row['gb_per_second']:.1f} ({row['gb_per_cpu_second']:.1f})"


if __name__ == "__main__":
    main()
