"""The tables, verdicts and curves of docs/RESULTS.md, and the few lines that ``--quick`` prints."""

import json
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from statistics import mean

from bench.convergence.arms import ARMS, BY_NAME, QUICK
from bench.convergence.cells import Book, Outcome
from bench.convergence.curves import Line, svg
from bench.convergence.summary import Results, summarize
from bench.convergence.verdicts import verdicts
from bench.harness import RESULTS, ROOT

FULL = RESULTS / "convergence"
PAGE = ROOT / "docs" / "RESULTS.md"
IMAGES = ROOT / "docs" / "images"
BEGIN, END = "<!-- bench.convergence: begin -->", "<!-- bench.convergence: end -->"
REFERENCE = "none"
SHOWN = ("isolated", "none", "precond", "none, v", "none, mv, every 4", "none, mv", "lora", "centralized")
"""The arms in the figure."""


def write(folder: Path, tasks: Sequence[str], *, quick: bool) -> int:
    """Write the page's part and the figures, or print the comparison of the quick run. Returns the exit code."""
    if quick:
        return max(compare(task, folder) for task in tasks)
    found = [results for task in tasks if (results := summarize(task, Book(folder / f"{task}.jsonl")))]
    for results in found:
        (IMAGES / f"convergence-{results.task}.svg").write_text(figure(results), encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(BEGIN)
    body = "\n".join(line for results in found for line in section(results))
    PAGE.write_text(f"{head}{BEGIN}\n{body}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    print(body)
    return 0


def section(results: Results) -> Iterator[str]:
    """One task's part of the page, line by line."""
    yield f"### Task `{results.task}`"
    yield ""
    yield (
        f"`python -m bench.convergence --tasks {results.task}`, {results.cells} cells, {results.dates[0]} to "
        f"{results.dates[1]}; seeds 0, 1, 2, ... as counted, tuning at seed 100; text {results.digest}."
    )
    yield ""
    yield from table(results)
    yield ""
    yield f"![validation loss over steps](images/convergence-{results.task}.svg)"
    yield ""
    yield from (f"- {line}" for line in verdicts(results))
    yield ""


def table(results: Results) -> Iterator[str]:
    """One row per arm with outcomes."""
    scored = any(o.accuracy is not None for seeds in results.by_arm.values() for o in seeds.values())
    score = ["accuracy", "F1"] if scored else []
    heads = ["arm", "what", "rate", "seeds", "test loss", f"less `{REFERENCE}`, by seed", *score]
    heads += ["distance", "kB per step", "state MiB", "CPU s"]
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for arm in ARMS:
        if results.has(arm.name):
            yield f"| {' | '.join(row(results, arm.name, scored))} |"


def row(results: Results, name: str, scored: bool) -> Iterator[str]:
    """The cells of one arm's row."""
    seeds = results.by_arm[name]
    yield from (f"`{name}`", BY_NAME[name].means, f"{results.rates[name]:.1e}", str(len(seeds)))
    yield str(results.spread(name, lambda o: o.test))
    if name == REFERENCE or not set(seeds) & set(results.by_arm.get(REFERENCE, ())):
        yield ""
    else:
        difference = results.difference(name, REFERENCE)
        yield f"{difference.spread.mean:+.4f} ± {difference.spread.deviation:.4f}"
    if scored:
        yield from (f"{100 * mean(of(o) for o in seeds.values()):.1f} %" for of in (_accuracy, _f1))
    yield f"{mean(mean(o.consensus[:-1]) if o.consensus else 0.0 for o in seeds.values()):.1e}"
    yield f"{mean(o.bytes_per_step for o in seeds.values()) / 1000:.1f}"
    yield f"{mean(o.state_mib for o in seeds.values()):.2f}"
    yield f"{mean(o.cpu_seconds for o in seeds.values()):.0f}"


def figure(results: Results) -> str:
    """Mean curves over seeds of a few arms."""
    lines = {name: mean_curve(list(results.by_arm[name].values())) for name in SHOWN if results.has(name)}
    start = max(line[0][1] for line in lines.values())
    return svg(lines, "steps", "validation loss, nats", y_max=1.02 * start)


def mean_curve(outcomes: Sequence[Outcome]) -> Line:
    """The mean of curves whose points are at the same steps."""
    return [(points[0][0], mean(y for _, y in points)) for points in zip(*(o.curve for o in outcomes), strict=True)]


def compare(task: str, folder: Path) -> int:
    """Print the orders of the quick run and of the full sweep. Returns 1 if they differ in a certain result of the
    sweep."""
    rates = json.loads((FULL / f"{task}-rates.json").read_text(encoding="utf-8"))
    ours, full = summarize(task, Book(folder / f"{task}.jsonl"), rates), summarize(task, Book(FULL / f"{task}.jsonl"))
    assert ours is not None and full is not None, "there are lines of both"
    for name in QUICK:
        here, there = (found.spread(name, lambda o: o.test) for found in (ours, full))
        print(f"{task:9} {name:12} {here}  (full sweep {there})")
    wrong = 0
    for better, worse in combinations(QUICK, 2):
        there = full.difference(better, worse)
        if there.clear and there.spread.mean * ours.difference(better, worse).spread.mean < 0:
            print(f"{task}: {better} and {worse} are in a different order than in the full sweep")
            wrong = 1
    print(f"{task}: " + ("the order differs" if wrong else "the same order in all certain results of the full sweep"))
    return wrong


def _accuracy(outcome: Outcome) -> float:
    return outcome.accuracy or 0.0


def _f1(outcome: Outcome) -> float:
    return outcome.f1 or 0.0
