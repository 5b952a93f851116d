"""``python -m bench.gpu``: every part in turn; results go to ``bench/results/gpu.json`` after each.

``--dry-run`` does all of it on the CPU with tiny models of the same kinds, so that the script itself is known to work
before a GPU is at hand. It writes ``gpu-quick.json``, and its figures mean nothing.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.alternatives import install
from bench.gpu import parts
from bench.gpu.shapes import SHAPES
from bench.harness import Row, parser, write_results

PARTS = ("kernels", "codecs", "ranks", "steps")
FACTS = "name,memory.total,driver_version"


def main() -> int:
    """Run the parts. Returns 1 if there is no GPU, or if kernels and torch differ."""
    arguments = options().parse_args()
    arguments.quick = arguments.dry_run
    cards = [] if arguments.dry_run else names_of_cards()
    if not cards and not arguments.dry_run:
        print("there is no NVIDIA GPU here; --dry-run does everything on the CPU, in tiny", file=sys.stderr)
        return 1
    work = parts.Work(arguments, len(cards))
    content: Row = {"cards": cards, "dry_run": arguments.dry_run}
    with tempfile.TemporaryDirectory() as folder:
        packages, said = others(arguments, folder)
        content["alternatives"] = said
        for name, part in plan(work, packages).items():
            content[name] = part() if work.left > 0 else {"missing": "the time was over"}
            print(f"{name}: {content[name].get('missing') or content[name].get('said') or 'done'}", flush=True)
            path = write_results("gpu", arguments, content)
    print(f"written to {path}")
    return 0 if content.get("kernels", {}).get("passed", True) else 1


def options() -> argparse.ArgumentParser:
    """The options of the command line."""
    made = parser("Kernels, steps and ranks on a GPU.")
    made.set_defaults(length=1024)
    made.add_argument("--dry-run", action="store_true", help="all of it on the CPU, with tiny models")
    made.add_argument("--minutes", type=float, default=9.5, help="begin nothing after so many minutes")
    made.add_argument("--steps", type=int, default=6, help="timed steps per process")
    made.add_argument("--packages", help="a folder that holds badam and peft; empty: none")
    made.add_argument("--shapes", nargs="+", choices=tuple(SHAPES), default=tuple(SHAPES), help="models")
    made.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="parts to run")
    return made


def plan(work: parts.Work, packages: str) -> dict[str, Callable[[], Row]]:
    """The parts that were asked for; the longest comes last."""
    known: dict[str, Callable[[], Row]] = {
        "kernels": lambda: parts.kernels(work),
        "codecs": lambda: parts.codecs(work),
        "ranks": lambda: parts.ranks(work),
        "steps": lambda: parts.steps(work, packages),
    }
    return {name: part for name, part in known.items() if name in work.arguments.parts}


def others(arguments: argparse.Namespace, folder: str) -> tuple[str, list[str] | str]:
    """The folder of badam and peft, and what is in it; empty, with a reason, where they cannot be had."""
    if arguments.packages == "":
        return "", "left out: no packages were asked for"
    if arguments.packages:
        return arguments.packages, sorted(path.name for path in Path(arguments.packages).glob("*.dist-info"))
    try:
        return folder, install(Path(folder))
    except SystemExit as problem:
        return "", f"left out: {problem}"


def names_of_cards() -> list[str]:
    """Name, memory and driver of every card, as nvidia-smi says them."""
    command = ["nvidia-smi", f"--query-gpu={FACTS}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except OSError:
        return []
    return done.stdout.strip().splitlines() if done.returncode == 0 else []


if __name__ == "__main__":
    sys.exit(main())
