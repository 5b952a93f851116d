"""The tables over all tasks: the questions, what each default rests on, rivals at no more bytes, small models beside
pretrained ones."""

from collections.abc import Iterator, Mapping, Sequence

from bench.convergence.cells import Book
from bench.convergence.summary import Results, summarize
from bench.convergence.tables import FULL as SMALL
from bench.convergence.verdicts import sentence
from bench.pretrained.arms import SCALES
from bench.pretrained.compared import DEFAULT, RULES, common, every, joint, results, sent, share

PRESETS = (DEFAULT, "lan", "wan", "home", "home, 1 bit every 4, flush 0")
"""DECA by what it sends, the most bytes first."""

RIVALS = ("lora", "lora, every 12", "noloco", "noloco, every 60", "sparseloco")
"""The methods with which a preset is compared at equal bytes or fewer."""

EQUAL = 1.05
"""Up to so many times the bytes count as equal."""

ANSWERS = (
    ("Joint tuning less tuning alone", DEFAULT, "isolated"),
    ("Full parameters less Dec-LoRA", DEFAULT, "lora"),
    ("The literal h less none", "paper", "none"),
    ("The literal h less an epsilon of 1e-4", "paper", "none, eps = 1e-4"),
    ("Moments at every fourth exchange less none", DEFAULT, "none"),
    ("The default less NoLoCo, equal steps", DEFAULT, "noloco"),
    ("The default less SparseLoCo, equal steps", DEFAULT, "sparseloco"),
    ("`wan` less Dec-LoRA, about equal bytes", "wan", "lora"),
    ("`wan` less NoLoCo, about half its bytes", "wan", "noloco"),
    ("`home` less SparseLoCo, more bytes", "home", "sparseloco"),
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
            yield (f"{said} (`{ours}`, `{theirs}`), rows with three seeds or more: {counts} {len(known) - len(clear)}.")


def equal_bytes(found: Results) -> Iterator[str]:
    """For each rival: the preset that sends the most of those that send as much as it or less, or the one that sends
    the least."""
    for rival in RIVALS:
        known = [name for name in PRESETS if found.has(name, rival) and common(found, name, rival) > 1]
        if not known:
            continue
        known.sort(key=lambda name: -sent(found, name))
        fitting = [name for name in known if sent(found, name) <= EQUAL * sent(found, rival)]
        ours = fitting[0] if fitting else known[-1]
        times = f"`{ours}`, with {sent(found, ours) / sent(found, rival):.2g} times the bytes of `{rival}`"
        lead = (
            f"At equal bytes or fewer ({times})" if fitting else f"No arm here sends as little; the nearest is {times}"
        )
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
