"""``python -m bench.pretrained``: runs the missing cells, then writes tables and verdicts.

It can be stopped at any time and continues where it was; ``--minutes`` stops it after a time. Cells come in an order in
which a smaller table is complete first: few arms before more arms, and of these one seed before the next; the paper's
step size before tuned ones. ``--quick`` runs four arms with two seeds into ``build/pretrained``, and says whether their
order is that of the committed lines.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.convergence.arms import Arm
from bench.convergence.cells import Book
from bench.convergence.sweep import OutOfTimeError, Sweep
from bench.harness import RESULTS, ROOT
from bench.pretrained.arms import ARMS, PAPER_RATE, QUICK, SCALES, WHOLE, scaled
from bench.pretrained.packages import MissingError

FOLDER = RESULTS / "pretrained"
QUICK_FOLDER = ROOT / "build" / "pretrained"
TASKS = ("sentiment-label", "sentiment-domain", "topics-label", "smollm2-sentiment-label", "smollm2-topics-label")
RULES = ("paper", "common", "own")
"""Step sizes: 5e-5; the best of ``none``; and every arm's own best."""

FIRST = 6
"""So many arms have three seeds before any other arm has one."""


def main() -> int:
    """Run the command line, and return an exit code: 1 if ``--quick`` finds another order than the committed lines, or
    if a package is missing."""
    arguments = options().parse_args()
    if not arguments.report:
        import torch

        torch.set_num_threads(arguments.threads)
        deadline = time.monotonic() + 60 * arguments.minutes
        try:
            for task in arguments.tasks:
                sweep_task(task, arguments, deadline)
        except MissingError as missing:
            print(f"not measured: {missing}", file=sys.stderr)
            return 1
    if arguments.no_report:
        return 0
    from bench.pretrained import tables

    return tables.compare(arguments.tasks, folder_of(arguments), FOLDER) if arguments.quick else tables.write(FOLDER)


def options() -> argparse.ArgumentParser:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.pretrained",
        description="Methods x seeds x settings on pretrained models and real labelled text.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS[:1], help="tasks to run")
    parser.add_argument("--scale", choices=tuple(SCALES), default="short", help="how long a run is")
    parser.add_argument("--rules", nargs="+", choices=RULES, default=RULES, help="step sizes to compare at")
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="arms to run; default all")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=(0, 1, 2), help="seeds; an arm's own number is the limit"
    )
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no cell after so many minutes")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--quick", action="store_true", help="few arms, two seeds; into build/pretrained")
    parser.add_argument("--report", action="store_true", help="run nothing; write tables of the existing lines")
    parser.add_argument("--no-report", action="store_true", help="write lines only")
    return parser


def folder_of(arguments: argparse.Namespace) -> Path:
    """The folder of the lines."""
    return QUICK_FOLDER if arguments.quick else FOLDER


def sweep_task(name: str, arguments: argparse.Namespace, deadline: float) -> None:
    """Run the missing cells of one task."""
    from bench.pretrained import methods
    from bench.pretrained.loading import load, nodes_of

    start = load(name)
    book = Book(folder_of(arguments) / f"{name}.jsonl")
    arms = scaled(arguments.scale)
    sweep = Sweep(
        start.task,  # type: ignore[arg-type]
        start.model,
        start.sha256,
        book,
        say,
        deadline,
        arms,
        lambda cell: methods.run(cell, start),
        nodes_of(name),
    )
    try:
        for arm, seed, rate in quick_plan(arms) if arguments.quick else plan(sweep, arguments):
            sweep.outcome(arm, seed, rate)
    except OutOfTimeError:
        say(f"{name}: the time is up; the same command continues from here")


def plan(sweep: Sweep, arguments: argparse.Namespace) -> Iterator[tuple[Arm, int, float]]:
    """Arms, seeds and step sizes in the order in which they are run. Tuning happens where a step size is first used."""
    names = arguments.arms or [arm.name for arm in ARMS]
    for some in (names[:FIRST], names):
        for rule in arguments.rules:
            for seed in arguments.seeds:
                for arm in (sweep.arms[name] for name in some):
                    if seed < arm.seeds and (rule == "own" or arm.method not in WHOLE):
                        yield arm, seed, rate_of(sweep, arm, rule)


def rate_of(sweep: Sweep, arm: Arm, rule: str) -> float:
    """The arm's step size under a rule."""
    return PAPER_RATE if rule == "paper" else sweep.rate(sweep.arms["none"] if rule == "common" else arm)


def quick_plan(arms: dict[str, Arm]) -> Iterator[tuple[Arm, int, float]]:
    """Two seeds of a few arms, at the paper's step size."""
    for seed in range(2):
        for name in QUICK:
            yield arms[name], seed, PAPER_RATE


def say(line: str) -> None:
    """Print a line of progress."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
