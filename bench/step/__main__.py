"""``python -m bench.step``: one engine step against one step of badam, on the same model, batch and block. Two methods
that know no blocks are measured too: full fine-tuning with torch's AdamW, and LoRA by peft.

A step is a gradient and its conversion into new parameters. In this engine that is the half step, the fold and, with
two neighbours, encoding one int8 update and absorbing two. The network itself is not part of it. The package badam is
Adam on one block after the other, without neighbours. ``gradient only`` is the part that both share, and a floor for
both.

Every figure comes from a new process. The arms take turns, and ratios are taken within a turn before the median, so
that a machine that slows down for a while slows down both sides of a ratio. CPU time excludes what other processes
took; with one thread it is the steadier figure.
"""

import argparse
import math
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from bench.alternatives import install
from bench.harness import MIB, Row, parser, run_trial, shared_job, write_results

POSITIONS = ("first", "middle", "last")
WHOLE = "middle"
"""The position at which methods without blocks are measured. All positions are the same to them."""
WARM_UP_STEPS = 2  # the first steps allocate the moments


@dataclass(frozen=True)
class Arm:
    """One side of the comparison."""

    label: str
    arm: str
    neighbours: int = 0
    installed: bool = False
    """Whether it needs a package of others."""
    blockwise: bool = True


REFERENCE = Arm("badam", "badam", installed=True)
ARMS = (
    Arm("gradient only", "gradient"),
    REFERENCE,
    Arm("deca, no neighbours", "deca"),
    Arm("deca, 2 neighbours, int8", "deca", neighbours=2),
    Arm("AdamW, all parameters", "adamw", blockwise=False),
    Arm("LoRA, rank 16 (peft)", "lora", installed=True, blockwise=False),
)
Key = tuple[str, str, str]
"""Precision of the model, position of the block, label of the arm."""


def main() -> None:
    """Measure, print the table and write ``step.json``."""
    options = parser("Time and memory of one engine step, against badam.")
    options.add_argument("--positions", nargs="+", choices=POSITIONS, default=list(POSITIONS), help="which blocks")
    options.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], help="precisions of the model")
    options.add_argument("--repeats", type=int, default=5, help="fresh processes per arm")
    options.add_argument("--steps", type=int, default=8, help="timed steps per process")
    options.add_argument("--ours-only", action="store_true", help="leave out badam and peft; needs no network")
    arguments = options.parse_args()
    if arguments.quick:
        arguments.repeats, arguments.steps, arguments.length = 1, 3, min(arguments.length, 32)
    with tempfile.TemporaryDirectory() as folder:
        packages = [] if arguments.ours_only else install(Path(folder))
        reports = measure(arguments, folder)
    rows = [summary(key, reports, arguments) for key in reports]
    for dtype in arguments.dtypes:
        show([row for row in rows if row["dtype"] == dtype], next(iter(reports.values()))[0], arguments)
    content = {"job": shared_job(arguments), "alternatives": packages, "rows": rows}
    Console().print(f"written to {write_results('step', arguments, content)}")


def measure(arguments: argparse.Namespace, packages: str) -> dict[Key, list[Row]]:
    """Reports, one per repeat. The arms take turns."""
    arms = [arm for arm in ARMS if not (arm.installed and arguments.ours_only)]
    whole = WHOLE if WHOLE in arguments.positions else arguments.positions[0]
    places = [(dtype, position) for dtype in arguments.dtypes for position in arguments.positions]
    reports: dict[Key, list[Row]] = {}
    with Console(stderr=True).status("measuring") as status:
        for repeat in range(arguments.repeats):
            for dtype, position in places:
                here = [arm for arm in arms if arm.blockwise or position == whole]
                for arm in here:
                    status.update(f"turn {repeat + 1} of {arguments.repeats}: {dtype}, {position}, {arm.label}")
                    job = {"arm": arm.arm, "neighbours": arm.neighbours, "dtype": dtype, "position": position}
                    job |= {"steps": WARM_UP_STEPS + arguments.steps, "packages": packages}
                    report = run_trial(shared_job(arguments) | job)
                    reports.setdefault((dtype, position, arm.label), []).append(report)
                same = [arm.label for arm in here if arm.blockwise and arm.arm != "gradient"]
                check_same_training({label: reports[dtype, position, label][-1] for label in same}, dtype)
    return reports


def check_same_training(reports: dict[str, Row], dtype: str) -> None:
    """Assert that all arms changed only this block's parameters, and reached the same losses."""
    first = next(iter(reports.values()))
    for label, report in reports.items():
        expected, changed = set(report["block_parameters"]), set(report["changed"])
        # In bfloat16 a norm's weight of 1 changes only when the master has moved by 1/512.
        right = changed == expected if dtype == "float32" else bool(changed) and changed <= expected
        if not right or report["block_parameters"] != first["block_parameters"]:
            sys.exit(f"{label} in {dtype} changed {sorted(changed)}, but the block is {sorted(expected)}")
        if not all(map(close, report["losses"], first["losses"])):
            sys.exit(f"{label} in {dtype} does not train as the others do: {report['losses']}, {first['losses']}")


def close(one: float, other: float) -> bool:
    """Whether losses are equal up to rounding in another order, which a few steps in bfloat16 amplify."""
    return math.isclose(one, other, rel_tol=5e-3)


def summary(key: Key, reports: dict[Key, list[Row]], arguments: argparse.Namespace) -> Row:
    """Medians over the processes. The ratio to badam at the same block is taken turn by turn."""
    own, (dtype, position, label) = reports[key], key
    blockwise = next(arm.blockwise for arm in ARMS if arm.label == label)
    row: Row = {"arm": label, "dtype": dtype, "position": position if blockwise else "whole", "processes": len(own)}
    row |= {"block": own[0]["block"] if blockwise else "whole", "trained": own[0]["trained"]}
    measures = {"step_seconds": "seconds", "cpu_seconds": "cpu_seconds", "peak_mib": "peak_bytes"}
    for name, source in measures.items():
        values = [figure(report[source]) for report in own]
        row[name] = round(statistics.median(values), 4)
        row[f"{name}_all"] = [round(value, 4) for value in values]
        if reference := reports.get((dtype, position, REFERENCE.label)):
            ratios = [value / figure(other[source]) for value, other in zip(values, reference, strict=True)]
            row[f"{name}_to_badam"] = round(statistics.median(ratios), 3)
    row["tokens_per_second"] = round(arguments.batch * arguments.length / row["step_seconds"], 1)
    return row


def figure(reported: list[float] | int) -> float:
    """One figure of a report: the median of the timed steps, or bytes in MiB."""
    return statistics.median(reported[WARM_UP_STEPS:]) if isinstance(reported, list) else reported / MIB


def show(rows: list[Row], report: Row, arguments: argparse.Namespace) -> None:
    """Print one table per precision."""
    table = Table(
        title=f"{rows[0]['dtype']}: one step of {report['parameters'] / 1e6:.1f} million parameters, "
        f"{arguments.batch} x {arguments.length} tokens, torch threads: {arguments.threads}",
        title_justify="left",
        caption=f"x: as a multiple of badam's at the same block, for the last two its {WHOLE} block.\n"
        "Peak: resident memory above that before the model was built.",
        caption_justify="left",
        box=box.SIMPLE,
        collapse_padding=True,
    )
    for heading in ("block", "", "ms", "x", "CPU ms", "x", "tokens/s", "peak MiB", "x"):
        table.add_column(heading, justify="left" if heading in ("block", "") else "right", no_wrap=True)
    for row in rows:
        cells = [row["block"], row["arm"]]
        for name, factor in (("step_seconds", 1000), ("cpu_seconds", 1000), ("peak_mib", 1)):
            cells += [f"{row[name] * factor:,.0f}", f"{row.get(f'{name}_to_badam', math.nan):.2f}"]
        cells.insert(6, f"{row['tokens_per_second']:,.0f}")
        table.add_row(*cells)
    Console().print(table)


if __name__ == "__main__":
    main()
