"""``make mutants``: mutmut over the rooms of ``deca_node/protocol``, and its results in one file.

::

    python tools/mutants.py visit              test this room's mutants that have no result yet
    python tools/mutants.py visit --minutes 3  stop after three minutes; the next call goes on from there
    python tools/mutants.py visit --again      test those that survived once more, as after new tests
    python tools/mutants.py visit --survivors  test those that survived against whole nodes and storms
    python tools/mutants.py visit --sample 300 test only 300 of the room's mutants, drawn at random
    python tools/mutants.py                    only the table of the results, room by room
    python tools/mutants.py --sample 300       the table of 300 mutants of each room, with intervals of confidence

mutmut changes one place at a time and runs the tests that reach it, the quickest first, until one fails. Here each
mutant meets the quick tests of its own room, and what survives meets tests of whole nodes. A mutant that loops is
stopped by the CPU time that it takes, not by the clock, so that a busy machine makes no difference. Results are kept in
``bench/results/mutants.json``, by function and with a sum of its source. A later run tests only what has changed.

A sample is drawn by lot: every mutant's name and the seed give a sum, and those with the smallest sums are drawn. So
the same seed draws the same mutants, and a larger sample contains the smaller one.
"""

import argparse
import ast
import collections
import hashlib
import json
import math
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench/results/mutants.json"
ROOMS = ("visit", "agreed", "node", "membership", "planning", "protocol")
"""The rooms, the most important first; "protocol" stands for the modules outside of the rooms."""

CPU_SECONDS = 10
"""The CPU time that a mutant may take beyond the time that its tests take without mutants."""

KILLED, SURVIVED, UNTESTED, TIMEOUT, NOT_TRIED = "killed", "survived", "no tests", "timeout", "not tried"
VERDICTS = {0: SURVIVED, 33: UNTESTED, 36: TIMEOUT, -signal.SIGXCPU: TIMEOUT, -signal.SIGKILL: TIMEOUT}
"""What an exit code means; any other is a failed test."""

TRANSCRIPTS, WHOLE = "tests/protocol/node/test_transcripts.py", "tests/protocol/node"
PARTS = ("parts", "phases", "roster", "state", "stopping_of_one")
ROOT_PARTS = ("devices", "options", "quarantine", "transitions")
TESTS_OF = {
    "visit": ["tests/protocol/visit", TRANSCRIPTS],
    "agreed": ["tests/protocol/agreed", TRANSCRIPTS],
    "node": [TRANSCRIPTS, *(f"{WHOLE}/test_{part}.py" for part in PARTS)],
    "membership": ["tests/protocol/membership"],
    "planning": ["tests/protocol/planning"],
    "protocol": [*(f"tests/protocol/test_{part}.py" for part in ROOT_PARTS), TRANSCRIPTS],
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
    parser.add_argument("--sample", type=int, default=0, help="draw so many mutants of a room (0: all of them)")
    parser.add_argument("--seed", type=int, default=1, help="the seed of the draw (default: 1)")
    chosen = parser.parse_args()
    os.chdir(ROOT)
    lot = Lot(chosen.sample, chosen.seed)
    if chosen.room:
        try:
            mutate(chosen.room, chosen.minutes, lot, again=chosen.again, survivors=chosen.survivors)
        finally:
            keep(chosen.room, survivors=chosen.survivors)
    table(lot)
    return 0


class Lot(NamedTuple):
    """How many mutants of a room are drawn (0: all), and by which seed."""

    size: int
    seed: int

    def drawn(self, names: Iterable[str]) -> list[str]:
        """The mutants that are drawn, in a random order, so that those at the beginning are a sample too."""
        order = sorted(names, key=lambda name: hashlib.sha256(f"{self.seed}:{name}".encode()).digest())
        return order[: self.size or None]


# --- testing ----------------------------------------------------------------------------------------


def room_of(mutant: str) -> str:
    """The room of a mutant, from the name of its module."""
    parts = mutant.split(".")
    return parts[2] if parts[2] in ROOMS and len(parts) > 4 else "protocol"


def mutate(room: str, minutes: float, lot: Lot, *, again: bool, survivors: bool) -> None:
    """Run mutmut on a room's mutants that have no result yet, or on its survivors."""
    os.environ |= {"CI": "1", "OMP_NUM_THREADS": "1"}
    os.chdir(_folder(room, survivors=survivors))
    import mutmut.__main__ as mutmut
    from mutmut.configuration import config
    from mutmut.workers import isolation

    modules = (ROOT / "deca_node/protocol" / ("" if room == "protocol" else room)).glob("*.py")
    config().only_mutate = [str(module.relative_to(ROOT)) for module in modules]
    config().pytest_add_cli_args_test_selection = MORE[room] if survivors else TESTS_OF[room]
    deadline = math.inf
    collect, submit, known = mutmut.collect_source_file_mutation_data, isolation.ForkRunner.submit, load().get(room, {})

    def chosen(*, mutant_names: Any) -> Any:
        """The mutants to test. From here on the time counts."""
        nonlocal deadline
        deadline = time.monotonic() + 60 * minutes if minutes else math.inf
        mutants, by_path = collect(mutant_names=mutant_names)
        data = {name: each for each, name, _ in mutants if room_of(name) == room}
        due = [name for name in lot.drawn(data) if _due(name, known, again=again or survivors)]
        return [(data[name], name, None) for name in due], by_path

    def submit_within_limit(self: Any, name: str, tests: list[str], limit: int, estimate: float) -> None:
        if time.monotonic() > deadline:
            raise KeyboardInterrupt
        submit(self, name, tests, CPU_SECONDS + int(estimate), estimate)

    choose = isolation.set_mutant_under_test

    def choose_without_caches(name: str) -> None:
        choose(name)
        forget_results()

    isolation.set_mutant_under_test = choose_without_caches
    mutmut.collect_source_file_mutation_data = chosen
    mutmut.estimated_worst_case_time = lambda name: 0.0  # keeps the order of the draw
    isolation.ForkRunner.submit = submit_within_limit
    isolation.register_timeout = lambda pid, timeout_s: None
    # The tests pass without mutants, or else the statistics could not be taken.
    isolation.ForkRunner.run_clean_tests = lambda self, tests: 0
    try:
        mutmut._run((), 1)
    finally:
        os.chdir(ROOT)


def forget_results() -> None:
    """Empty the caches of the core's functions. The tests that mutmut has run before would otherwise have filled them
    with results from before the mutation."""
    for name, module in list(sys.modules.items()):
        if name.startswith("deca_node.protocol"):
            for each in vars(module).values():
                if callable(clear := getattr(each, "cache_clear", None)):
                    clear()


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
    if kept is None or kept["source"] != source_of(name) or kept["verdict"] == NOT_TRIED:
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
            for verdict in (KILLED, SURVIVED, UNTESTED, TIMEOUT, NOT_TRIED)
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
            source = source_of(name)
            if room_of(name) != room or source is None:
                continue
            known.setdefault(name, {"source": source, "verdict": NOT_TRIED})
            if code is not None:
                known[name]["verdict"] = VERDICTS.get(code, KILLED)
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


def source_of(mutant: str) -> str | None:
    """A sum of the source of the mutant's function, which says whether a result still holds. None: no such function."""
    module, _, function = mutant.partition("__mutmut_")[0].rpartition(".")
    path = ROOT / (module.replace(".", "/") + ".py")
    if module not in _SOURCES:
        _SOURCES[module] = dict(_functions(path)) if path.exists() else {}
    return _SOURCES[module].get(function)


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


# --- the table --------------------------------------------------------------------------------------


def table(lot: Lot) -> None:
    """Print how many of the drawn mutants of every room the tests kill, with the interval of confidence of a sample."""
    heads = ("mutants", "tested", "killed", "survived", "untested", "score")
    print(f"{'room':12}{''.join(f'{head:>10}' for head in heads)}   95 % interval")
    shares: list[tuple[int, int, int]] = []
    for room, mutants in load().items():
        by = collections.Counter(mutants[name]["verdict"] for name in lot.drawn(mutants))
        killed, tested = by[KILLED] + by[TIMEOUT], by.total() - by[NOT_TRIED]
        low, high = wilson(killed, tested)
        shares.append((len(mutants), killed, tested))
        score, interval = percent(killed / max(1, tested)), f"{percent(low)} to {percent(high)}"
        counts = "".join(f"{n:10}" for n in (len(mutants), tested, killed, by[SURVIVED], by[UNTESTED]))
        whole = "all were tested" if tested == len(mutants) else "" if lot.size == tested else "a part, not a sample"
        print(f"{room:12}{counts}{score:>10}   {whole or interval}")
    share, error = weighted(shares)
    print(f"{'all rooms':12}{sum(size for size, _, _ in shares):10}{percent(share):>50}   ±{percent(1.96 * error)}")


def percent(share: float) -> str:
    """A share in percent, with one decimal."""
    return f"{100 * share:.1f} %"


def wilson(hits: int, draws: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of confidence for a share, from a sample. It leaves out that the population is finite, so it is
    a little too wide. (Wilson 1927; Brown, Cai and DasGupta 2001)"""
    if not draws:
        return 0.0, 1.0
    share, weight = hits / draws, z * z / draws
    middle, half = share + weight / 2, z * math.sqrt(share * (1 - share) / draws + weight / draws / 4)
    return (middle - half) / (1 + weight), (middle + half) / (1 + weight)


def weighted(rooms: Iterable[tuple[int, int, int]]) -> tuple[float, float]:
    """The share of all rooms (mutants, killed, tested), each weighted by its mutants, and its standard error."""
    tested = [(size, killed / draws, draws) for size, killed, draws in rooms if draws]
    total = sum(size for size, _, _ in tested) or 1
    left = [1 - draws / size for size, _, draws in tested]
    variance = sum((n / total) ** 2 * p * (1 - p) / d * rest for (n, p, d), rest in zip(tested, left, strict=True))
    return sum(size * share for size, share, _ in tested) / total, math.sqrt(variance)


if __name__ == "__main__":
    sys.exit(main())
