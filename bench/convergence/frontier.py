"""``python -m bench.convergence.frontier``: bytes against loss. Runs the missing cells, then writes tables and figures.

Every arm takes the step size that the large sweep found for the arm that it is like, on the machine of that sweep: the
question is what an exchange costs and gives, not how it is tuned. The text is that of this machine, so the arms compare
with each other and not with the tables of the large sweep. It can be stopped at any time, and goes on where it was.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from html import escape
from itertools import product
from statistics import mean, stdev
from typing import Any

from bench.convergence.__main__ import FOLDER as SWEPT
from bench.convergence.__main__ import TASKS, say
from bench.convergence.arms import BY_NAME, Arm
from bench.convergence.cells import Book, Outcome
from bench.convergence.sweep import TUNING_SEED
from bench.harness import RESULTS, ROOT

FOLDER = RESULTS / "frontier"
PAGE = ROOT / "docs" / "RESULTS.md"
IMAGES = ROOT / "docs" / "images"
BEGIN, END = "<!-- bench.convergence.frontier: begin -->", "<!-- bench.convergence.frontier: end -->"
DEFAULT = "none, mv, every 4"


def _first(name: str, settings: Mapping[str, Any], means: str) -> Arm:
    first = {"signal": "mv", "moments_every": 1, "moment_bits": 1, "codec": "int4"}
    return Arm(name, "deca", first | settings, like="none, mv", seeds=5, means=means)


TURNS = {"topology": "pairs", "partners": "step"}
MEET = {"outer_momentum": 0.5, "outer_rate": 0.7, "outer_pull": 0.7}

ARMS = (
    BY_NAME[DEFAULT],
    _first(
        "turns, 1 bit, x at the close",
        {"mix_every": 20, **TURNS},
        "m in 1 bit to one neighbour after another at every step, parameters to one of them at the close of a visit",
    ),
    _first(
        "turns, 1 bit, x at the close, flush 0",
        {"mix_every": 20, "flush_mixes": 0, **TURNS},
        "the same with one exchange of parameters per visit, not three",
    ),
    Arm(
        "NoLoCo, every 160",
        "noloco",
        {"every": 160, **MEET},
        like="NoLoCo, every 80",
        seeds=5,
        means="whole-model Adam, pairs meet once, at the end of the run (float32)",
    ),
    Arm(
        "lora, every 10",
        "lora",
        {"rank": 12, "mix_every": 10},
        like="lora",
        seeds=5,
        means="Dec-LoRA, rank 12, int8, an exchange at every tenth step",
    ),
    Arm(
        "NoLoCo, every 80",
        "noloco",
        {"every": 80, **MEET},
        seeds=5,
        rate=2e-3,
        means="whole-model Adam, pairs meet twice in the run (float32)",
    ),
    BY_NAME["lora"],
    Arm(
        "the default by tokens",
        "deca",
        {"signal": "mv", "signal_every": 4, "weights": "tokens"},
        like="none, mv",
        seeds=5,
        means="the default with weights = tokens: nodes with 76 to 1,078 of 600 sequences count by them",
    ),
    _first(
        "turns, 1 bit every 4, R = 40, flush 0",
        {"rounds": 1, "inner_steps": 40, "mix_every": 40, "flush_mixes": 0, **TURNS, "moments_every": 4},
        "one visit of 40 steps instead of two of 20, m in 1 bit at every fourth step, parameters once per visit",
    ),
    _first(
        "turns, 1 bit, x every 10", {"mix_every": 10, **TURNS}, "the same with parameters to one of them at every tenth"
    ),
    _first(
        "turns, 1 bit every 3, flush 0",
        {"mix_every": 20, "flush_mixes": 0, **TURNS, "moments_every": 3},
        "m in 1 bit at every third step only, parameters once per visit",
    ),
    _first("1 bit, x every step", {}, "m in 1 bit and parameters at every step"),
    _first("1 bit, x every 10", {"mix_every": 10}, "m in 1 bit at every step, parameters in int4 at every tenth"),
    BY_NAME["none, mv, every 4, int4"],
    Arm(
        "NoLoCo, every 20",
        "noloco",
        {"every": 20, **MEET},
        like="NoLoCo, every 80",
        seeds=5,
        means="whole-model Adam, pairs meet at every 20th step (float32)",
    ),
    _first(
        "one-peer, 1 bit, x at the close",
        {"mix_every": 20, "topology": "one-peer-exponential", "partners": "step"},
        "as with turns of pairs, with those of the hypercube",
    ),
    _first("1 bit, x at the close", {"mix_every": 20}, "m in 1 bit at every step, parameters at the close of a visit"),
    _first("pairs, 1 bit, x every 10", {"mix_every": 10, "topology": "pairs"}, "the same with one neighbour per visit"),
    _first("1 bit, x every 4", {"mix_every": 4}, "m in 1 bit at every step, parameters at every fourth"),
    Arm(
        "no moments, x every 10",
        "deca",
        {"signal": "none", "mix_every": 10, "codec": "int4"},
        like="none, mv",
        seeds=5,
        means="parameters alone, at every tenth step",
    ),
    _first("2 bits, x at the close", {"mix_every": 20, "moment_bits": 2}, "m in 2 bits, parameters at the close"),
    _first(
        "1 bit, v once, x every 10", {"mix_every": 10, "v_every": 0}, "m in 1 bit, v at a visit's first signal only"
    ),
    _first("pairs, 1 bit, x at the close", {"mix_every": 20, "topology": "pairs"}, "one neighbour, x at the close"),
    _first("degree 2, 1 bit, x every 10", {"mix_every": 10, "topology": "random-regular", "degree": 2}, "a cycle"),
)
"""The arms, those first whose answer matters most."""

VERDICTS = (
    ("One exchange of parameters per visit against the default", "turns, 1 bit, x at the close, flush 0", DEFAULT),
    ("The preset `home` against the default", "turns, 1 bit, x at the close", DEFAULT),
    ("Visits of 40 steps, m at every fourth, against the default", "turns, 1 bit every 4, R = 40, flush 0", DEFAULT),
    (
        "One exchange per visit against NoLoCo that meets once",
        "turns, 1 bit, x at the close, flush 0",
        "NoLoCo, every 160",
    ),
    ("`home` against Dec-LoRA at every tenth step", "turns, 1 bit, x at the close", "lora, every 10"),
    (
        "One exchange per visit against Dec-LoRA at every tenth step",
        "turns, 1 bit, x at the close, flush 0",
        "lora, every 10",
    ),
    ("The default with `weights = tokens` against the default", "the default by tokens", DEFAULT),
)
"""What is compared under each table: a topic, our arm and the other."""

EARLY = 9
"""So many arms are run before the others."""


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.convergence.frontier", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="seeds of each arm (default 5)")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no cell after so many minutes")
    parser.add_argument("--report", action="store_true", help="run nothing; write tables of the existing lines")
    parser.add_argument("--no-report", action="store_true", help="write lines only")
    arguments = parser.parse_args()
    if not arguments.report:
        run(arguments.seeds, time.monotonic() + 60 * arguments.minutes)
    if not arguments.no_report:
        write()
    return 0


def run(seeds: int, deadline: float) -> None:
    """Run the missing cells: all seeds of the early arms, then two seeds of the others before the third of any."""
    from bench.convergence.sweep import OutOfTimeError

    sweep_of = cache(partial(_sweep, deadline=deadline))
    try:
        for arms, most in product((ARMS[:EARLY], ARMS[EARLY:]), (min(2, seeds), seeds)):
            for arm, task in product(arms, TASKS):
                for seed in range(min(most, arm.seeds)):
                    sweep_of(task).outcome(arm, seed, _rate(task, arm, sweep_of(task)))
    except OutOfTimeError:
        say("the time is up; the same command continues from here")


def _sweep(task: str, deadline: float) -> Any:
    from bench.convergence.corpora import SOURCES
    from bench.convergence.start import start_model, threads
    from bench.convergence.sweep import Sweep
    from bench.convergence.tasks import Sizes, load

    threads(1)
    start = start_model(labels=[domain.name for domain in SOURCES] if task == "heads" else ())
    loaded = load(task, start.tokenizer, Sizes())
    return Sweep(loaded, start.model, start.sha256, Book(FOLDER / f"{task}.jsonl"), say, deadline)


def _rate(task: str, arm: Arm, sweep: Any) -> float:
    """The step size of the large sweep; an arm that it does not have is tuned here, in the same way."""
    known: dict[str, float] = json.loads((SWEPT / f"{task}-rates.json").read_text(encoding="utf-8"))
    name = arm.like or arm.name
    return known[name] if name in known else sweep.rate(next(one for one in ARMS if one.name == name))


# --- the report -------------------------------------------------------------------------------------


def outcomes(task: str) -> dict[str, dict[int, Outcome]]:
    """The outcomes by arm and seed."""
    found: dict[str, dict[int, Outcome]] = {}
    keys = {(arm.method, tuple(sorted(arm.settings.items()))): arm.name for arm in ARMS}
    for cell, outcome, _ in Book(FOLDER / f"{task}.jsonl"):
        name = keys.get((cell.method, cell.settings))
        if name is not None and cell.seed != TUNING_SEED:
            found.setdefault(name, {})[cell.seed] = outcome
    return {arm.name: found[arm.name] for arm in ARMS if arm.name in found}


def kilobytes(outcome: Outcome) -> float:
    """What one node sends per step with a gradient, to all of its neighbours."""
    return outcome.bytes_per_step * outcome.extra["degree"] / 1e3


def write() -> None:
    """Write the page's part and the pictures."""
    lines = [line for task in TASKS for line in section(task, outcomes(task))]
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{rest.split(END)[1]}", encoding="utf-8")
    write_measured()
    say("\n".join(lines))


MEASURED = ROOT / "deca_node" / "protocol" / "planning" / "measured.py"


def write_measured() -> None:
    """Renew the table of losses from which ``deca-node plan`` reads."""
    found: dict[str, dict[str, tuple[float, int]]] = {}
    for task in TASKS:
        by_arm = outcomes(task)
        before = by_arm.get(DEFAULT, {})
        for name, seeds in by_arm.items():
            both = [(seeds[seed].test, before[seed].test) for seed in seeds if seed in before]
            if both and name != DEFAULT:
                change = mean(one - other for one, other in both) / mean(other for _, other in both)
                found.setdefault(name, {})[task] = (round(100 * change, 2), len(both))
    head = MEASURED.read_text(encoding="utf-8").partition("LOSS_PERCENT")[0]
    rows = "".join(
        f"    {json.dumps(name)}: {{" + ", ".join(f"{json.dumps(t)}: {row}" for t, row in tasks.items()) + "},\n"
        for name, tasks in found.items()
    )
    table = f"LOSS_PERCENT: Mapping[str, Mapping[str, tuple[float, int]]] = {{\n{rows}}}\n"
    MEASURED.write_text(head + table, encoding="utf-8")


def section(task: str, found: Mapping[str, Mapping[int, Outcome]]) -> Iterator[str]:
    """One task's table and picture."""
    if DEFAULT not in found:
        return
    before = found[DEFAULT]
    means = {arm.name: arm.means for arm in ARMS}
    yield from (f"### Bytes against loss: task `{task}`", "")
    columns = ("arm", "what it does", "seeds", "kB per node and step", "of the default's", "test loss")
    yield f"| {' | '.join(columns)} | against the default, seed by seed |"
    yield "|---|---|---|---|---|---|---|"
    for name, seeds in found.items():
        sent = mean(map(kilobytes, seeds.values()))
        share = sent / mean(kilobytes(before[seed]) for seed in seeds if seed in before)
        loss = mean(outcome.test for outcome in seeds.values())
        usual = mean(before[seed].test for seed in seeds if seed in before)
        apart = [outcome.test - before[seed].test for seed, outcome in seeds.items() if seed in before]
        spread = f" ± {stdev(apart):.3f}" if len(apart) > 1 else ""
        against = "" if name == DEFAULT else f"{mean(apart):+.3f}{spread} ({100 * mean(apart) / usual:+.1f} %)"
        shared = "1" if name == DEFAULT else f"1/{1 / share:.1f}"
        yield f"| {name} | {means[name]} | {len(seeds)} | {sent:.1f} | {shared} | {loss:.3f} | {against} |"
    picture = IMAGES / f"frontier-{task}.svg"
    points = {n: (mean(map(kilobytes, s.values())), mean(o.test for o in s.values())) for n, s in found.items()}
    picture.write_text(scatter(points), encoding="utf-8")
    yield from ("", f"![test loss over kB per node and step](images/{picture.name})", "")
    said = [sentence(topic, found, ours, theirs) for topic, ours, theirs in VERDICTS if {ours, theirs} <= found.keys()]
    yield from (*said, "") if said else ()


def sentence(topic: str, found: Mapping[str, Mapping[int, Outcome]], ours: str, theirs: str) -> str:
    """One comparison, seed by seed. A difference counts if it is larger than its standard deviation."""
    seeds = sorted(found[ours].keys() & found[theirs].keys())
    apart = [found[ours][seed].test - found[theirs][seed].test for seed in seeds]
    bytes_of = [mean(kilobytes(found[name][seed]) for seed in seeds) for name in (ours, theirs)]
    usual, by = mean(found[theirs][seed].test for seed in seeds), mean(apart)
    spread = stdev(apart) if len(apart) > 1 else math.inf
    said = "no different beyond the spread" if abs(by) <= spread else "**better**" if by < 0 else "**worse**"
    times = f"{bytes_of[0] / bytes_of[1]:.3g} times the bytes"
    return f"- {topic}: {said}, {by:+.3f} ± {spread:.3f} ({100 * by / usual:+.2f} %), {times}, {len(seeds)} seeds."


WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 380, 60, 200, 20, 44


def scatter(points: Mapping[str, tuple[float, float]]) -> str:
    """Test loss over kB per node and step, as SVG; bytes on a logarithmic axis."""
    xs, ys = ([p[axis] for p in points.values() if math.isfinite(p[1])] for axis in (0, 1))
    left, right = math.log(min(xs) / 1.15), math.log(max(xs) * 1.15)
    low, high = min(ys) - 0.01, max(ys) + 0.01

    def place(x: float, y: float) -> tuple[float, float]:
        along, up = (math.log(x) - left) / (right - left), (y - low) / (high - low)
        return LEFT + along * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = list(_grid(low, high, (left, right), place))
    taken: list[float] = []
    for name, (x, y) in sorted(points.items(), key=lambda item: -item[1][1]):
        if not math.isfinite(y):
            continue
        px, py = place(x, y)
        colour = "#d55e00" if name == DEFAULT else "#0072b2" if "bit" in name else "#7a808a"
        at = max([py, *(other + 14 for other in taken if abs(other - py) < 200 and other + 14 > py)])
        taken.append(at)
        parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="4" fill="{colour}"/>')
        parts.append(f'<line x1="{px + 5:.1f}" y1="{py:.1f}" x2="{WIDTH - RIGHT + 6}" y2="{at:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 10}" y="{at + 4:.1f}" fill="{colour}">{escape(name)}</text>')
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12" fill="#333">\n<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n{body}\n</svg>\n'
    )


def _grid(low: float, high: float, span: Sequence[float], place: Any) -> Iterator[str]:
    for k in range(5):
        y = low + (high - low) * k / 4
        x = math.exp(span[0] + (span[1] - span[0]) * k / 4)
        px, py = place(x, low)[0], place(x, y)[1]
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py:.1f}" y2="{py:.1f}" stroke="#ccc" stroke-width="0.6"/>'
        yield f'<text x="{LEFT - 6}" y="{py + 4:.1f}" text-anchor="end">{y:.2f}</text>'
        yield f'<text x="{px:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{x:.3g}</text>'
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">kB per node and step (logarithmic)</text>'
    turned = f'transform="translate(14 {HEIGHT / 2}) rotate(-90)"'
    yield f'<text {turned} text-anchor="middle">test loss, nats per token</text>'


if __name__ == "__main__":
    sys.exit(main())
