"""What an evaluation finds (:mod:`deca_node.numerics.learning.evaluation`). No torch here: the command line tells it
on."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The answer. ``kind`` is ``language-model``, ``classifier`` or ``labels``; ``loss`` is in nats per token for the
    first, else per record; ``counted`` is over how many of them; ``cut`` counts records longer than allowed."""

    kind: str
    loss: float
    counted: int
    records: int
    skipped: int = 0
    cut: int = 0
    perplexity: float | None = None
    accuracy: float | None = None
    macro_f1: float | None = None
    labels: tuple[str, ...] = ()
