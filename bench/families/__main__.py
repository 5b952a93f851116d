"""``python -m bench.families``: every family in a process of its own, and a table of all of them.

A family's result is kept in ``families.json`` and is not computed again while transformers, torch and the family's tiny
config are the same, unless ``--again`` is given. ``python tools/write_models_reference.py`` makes the page of it.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from bench.harness import RESULTS, Row, machine_facts, package_version

NAME = "families.json"
# From this size on every allocation is a mapping, which ends when it is freed: the peak is what is in use at a time.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}


def main() -> int:
    """Run what is not known yet. Returns 1 if a process was ended by its time limit or by itself."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("families", nargs="*", help="only these  [default: all]")
    options.add_argument("--again", action="store_true", help="also what is known already")
    options.add_argument("--seconds", type=int, default=120, help="time limit per family")
    options.add_argument("--plans", action="store_true", help="only what the plan says, for families measured before")
    options.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file")
    arguments = options.parse_args()
    if any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        # glibc reads its settings when a process starts.
        os.execve(sys.executable, [sys.executable, "-m", "bench.families", *sys.argv[1:]], os.environ | ALLOCATOR)
    os.setpriority(os.PRIO_PROCESS, 0, max(os.getpriority(os.PRIO_PROCESS, 0), 10))
    return run_all(arguments)


def run_all(arguments: argparse.Namespace) -> int:
    """One family after the other; the file is written after each."""
    import torch

    from bench.families.trial import families, planned, trial

    torch.set_num_threads(1)
    torch.manual_seed(0)
    arguments.results.mkdir(parents=True, exist_ok=True)
    path = arguments.results / NAME
    versions = {name: package_version(name) for name in ("torch", "transformers")}
    known = read_known(path, versions)
    broken = 0
    for family in arguments.families or families():
        row = known.get(family, {})
        began = time.monotonic()
        if not arguments.plans and (arguments.again or row.get("outcome") in (None, "broken")):
            row = in_child(trial, family, arguments.seconds) or {"family": family, "outcome": "broken"}
        if row.get("outcome") == "trained" and (arguments.plans or "planned_bytes" not in row):
            row |= in_child(planned, family, arguments.seconds) or {}
        broken += row.get("outcome") == "broken"
        known[family] = row
        print(f"{family}: {row.get('outcome')} ({time.monotonic() - began:.0f} s) {row.get('says', '')}", flush=True)
        write(path, versions, known, families())
    print(", ".join(f"{count} {outcome}" for outcome, count in Counter(r["outcome"] for r in known.values()).items()))
    return int(broken > 0)


def read_known(path: Path, versions: Row) -> dict[str, Row]:
    """The rows of an earlier run with the same versions, by family."""
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return {row["family"]: row for row in found["families"]} if found["versions"] == versions else {}


def write(path: Path, versions: Row, known: dict[str, Row], all_known: list[str]) -> None:
    """The file, in the order of names; ``all_known`` are the names of all families, measured or not."""
    rows = [known[family] for family in sorted(known)]
    content = {"versions": versions, "machine": machine_facts(), "known": all_known, "families": rows}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def in_child(work: Callable[[str, Path], Row], family: str, seconds: int) -> Row | None:
    """The result of ``work`` in a copy of this process; None where it ends without one."""
    with tempfile.TemporaryDirectory() as name:
        answer = Path(name, "answer.json")
        child = os.fork()
        if child == 0:
            _work(work, family, Path(name, "model"), answer, seconds)
        os.waitpid(child, 0)
        return json.loads(answer.read_text(encoding="utf-8")) if answer.is_file() else None


def _work(work: Callable[[str, Path], Row], family: str, folder: Path, answer: Path, seconds: int) -> None:
    """In the child: work, write the answer, and end."""
    signal.alarm(seconds)  # whose default is to end the process
    try:
        row = work(family, folder)
    except BaseException as problem:  # noqa: BLE001  (the family's own fault, to be seen in the table)
        row = {"family": family, "outcome": "broken", "says": f"{type(problem).__name__}: {problem}"[:300]}
    answer.write_text(json.dumps(row), encoding="utf-8")
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
