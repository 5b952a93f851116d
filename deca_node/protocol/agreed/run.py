"""The settings of a run, which must be equal on all of its nodes (``run.toml``).

:mod:`deca_node.protocol.agreed.agreement` compares them between nodes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from deca_node.protocol.agreed import combinations
from deca_node.protocol.agreed.settings import check_limits, setting
from deca_node.protocol.agreed.stopping import ROUNDS_TOLD_MAX
from deca_node.protocol.errors import SettingsError

DISCREPANCIES = ("none", "paper", "descent", "precond", "rms", "trivial")
SIGNALS = ("none", "v", "mv")
MOMENT_BITS = (1, 2, 4, 8)
ROBUST = ("none", "clip")
MATCHINGS = ("pairs", "one-peer-exponential")
"""Topologies in which a node has one neighbour per visit, another one each time. They are connected over time, and not
at any one visit."""

PARTNERS = ("visit", "step")
WEIGHTS = ("equal", "tokens")

TOPOLOGIES = ("ring", "exponential", "torus", "hypercube", "full", "erdos-renyi", "random-regular", "edges", *MATCHINGS)

TASKS = ("causal-lm", "classification")
DTYPES = ("auto", "float32", "bfloat16", "float16")
PACKINGS = ("isolated", "concatenated", "none")
TRUNCATIONS = ("keep-end", "keep-start", "drop")

FLOW_SHARE_MAX: Mapping[str, float] = {"lockstep": 1.0, "overlap": 0.5}
"""Largest stable gamma_c by mode of exchange."""

TOPK_FLOW_SHARE_MAX = 0.125
"""Largest stable gamma_c with codec = topk: twice the share of the elements that it sends."""

OWN_DROPOUT = -1.0
"""dropout: the probabilities in the model's config.json."""

FINAL_MIXES_MAX = 10_000
"""The most mixes per block in the final flush."""

EPOCH_ROUNDING = 1e-9
"""Share of a round that epochs may overshoot by rounding, as in 0.1 * 30."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """``run.toml``: equal on all nodes, and part of the run's fingerprint.

    Letters in brackets are those of the paper (arXiv 2606.03209).
    """

    run_name: str = setting("deca", "Name of the run. A node of a run with another name is refused.")
    seed: int = setting(
        0,
        "Seed for everything that all nodes draw alike: block order, random graphs, a new classification head.",
        low=0,
    )

    rounds: int = setting(4, "Number of rounds [T]. Every round visits each block once.", low=1)
    epochs: float = setting(
        0.0,
        "Length of the run as passes over epoch_sequences, instead of rounds: the run takes the fewest rounds that "
        "come to so many, and says how many they are. 0: rounds decides.",
        unit="passes",
        low=0.0,
        high=1e6,
    )
    epoch_sequences: int = setting(
        0,
        "With epochs: the sequences that are one pass, a number that all nodes agree on although their data differ. "
        "`deca-node doctor --load` says how many a node has.",
        unit="sequences",
        low=0,
    )
    inner_steps: int = setting(48, "Inner steps per visit of a block [R].", unit="steps", low=1)
    block_layers: int = setting(1, "Transformer layers per block.", unit="layers", low=1)
    block_order: str = setting(
        "forward",
        "Order of the blocks within a round: from the embedding up (forward), from the head down (backward), or "
        "drawn anew in every round (shuffled).",
        choices=("forward", "backward", "shuffled"),
    )

    task: str = setting(
        "causal-lm",
        "What the model is tuned to do: continue texts (causal-lm), or sort texts into labels (classification).",
        choices=TASKS,
    )
    labels: str = setting(
        "",
        "With task = classification: names of the labels in the order of their numbers, as in 'neg, pos'. Empty: "
        "the names in the model's config.json (id2label).",
    )
    sequence_length: int = setting(
        512,
        "Tokens per packed sequence. With task = classification: the largest number of tokens per record.",
        unit="tokens",
        low=8,
    )
    packing: str = setting(
        "isolated",
        "How records are laid into sequences: whole, several to a sequence, none seeing another (isolated); one per "
        "sequence (none); or end to end and cut every sequence_length tokens, as is usual for long texts "
        "(concatenated).",
        choices=PACKINGS,
    )
    truncation: str = setting(
        "keep-end",
        "What is kept of a prompt with its completion, or of a chat, that is longer than sequence_length: its end, its "
        "start, or nothing. Texts are divided instead. Without effect under packing = concatenated.",
        choices=TRUNCATIONS,
    )
    batch_size: int = setting(
        8, "Sequences (or labelled records) per inner step on every node.", unit="sequences", low=1
    )
    dtype: str = setting(
        "auto",
        "Precision of the model in memory: that of the checkpoint (auto), or one of the others. Master copies are"
        " always float32.",
        choices=DTYPES,
    )

    learning_rate: float = setting(5e-5, "Largest step size [gamma].", low=0.0)
    lr_schedule: str = setting(
        "constant",
        "How the step size changes over the whole run.",
        choices=("constant", "linear", "cosine"),
    )
    lr_warmup: float = setting(
        0.0, "Share of the run's steps in which the step size rises to its largest value.", low=0.0, high=0.9
    )
    early_stop_rounds: int = setting(
        0,
        "End the training early when so many rounds have brought no better held-out loss, in the mean over the nodes, "
        "which then tell each other their losses. All nodes stop at the same visit, and DIR/best has the model after "
        "the best round. 0: train to the end.",
        unit="rounds",
        low=0,
        high=ROUNDS_TOLD_MAX - 2,
    )
    early_stop_gain: float = setting(
        0.0, "With early_stop_rounds: a round is better if its loss is lower by more than this.", unit="nats", low=0.0
    )
    lr_warmup_steps: int = setting(
        0,
        "The same as a number of steps instead of a share. 0: lr_warmup decides.",
        unit="steps",
        low=0,
    )
    embedding_lr_scale: float = setting(
        1.0, "Step size of the embedding's block, as a multiple of learning_rate.", unit="times", low=1e-3, high=1e3
    )
    head_lr_scale: float = setting(
        1.0,
        "Step size of the head's block, as a multiple of learning_rate. A tied head is in the embedding's block.",
        unit="times",
        low=1e-3,
        high=1e3,
    )
    weight_decay: float = setting(
        0.0,
        "Decoupled weight decay [lambda]: each step also shrinks the weights by learning_rate * weight_decay of "
        "themselves. Norms, biases and embeddings, with a head that is tied to them, do not decay.",
        low=0.0,
        high=10.0,
    )
    max_grad_norm: float = setting(
        0.0, "Largest norm of the active block's gradient: a larger one is scaled down to it. 0: no limit.", low=0.0
    )
    neftune_alpha: float = setting(
        0.0,
        "Noise that is added to the embeddings of a batch while it is learnt (NEFTune): uniform within +- "
        "neftune_alpha / sqrt(tokens of the sequence * width of the embedding). 0: none.",
        low=0.0,
    )
    dropout: float = setting(
        OWN_DROPOUT,
        "Probability of every dropout in the model while it learns: of attention, of hidden states, whatever the "
        "architecture has. -1: those in the model's config.json. A model without dropout is refused, unless it is -1.",
        low=OWN_DROPOUT,
        high=0.95,
    )
    alpha1: float = setting(0.9, "Decay of the first moment [alpha_1].", low=0.0, high=0.9999)
    alpha2: float = setting(0.999, "Decay of the second moment [alpha_2].", low=0.0, high=0.999999)
    epsilon: float = setting(1e-8, "Added to the root of the second moment [eps].", low=1e-30)

    discrepancy: str = setting(
        "none", "The discrepancy signal h. docs/ALGORITHM.md defines each kind.", choices=DISCREPANCIES
    )
    h_into: str = setting("m", "Which moments take up h.", choices=("both", "m", "v"))
    h_part: str = setting(
        "full",
        "Whether h is measured from the parameters before the step (full) or after the half step (consensus).",
        choices=("full", "consensus"),
    )
    bias_correction: str = setting(
        "alpha",
        "Whether Adam's bias correction counts alpha only (alpha), or beta too (exact).",
        choices=("alpha", "exact"),
    )
    beta1: float = setting(
        0.5, "Share of the first moment that is kept when h is folded in [beta_1].", low=0.0, high=1.0
    )
    beta2: float = setting(
        0.99, "Share of the second moment that is kept when h is folded in [beta_2].", low=0.0, high=1.0
    )

    signal: str = setting(
        "mv",
        "The moment-discrepancy signal that updates carry besides the parameters: nothing (none); the second "
        "moment (v: group means, under 1 % more bytes than int8 alone); or both moments (mv: int8, which doubles "
        "the bytes of int8). The first moment alone is not offered: mixed without the second it diverges.",
        choices=SIGNALS,
    )
    signal_every: int = setting(
        4,
        "Exchanges between moment signals within a visit. The first exchange carries a signal, the last one none.",
        unit="exchanges",
        low=1,
    )

    moments_every: int = setting(
        0,
        "Inner steps between moment signals, which then travel at a cadence of their own, by themselves at the steps "
        "whose parameters stay at home (mix_every). 0: they travel with the parameters, as signal_every says.",
        unit="steps",
        low=0,
    )
    moment_bits: int = setting(
        8,
        "With signal = mv: bits per element of the first moment on the wire: 1, 2, 4 or 8. Below 8 the error of each "
        "signal is kept and added to the next (error feedback), for which the active block needs one more vector.",
        unit="bits",
        low=1,
        high=8,
    )
    v_every: int = setting(
        1,
        "With signal = mv: moment signals from one with the second moment to the next. 0: only the first of a visit "
        "has it.",
        unit="signals",
        low=0,
    )

    topology: str = setting(
        "erdos-renyi",
        "The graph of neighbours. With pairs and one-peer-exponential each node has one neighbour per activation, "
        "another one each time, and the final flush has a random-regular graph.",
        choices=TOPOLOGIES,
    )
    partners: str = setting(
        "visit",
        "With topology = pairs or one-peer-exponential and moments_every: whether the neighbour stays for the whole "
        "visit (visit), or moment signals that travel alone go to another neighbour each time (step), of ceil(log2 "
        "nodes) in turn. Parameters stay with the visit's neighbour.",
        choices=PARTNERS,
    )
    edge_probability: float = setting(
        0.5,
        "With topology = erdos-renyi: probability of each edge. The graph is drawn again until it is connected.",
        low=0.01,
        high=1.0,
    )
    degree: int = setting(
        4,
        "With topology = random-regular: neighbours of each node. With pairs and one-peer-exponential: the same in the "
        "final flush.",
        unit="neighbours",
        low=2,
    )
    redraw_every: int = setting(
        1,
        "Activations between drawings of a random graph. 0: keep the first drawing.",
        unit="activations",
        low=0,
    )
    edges: str = setting("", "With topology = edges: the graph as pairs of names, as in 'ash-beech beech-cedar'.")
    weights: str = setting(
        "equal",
        "The mean that the nodes agree on: all of them count alike (equal), or each by the tokens that it trains on "
        "(tokens; records with task = classification), from a quarter of an ordinary node to four times as much. Nodes "
        "tell each other their shares when they meet.",
        choices=WEIGHTS,
    )
    weight_tokens: int = setting(
        0,
        "With weights = tokens: the tokens of a node that counts as an ordinary one, a number that all nodes agree on "
        "although their data differ. `deca-node doctor --load` says how many a node has.",
        unit="tokens",
        low=0,
    )
    codec: str = setting(
        "int8",
        "How updates are compressed on the wire. topk sends only the largest sixteenth of the elements.",
        choices=("fp32", "bf16", "int8", "int4", "topk"),
    )
    exchange: str = setting(
        "lockstep",
        "Wait for the neighbours' updates in each step (lockstep), or compute the next step while they travel "
        "(overlap).",
        choices=("lockstep", "overlap"),
    )
    gamma_c: float = setting(
        0.0,
        "Share of an edge's difference that flows per step [gamma_c]. 0: the largest stable value, which is 1 for"
        " lockstep, 0.5 for overlap and 0.125 for codec = topk.",
        low=0.0,
        high=1.0,
    )
    robust: str = setting(
        "none",
        "Protection against a neighbour that sends well-formed nonsense: none, or clipped gossip (clip). With "
        "clip a neighbour moves each parameter tensor of this node by at most w_ij tau_i per flow, and the mean "
        "over nodes is no longer preserved. docs/ALGORITHM.md has the formulas and the cost.",
        choices=ROBUST,
    )
    robust_neighbours: int = setting(
        1,
        "With robust = clip: number of a node's neighbours that may be hostile at once [f]. On nodes with at "
        "least 2 f + 1 neighbours tau_i is at most the (f+1)-th largest distance to a neighbour. 0: only "
        "clip_radius limits tau_i.",
        unit="neighbours",
        low=0,
    )
    clip_radius: float = setting(
        5.0,
        "With robust = clip: the largest tau_i, as RMS over a parameter tensor in units of the largest learning "
        "rate: tau_i <= clip_radius learning_rate sqrt(elements). It also bounds every element of h to this many "
        "steps.",
        low=1e-3,
    )
    clip_reach: float = setting(
        3.0,
        "With robust = clip and robust_neighbours > 0: ignore a neighbour whose distance is more than this many "
        "times the (f+1)-th largest distance. 0: ignore none, as in the paper.",
        low=0.0,
    )
    mix_every: int = setting(1, "Inner steps between exchanges [tau].", unit="steps", low=1)
    late_steps: int = setting(
        2,
        "An edge that is more than this many exchanges behind is closed for the rest of the activation [D].",
        unit="steps",
        low=1,
        high=8,
    )
    flush_mixes: int = setting(2, "Mixes without gradients at the end of every activation.", unit="mixes", low=0)
    final_flush_mixes: int = setting(
        0,
        "Mixes per block in the flush at the end of the run. 0: derived from the graph's spectral gap.",
        unit="mixes",
        low=0,
        high=FINAL_MIXES_MAX,
    )

    def __post_init__(self) -> None:
        check_limits(self)
        if self.discrepancy == "rms" and self.h_into == "m":
            raise SettingsError(
                "discrepancy = 'rms' with h_into = 'm' diverges: the first moment would take up consensus that does "
                "not reach the second; use h_into = 'both', or discrepancy = 'precond'"
            )
        if self.gamma_c > FLOW_SHARE_MAX[self.exchange]:
            raise SettingsError(
                f"exchange = 'overlap' needs gamma_c <= 0.5, got {self.gamma_c}: flows one step late on every edge "
                "diverge above that bound"
            )
        if self.codec == "topk" and self.gamma_c > TOPK_FLOW_SHARE_MAX:
            raise SettingsError(
                f"codec = 'topk' needs gamma_c <= {TOPK_FLOW_SHARE_MAX}, got {self.gamma_c}: elements that were "
                "not sent yet are missing from the public copies, and above that bound gossip on the copies diverges"
            )
        combinations.check_moments(self, MOMENT_BITS)
        combinations.check_partners(self, MATCHINGS)
        combinations.check_weights(self)
        if self.robust == "clip":
            combinations.check_clip(self, MATCHINGS)
        combinations.check_values(self, OWN_DROPOUT)
        combinations.check_labels(self)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels in the order of their numbers. Empty if the model's own labels apply."""
        return tuple(name.strip() for name in self.labels.split(",")) if self.labels.strip() else ()

    def rounds_of(self, blocks: int) -> int:
        """T for a model of so many blocks: ``rounds``, or the fewest rounds whose steps come to the run's epochs."""
        if not self.epochs:
            return self.rounds
        wanted = self.epochs * self.epoch_sequences
        return max(1, math.ceil(wanted / (blocks * self.inner_steps * self.batch_size) - EPOCH_ROUNDING))

    @property
    def flow_share(self) -> float:
        """The gamma_c in use: the setting, or the largest stable value."""
        sparse = TOPK_FLOW_SHARE_MAX if self.codec == "topk" else 1.0
        return self.gamma_c or min(FLOW_SHARE_MAX[self.exchange], sparse)
