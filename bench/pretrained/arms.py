"""The arms: what is compared, the most important first, and at which length of a run.

As in :mod:`bench.convergence.arms`, an arm that replaces only a part takes the step size of the arm that it is compared
with. Every arm is compared at three step sizes: the paper's, the one that is best for ``none``, and its own best.
"""

from dataclasses import replace
from typing import Any

from bench.convergence.arms import Arm

PAPER_RATE = 5e-5

SCALES: dict[str, dict[str, Any]] = {
    "few": {"inner_steps": 4, "batch_size": 2, "block_layers": 6},
    "short": {"inner_steps": 12, "batch_size": 2},
    "standard": {},
    "paper": {"rounds": 4, "inner_steps": 48},
}
"""Lengths of a run: one round of 4 steps for each block of six layers, for a large model; one round of 12 for each
block of two layers; one of 24; and the paper's four rounds of 48."""

BIPARTITE = " ".join(f"node-{i}-node-{4 + (i + k) % 4}" for i in range(4) for k in range(3))
PRECOND = {"discrepancy": "precond", "h_into": "m", "beta1": 0.5}
MV = {"signal": "mv", "signal_every": 1}
MV4 = {"signal": "mv", "signal_every": 4}
FIRST_BIT = {"codec": "int4", "signal": "mv", "signal_every": 1, "moments_every": 1, "moment_bits": 1, "v_every": 1}
TURNS = {"topology": "pairs", "degree": 4, "partners": "step"}


def literal(name: str, beta2: float, **more: Any) -> Arm:
    """The paper's statement as it stands: h = x+ - x into both moments, bias correction by alpha only."""
    settings = {"discrepancy": "paper", "h_into": "both", "beta1": 0.9, "beta2": beta2} | more
    return Arm(name, settings=settings, rate=4e-4, means=f"h = x+ - x into m and v, beta = (0.9, {beta2:g})")


def floor(epsilon: float) -> Arm:
    """No h, and a larger epsilon."""
    name = f"none, eps = {epsilon:.0e}".replace("e-0", "e-")
    return Arm(name, settings={"epsilon": epsilon}, rate=4e-4, means="no h; epsilon as a floor under sqrt(v)")


ARMS = (
    Arm("none", rate=4e-4, means="block-wise Adam and gossip, no h, no moment signals", seeds=5),
    Arm(
        "none, mv, every 4",
        settings=MV4,
        rate=4e-4,
        means="the default: both moments at every fourth exchange",
        seeds=5,
    ),
    literal("paper", 0.99),
    floor(1e-4),
    Arm("start", "start", like="none", means="the start model, untrained"),
    Arm("isolated", "isolated", rate=4e-4, means="no exchange", seeds=5),
    Arm(
        "decay-only",
        "decay-only",
        {"h_into": "both", "beta1": 0.9, "beta2": 0.99},
        rate=4e-4,
        means="h = 0, beta = (0.9, 0.99): the decay alone",
    ),
    Arm("none, mv", settings=MV, rate=4e-4, means="both moments at every exchange"),
    Arm("precond", settings=PRECOND, rate=4e-4, means="h in gradient units, into m, beta1 = 0.5"),
    literal("paper, beta2 = 0.9", 0.9),
    literal("paper, beta2 = 0.999", 0.999),
    Arm(
        "paper, v only",
        settings={"discrepancy": "paper", "h_into": "v", "beta2": 0.99},
        rate=4e-4,
        means="h*h into v only, beta2 = 0.99",
    ),
    floor(1e-5),
    floor(1e-3),
    floor(1e-6),
    Arm(
        "descent",
        settings={"discrepancy": "descent", "h_into": "both", "beta1": 0.9, "beta2": 0.99},
        rate=4e-4,
        means="h = x - x+ into m and v, beta = (0.9, 0.99)",
    ),
    Arm(
        "trivial",
        settings={"discrepancy": "trivial", "h_into": "both", "beta1": 0.9, "beta2": 0.99},
        rate=4e-4,
        means="h in the gradient's place",
    ),
    Arm("centralized", "centralized", rate=4e-4, means="one node with the data and batches of all nodes"),
    Arm("adamw", "adamw", rate=2e-4, means="whole-model Adam and gossip, int8 at every step: what blocks cost"),
    Arm("lora", "lora", {"rank": 32}, rate=4e-4, means="Dec-LoRA, rank 32, int8"),
    Arm(
        "noloco",
        "noloco",
        {"every": 12, "outer_momentum": 0.5, "outer_rate": 0.7, "outer_pull": 0.7},
        rate=2e-4,
        means="NoLoCo: whole-model Adam, a random pair meets at every 12th step",
    ),
    Arm(
        "sparseloco",
        "sparseloco",
        {"every": 12, "outer_momentum": 0.95, "outer_rate": 1.0, "share": 1 / 64},
        rate=2e-4,
        means="SparseLoCo over the graph: 1.6 % of the pseudo-gradient in 2 bits at every 12th step",
    ),
    Arm(
        "lan",
        settings={**MV4, "codec": "int4", "topology": "random-regular", "degree": 4},
        like="none, mv, every 4",
        means="the preset lan: the default in int4, with four neighbours",
    ),
    Arm(
        "wan",
        settings={**FIRST_BIT, "topology": "random-regular", "degree": 4, "mix_every": 10},
        like="none, mv, every 4",
        means="the preset wan: moments in 1 bit at every step, parameters in int4 at every 10th, four neighbours",
    ),
    Arm(
        "home",
        settings={**FIRST_BIT, **TURNS, "mix_every": 12},
        like="none, mv, every 4",
        means="the preset home: moments in 1 bit to one neighbour after another, parameters at a visit's close",
    ),
    Arm(
        "home, 1 bit every 4, flush 0",
        settings={**FIRST_BIT, **TURNS, "mix_every": 12, "moments_every": 4, "flush_mixes": 0},
        like="none, mv, every 4",
        means="home with moments at every fourth step, and one exchange of parameters per visit instead of three",
    ),
    Arm(
        "noloco, every 60",
        "noloco",
        {"every": 60, "outer_momentum": 0.5, "outer_rate": 0.7, "outer_pull": 0.7},
        like="noloco",
        means="NoLoCo with one meeting, at the end of a short run",
    ),
    Arm(
        "lora, every 12",
        "lora",
        {"rank": 32, "mix_every": 12},
        like="lora",
        means="Dec-LoRA, rank 32, int8, an exchange at every 12th step",
    ),
    Arm(
        "default, polished",
        settings={**MV4, "polish": "3 12"},
        like="none, mv, every 4",
        means="the default, then steps alone at the same step size",
    ),
    Arm(
        "default, polished gently",
        settings={**MV4, "polish": "3 12", "polish_rate": PAPER_RATE},
        like="none, mv, every 4",
        means="the default, then steps alone at 5e-5",
    ),
    Arm("none, tau = 4", settings={"mix_every": 4}, like="none", means="none, exchange at every fourth step"),
    Arm("none, one mix per visit", settings={"mix_every": 24}, like="none", means="none, mix_every = R"),
    Arm("none, ring", settings={"topology": "ring"}, like="none", means="none, on a ring"),
    Arm(
        "none, bipartite",
        settings={"topology": "edges", "edges": BIPARTITE},
        like="none",
        means="none, on a bipartite graph of four and four, three neighbours each",
    ),
    Arm("none, blocks of 1", settings={"block_layers": 1}, like="none", means="none, one layer per block: more steps"),
    Arm("two rounds", settings={"rounds": 2}, like="none", means="none, two rounds: twice the steps"),
    Arm(
        "two rounds, own moments",
        settings={"rounds": 2, "carry": "own"},
        like="none",
        means="a visit starts from the moments that the last one left",
    ),
    Arm(
        "two rounds, mean v",
        settings={"rounds": 2, "carry": "mean"},
        like="none",
        means="a visit starts from the mean of all nodes' v, as in FedAdamW",
    ),
    Arm("adapter", "adapter", {"width": 64}, rate=8e-4, means="Dec-Adapter, width 64, int8"),
    Arm(
        "decaf",
        "decaf",
        {"rank": 32, "consensus_every": 4},
        rate=4e-4,
        means="DeCAF, rank 32, fp32 every fourth step",
    ),
)

QUICK = ("none, mv, every 4", "none", "paper", "isolated")
"""The arms of ``--quick``."""

WHOLE = ("adamw", "lora", "adapter", "decaf", "noloco", "sparseloco")
"""Methods whose step sizes are another matter than those of blocks: they are compared at their own best only."""


def scaled(scale: str) -> dict[str, Arm]:
    """All arms at one length of a run, by name. What an arm sets itself has precedence."""
    return {arm.name: replace(arm, settings=SCALES[scale] | dict(arm.settings)) for arm in ARMS}
