"""Each question, and what the numbers say to it, in one sentence; nothing is said that is not in the table."""

from collections.abc import Iterator

from bench.convergence.cells import Outcome
from bench.convergence.summary import Results

DEFAULT = "none, mv, every 4"
"""The arm whose settings are the node's defaults."""

CODEC_SHARE_MAX = 0.005
"""What a coarse exchange may cost of the loss."""

QUESTIONS = (
    ("Does joint tuning beat tuning alone?", DEFAULT, "isolated"),
    ("Do full parameters beat Dec-LoRA at the same steps?", DEFAULT, "lora"),
    ("With fewer bytes than Dec-LoRA's (int4, moments at every fourth exchange)?", "none, mv, every 4, int4", "lora"),
    ("Against Dec-LoRA of rank 24, with more bytes?", DEFAULT, "lora, rank 24"),
    ("Block-wise Adam without signals against Dec-LoRA?", "none", "lora"),
    ("And Dec-LoRA as published, in fp32?", DEFAULT, "lora, fp32"),
    ("And Dec-Adapter?", DEFAULT, "adapter"),
    ("And DeCAF?", DEFAULT, "decaf"),
    ("Both moments at every exchange, twice the bytes, against the default?", "none, mv", DEFAULT),
    ("And that against Dec-LoRA?", "none, mv", "lora"),
    ("How far is it from all data in one place?", DEFAULT, "centralized"),
    ("How far from hearing everybody at every step?", DEFAULT, "everyone"),
    ("Do moment signals help: the default against none?", DEFAULT, "none"),
    ("Does h help: precond?", "precond", "none"),
    ("paper (the literal reading)?", "paper", "none"),
    ("descent?", "descent", "none"),
    ("rms?", "rms", "none"),
    ("trivial?", "trivial", "none"),
    ("Is it the decay alone: decay-only against none?", "decay-only", "none"),
    ("descent against decay-only, with the same decay?", "descent", "decay-only"),
    ("A weaker precond: beta1 = 0.9 against none?", "beta1 = 0.9", "none"),
    ("Does exchanging v help?", "none, v", "none"),
    ("Both moments at every fourth step, for half of the bytes?", "none, mv, tau = 4", "none"),
    ("Both moments where batches are four times as large?", "none, mv, b = 16", "none, b = 16"),
    ("precond beside them?", "precond, mv", "none, mv"),
    ("v beside precond?", "precond, v", "precond"),
    ("Where exchanges are rare (every fourth step): precond against none?", "precond, tau = 4", "none, tau = 4"),
    ("On a ring: precond against none?", "precond, ring", "none, ring"),
    ("What does an exchange at every fourth step cost?", "none, tau = 4", "none"),
    ("Half of the flow (gamma_c = 0.5)?", "none, half flow", "none"),
    ("No mixes at the end of a visit?", "none, flush 0", "none"),
    ("Blocks from the head down?", "none, backward", "none"),
    ("Blocks in random order?", "none, shuffled", "none"),
    ("All layers as one block?", "none, blocks of 3", "none"),
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
    """The questions that the cells that are there answer."""
    for question, ours, theirs in QUESTIONS:
        if results.has(ours, theirs):
            yield f"{question} {sentence(results, ours, theirs)}"
    if results.has("none", "precond"):
        yield f"Before the final flush: {unflushed(results)}"
    for ours, theirs, what in CODECS:
        if results.has(ours, theirs):
            share = results.difference(ours, theirs).share
            held = "within" if abs(share) <= CODEC_SHARE_MAX else "**not within**"
            yield f"{what} against fp32: {100 * share:+.2f} % of the loss, {held} 0.5 %."


def sentence(results: Results, ours: str, theirs: str) -> str:
    """Who is better, by how much, and whether that is beyond the spread."""
    difference = results.difference(ours, theirs)
    spread = difference.spread
    share, seeds = f"{100 * abs(difference.share):.1f} %", f"{spread.count} seeds"
    by = f"{abs(spread.mean):.4f} ± {spread.deviation:.4f} nats ({share}), {seeds}"
    if not difference.clear:
        return f"`{ours}` and `{theirs}` do not differ beyond the spread ({spread.mean:+.4f} ± {spread.deviation:.4f})."
    word = "Yes" if spread.mean < 0 else "No"
    better, worse = (ours, theirs) if spread.mean < 0 else (theirs, ours)
    return f"{word}: `{better}` is better than `{worse}` by {by}."


def unflushed(results: Results) -> str:
    """none and precond as nodes' own models stand when the last visit ends."""

    def last(outcome: Outcome) -> float:
        return outcome.curve[-1][1]

    difference = results.difference("precond", "none", last)
    spread, doubt = difference.spread, "" if difference.clear else ", not beyond the spread"
    return (
        f"`precond` less `none` is {spread.mean:+.4f} ± {spread.deviation:.4f} in the validation loss of the nodes' "
        f"own models{doubt}."
    )
