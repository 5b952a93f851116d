"""The results of each task, length of a run and choice of step sizes, and the figures by which arms are compared."""

from collections.abc import Mapping
from statistics import mean

from bench.convergence.cells import Book, Outcome
from bench.convergence.summary import Difference, Results, summarize
from bench.pretrained.arms import PAPER_RATE, SCALES, WHOLE, scaled

REFERENCE = "none"
DEFAULT = "none, mv, every 4"
RULES = {
    "paper": f"at the paper's step size, {PAPER_RATE:.0e}",
    "common": "all at the step size that is best for `none`",
    "own": "each at its own best step size",
}


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


def every(books: Mapping[str, Book]) -> dict[str, Results]:
    """The results of each task, length and choice of step sizes, by its name in tables."""
    return {
        f"`{task}`, {scale}, {rule}": found
        for task, book in books.items()
        for scale in SCALES
        for rule in RULES
        if (found := results(book, task, scale, rule))
    }


def common(found: Results, *names: str) -> int:
    """How many seeds these arms have in common."""
    seeds = [set(found.by_arm.get(name, ())) for name in names]
    return len(set.intersection(*seeds))


def sent(found: Results, name: str) -> float:
    """Bytes that one node sends per step."""
    return mean(o.extra["sent_per_step"] for o in found.by_arm[name].values())


def share(found: Results, ours: str, theirs: str) -> str:
    """The difference as a share of the loss; empty if there is none."""
    if not found.has(ours, theirs) or not set(found.by_arm[ours]) & set(found.by_arm[theirs]):
        return ""
    difference: Difference = found.difference(ours, theirs, joint)
    said = f"{100 * difference.share:+.2f} % ({len(difference.by_seed)})"
    return f"**{said}**" if difference.clear else said


def joint(outcome: Outcome) -> float:
    """The loss on the text of all nodes: what joint tuning lowers. Of copies that agree it is that on their own text;
    of the small models it is the test loss, in which all domains have equal parts."""
    return outcome.extra.get("joint", outcome.extra.get("own", outcome.test))
