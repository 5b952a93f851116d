"""The part of docs/RESULTS.md about pretrained models, and the few lines that ``--quick`` prints."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import mean

from bench.convergence.cells import Book, Outcome
from bench.convergence.summary import Difference, Results, summarize
from bench.convergence.tables import FULL as SMALL
from bench.convergence.verdicts import sentence
from bench.harness import ROOT
from bench.pretrained.arms import ARMS, PAPER_RATE, QUICK, SCALES, WHOLE, scaled

PAGE = ROOT / "docs" / "RESULTS.md"
BEGIN, END = "<!-- bench.pretrained: begin -->", "<!-- bench.pretrained: end -->"
REFERENCE = "none"
DEFAULT = "none, mv, every 4"
RULES = {
    "paper": f"at the paper's step size, {PAPER_RATE:.0e}",
    "common": "all at the step size that is best for `none`",
    "own": "each at its own best step size",
}
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
PRESETS = (DEFAULT, "lan", "wan", "home", "home, 1 bit every 4, flush 0")
"""DECA by what it sends, the most bytes first."""

RIVALS = ("lora", "lora, every 12", "noloco", "noloco, every 60", "sparseloco")
"""The methods with which a preset is compared at no more bytes."""

ANSWERS = (
    ("Joint tuning less tuning alone", DEFAULT, "isolated"),
    ("Full parameters less Dec-LoRA", DEFAULT, "lora"),
    ("The literal h less none", "paper", "none"),
    ("The literal h less an epsilon of 1e-4", "paper", "none, eps = 1e-4"),
    ("Moments at every fourth exchange less none", DEFAULT, "none"),
    ("The default less NoLoCo, equal steps", DEFAULT, "noloco"),
    ("The default less SparseLoCo, equal steps", DEFAULT, "sparseloco"),
)
"""The questions that a table over all tasks answers."""

DEFAULTS: Sequence[tuple[str, str, Sequence[tuple[str, str]]]] = (
    (
        "`discrepancy`",
        "`none`",
        tuple((h, "none") for h in ("paper", "decay-only", "precond", "descent", "trivial", "paper, v only")),
    ),
    ("`signal`, `signal_every`", "`mv`, 4", ((DEFAULT, "none"), ("none, mv", DEFAULT))),
    ("`epsilon`", "1e-8", tuple((f"none, eps = 1e-{k}", "none") for k in (6, 5, 4, 3))),
    ("`beta2`, with h", "0.99", (("paper, beta2 = 0.9", "paper"), ("paper, beta2 = 0.999", "paper"))),
    ("`codec`", "`int8`", (("lan", DEFAULT),)),
    ("`moments_every`, `moment_bits`", "0, 8", (("wan", DEFAULT), ("home", DEFAULT))),
    ("`mix_every`", "1", (("none, tau = 4", "none"), ("none, one mix per visit", "none"))),
    ("`block_layers`", "1", (("none, blocks of 1", "none"),)),
    ("`topology`", "`erdos-renyi`", (("none, ring", "none"), ("none, bipartite", "none"))),
    (
        "moments at a visit's start",
        "from zero",
        (("two rounds, own moments", "two rounds"), ("two rounds, mean v", "two rounds")),
    ),
    ("full parameters, by blocks", "", ((DEFAULT, "lora"), (DEFAULT, "adamw"), (DEFAULT, "noloco"))),
)
"""Each setting, its default, and the comparisons that speak for it or against it."""

BESIDE = (
    ("`mv` at every fourth exchange less `none`", DEFAULT, "none"),
    ("`mv` at every exchange less `none`", "none, mv", "none"),
    ("`paper`, beta2 = 0.99, less `none`", "paper", "none"),
    ("`decay-only` less `none`", "decay-only", "none"),
    ("`precond` less `none`", "precond", "none"),
    ("`descent` less `none`", "descent", "none"),
    ("the default less `isolated`", DEFAULT, "isolated"),
    ("the default less `lora`", DEFAULT, "lora"),
)
"""Comparisons that small and pretrained models have in common."""


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


def results(book: Book, task: str, scale: str, rule: str) -> Results | None:
    """The arms of one task at one length and one choice of step sizes; None if there are none."""
    arms = scaled(scale)
    tuned = summarize(task, book, arms=arms)
    if tuned is None:
        return None
    if rule == "own":
        return tuned
    rate = PAPER_RATE if rule == "paper" else tuned.rates.get(REFERENCE)
    if rate is None:
        return None
    named = {name: rate for name, arm in arms.items() if arm.method not in WHOLE}
    found = summarize(task, book, rates=named, arms=arms)
    assert found is not None
    # summarize would tune those that are not named.
    by_arm = {name: seeds for name, seeds in found.by_arm.items() if name in named}
    return Results(found.task, found.digest, named, by_arm, found.dates, found.cells)


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
            lines = list(verdicts(found))
            yield from (*(f"- {line}" for line in lines), *([""] if lines else []))


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


def every(books: Mapping[str, Book]) -> dict[str, Results]:
    """The results of each task, length and choice of step sizes, by its name in tables."""
    return {
        f"`{task}`, {scale}, {rule}": found
        for task, book in books.items()
        for scale in SCALES
        for rule in RULES
        if (found := results(book, task, scale, rule))
    }


def rests_on(books: Mapping[str, Book]) -> Iterator[str]:
    """What was measured for and against each default."""
    rows = every(books)
    yield from ("#### What the defaults rest on", "")
    yield (
        "The comparisons on pretrained models for each default: shares of the joint loss with the number of paired "
        "seeds, negative where the first is better, bold beyond the spread of at least three seeds. The same runs "
        "stand once. Empty: nothing measured."
    )
    yield from ("", "| setting | default | measured |", "|---|---|---|")
    for setting, default, pairs in DEFAULTS:
        said = (
            f"`{ours}` less `{theirs}`: {'; '.join(found)}"
            for ours, theirs in pairs
            if (found := once(rows, ours, theirs))
        )
        yield f"| {setting} | {default} | {'<br>'.join(said)} |"
    yield ""


def once(rows: Mapping[str, Results], ours: str, theirs: str) -> list[str]:
    """The shares of a comparison in all rows, those of the same runs once."""
    found: dict[tuple[object, ...], str] = {}
    for name, one in rows.items():
        if said := share(one, ours, theirs):
            task, scale, rule = name.split(", ")
            found.setdefault((task, scale, one.rates[ours], one.rates[theirs]), f"{task} {scale}, {rule} {said}")
    return list(found.values())


def answers(books: Mapping[str, Book]) -> Iterator[str]:
    """All tasks, lengths and choices of step sizes in one table, with a sentence on each question."""
    rows = every(books)
    cells = {name: [share(found, ours, theirs) for _, ours, theirs in ANSWERS] for name, found in rows.items()}
    cells = {name: row for name, row in cells.items() if any(row)}
    if not cells:
        return
    yield from ("#### All tasks in one table", "")
    yield (
        "Differences of the joint loss as shares of it, with the number of paired seeds. Negative: the first is "
        "better. Bold: beyond the spread of at least three seeds. Rows of one task at the same step sizes are the same "
        "runs, and count once below."
    )
    yield from ("", f"| task, length, step sizes | {' | '.join(said for said, _, _ in ANSWERS)} |")
    yield "|---" * (1 + len(ANSWERS)) + "|"
    yield from (f"| {name} | {' | '.join(row)} |" for name, row in cells.items())
    yield ""
    yield from (f"- {line}" for line in counted({name: rows[name] for name in cells}))
    yield ""


def counted(rows: Mapping[str, Results]) -> Iterator[str]:
    """One sentence for each column of the table: in how many rows of three seeds or more the first is better, worse, or
    neither."""
    for said, ours, theirs in ANSWERS:
        known = {
            (name.rpartition(",")[0], one.rates[ours], one.rates[theirs]): one.difference(ours, theirs, joint)
            for name, one in rows.items()
            if common(one, ours, theirs) > 2
        }.values()
        clear = [difference for difference in known if difference.clear]
        better = sum(difference.share < 0 for difference in clear)
        counts = f"better in {better}, worse in {len(clear) - better}, neither beyond the spread in"
        if known:
            yield (
                f"{said} (`{ours}`, `{theirs}`): of {len(known)} rows with three seeds or more, {counts} "
                f"{len(known) - len(clear)}."
            )


def common(found: Results, *names: str) -> int:
    """How many seeds these arms have in common."""
    seeds = [set(found.by_arm.get(name, ())) for name in names]
    return len(set.intersection(*seeds))


def sent(found: Results, name: str) -> float:
    """Bytes that one node sends per step."""
    return mean(o.extra["sent_per_step"] for o in found.by_arm[name].values())


def equal_bytes(found: Results) -> Iterator[str]:
    """For each rival: the preset that sends the most of those that send no more than it, or the one that sends the
    least."""
    for rival in RIVALS:
        known = [name for name in PRESETS if found.has(name, rival) and common(found, name, rival) > 1]
        if not known:
            continue
        known.sort(key=lambda name: -sent(found, name))
        fitting = [name for name in known if sent(found, name) <= sent(found, rival)]
        ours = fitting[0] if fitting else known[-1]
        times = f"`{ours}`, with {sent(found, ours) / sent(found, rival):.2g} times the bytes of `{rival}`"
        lead = f"At no more bytes ({times})" if fitting else f"No arm here sends as little; the nearest is {times}"
        yield f"{lead}: {sentence(found, ours, rival, joint)}"


def beside(books: Mapping[str, Book]) -> Iterator[str]:
    """The same comparisons on small and on pretrained models, as shares of the loss."""
    columns: dict[str, Results] = {}
    for task in ("language", "sources", "heads"):
        if small := summarize(task, Book(SMALL / f"{task}.jsonl")):
            columns[f"small, `{task}`"] = small
    for task, book in books.items():
        for scale in SCALES:
            for rule in RULES:
                found = results(book, task, scale, rule)
                if found and sum(bool(seeds) for seeds in found.by_arm.values()) > 1:
                    model = "SmolLM2" if task.startswith("smollm2") else "MiniLM"
                    columns[f"{model}, `{task}`, {scale}, {rule}"] = found
    if len(columns) <= 3:
        return
    yield from ("#### Small and pretrained models beside each other", "")
    yield (
        "Differences of the joint loss (small models: the test loss) as shares of it, with the number of seeds. "
        "Negative: the first is better. Bold: beyond the spread of at least three seeds."
    )
    yield from ("", f"| comparison | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|")
    for said, ours, theirs in BESIDE:
        cells = [share(found, ours, theirs) for found in columns.values()]
        if any(cells[3:]):
            yield f"| {said} | {' | '.join(cells)} |"
    yield ""


def share(found: Results, ours: str, theirs: str) -> str:
    """The difference as a share of the loss; empty if there is none."""
    if not found.has(ours, theirs) or not set(found.by_arm[ours]) & set(found.by_arm[theirs]):
        return ""
    difference: Difference = found.difference(ours, theirs, joint)
    said = f"{100 * difference.share:+.2f} % ({len(difference.by_seed)})"
    return f"**{said}**" if difference.clear else said


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


def joint(outcome: Outcome) -> float:
    """The loss on the text of all nodes: what joint tuning lowers. Of copies that agree it is that on their own text;
    of the small models it is the test loss, in which all domains have equal parts."""
    return outcome.extra.get("joint", outcome.extra.get("own", outcome.test))
