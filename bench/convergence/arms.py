"""The arms: every method and setting that is compared, the most important first.

Each arm has a name, the settings in which it differs from ``runs.COMMON`` (exchange in int8, Erdos-Renyi graph, no
signal), and a rate at which its tuning begins. An arm that replaces only a part (the codec, the flush) takes the step
size of the arm that it is compared with, since the question is the effect of that part alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PRECOND = {"discrepancy": "precond", "h_into": "m", "beta1": 0.5}
PAPER_BETA = {"h_into": "both", "beta1": 0.9, "beta2": 0.99}


@dataclass(frozen=True)
class Arm:
    """``like`` is the arm whose step size it takes, or empty if it has its own. ``seeds`` is the number of its runs."""

    name: str
    method: str = "deca"
    settings: Mapping[str, Any] = field(default_factory=dict)
    like: str = ""
    seeds: int = 3
    rate: float = 8e-3
    means: str = ""
    """The description in the table."""


def _deca(name: str, settings: Mapping[str, Any], means: str, **more: Any) -> Arm:
    return Arm(name, "deca", settings, means=means, **more)


def _like(arm: str, name: str, settings: Mapping[str, Any], means: str, **more: Any) -> Arm:
    return Arm(name, "deca", (PRECOND if arm == "precond" else {}) | settings, like=arm, means=means, **more)


ARMS = (
    _deca("none", {}, "block-wise Adam and gossip, no discrepancy signal", seeds=5),
    _deca("precond", PRECOND, "h in gradient units, into m, beta1 = 0.5", seeds=5),
    Arm("isolated", "isolated", means="no exchange", seeds=5, rate=5e-4),
    Arm("lora", "lora", {"rank": 12}, means="Dec-LoRA, rank 12, int8: the bytes of DECA", seeds=5),
    Arm("decay-only", "decay-only", PAPER_BETA, means="h = 0, beta = (0.9, 0.99): the decay alone"),
    _deca("paper", {"discrepancy": "paper", **PAPER_BETA}, "h = x+ - x, raw units, into m and v, beta = (0.9, 0.99)"),
    _deca(
        "descent", {"discrepancy": "descent", **PAPER_BETA}, "h = x - x+, raw units, into m and v, beta = (0.9, 0.99)"
    ),
    _deca("rms", {"discrepancy": "rms", **PAPER_BETA}, "h = s (x - x+)/gamma, into m and v, beta = (0.9, 0.99)"),
    _deca("trivial", {"discrepancy": "trivial", **PAPER_BETA}, "h in the gradient's place"),
    Arm("centralized", "centralized", means="one node with the data and batches of all nodes"),
    _like("none", "everyone", {"topology": "full"}, "none, with W = 11^T/n"),
    # Signals.
    _like("none", "none, v", {"signal": "v"}, "no h, v exchanged per group of 256", seeds=5),
    _deca("none, mv", {"signal": "mv"}, "no h, both moments exchanged", seeds=5),
    _like(
        "none, mv",
        "none, mv, every 4",
        {"signal": "mv", "signal_every": 4},
        "the default: the same at every fourth exchange",
        seeds=5,
    ),
    _like(
        "none, mv",
        "none, mv, every 4, int4",
        {"signal": "mv", "signal_every": 4, "codec": "int4"},
        "the same at every fourth exchange, in int4: fewer bytes than Dec-LoRA",
    ),
    _like("none, mv", "none, mv, tau = 4", {"signal": "mv", "mix_every": 4}, "the same, exchange at every fourth step"),
    _like("precond", "precond, v", {"signal": "v"}, "precond, and v exchanged per group of 256"),
    _like("precond", "precond, mv", {"signal": "mv"}, "precond, and both moments exchanged"),
    # Codecs.
    _like("none", "none, fp32", {"codec": "fp32"}, "none, exchanged in fp32"),
    _like("none", "none, int4", {"codec": "int4"}, "none, exchanged in int4"),
    _like("none", "none, v, fp32", {"signal": "v", "codec": "fp32"}, "no h, v exchanged, in fp32"),
    _like("none", "none, v, int4", {"signal": "v", "codec": "int4"}, "no h, v exchanged, in int4"),
    _like("none, mv", "none, mv, fp32", {"signal": "mv", "codec": "fp32"}, "no h, both moments exchanged, in fp32"),
    _like("none, mv", "none, mv, int4", {"signal": "mv", "codec": "int4"}, "no h, both moments exchanged, in int4"),
    # beta1 of precond.
    _like("precond", "beta1 = 0", {"beta1": 0.0}, "precond, beta1 = 0"),
    _like("precond", "beta1 = 0.75", {"beta1": 0.75}, "precond, beta1 = 0.75"),
    _like("precond", "beta1 = 0.9", {"beta1": 0.9}, "precond, beta1 = 0.9"),
    _like("precond", "beta1 = 0.98", {"beta1": 0.98}, "precond, beta1 = 0.98"),
    _deca("precond, both", {"discrepancy": "precond", **PAPER_BETA}, "precond into m and v, beta = (0.9, 0.99)"),
    Arm("decay-only, m", "decay-only", PRECOND, means="h = 0 into m, beta1 = 0.5: precond's decay alone"),
    # Settings in which consensus is harder: fewer exchanges, a sparser graph.
    _like("none", "none, tau = 4", {"mix_every": 4}, "none, exchange at every fourth step"),
    _like("precond", "precond, tau = 4", {"mix_every": 4}, "precond, exchange at every fourth step"),
    _like("none", "none, ring", {"topology": "ring"}, "none, on a ring"),
    _like("precond", "precond, ring", {"topology": "ring"}, "precond, on a ring"),
    _like("none", "none, b = 16", {"batch_size": 16}, "none, four times the batch"),
    _like("none, mv", "none, mv, b = 16", {"signal": "mv", "batch_size": 16}, "both moments, four times the batch"),
    _like("none", "none, half flow", {"gamma_c": 0.5}, "none, gamma_c = 0.5"),
    # Orders and ends of visits.
    _like("none", "none, flush 0", {"flush_mixes": 0}, "none, no mixes at the end of a visit"),
    _like("none", "none, flush 5", {"flush_mixes": 5}, "none, five mixes at the end of a visit"),
    _like("none", "none, backward", {"block_order": "backward"}, "none, blocks from the head down"),
    _like("none", "none, shuffled", {"block_order": "shuffled"}, "none, blocks in an order drawn every round"),
    _like(
        "none",
        "none, blocks of 3",
        {"block_layers": 3, "inner_steps": 40},
        "none, all layers one block, R = 40: the same steps",
    ),
    # Other baselines.
    Arm("lora, fp32", "lora", {"rank": 8, "codec": "fp32"}, means="Dec-LoRA as published: rank 8, fp32"),
    Arm("lora, rank 24", "lora", {"rank": 24}, means="Dec-LoRA, rank 24, int8: the bytes of none, mv"),
    Arm("adapter", "adapter", {"width": 52}, means="Dec-Adapter, width 52, int8: the bytes of DECA"),
    Arm(
        "decaf",
        "decaf",
        {"rank": 12, "consensus_every": 4},
        means="DeCAF, rank 12, fp32 every fourth step: the bytes of DECA",
    ),
)
"""``R`` and the number of blocks change together, so that every arm takes the same number of steps."""

BY_NAME = {arm.name: arm for arm in ARMS}
QUICK = ("none, mv, every 4", "none", "precond", "lora", "isolated")
"""The arms of ``--quick``."""
