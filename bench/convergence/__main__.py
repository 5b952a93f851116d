"""``python -m bench.convergence``: runs the missing cells, then writes tables, curves and verdicts.

It can be stopped at any time and continues where it was; ``--minutes`` stops it after a time. ``--quick`` runs few arms
with few seeds, at the step sizes of the full sweep, and says whether their order is the same.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from bench.convergence.arms import ARMS, BY_NAME, QUICK
from bench.harness import RESULTS, ROOT

FOLDER = RESULTS / "convergence"
QUICK_FOLDER = ROOT / "build" / "convergence" / "quick"
TASKS = ("language", "sources", "heads")
QUICK_TASKS = TASKS[:2]


def main() -> int:
    """Run the command line, and return an exit code: 1 if ``--quick`` finds another order than the full sweep."""
    arguments = options().parse_args()
    arguments.tasks = arguments.tasks or (QUICK_TASKS if arguments.quick else TASKS)
    if arguments.report:
        return report(arguments)
    from bench.convergence.start import threads

    threads(arguments.threads)
    deadline = time.monotonic() + 60 * arguments.minutes
    for task in arguments.tasks:
        sweep_task(task, arguments, deadline)
    return 0 if arguments.no_report else report(arguments)


def options() -> argparse.ArgumentParser:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.convergence",
        description="Methods x seeds x settings on the same model, data, graph and steps.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, help="tasks to run; default all")
    parser.add_argument("--arms", nargs="+", metavar="ARM", choices=tuple(BY_NAME), help="arms to run; default all")
    parser.add_argument("--seeds", type=int, default=5, help="the most seeds of each arm; its own number is the limit")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no cell after so many minutes")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--quick", action="store_true", help="few arms, two seeds; into build/convergence/quick")
    parser.add_argument("--report", action="store_true", help="run nothing; write tables of the existing lines")
    parser.add_argument("--no-report", action="store_true", help="write lines only")
    parser.add_argument("--results", type=Path, help=f"folder of the lines (default {FOLDER.relative_to(ROOT)})")
    return parser


def sweep_task(task: str, arguments: argparse.Namespace, deadline: float) -> None:
    """Run the missing cells of one task."""
    from bench.convergence.cells import Book
    from bench.convergence.corpora import SOURCES
    from bench.convergence.start import start_model
    from bench.convergence.sweep import OutOfTimeError, Sweep, rates
    from bench.convergence.tasks import Sizes, load

    folder = folder_of(arguments)
    start = start_model(labels=[domain.name for domain in SOURCES] if task == "heads" else ())
    loaded = load(task, start.tokenizer, Sizes())
    sweep = Sweep(loaded, start.model, start.sha256, Book(folder / f"{task}.jsonl"), say, deadline)
    try:
        if arguments.quick:
            known = json.loads((FOLDER / f"{task}-rates.json").read_text(encoding="utf-8"))
            for seed in range(min(2, arguments.seeds)):
                for name in QUICK:
                    sweep.outcome(BY_NAME[name], seed, known[name])
            return
        names = arguments.arms or [arm.name for arm in ARMS]
        # Three seeds of all arms before the fourth of any.
        for seeds in (range(min(3, arguments.seeds)), range(arguments.seeds)):
            sweep.finish(names, seeds)
    except OutOfTimeError:
        say(f"{task}: the time is up; the same command continues from here")
    finally:
        if not arguments.quick:
            found = json.dumps(dict(rates(sweep, ARMS)), indent=1)
            (folder / f"{task}-rates.json").write_text(found + "\n", encoding="utf-8")


def report(arguments: argparse.Namespace) -> int:
    """Write tables, curves and verdicts."""
    from bench.convergence import tables

    return tables.write(folder_of(arguments), arguments.tasks, quick=arguments.quick)


def folder_of(arguments: argparse.Namespace) -> Path:
    """The folder of the lines."""
    return arguments.results or (QUICK_FOLDER if arguments.quick else FOLDER)


def say(line: str) -> None:
    """Print a line of progress."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
