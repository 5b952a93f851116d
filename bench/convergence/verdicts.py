"""Each comparison in one sentence, computed from the numbers in the table only."""

from collections.abc import Callable, Iterator

from bench.convergence.cells import Outcome
from bench.convergence.summary import Results

DEFAULT = "none, mv, every 4"
"""The arm with the node's default settings."""

CODEC_SHARE_MAX = 0.005
"""The largest loss that a coarse exchange may cost."""

COMPARISONS = (
    ("Joint tuning against tuning alone", DEFAULT, "isolated"),
    ("Full parameters against Dec-LoRA at the same steps", DEFAULT, "lora"),
    ("The same with fewer bytes than Dec-LoRA (int4)", "none, mv, every 4, int4", "lora"),
    ("Against Dec-LoRA of rank 24, which sends more bytes", DEFAULT, "lora, rank 24"),
    ("Block-wise Adam without signals against Dec-LoRA", "none", "lora"),
    ("Against Dec-LoRA as published, in fp32", DEFAULT, "lora, fp32"),
    ("Against Dec-Adapter", DEFAULT, "adapter"),
    ("Against DeCAF", DEFAULT, "decaf"),
    ("Both moments at every exchange, for twice the bytes, against the default", "none, mv", DEFAULT),
    ("Both moments at every exchange against Dec-LoRA", "none, mv", "lora"),
    ("The default against all data in one place", DEFAULT, "centralized"),
    ("The default against hearing all nodes at every step", DEFAULT, "everyone"),
    ("Moment signals, as in the default, against no signals", DEFAULT, "none"),
    ("h (precond) against no h", "precond", "none"),
    ("h (paper, the literal reading) against no h", "paper", "none"),
    ("h (descent) against no h", "descent", "none"),
    ("h (rms) against no h", "rms", "none"),
    ("h (trivial) against no h", "trivial", "none"),
    ("The decay alone, without h", "decay-only", "none"),
    ("descent against decay-only, with the same decay", "descent", "decay-only"),
    ("A weaker precond, beta1 = 0.9, against no h", "beta1 = 0.9", "none"),
    ("Exchanging v against no signals", "none, v", "none"),
    ("Both moments at every fourth step, for half of the bytes", "none, mv, tau = 4", "none"),
    ("Both moments with batches four times as large", "none, mv, b = 16", "none, b = 16"),
    ("precond beside both moments", "precond, mv", "none, mv"),
    ("v beside precond", "precond, v", "precond"),
    ("precond against no h, with an exchange at every fourth step", "precond, tau = 4", "none, tau = 4"),
    ("precond against no h, on a ring", "precond, ring", "none, ring"),
    ("An exchange at every fourth step only", "none, tau = 4", "none"),
    ("Half of the flow (gamma_c = 0.5)", "none, half flow", "none"),
    ("No mixes at the end of a visit", "none, flush 0", "none"),
    ("Blocks from the head down", "none, backward", "none"),
    ("Blocks in random order", "none, shuffled", "none"),
    ("All layers as one block", "none, blocks of 3", "none"),
)

CODECS = (
    ("none, v", "none, v, fp32", "int8 with signals"),
    ("none, v, int4", "none, v, fp32", "int4 with signals"),
    ("none, mv", "none, mv, fp32", "int8 with both moments"),
    ("none, mv, int4", "none, mv, fp32", "int4 with both moments"),
    ("none", "none, fp32", "int8"),
    ("none, int4", "none, fp32", "int4"),
)


def verdicts(results: Results) -> Iterator[str]:
    """One sentence for each comparison whose two arms have cells."""
    for topic, ours, theirs in COMPARISONS:
        if results.has(ours, theirs):
            yield f"{topic}: {sentence(results, ours, theirs)}"
    if results.has("none", "precond"):
        yield f"Before the final flush: {unflushed(results)}"
    for ours, theirs, what in CODECS:
        if results.has(ours, theirs):
            share = results.difference(ours, theirs).share
            held = "within" if abs(share) <= CODEC_SHARE_MAX else "**not within**"
            yield f"{what} against fp32: {100 * share:+.2f} % of the loss, {held} 0.5 %."


def sentence(results: Results, ours: str, theirs: str, of: Callable[[Outcome], float] = lambda o: o.test) -> str:
    """The better arm by one figure, the difference, and whether it is beyond the spread."""
    difference = results.difference(ours, theirs, of)
    spread = difference.spread
    share, seeds = f"{100 * abs(difference.share):.1f} %", f"{spread.count} seeds"
    by = f"{abs(spread.mean):.4f} ± {spread.deviation:.4f} nats ({share}), {seeds}"
    if not difference.clear:
        return f"`{ours}` and `{theirs}` do not differ beyond the spread ({spread.mean:+.4f} ± {spread.deviation:.4f})."
    better, worse = (ours, theirs) if spread.mean < 0 else (theirs, ours)
    return f"`{better}` is better than `{worse}` by {by}."


def unflushed(results: Results) -> str:
    """Compare none and precond by the nodes' own models at the end of the last visit."""

    def last(outcome: Outcome) -> float:
        return outcome.curve[-1][1]

    difference = results.difference("precond", "none", last)
    spread, doubt = difference.spread, "" if difference.clear else ", not beyond the spread"
    return (
        f"`precond` less `none` is {spread.mean:+.4f} ± {spread.deviation:.4f} in the validation loss of the nodes' "
        f"own models{doubt}."
    )
