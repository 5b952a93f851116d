"""``python -m bench.step``: one engine step against one step of badam, on the same model, batch and block.

A step is a gradient and what turns it into new parameters. For us that is the half step, the fold and, with
two neighbours, encoding one int8 update and absorbing two; the network itself is not part of it. badam
(https://pypi.org/project/badam) is Adam on one block after the other, without neighbours. ``gradient only``
is what both have in common, and a floor for both.

Every figure comes from a fresh process. The arms take turns, and ratios are taken within a turn before the
median is, so that a machine that slows down for a while slows down both sides of a ratio. CPU time leaves
out what other processes took away; with one thread it is the steadier figure.
"""

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from bench.harness import MIB, Row, parser, run_trial, shared_job, write_results

REQUIREMENT = Path(__file__).with_name("badam.txt")
WARM_UP_STEPS = 2  # the first steps allocate the moments


@dataclass(frozen=True)
class Arm:
    """One side of the comparison."""

    label: str
    arm: str
    neighbours: int = 0


REFERENCE = Arm("badam", "badam")
ARMS = (
    Arm("gradient only", "gradient"),
    REFERENCE,
    Arm("deca, no neighbours", "deca"),
    Arm("deca, 2 neighbours, int8", "deca", neighbours=2),
)


def main() -> None:
    """Measure, print the table and write ``step.json``."""
    options = parser("Time and memory of one engine step, against badam.")
    options.add_argument("--position", choices=("first", "middle", "last"), default="middle", help="which block")
    options.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], help="precisions of the model")
    options.add_argument("--repeats", type=int, default=5, help="fresh processes per arm")
    options.add_argument("--steps", type=int, default=8, help="timed steps per process")
    options.add_argument("--without-badam", action="store_true", help="measure only our side; needs no network")
    arguments = options.parse_args()
    if arguments.quick:
        arguments.repeats, arguments.steps, arguments.length = 1, 3, min(arguments.length, 32)
    with tempfile.TemporaryDirectory() as folder:
        arms = tuple(arm for arm in ARMS if arm is not REFERENCE or not arguments.without_badam)
        if not arguments.without_badam:
            install_badam(Path(folder))
        reports = measure(arms, arguments, folder)
    rows = [summary(arm, dtype, reports) for dtype in arguments.dtypes for arm in arms]
    show(rows, reports[arguments.dtypes[0], arms[0].label][0], arguments)
    reference = None if arguments.without_badam else REQUIREMENT.read_text(encoding="utf-8").split()[0]
    path = write_results("step", arguments, {"job": shared_job(arguments), "reference": reference, "rows": rows})
    Console().print(f"written to {path}")


def install_badam(folder: Path) -> None:
    """Put badam alone into ``folder``: what it needs, torch and transformers, is here already."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += [
        "--only-binary",
        ":all:",
        "--require-hashes",
        "--target",
        str(folder),
        "--requirement",
        str(REQUIREMENT),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        sys.exit(f"badam could not be installed ({reason}); --without-badam measures only our side")


def measure(arms: tuple[Arm, ...], arguments: argparse.Namespace, badam: str) -> dict[tuple[str, str], list[Row]]:
    """Reports by dtype and arm, one per repeat; the arms take turns."""
    reports: dict[tuple[str, str], list[Row]] = {(dtype, arm.label): [] for dtype in arguments.dtypes for arm in arms}
    steps = WARM_UP_STEPS + arguments.steps
    with Console(stderr=True).status("measuring") as status:
        for repeat in range(arguments.repeats):
            for dtype in arguments.dtypes:
                for arm in arms:
                    status.update(f"turn {repeat + 1} of {arguments.repeats}: {dtype}, {arm.label}")
                    job = {"arm": arm.arm, "neighbours": arm.neighbours, "dtype": dtype, "steps": steps}
                    job |= {"position": arguments.position, "badam_path": badam}
                    reports[dtype, arm.label].append(run_trial(shared_job(arguments) | job))
                check_same_training(
                    {arm.label: reports[dtype, arm.label][-1] for arm in arms if arm.arm != "gradient"}, dtype
                )
    return reports


def check_same_training(reports: dict[str, Row], dtype: str) -> None:
    """All arms changed this block's parameters and nothing else, and came to the same losses."""
    first = next(iter(reports.values()))
    for label, report in reports.items():
        expected, changed = set(report["block_parameters"]), set(report["changed"])
        # In bfloat16 a norm's weight of 1 moves only when the master has moved by 1/512.
        right = changed == expected if dtype == "float32" else bool(changed) and changed <= expected
        if not right or report["block_parameters"] != first["block_parameters"]:
            sys.exit(f"{label} in {dtype} changed {sorted(changed)}, but the block is {sorted(expected)}")
        if not all(map(close, report["losses"], first["losses"])):
            sys.exit(f"{label} in {dtype} does not train as the others do: {report['losses']}, {first['losses']}")


def close(one: float, other: float) -> bool:
    """Equal up to rounding in another order, which a few steps in bfloat16 make larger."""
    return math.isclose(one, other, rel_tol=5e-3)


def summary(arm: Arm, dtype: str, reports: dict[tuple[str, str], list[Row]]) -> Row:
    """Medians over the processes, and the ratio to badam taken turn by turn."""
    own = reports[dtype, arm.label]
    row: Row = {"arm": arm.label, "dtype": dtype, "block": own[0]["block"], "processes": len(own)}
    measures = {"step_seconds": "seconds", "cpu_seconds": "cpu_seconds", "peak_mib": "peak_bytes"}
    for name, source in measures.items():
        values = [figure(report[source]) for report in own]
        row[name] = round(statistics.median(values), 4)
        row[f"{name}_all"] = [round(value, 4) for value in values]
        if reference := reports.get((dtype, REFERENCE.label)):
            ratios = [value / figure(other[source]) for value, other in zip(values, reference, strict=True)]
            row[f"{name}_to_badam"] = round(statistics.median(ratios), 3)
    return row


def figure(reported: list[float] | int) -> float:
    """One figure of a report: the median of the timed steps, or bytes as MiB."""
    return statistics.median(reported[WARM_UP_STEPS:]) if isinstance(reported, list) else reported / MIB


def show(rows: list[Row], report: Row, arguments: argparse.Namespace) -> None:
    """Print the table."""
    table = Table(
        title=f"One step on {report['block']}, {report['block_elements'] / 1e6:.1f} of "
        f"{report['parameters'] / 1e6:.1f} million parameters\n"
        f"{arguments.batch} x {arguments.length} tokens, torch threads: {arguments.threads}",
        title_justify="left",
        caption="x: as a multiple of badam's. Peak: resident memory above that before the model was built.",
        caption_justify="left",
        box=box.SIMPLE,
        collapse_padding=True,
    )
    for heading in ("dtype", "", "ms", "x", "CPU ms", "x", "peak MiB", "x"):
        table.add_column(heading, justify="left" if heading in ("dtype", "") else "right", no_wrap=True)
    for row in rows:
        cells = [row["dtype"].replace("float", "f"), row["arm"]]
        for name, factor in (("step_seconds", 1000), ("cpu_seconds", 1000), ("peak_mib", 1)):
            cells += [f"{row[name] * factor:,.0f}", f"{row.get(f'{name}_to_badam', math.nan):.2f}"]
        table.add_row(*cells)
    Console().print(table)


if __name__ == "__main__":
    main()
