"""The settings of a run, which must be equal on all of its nodes (``run.toml``).

:mod:`deca_node.protocol.agreed.agreement` compares them between nodes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from deca_node.protocol.agreed.settings import check_limits, setting
from deca_node.protocol.errors import SettingsError

DISCREPANCIES = ("none", "paper", "descent", "precond", "rms", "trivial")
SIGNALS = ("none", "v", "mv")
ROBUST = ("none", "clip")
TOPOLOGIES = ("ring", "exponential", "torus", "hypercube", "full", "erdos-renyi", "random-regular", "edges")

TASKS = ("causal-lm", "classification")

FLOW_SHARE_MAX: Mapping[str, float] = {"lockstep": 1.0, "overlap": 0.5}
"""Largest stable gamma_c by mode of exchange."""

TOPK_FLOW_SHARE_MAX = 0.125
"""Largest stable gamma_c where codec = topk: twice the share of the elements that it sends."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """``run.toml``: equal on all nodes, and part of the run's fingerprint.

    Letters in brackets are those of the paper (arXiv 2606.03209).
    """

    run_name: str = setting("deca", "Name of the run; nodes of another run are refused.")
    seed: int = setting(
        0, "Seed of everything that all nodes draw alike: block order, random graphs, a fresh head.", low=0
    )

    rounds: int = setting(4, "Rounds [T]: how often every block is visited.", low=1)
    inner_steps: int = setting(48, "Inner steps [R] per visit of a block.", unit="steps", low=1)
    block_layers: int = setting(1, "Layers per block.", unit="layers", low=1)
    block_order: str = setting(
        "forward",
        "Order of the blocks within a round: from the embedding up, from the head down, or drawn every round.",
        choices=("forward", "backward", "shuffled"),
    )

    task: str = setting(
        "causal-lm", "What the model is tuned for: to continue texts, or to sort them into labels.", choices=TASKS
    )
    labels: str = setting(
        "",
        "The names of the labels under task = classification, in the order of their numbers, as in 'neg, pos'; empty "
        "takes those of the model's config.json (id2label).",
    )
    sequence_length: int = setting(
        512, "Tokens per packed sequence; under task = classification, the most of one record.", unit="tokens", low=8
    )
    batch_size: int = setting(
        8, "Sequences, or labelled records, per inner step on every node.", unit="sequences", low=1
    )
    dtype: str = setting(
        "auto",
        "Precision in which the model is held: the checkpoint's own, or one of these. Masters are always float32.",
        choices=("auto", "float32", "bfloat16", "float16"),
    )

    learning_rate: float = setting(5e-5, "Step size [gamma] at its peak.", low=0.0)
    lr_schedule: str = setting(
        "constant",
        "How the step size runs through the whole run.",
        choices=("constant", "linear", "cosine"),
    )
    lr_warmup: float = setting(
        0.0, "Share of the run's steps in which the step size climbs to its peak.", low=0.0, high=0.9
    )
    alpha1: float = setting(0.9, "Decay of the first moment [alpha_1].", low=0.0, high=0.9999)
    alpha2: float = setting(0.999, "Decay of the second moment [alpha_2].", low=0.0, high=0.999999)
    epsilon: float = setting(1e-8, "Added to the root of the second moment [eps].", low=1e-30)

    discrepancy: str = setting(
        "none", "The discrepancy signal h; docs/ALGORITHM.md defines each.", choices=DISCREPANCIES
    )
    h_into: str = setting("m", "Which moments take h up.", choices=("both", "m", "v"))
    h_part: str = setting(
        "full",
        "Whether h is measured from the parameters before the step (full) or after the half step (consensus).",
        choices=("full", "consensus"),
    )
    bias_correction: str = setting(
        "alpha", "Whether Adam's bias correction counts alpha alone, or beta as well.", choices=("alpha", "exact")
    )
    beta1: float = setting(
        0.5, "Share of the first moment that is kept when h is folded in [beta_1].", low=0.0, high=1.0
    )
    beta2: float = setting(
        0.99, "Share of the second moment that is kept when h is folded in [beta_2].", low=0.0, high=1.0
    )

    signal: str = setting(
        "mv",
        "The moment-discrepancy signal that updates carry beside the parameters: nothing, the second moment (v: "
        "group means, under 1 % more bytes than int8 alone), or both moments (mv: int8, which doubles int8's bytes). "
        "There is no m alone: the first moment mixed without the second diverges.",
        choices=SIGNALS,
    )
    signal_every: int = setting(
        4,
        "Exchanges from one moment signal to the next within a visit; the first carries one, the last none.",
        unit="exchanges",
        low=1,
    )

    topology: str = setting("erdos-renyi", "The graph of neighbours.", choices=TOPOLOGIES)
    edge_probability: float = setting(
        0.5, "Chance of each edge in an erdos-renyi graph (redrawn until connected).", low=0.01, high=1.0
    )
    degree: int = setting(4, "Neighbours of each node in a random-regular graph.", unit="neighbours", low=2)
    redraw_every: int = setting(
        1,
        "Activations from one drawing of a random graph to the next, so that links vary; 0 keeps the first drawing.",
        unit="activations",
        low=0,
    )
    edges: str = setting("", "The graph under topology = edges: pairs of names, as in 'ash-beech beech-cedar'.")
    codec: str = setting(
        "int8",
        "How updates are quantized on the wire; topk sends the largest sixteenth of the elements only.",
        choices=("fp32", "bf16", "int8", "int4", "topk"),
    )
    exchange: str = setting(
        "lockstep",
        "Wait for the neighbours' updates of each step (lockstep), or compute the next while they travel (overlap).",
        choices=("lockstep", "overlap"),
    )
    gamma_c: float = setting(
        0.0,
        "Share of an edge's difference that flows per step [gamma_c]; 0 chooses the largest that is stable: 1 for "
        "lockstep, 0.5 for overlap, 0.125 where codec = topk.",
        low=0.0,
        high=1.0,
    )
    robust: str = setting(
        "none",
        "What bounds a neighbour that sends well-formed nonsense: nothing, or clipped gossip (clip), in which it moves "
        "each parameter tensor of this node by at most w_ij tau_i per flow. The mean over nodes is then no longer "
        "preserved; docs/ALGORITHM.md has the formulas and the price.",
        choices=ROBUST,
    )
    robust_neighbours: int = setting(
        1,
        "How many of a node's neighbours may be hostile at once [f] under robust = clip: tau_i is then not above the "
        "(f+1)-th largest distance to a neighbour, on nodes with 2 f + 1 neighbours or more. 0: clip_radius alone.",
        unit="neighbours",
        low=0,
    )
    clip_radius: float = setting(
        5.0,
        "The largest tau_i under robust = clip, as RMS over a parameter tensor in units of the learning rate's peak: "
        "tau_i <= clip_radius learning_rate sqrt(elements). It bounds h as well: no element of it counts more such "
        "steps.",
        low=1e-3,
    )
    clip_reach: float = setting(
        3.0,
        "Under robust = clip with robust_neighbours > 0, a neighbour farther than this many times the (f+1)-th largest "
        "distance counts for nothing; 0: all count, as in the paper.",
        low=0.0,
    )
    mix_every: int = setting(1, "Inner steps between two exchanges [tau].", unit="steps", low=1)
    late_steps: int = setting(
        2,
        "An edge more than this many exchanges behind is dropped for the activation [D].",
        unit="steps",
        low=1,
        high=8,
    )
    flush_mixes: int = setting(2, "Mixes without gradients at the end of every activation.", unit="mixes", low=0)
    final_flush_mixes: int = setting(
        0,
        "Mixes per block of the flush that ends the run; 0 derives them from the graph's spectral gap.",
        unit="mixes",
        low=0,
        high=10_000,
    )

    def __post_init__(self) -> None:
        check_limits(self)
        if self.discrepancy == "rms" and self.h_into == "m":
            raise SettingsError(
                "discrepancy = 'rms' with h_into = 'm' diverges: the first moment would take up consensus that the "
                "second never sees; use h_into = 'both', or discrepancy = 'precond'"
            )
        if self.gamma_c > FLOW_SHARE_MAX[self.exchange]:
            raise SettingsError(
                f"exchange = 'overlap' needs gamma_c <= 0.5, got {self.gamma_c}: flows one step late on every edge "
                "diverge above that bound"
            )
        if self.codec == "topk" and self.gamma_c > TOPK_FLOW_SHARE_MAX:
            raise SettingsError(
                f"codec = 'topk' needs gamma_c <= {TOPK_FLOW_SHARE_MAX}, got {self.gamma_c}: what it has not sent yet "
                "is missing from the public copies, and above that bound gossip on them diverges"
            )
        if self.robust == "clip":
            self._check_clip()
        if self.topology == "edges" and not self.edges.strip():
            raise SettingsError("topology = 'edges' needs the pairs of neighbours; give them as in edges = 'a-b b-c'")
        self._check_labels()

    def _check_labels(self) -> None:
        names = self.label_names
        if not names:
            return
        if self.task != "classification":
            raise SettingsError(f"labels = {self.labels!r} goes with task = 'classification', not {self.task!r}")
        if len(names) < 2 or "" in names:
            raise SettingsError(f"labels = {self.labels!r} must be two names or more, with commas between them")
        if twice := sorted(name for name in set(names) if names.count(name) > 1):
            raise SettingsError(f"labels = {self.labels!r} names {twice[0]!r} twice")

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels by their numbers, from 0; none where the model's own are to be taken."""
        return tuple(name.strip() for name in self.labels.split(",")) if self.labels.strip() else ()

    def _check_clip(self) -> None:
        if 0.0 < self.clip_reach < 1.0:
            raise SettingsError(
                f"clip_reach = {self.clip_reach} would leave out whom the radius lets in; give 1 or more, or 0 for all"
            )
        if not self.learning_rate:
            raise SettingsError(
                "robust = 'clip' needs a learning_rate above 0: its radius is measured in steps of that size"
            )
        degree, f = {"ring": 2, "torus": 4, "random-regular": self.degree}.get(self.topology), self.robust_neighbours
        if degree is not None and degree < 2 * f + 1:
            raise SettingsError(
                f"robust_neighbours = {f} needs {2 * f + 1} neighbours, so that the honest are in the majority, but "
                f"under topology = {self.topology!r} a node has {degree} at most; use a denser graph, or "
                f"robust_neighbours = {(degree - 1) // 2}"
            )

    @property
    def flow_share(self) -> float:
        """gamma_c as used: the setting, or the largest stable value."""
        sparse = TOPK_FLOW_SHARE_MAX if self.codec == "topk" else 1.0
        return self.gamma_c or min(FLOW_SHARE_MAX[self.exchange], sparse)
