"""``python -m bench.memory``: the peak memory of an activation, compared with two formulas.

The project promises model + 20 bytes per element of the active block + activations. The 20 bytes are float32 master,
gradient, both moments and one exchange buffer. :func:`kept` counts what the code keeps more exactly: no exchange buffer
without neighbours; with neighbours one for x^ and one per neighbour; no second copy of a float32 model's block, whose
parameters are the master; and the frames in memory.

``activations`` are measured, not estimated: the peak of forward and backward passes over the same block in another
process, without an optimizer and with every gradient freed as soon as it is complete, less the model. That includes
torch's workspace and the largest single gradient. An estimate would have to guess what torch's kernels keep, and would
make the comparison with the formula worth less.

The bench also measures badam at the same blocks, torch's AdamW on all parameters, and LoRA by peft, each in the same
way.

Each row is the peak of a new process, from before the block is thawed, over edges, steps and the freeze, to after it.
glibc returns freed memory at once, so that the peak counts only memory that was in use at the same time.
"""

import argparse
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from bench.alternatives import install
from bench.harness import MIB, Row, parser, run_trial, shared_job, write_results

POSITIONS = ("first", "middle", "last")
NEIGHBOURS = (0, 2)
BYTES_PROMISED = 20
# From this size on every allocation is a mapping, which ends when it is freed.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
INT8_FRAME_BYTES = 1 + 4 / 256  # per element: a code, and its share of a float32 scale per 256


class Kept(NamedTuple):
    """Bytes per element of the active block that exist through a step, beside the model."""

    state: float
    exchange: float
    frames: float


def kept(dtype: str, neighbours: int) -> Kept:
    """Gradient and two moments; the master unless the model is float32; x^ and an e_ij per neighbour; and the updates
    of this step, our own and each neighbour's."""
    state = 3 * 4 + (0 if dtype == "float32" else 4)
    ends = 1 + neighbours if neighbours else 0
    return Kept(state, 4 * ends, INT8_FRAME_BYTES * ends)


def main() -> None:
    """Measure, print the table and write ``memory.json``."""
    options = parser("Peak memory of an activation, beside the formula.")
    options.add_argument("--steps", type=int, default=3, help="steps per activation")
    options.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"], help="precisions of the model")
    options.add_argument("--jobs", type=int, default=1, help="trials at a time, each in a process of its own")
    options.add_argument("--ours-only", action="store_true", help="leave out badam and peft; needs no network")
    arguments = options.parse_args()
    if arguments.quick:
        arguments.length = min(arguments.length, 32)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.jobs) as pool:
        packages = [] if arguments.ours_only else install(Path(folder))
        places = [(dtype, position) for dtype in arguments.dtypes for position in POSITIONS]
        pairs = pool.map(lambda place: measure(*place, arguments), places)
        trials = [(dtype, *trial) for dtype in arguments.dtypes for trial in others_of(arguments.ours_only)]
        alone = pool.map(lambda trial: other(*trial, folder, arguments), trials)
        rows, others = [row for pair in pairs for row in pair], list(alone)
    show(rows, arguments)
    Console().print(table_of_others(others, rows))
    content = {"job": shared_job(arguments), "bytes_promised": BYTES_PROMISED, "allocator": ALLOCATOR, "rows": rows}
    content |= {"alternatives": packages, "others": others}
    Console().print(f"written to {write_results('memory', arguments, content)}")


def measure(dtype: str, position: str, arguments: argparse.Namespace) -> list[Row]:
    """One row per number of neighbours. The activations are measured once for all of them."""
    job = shared_job(arguments) | {"dtype": dtype, "position": position, "steps": arguments.steps}
    alone = run_trial(job | {"arm": "gradient", "neighbours": 0}, ALLOCATOR)
    activations = alone["peak_bytes"] - alone["model_bytes"]
    reports = [run_trial(job | {"arm": "deca", "neighbours": count}, ALLOCATOR) for count in NEIGHBOURS]
    return [row_of(report, dtype, count, activations) for report, count in zip(reports, NEIGHBOURS, strict=True)]


def others_of(ours_only: bool) -> list[tuple[str, str]]:
    """The other methods, and the block of each. Those without blocks run once."""
    if ours_only:
        return [("adamw", "middle")]
    return [*(("badam", position) for position in POSITIONS), ("lora", "middle"), ("adamw", "middle")]


def other(dtype: str, arm: str, position: str, packages: str, arguments: argparse.Namespace) -> Row:
    """The peak of one method."""
    job = {"arm": arm, "dtype": dtype, "position": position, "steps": arguments.steps, "packages": packages}
    report = run_trial(shared_job(arguments) | job | {"neighbours": 0}, ALLOCATOR)
    block = report["block"] if arm == "badam" else "whole"
    peak = {"trained": report["trained"], "measured_mib": in_mib(report["peak_bytes"])}
    return {"arm": arm, "dtype": dtype, "block": block, **peak}


def row_of(report: Row, dtype: str, neighbours: int, activations: int) -> Row:
    """The measured values, and those of both formulas."""
    elements, model = report["block_elements"], report["model_bytes"]
    per_element = kept(dtype, neighbours)
    promised = model + BYTES_PROMISED * elements + activations
    counted = model + sum(per_element) * elements + activations
    return {
        "dtype": dtype,
        "block": report["block"],
        "block_elements": elements,
        "parameters": report["parameters"],
        "neighbours": neighbours,
        "model_mib": in_mib(model),
        "activations_mib": in_mib(activations),
        "bytes_per_element": per_element._asdict(),
        "promised_mib": in_mib(promised),
        "counted_mib": in_mib(counted),
        "measured_mib": in_mib(report["peak_bytes"]),
        "measured_to_promised": round(report["peak_bytes"] / promised, 3),
        "measured_to_counted": round(report["peak_bytes"] / counted, 3),
    }


def in_mib(nbytes: float) -> float:
    """MiB with one decimal."""
    return round(nbytes / MIB, 1)


def show(rows: list[Row], arguments: argparse.Namespace) -> None:
    """Print one table per precision; they fit a terminal of 80 columns."""
    size, tokens = (
        f"{rows[0]['parameters'] / 1e6:.1f} million parameters",
        f"{arguments.batch} x {arguments.length} tokens",
    )
    Console().print(f"Peak memory of an activation in MiB: {size}, {tokens}\n")
    for dtype in arguments.dtypes:
        Console().print(table_of([row for row in rows if row["dtype"] == dtype]))
    Console().print(
        f"d: neighbours. act: activations. {BYTES_PROMISED} B: model + {BYTES_PROMISED} bytes x block + act.\n"
        "counted: model + B/el x block + act, B/el: bytes that the code keeps per element of the block."
    )


def table_of_others(others: list[Row], rows: list[Row]) -> Table:
    """The peaks of other methods, and of this engine without neighbours at the same block or at its worst."""
    table = Table(title="Memory of other methods, in MiB", title_justify="left", box=box.SIMPLE, collapse_padding=True)
    for heading in ("dtype", "", "block", "10⁶ trained", "peak", "this engine", "/peak"):
        table.add_column(heading, justify="left" if heading in ("dtype", "", "block") else "right", no_wrap=True)
    for other in others:
        here = [r for r in rows if r["dtype"] == other["dtype"] and r["neighbours"] == 0]
        ours = max(r["measured_mib"] for r in here if other["block"] in (r["block"], "whole"))
        cells = [f"{other['trained'] / 1e6:.1f}", f"{other['measured_mib']:,.0f}", f"{ours:,.0f}"]
        table.add_row(other["dtype"], other["arm"], other["block"], *cells, f"{ours / other['measured_mib']:.2f}")
    return table


def table_of(rows: list[Row]) -> Table:
    """The rows of one precision."""
    title = f"{rows[0]['dtype']}: the model takes {rows[0]['model_mib']:,.0f} MiB"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, collapse_padding=True)
    for heading in ("block", "10⁶ el", "d", "act", "20 B", "B/el", "counted", "peak", "/20 B", "/counted"):
        table.add_column(heading, justify="left" if heading == "block" else "right", no_wrap=True)
    for row in rows:
        activations, *megabytes = (
            f"{row[f'{name}_mib']:,.0f}" for name in ("activations", "promised", "counted", "measured")
        )
        megabytes.insert(1, f"{sum(row['bytes_per_element'].values()):.1f}")
        ratios = [f"{row[f'measured_to_{name}']:.2f}" for name in ("promised", "counted")]
        elements = f"{row['block_elements'] / 1e6:.1f}"
        table.add_row(row["block"], elements, str(row["neighbours"]), activations, *megabytes, *ratios)
    return table


if __name__ == "__main__":
    main()
