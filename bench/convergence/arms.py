"""The arms: every method and setting that is compared, in the order in which they are worth their time.

Each has a name, the settings in which it differs from ``runs.COMMON`` (exchange in int8, Erdos-Renyi graph, no
signal), and a rate from which its tuning begins. An arm that only replaces a part (the codec, the flush) takes the
step size of the arm it is compared with, since the question is what the replacement does by itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PRECOND = {"discrepancy": "precond", "h_into": "m", "beta1": 0.5}
PAPER_BETA = {"h_into": "both", "beta1": 0.9, "beta2": 0.99}


@dataclass(frozen=True)
class Arm:
    """``like``: the arm whose step size it takes; empty where it has its own. ``seeds``: how many it is run with."""

    name: str
    method: str = "deca"
    settings: Mapping[str, Any] = field(default_factory=dict)
    like: str = ""
    seeds: int = 3
    rate: float = 8e-3
    means: str = ""
    """In words, for the table."""


def _deca(name: str, settings: Mapping[str, Any], means: str, **more: Any) -> Arm:
    return Arm(name, "deca", settings, means=means, **more)


def _like_precond(name: str, settings: Mapping[str, Any], means: str) -> Arm:
    return Arm(name, "deca", PRECOND | settings, like="precond", means=means)


ARMS = (
    _deca("none", {}, "block-wise Adam and gossip, no discrepancy signal", seeds=5),
    _deca("precond", PRECOND, "the default: h in gradient units, into m, beta1 = 0.5", seeds=5),
    Arm("isolated", "isolated", means="no exchange", seeds=5, rate=5e-4),
    Arm("lora", "lora", {"rank": 12}, means="Dec-LoRA, rank 12, int8: the bytes of DECA", seeds=5, rate=8e-3),
    Arm("centralized", "centralized", means="one node with everybody's data and batches"),
    Arm("decay-only", "decay-only", PAPER_BETA, means="h = 0, beta = (0.9, 0.99): the decay alone"),
    _deca("paper", {"discrepancy": "paper", **PAPER_BETA}, "h = x+ - x, raw units, into m and v, beta = (0.9, 0.99)"),
    _deca(
        "descent", {"discrepancy": "descent", **PAPER_BETA}, "h = x - x+, raw units, into m and v, beta = (0.9, 0.99)"
    ),
    _deca("precond, v", PRECOND | {"signal": "v"}, "precond, and v exchanged per group of 256", seeds=5),
    _deca("precond, mv", PRECOND | {"signal": "mv"}, "precond, and both moments exchanged"),
    _deca("everyone", {"topology": "full", "codec": "fp32"}, "none, with W = 11^T/n in fp32"),
    _like_precond("precond, fp32", {"codec": "fp32"}, "precond exchanged in fp32"),
    _like_precond("precond, int4", {"codec": "int4"}, "precond exchanged in int4"),
    _deca("rms", {"discrepancy": "rms", **PAPER_BETA}, "h = s (x - x+)/gamma, into m and v, beta = (0.9, 0.99)"),
    _deca("trivial", {"discrepancy": "trivial", **PAPER_BETA}, "h in the gradient's place"),
    _deca("none, v", {"signal": "v"}, "no h, v exchanged per group of 256"),
    Arm("adapter", "adapter", {"width": 52}, means="Dec-Adapter, width 52, int8: the bytes of DECA", rate=8e-3),
    Arm(
        "decaf",
        "decaf",
        {"rank": 12, "consensus_every": 4},
        means="DeCAF, rank 12, fp32 every fourth step: the bytes of DECA",
        rate=8e-3,
    ),
    Arm("precond, v, fp32", "deca", PRECOND | {"signal": "v", "codec": "fp32"}, "precond, v", means="the same in fp32"),
    Arm("precond, v, int4", "deca", PRECOND | {"signal": "v", "codec": "int4"}, "precond, v", means="the same in int4"),
    Arm("lora, fp32", "lora", {"rank": 8, "codec": "fp32"}, means="Dec-LoRA as published: rank 8, fp32", rate=8e-3),
    _deca("none, mv", {"signal": "mv"}, "no h, both moments exchanged"),
    Arm("decay-only, m", "decay-only", PRECOND, means="h = 0 into m, beta1 = 0.5: precond's decay alone"),
    _deca("precond, both", {"discrepancy": "precond", **PAPER_BETA}, "precond into m and v, beta = (0.9, 0.99)"),
    _like_precond("beta1 = 0", {"beta1": 0.0}, "precond, beta1 = 0"),
    _like_precond("beta1 = 0.25", {"beta1": 0.25}, "precond, beta1 = 0.25"),
    _like_precond("beta1 = 0.75", {"beta1": 0.75}, "precond, beta1 = 0.75"),
    _like_precond("beta1 = 0.9", {"beta1": 0.9}, "precond, beta1 = 0.9"),
    _like_precond("flush 0", {"flush_mixes": 0}, "no mixes at the end of a visit"),
    _like_precond("flush 5", {"flush_mixes": 5}, "five mixes at the end of a visit"),
    _like_precond("backward", {"block_order": "backward"}, "blocks from the head down"),
    _like_precond("shuffled", {"block_order": "shuffled"}, "blocks in an order drawn every round"),
    _like_precond("half flow", {"gamma_c": 0.5}, "gamma_c = 0.5"),
    _like_precond("tau = 2", {"mix_every": 2}, "exchange at every second step: half of the bytes"),
    _like_precond("tau = 4", {"mix_every": 4}, "exchange at every fourth step: a quarter of the bytes"),
    _like_precond(
        "blocks of 3", {"block_layers": 3, "inner_steps": 40}, "all layers one block, R = 40: the same steps"
    ),
)
"""``R`` and the number of blocks change together, so that every arm takes the same steps."""

BY_NAME = {arm.name: arm for arm in ARMS}
QUICK = ("centralized", "precond", "none", "lora", "isolated")
"""What ``--quick`` runs."""
