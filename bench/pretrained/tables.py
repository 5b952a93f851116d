"""The part of docs/RESULTS.md about pretrained models, and the few lines that ``--quick`` prints."""

import math
import re
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from statistics import mean

from bench.convergence.cells import Book, Outcome
from bench.convergence.summary import Results, facts, summarize
from bench.convergence.sweep import TUNING_SEED
from bench.convergence.verdicts import sentence
from bench.harness import ROOT
from bench.pretrained.arms import ARMS, PAPER_RATE, QUICK, SCALES, WHOLE, scaled
from bench.pretrained.compared import DEFAULT, REFERENCE, RULES, joint, results, sent
from bench.pretrained.overview import answers, beside, equal_bytes, rests_on

PAGE = ROOT / "docs" / "RESULTS.md"
BEGIN, END = "<!-- bench.pretrained: begin -->", "<!-- bench.pretrained: end -->"
HEADS = (
    *("arm", "what", "rate", "seeds", "joint loss", f"less `{REFERENCE}`, by seed", "joint accuracy"),
    *("loss on own text", "in equal parts", "accuracy", "F1"),
    *("distance", "kB per step and node", "state MiB", "CPU s"),
)
QUESTIONS = (
    ("Joint tuning against tuning alone", DEFAULT, "isolated"),
    ("Moment signals at every fourth exchange, the default, against none", DEFAULT, "none"),
    ("Moment signals at every exchange against none", "none, mv", "none"),
    ("Moment signals at every exchange against every fourth", "none, mv", DEFAULT),
    ("The paper's literal h, beta2 = 0.99, against no h", "paper", "none"),
    ("The literal h, beta2 = 0.9, against no h", "paper, beta2 = 0.9", "none"),
    ("The literal h, beta2 = 0.999, against no h", "paper, beta2 = 0.999", "none"),
    ("The decay alone against no h", "decay-only", "none"),
    ("The literal h against its decay alone", "paper", "decay-only"),
    ("h*h into v only against no h", "paper, v only", "none"),
    ("An epsilon of 1e-6 against 1e-8", "none, eps = 1e-6", "none"),
    ("An epsilon of 1e-5 against 1e-8", "none, eps = 1e-5", "none"),
    ("An epsilon of 1e-4 against 1e-8", "none, eps = 1e-4", "none"),
    ("An epsilon of 1e-3 against 1e-8", "none, eps = 1e-3", "none"),
    ("The literal h against an epsilon of 1e-4", "paper", "none, eps = 1e-4"),
    ("h in gradient units (precond) against no h", "precond", "none"),
    ("h in descent sign against no h", "descent", "none"),
    ("The trivial signal against no h", "trivial", "none"),
    ("The default against all data in one place", DEFAULT, "centralized"),
    ("Blocks against the whole model", DEFAULT, "adamw"),
    ("Full parameters against Dec-LoRA", DEFAULT, "lora"),
    ("Against Dec-Adapter", DEFAULT, "adapter"),
    ("Against DeCAF", DEFAULT, "decaf"),
    ("Against NoLoCo at equal steps", DEFAULT, "noloco"),
    ("Against SparseLoCo at equal steps", DEFAULT, "sparseloco"),
    ("An exchange at every fourth step only", "none, tau = 4", "none"),
    ("One exchange per visit", "none, one mix per visit", "none"),
    ("A ring against a random graph", "none, ring", "none"),
    ("A bipartite graph against a random graph", "none, bipartite", "none"),
    ("The preset lan against the default", "lan", DEFAULT),
    ("The preset wan against the default", "wan", DEFAULT),
    ("The preset home against the default", "home", DEFAULT),
    ("The preset home against no moments at full bytes", "home", "none"),
    ("Fewer moments and exchanges than home, against home", "home, 1 bit every 4, flush 0", "home"),
    ("A visit that starts from the last one's moments", "two rounds, own moments", "two rounds"),
    ("A visit that starts from the mean of all v", "two rounds, mean v", "two rounds"),
)


def write(folder: Path) -> int:
    """Write the page's part. Returns the exit code."""
    books = {file.stem: Book(file) for file in sorted(folder.glob("*.jsonl"))}
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(BEGIN)
    body = "\n".join(
        [
            *answers(books),
            *rests_on(books),
            *beside(books),
            *(line for task, book in books.items() for line in section(task, book)),
        ]
    )
    PAGE.write_text(f"{head}{BEGIN}\n{body.rstrip()}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    print(body)
    return 0


def section(task: str, book: Book) -> Iterator[str]:
    """One task's part of the page, line by line: a table for each length of a run and each choice of step sizes."""
    for scale in SCALES:
        for rule, said in RULES.items():
            found = results(book, task, scale, rule)
            if found is None or sum(bool(seeds) for seeds in found.by_arm.values()) < 2:
                continue
            yield from (f"#### `{task}`, {scale} runs, {said}", "")
            yield (
                f"`python -m bench.pretrained --tasks {task} --scale {scale} --rules {rule}`, {found.dates[0]} to "
                f"{found.dates[1]}; text {found.digest}."
            )
            yield from ("", *table(found), "")
            lines = [*verdicts(found), *(tuning(task, scale, book, found) if rule == "own" else ())]
            yield from (*(f"- {line}" for line in lines), *([""] if lines else []))


def tuning(task: str, scale: str, book: Book, found: Results) -> Iterator[str]:
    """The least validation loss of each tuned arm at the tuning seed: one seed, but of all arms that were begun."""
    arms, least = scaled(scale), dict[str, tuple[float, float]]()
    for cell, outcome, _ in book:
        if cell.seed == TUNING_SEED and (cell.task, cell.digest) == (task, found.digest):
            known = (arm for arm in arms.values() if not arm.like and facts(arm) == (cell.method, cell.settings))
            for arm in known:
                least[arm.name] = min(least.get(arm.name, (math.inf, 0.0)), (outcome.validation, cell.learning_rate))
    said = (
        f"`{name}` {loss:.4f} at {rate:.0e}{'' if name in found.rates else ' (unfinished)'}"
        for name, (loss, rate) in sorted(least.items(), key=lambda item: item[1])
    )
    if least:
        yield f"At the tuning seed, one seed, the least validation losses are: {', '.join(said)}."


def table(found: Results) -> Iterator[str]:
    """One row per arm with outcomes."""
    yield f"| {' | '.join(HEADS)} |"
    yield "|" + "---|" * len(HEADS)
    for arm in ARMS:
        if found.has(arm.name):
            yield f"| {' | '.join(row(found, arm.name, arm.means))} |"


def row(found: Results, name: str, means: str) -> Iterator[str]:
    """The cells of one arm's row."""
    seeds = found.by_arm[name]
    outcomes = list(seeds.values())
    yield from (f"`{name}`", means, f"{found.rates[name]:.1e}", str(len(seeds)))
    yield str(found.spread(name, joint))
    yield "" if name == REFERENCE else less(found, name)
    yield f"{100 * mean(o.extra.get('joint_accuracy', o.extra['own_accuracy']) for o in outcomes):.1f} %"
    yield f"{mean(o.extra['own'] for o in outcomes):.4f}{polish(outcomes)}"
    yield f"{found.spread(name, lambda o: o.test).mean:.4f}"
    yield f"{100 * mean(o.accuracy or 0.0 for o in outcomes):.1f} %"
    yield f"{100 * mean(o.f1 or 0.0 for o in outcomes):.1f} %"
    yield f"{mean(mean(o.consensus) if o.consensus else 0.0 for o in outcomes):.1e}"
    yield f"{mean(o.extra['sent_per_step'] for o in outcomes) / 1000:.0f}"
    yield f"{mean(o.state_mib for o in outcomes):.0f}"
    yield f"{mean(o.cpu_seconds for o in outcomes):.0f}"


def less(found: Results, name: str) -> str:
    """The arm's loss less that of the reference, over the seeds of both."""
    if not set(found.by_arm[name]) & set(found.by_arm.get(REFERENCE, ())):
        return ""
    spread = found.difference(name, REFERENCE, joint).spread
    return f"{spread.mean:+.4f}" + (f" ± {spread.deviation:.4f}" if spread.count > 1 else "")


def polish(outcomes: Sequence[Outcome]) -> str:
    """What the local steps after the run did to own and joint loss."""
    return "".join(
        f"; after {steps} steps per block alone {mean(o.extra[f'polished_{steps}_own'] for o in outcomes):.4f} "
        f"(joint {mean(o.extra[f'polished_{steps}_joint'] for o in outcomes):.4f})"
        for steps in polishes(outcomes)
    )


def polishes(outcomes: Sequence[Outcome]) -> list[int]:
    """How many steps alone were measured after every one of these runs."""
    names = (set(o.extra) for o in outcomes)
    return sorted(
        int(name.split("_")[1]) for name in set.intersection(*names) if re.fullmatch(r"polished_\d+_own", name)
    )


def verdicts(found: Results) -> Iterator[str]:
    """One sentence for each question whose two arms have cells of at least two common seeds."""
    for topic, ours, theirs in QUESTIONS:
        if found.has(ours, theirs) and len(set(found.by_arm[ours]) & set(found.by_arm[theirs])) > 1:
            yield f"{topic}: {sentence(found, ours, theirs, joint)}{times_the_bytes(found, ours, theirs)}"
    if found.has(DEFAULT, "isolated"):
        own = found.difference(DEFAULT, "isolated", lambda o: o.extra["own"])
        if own.spread.count > 1:
            yield (
                f"On a node's own text the default less tuning alone is {own.spread.mean:+.4f} ± "
                f"{own.spread.deviation:.4f}{'' if own.clear else ', not beyond the spread'}."
            )

    yield from equal_bytes(found)
    for name in found.by_arm:
        if found.has(name):
            yield from personal(found, name)


def times_the_bytes(found: Results, ours: str, theirs: str) -> str:
    """What ours sends beside a method of another kind; empty for arms of one kind."""
    if {arm.name: arm.method for arm in ARMS}[theirs] not in WHOLE:
        return ""
    more = sent(found, ours) / sent(found, theirs) if sent(found, theirs) else 0.0
    return f" `{ours}` sends {more:.2g} times the bytes of `{theirs}`." if more else ""


def personal(found: Results, name: str) -> Iterator[str]:
    """What steps alone after the run give a node on its own text, and cost the others."""
    outcomes = list(found.by_arm[name].values())
    for steps in polishes(outcomes):
        own, everybody, hits = (
            mean(o.extra[f"polished_{steps}_{part}"] for o in outcomes) for part in ("own", "joint", "own_accuracy")
        )
        yield (
            f"`{name}`, {steps} steps per block alone ({len(outcomes)} seeds): own loss "
            f"{mean(o.extra['own'] for o in outcomes):.4f} before and {own:.4f} after (own accuracy "
            f"{100 * mean(o.extra['own_accuracy'] for o in outcomes):.1f} and {100 * hits:.1f} %), joint loss "
            f"{mean(map(joint, outcomes)):.4f} before and {everybody:.4f} after."
        )


def compare(tasks: Sequence[str], folder: Path, full: Path) -> int:
    """Print the orders of the quick run and of the committed lines. Returns 1 if they differ in a certain result."""
    wrong = 0
    rates = dict.fromkeys(scaled("short"), PAPER_RATE)
    for task in tasks:
        ours, theirs = (
            summarize(task, Book(place / f"{task}.jsonl"), rates=rates, arms=scaled("short"))
            for place in (folder, full)
        )
        if ours is None or theirs is None:
            print(f"{task}: there is nothing to compare yet")
            continue
        known = [name for name in QUICK if ours.has(name) and theirs.has(name)]
        for name in known:
            print(f"{task} {name:20} {ours.spread(name, joint)}  (committed {theirs.spread(name, joint)})")
        for better, worse in combinations(known, 2):
            there = theirs.difference(better, worse, joint)
            if there.clear and there.spread.mean * ours.difference(better, worse, joint).spread.mean < 0:
                print(f"{task}: {better} and {worse} are in a different order than in the committed lines")
                wrong = 1
        print(f"{task}: " + ("the order differs" if wrong else "the same order in all certain results"))
    return wrong
