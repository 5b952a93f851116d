"""The result of an evaluation (:mod:`deca_node.numerics.learning.evaluation`). No torch here: the command line prints
it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """``kind`` is ``language-model``, ``classifier`` or ``labels``. ``loss`` is in nats, per token for a language model
    and per record otherwise, over ``counted`` of them. ``cut`` counts records that were longer than allowed,
    ``left_out`` those of which nothing was left to judge."""

    kind: str
    loss: float
    counted: int
    records: int
    skipped: int = 0
    cut: int = 0
    left_out: int = 0
    perplexity: float | None = None
    accuracy: float | None = None
    macro_f1: float | None = None
    labels: tuple[str, ...] = ()
