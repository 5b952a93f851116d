"""``make mutants``: mutmut over the rooms of ``deca_node/protocol``, and its results in one file.

::

    python tools/mutants.py visit              test this room's mutants that have no result yet
    python tools/mutants.py visit --minutes 3  stop after three minutes; the next call goes on from there
    python tools/mutants.py visit --again      test those that survived once more, as after new tests
    python tools/mutants.py visit --survivors  test those that survived against whole nodes and storms
    python tools/mutants.py                    only the table of the results, room by room

mutmut changes one place at a time and runs the tests that reach it, the quickest first, until one fails. Here each
mutant meets the quick tests of its own room, and what survives meets tests of whole nodes. A mutant that loops is
stopped by the CPU time that it takes, not by the clock, so that a busy machine makes no difference. Results are kept in
``bench/results/mutants.json``, by function and with a sum of its source. A later run tests only what has changed.
"""

import argparse
import ast
import collections
import hashlib
import json
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench/results/mutants.json"
ROOMS = ("visit", "agreed", "node", "membership", "planning", "protocol")
"""The rooms, the most important first; "protocol" stands for the modules outside of the rooms."""

CPU_SECONDS = 30
"""The most CPU time that a mutant may take. All tests that it meets take less, several times over."""

KILLED, SURVIVED, UNTESTED, TIMEOUT = "killed", "survived", "no tests", "timeout"
VERDICTS = {0: SURVIVED, 33: UNTESTED, 36: TIMEOUT, -signal.SIGXCPU: TIMEOUT, -signal.SIGKILL: TIMEOUT}
"""What an exit code means; any other is a failed test."""

TRANSCRIPTS, WHOLE = "tests/protocol/node/test_transcripts.py", "tests/protocol/node"
TESTS_OF = {
    "visit": ["tests/protocol/visit", TRANSCRIPTS],
    "agreed": ["tests/protocol/agreed", TRANSCRIPTS],
    "node": [TRANSCRIPTS, "tests/protocol/node/test_state.py", "tests/protocol/node/test_stopping.py"],
    "membership": ["tests/protocol/membership"],
    "planning": ["tests/protocol/planning"],
    "protocol": ["tests/protocol/test_quarantine.py", "tests/protocol/test_transitions.py", TRANSCRIPTS],
}
"""The quick tests of each room, which every mutant meets."""

MORE = {
    "visit": [WHOLE],
    "agreed": ["tests/protocol/visit", WHOLE],
    "node": [WHOLE],
    "membership": ["tests/lab/sim/test_swarm.py"],
    "planning": ["tests/protocol/planning"],
    "protocol": ["tests/protocol"],
}
"""The longer tests, which only survivors meet: whole nodes, storms and swarms."""

WORK = ROOT / "build/mutants"
"""mutmut's copies of the sources and the tests, one folder per room."""

NEEDED = ("deca_node", "tests", "docs", "proto", "README.md", "pyproject.toml")


def main() -> int:
    """Test mutants of a room, and print the table. Returns 1 if mutmut failed."""
    parser = argparse.ArgumentParser(description="Mutation testing of the core, room by room.")
    parser.add_argument("room", nargs="?", choices=ROOMS, help="the room to test; without it only the table is printed")
    parser.add_argument("--minutes", type=float, default=0.0, help="stop after so many minutes (0: no limit)")
    parser.add_argument("--again", action="store_true", help="test the survivors once more against the same tests")
    parser.add_argument("--survivors", action="store_true", help="test the survivors against longer tests")
    chosen = parser.parse_args()
    os.chdir(ROOT)
    if chosen.room:
        try:
            mutate(chosen.room, chosen.minutes, again=chosen.again, survivors=chosen.survivors)
        finally:
            keep(chosen.room, survivors=chosen.survivors)
    table()
    return 0


# --- testing ----------------------------------------------------------------------------------------


def room_of(mutant: str) -> str:
    """The room of a mutant, from the name of its module."""
    parts = mutant.split(".")
    return parts[2] if parts[2] in ROOMS and len(parts) > 4 else "protocol"


def mutate(room: str, minutes: float, *, again: bool, survivors: bool) -> None:
    """Run mutmut on a room's mutants that have no result yet, or on its survivors."""
    os.environ |= {"CI": "1", "OMP_NUM_THREADS": "1"}
    os.chdir(_folder(room, survivors=survivors))
    import mutmut.__main__ as mutmut
    from mutmut.configuration import config
    from mutmut.workers import isolation

    config().only_mutate = ["deca_node/protocol/*.py" if room == "protocol" else f"deca_node/protocol/{room}/*"]
    config().pytest_add_cli_args_test_selection = MORE[room] if survivors else TESTS_OF[room]
    collect, submit, known = mutmut.collect_source_file_mutation_data, isolation.ForkRunner.submit, load().get(room, {})

    def chosen(*, mutant_names: Any) -> Any:
        """The mutants to test. From here on the time counts."""
        if minutes:
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            signal.alarm(int(60 * minutes))
        mutants, by_path = collect(mutant_names=mutant_names)
        return [(data, name, None) for data, name, _ in mutants if _due(name, known, again=again or survivors)], by_path

    def submit_within_limit(self: Any, name: str, tests: list[str], limit: int, estimate: float) -> None:
        submit(self, name, tests, CPU_SECONDS, estimate)

    mutmut.collect_source_file_mutation_data = chosen
    isolation.ForkRunner.submit = submit_within_limit
    isolation.register_timeout = lambda pid, timeout_s: None
    # The tests pass without mutants, or else the statistics could not be taken.
    isolation.ForkRunner.run_clean_tests = lambda self, tests: 0
    try:
        mutmut._run((), 1)
    except KeyboardInterrupt:
        pass
    finally:
        signal.alarm(0)
        os.chdir(ROOT)


def _folder(room: str, *, survivors: bool) -> Path:
    """A work folder for the room, with links to what mutmut copies."""
    folder = WORK / (f"{room}-survivors" if survivors else room)
    folder.mkdir(parents=True, exist_ok=True)
    for name in NEEDED:
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    return folder


def _due(name: str, known: dict[str, dict[str, str]], *, again: bool) -> bool:
    """Whether a mutant is to be tested: it has no result, or its function has changed; or it is a survivor."""
    kept = known.get(name)
    if kept is None or kept["source"] != source_of(name):
        return not again
    return again and kept["verdict"] in (SURVIVED, UNTESTED)


# --- results ----------------------------------------------------------------------------------------


def load() -> dict[str, dict[str, dict[str, str]]]:
    """The results that are kept: by room and mutant, the verdict and the sum of the function's source."""
    if not RESULTS.exists():
        return {}
    rooms: dict[str, dict[str, dict[str, str]]] = {}
    for room, functions in json.loads(RESULTS.read_text("utf-8")).items():
        rooms[room] = {
            f"{function}__mutmut_{number}": {"source": kept["source"], "verdict": verdict}
            for function, kept in functions.items()
            for verdict in (KILLED, SURVIVED, UNTESTED, TIMEOUT)
            for number in kept.get(verdict, ())
        }
    return rooms


def keep(room: str, *, survivors: bool) -> None:
    """Add the results that mutmut has now to the file."""
    rooms = load()
    known = rooms.setdefault(room, {})
    known = rooms[room] = {name: kept for name, kept in known.items() if kept["source"] == source_of(name)}
    for meta in sorted((_folder(room, survivors=survivors) / "mutants/deca_node/protocol").rglob("*.meta")):
        for name, code in json.loads(meta.read_text("utf-8"))["exit_code_by_key"].items():
            if room_of(name) == room and code is not None:
                known[name] = {"source": source_of(name), "verdict": VERDICTS.get(code, KILLED)}
    packed: dict[str, dict[str, dict[str, Any]]] = {}
    for each, mutants in rooms.items():
        functions = packed.setdefault(each, {})
        for name, result in mutants.items():
            function, _, number = name.partition("__mutmut_")
            entry = functions.setdefault(function, {"source": result["source"]})
            if entry["source"] != result["source"]:
                continue
            entry.setdefault(result["verdict"], []).append(int(number))
    RESULTS.write_text(_written(packed), "utf-8")


def _written(packed: dict[str, dict[str, dict[str, Any]]]) -> str:
    """One line per function."""
    rooms = []
    for room in (room for room in ROOMS if room in packed):
        lines = [f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in sorted(packed[room].items())]
        rooms.append(f"{json.dumps(room)}: {{\n" + ",\n".join(lines) + "\n}")
    return "{\n" + ",\n".join(rooms) + "\n}\n"


_SOURCES: dict[str, dict[str, str]] = {}


def source_of(mutant: str) -> str:
    """A sum of the source of the mutant's function, which says whether a result still holds."""
    module, _, function = mutant.partition("__mutmut_")[0].rpartition(".")
    path = ROOT / (module.replace(".", "/") + ".py")
    if module not in _SOURCES:
        _SOURCES[module] = dict(_functions(path))
    return _SOURCES[module].get(function, "")


def _functions(path: Path) -> Iterable[tuple[str, str]]:
    """mutmut's name of every function of a module, with the sum of its source."""
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    for node in tree.body:
        inner = [("", node)] if isinstance(node, ast.FunctionDef) else []
        if isinstance(node, ast.ClassDef):
            inner = [(node.name, each) for each in node.body if isinstance(each, ast.FunctionDef)]
        for owner, each in inner:
            assert isinstance(each, ast.FunctionDef)
            name = f"xǁ{owner}ǁ{each.name}" if owner else f"x_{each.name}"
            yield name, hashlib.sha256(ast.dump(each).encode()).hexdigest()[:8]


def table() -> None:
    """Print how many mutants of every room the tests kill."""
    print(f"{'room':12}{'mutants':>9}{'killed':>9}{'survived':>10}{'untested':>10}{'score':>8}")
    for room, mutants in load().items():
        by = collections.Counter(result["verdict"] for result in mutants.values())
        killed = by[KILLED] + by[TIMEOUT]
        score = f"{100 * killed / max(1, len(mutants)):.1f} %"
        print(f"{room:12}{len(mutants):9}{killed:9}{by[SURVIVED]:10}{by[UNTESTED]:10}{score:>8}")


if __name__ == "__main__":
    sys.exit(main())
