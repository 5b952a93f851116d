"""What a run will cost, reckoned before it starts: bytes on the wire, memory and time.

The schedule settles a run's traffic: each visit of a block opens every edge with one keyframe and then sends
one update per exchange, and the settings alone say what these measure. So bytes are exact here, down to the
framing of every chunk, as long as no edge is lost. The optimizer's memory is exact too. Activations and compute
are estimates, and their formulas stand where they are used. Loading, evaluating, encoding, mixing and saving
are not in the times.

All nodes are taken to be alike; the node with most neighbours sets the pace, since everybody waits for it.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Schedule, Step
from deca_node.protocol.agreed.sizes import STATE_BYTES, frame_framing_bytes
from deca_node.protocol.agreed.topology import Graph, check_edges, graph
from deca_node.protocol.agreed.weights import contraction, flush_mixes

PAGE_BYTES = 4096
KEYFRAME_CODEC = "int8"
DTYPE_BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}

FRAMES_IN_USE: Mapping[str, int] = {"lockstep": 2, "overlap": 3}
"""Frames of each sender that are held at a time: one being mixed, the next arriving; with overlap one more."""

# --- what is given ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class BlockShape:
    """One block. ``multiplied`` counts elements of matrices that every token is multiplied with; ``..._from``
    are sums over everything that a backward pass to this block crosses, the block included.

    ``frame_bytes`` says by codec what the whole block takes, ``signal_bytes`` by setting what its moment signal does.
    """

    name: str
    elements: int
    largest_tensor: int
    layers: int
    layers_from: int
    multiplied: int
    multiplied_from: int
    frame_bytes: Mapping[str, int]
    signal_bytes: Mapping[str, int]


@dataclass(frozen=True)
class ModelShape:
    """A model cut into blocks, bottom up. ``dtype_bytes`` is one parameter's size in the checkpoint's own precision."""

    name: str
    blocks: tuple[BlockShape, ...]
    dtype_bytes: int
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int

    @property
    def elements(self) -> int:
        """Parameters in all."""
        return sum(block.elements for block in self.blocks)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a node has: its link (each way), its sustained arithmetic, its memory (None: not asked).

    ``one_memory``: frames lie in the same memory that the model is trained in, as they do on a CPU.
    """

    bits_per_second: float = 1e8
    latency_seconds: float = 0.02
    flops_per_second: float = 2e13
    memory_bytes: float | None = None
    micro_batch: int = 0
    gradient_checkpointing: bool = False
    one_memory: bool = False


@dataclass(frozen=True)
class Mixing:
    """How fast the graph agrees. ``left_per_mix`` is the share of disagreement that one mix leaves under gamma_c."""

    nodes: int
    edges: int
    degree_min: int
    degree_max: int
    spectral_gap: float
    left_per_mix: float
    mixes_to_agree: int

    @classmethod
    def of(cls, graph: Graph, settings: RunSettings) -> "Mixing":
        """The figures of one graph."""
        degrees = [len(near) for near in graph.values()]
        left, flow_share = contraction(graph), settings.flow_share
        return cls(
            nodes=len(graph),
            edges=sum(degrees) // 2,
            degree_min=min(degrees),
            degree_max=max(degrees),
            spectral_gap=1.0 - left,
            left_per_mix=left if flow_share == 1.0 else contraction(graph, flow_share),
            mixes_to_agree=flush_mixes(graph, settings),
        )


@dataclass(frozen=True)
class Case:
    """Everything that a plan is reckoned from. Where a random graph is drawn again during the run, ``mixing`` is that
    of the first drawing."""

    settings: RunSettings
    model: ModelShape
    members: tuple[str, ...]
    mixing: Mixing
    machine: Machine

    @classmethod
    def of(
        cls, settings: RunSettings, model: ModelShape, members: Iterable[str], machine: Machine | None = None
    ) -> "Case":
        """Raises SettingsError where the topology cannot be drawn for these members."""
        names = tuple(sorted(members))
        check_edges(names, settings)
        mixing = Mixing.of(graph(names, settings), settings)
        return cls(settings, model, names, mixing, machine or Machine())

    def under(self, **changes: Any) -> "Case":
        """The same with other run settings. Raises SettingsError where they contradict each other."""
        settings = dataclasses.replace(self.settings, **changes)
        if "topology" in changes or settings.flow_share != self.settings.flow_share:
            return Case.of(settings, self.model, self.members, self.machine)
        return dataclasses.replace(self, settings=settings)

    def on(self, **changes: Any) -> "Case":
        """The same with other node settings."""
        return dataclasses.replace(self, machine=dataclasses.replace(self.machine, **changes))

    @property
    def final_flush_mixes(self) -> int:
        """Mixes per block of the flush that ends the run."""
        return self.settings.final_flush_mixes or self.mixing.mixes_to_agree

    @property
    def schedule(self) -> Schedule:
        """The run's activations."""
        return Schedule(self.settings, len(self.model.blocks), self.final_flush_mixes)

    @property
    def dtype_bytes(self) -> int:
        """Of one parameter, as the model is held."""
        return DTYPE_BYTES.get(self.settings.dtype, self.model.dtype_bytes)

    @property
    def micro_batch(self) -> int:
        """Sequences per forward pass."""
        return min(self.machine.micro_batch or self.settings.batch_size, self.settings.batch_size)


# --- bytes ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Traffic:
    """Bytes in one direction: payload of keyframes and of updates, and what the framing of their chunks adds. The
    headers of gRPC, TLS and TCP are not in it, nor the few bytes of control messages."""

    keyframe_bytes: int = 0
    update_bytes: int = 0
    framing_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """Payload and framing."""
        return self.keyframe_bytes + self.update_bytes + self.framing_bytes

    def __add__(self, more: "Traffic") -> "Traffic":
        """Both together."""
        return Traffic(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(more), strict=True)))

    def times(self, count: int) -> "Traffic":
        """The same over ``count`` edges."""
        return Traffic(*(count * n for n in dataclasses.astuple(self)))


def planned_bytes(case: Case) -> dict[str, Traffic]:
    """What each node sends in the whole run, by its name. It receives just as much: frames of a block are equal
    in size whoever sends them."""
    sent = dict.fromkeys(case.members, Traffic())
    activations = range(len(case.schedule))
    stretch = case.settings.redraw_every or len(activations)
    for first in activations[::stretch]:
        edge = edge_traffic(case, activations[first : first + stretch])
        for name, near in graph(case.members, case.settings, first).items():
            sent[name] += edge.times(len(near))
    return sent


def edge_traffic(case: Case, activations: Iterable[int]) -> Traffic:
    """What the activations with these indices send over one edge, one way."""
    schedule = case.schedule
    visits = [dataclasses.astuple(_visit_traffic(case, schedule, index)) for index in activations]
    return Traffic(*(sum(column) for column in zip(*visits, strict=True)))


def _visit_traffic(case: Case, schedule: Schedule, index: int) -> Traffic:
    """A keyframe, then an update per exchange, flush mixes included."""
    activation = schedule[index]
    block = case.model.blocks[activation.block]
    keyframe = block.frame_bytes[KEYFRAME_CODEC]
    steps = [step for inner in range(activation.steps) if schedule.mixes(step := Step(index, inner))]
    updates = [update_bytes(case, block, schedule.signals(step)) for step in steps]
    framing = frame_framing_bytes(index, 0, keyframe)
    framing += sum(frame_framing_bytes(index, s.inner, nbytes) for s, nbytes in zip(steps, updates, strict=True))
    return Traffic(keyframe, sum(updates), framing)


def update_bytes(case: Case, block: BlockShape, with_signal: bool = False) -> int:
    """Of one update, with a moment signal or without."""
    signal = block.signal_bytes[case.settings.signal] if with_signal else 0
    return block.frame_bytes[case.settings.codec] + STATE_BYTES + signal


# --- memory -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Memory:
    """What a node needs while one block is active. ``frames_bytes`` is shared memory on the host, as much as is
    usually touched; ``total_bytes`` includes it only where the model is trained in that same memory."""

    block: str
    model_bytes: int
    state_bytes: int
    activation_bytes: int
    frames_bytes: int
    total_bytes: int


def memory(case: Case, block: BlockShape) -> Memory:
    """At the height of a gradient step, on the node with most neighbours."""
    size = case.dtype_bytes
    model = case.model.elements * size
    # One parameter's gradient at a time stands beside the block's own, in the model's precision.
    state = block.elements * state_bytes_per_element(size, case.mixing.degree_max) + block.largest_tensor * size
    activations = activation_bytes(case, block)
    largest = max(max(b.frame_bytes[KEYFRAME_CODEC], update_bytes(case, b, True)) for b in case.model.blocks)
    senders = case.mixing.degree_max + 1 if case.mixing.degree_max else 0
    frames = senders * FRAMES_IN_USE[case.settings.exchange] * -(-largest // PAGE_BYTES) * PAGE_BYTES
    total = model + state + activations + (frames if case.machine.one_memory else 0)
    return Memory(block.name, model, state, activations, frames, total)


def state_bytes_per_element(dtype_bytes: int, degree: int) -> int:
    """Of the active block: float32 gradient, m and v; x^ and an e_ij per neighbour where there are any; and the
    master, which float32 parameters are views of and others stand beside."""
    vectors = 3 + (1 + degree if degree else 0) + (dtype_bytes != 4)
    return 4 * vectors


def activation_bytes(case: Case, block: BlockShape) -> int:
    """What the backward pass to ``block`` needs; an estimate, for layers like Llama's with fused attention.

    Per token: in each of the layers from the block upward 6 hidden (8 below float32, where norms keep copies in
    float32) + 3 intermediate elements; in the block's own layers 3 hidden + 1 intermediate more, their inputs;
    for each entry of the vocabulary the logits, and in float32 their log-softmax and its gradient. With gradient
    checkpointing every layer keeps its input only, and one at a time is computed anew. BERT's dropout comes to a
    quarter more, GPT-2's and its activation function of many operations to twice as much; GPT-NeoX, whose norms copy
    nothing, comes to less.
    """
    size, shape = case.dtype_bytes, case.model
    kept = (6 if size == 4 else 8) * shape.hidden + 3 * shape.intermediate
    inputs = 3 * shape.hidden + shape.intermediate
    if case.machine.gradient_checkpointing:
        layers = block.layers_from * shape.hidden + (kept + inputs if block.layers_from else 0)
    else:
        layers = block.layers_from * kept + block.layers * inputs
    tokens = case.micro_batch * case.settings.sequence_length
    return tokens * (size * layers + (8 + size) * shape.vocabulary)


def peak_memory(case: Case) -> Memory:
    """The block that needs most."""
    return max((memory(case, block) for block in case.model.blocks), key=lambda m: m.total_bytes)


# --- time -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seconds:
    """``compute`` and ``transfer`` are what each would take alone; ``total`` is how they interleave."""

    compute: float
    transfer: float
    total: float

    @property
    def bound_by(self) -> str:
        """The resource that takes longer."""
        return "network" if self.transfer > self.compute else "compute"


def step_flops(case: Case, block: BlockShape) -> float:
    """Arithmetic of one gradient step: an estimate for dense models.

    A token costs 2 per element it is multiplied with, forward through the whole model, back to the block for its
    input's gradient, and in the block for the weights'; and attention 4 * sequence * hidden per layer forward, twice
    that backward. Gradient checkpointing repeats the forward pass of what the backward pass crosses.
    """
    settings, shape = case.settings, case.model
    again = 1 if case.machine.gradient_checkpointing else 0
    forward = max(b.multiplied_from for b in shape.blocks)
    products = forward + (1 + again) * block.multiplied_from + block.multiplied
    attention = shape.layers + (2 + again) * block.layers_from
    per_token = 2.0 * products + 4.0 * settings.sequence_length * shape.hidden * attention
    return settings.batch_size * settings.sequence_length * per_token


def flops_per_second(case: Case, step_seconds: float) -> float:
    """The speed of a machine that takes ``step_seconds`` for a gradient step, in the mean over the blocks."""
    return sum(step_flops(case, block) for block in case.model.blocks) / len(case.model.blocks) / step_seconds


def transfer_seconds(case: Case, nbytes: int) -> float:
    """Until a frame that the busiest node sends to all its neighbours at once has arrived everywhere."""
    if not case.mixing.degree_max:
        return 0.0
    bits = 8 * case.mixing.degree_max * (nbytes + frame_framing_bytes(1, 1, nbytes))
    return bits / case.machine.bits_per_second + case.machine.latency_seconds


def gradient_seconds(case: Case, block: BlockShape) -> Seconds:
    """The R steps with a gradient of one visit.

    lockstep: R compute + exchanges * transfer. overlap: what was sent at one exchange must be there at the next, so
    each transfer hides behind the steps between the two; the last has nothing to hide behind.
    """
    settings, schedule = case.settings, case.schedule
    compute = step_flops(case, block) / case.machine.flops_per_second
    steps = [step for inner in range(settings.inner_steps) if schedule.mixes(step := Step(0, inner))]
    transfers = [transfer_seconds(case, update_bytes(case, block, schedule.signals(step))) for step in steps]
    alone = Seconds(settings.inner_steps * compute, sum(transfers), 0.0)
    if settings.exchange == "lockstep":
        return dataclasses.replace(alone, total=alone.compute + alone.transfer)
    between = [(after.inner - before.inner) * compute for before, after in pairwise(steps)]
    hidden = sum(map(max, between, transfers))
    return dataclasses.replace(alone, total=(steps[0].inner + 1) * compute + hidden + transfers[-1])


def mixing_seconds(case: Case, block: BlockShape, mixes: int) -> float:
    """What no gradient hides: the keyframe that opens a visit, and its mixes without gradients."""
    keyframe, update = block.frame_bytes[KEYFRAME_CODEC], update_bytes(case, block)
    return transfer_seconds(case, keyframe) + mixes * transfer_seconds(case, update)


def final_flush_seconds(case: Case) -> float:
    """The round without gradients that ends the run."""
    return sum(mixing_seconds(case, block, case.final_flush_mixes) for block in case.model.blocks)


def run_seconds(case: Case) -> Seconds:
    """The whole run, from the first keyframe to the end of the flush."""
    rounds, last = case.settings.rounds, final_flush_seconds(case)
    steps = [gradient_seconds(case, block) for block in case.model.blocks]
    mixes = sum(mixing_seconds(case, block, case.settings.flush_mixes) for block in case.model.blocks)
    compute, transfer, total = (sum(getattr(s, f.name) for s in steps) for f in dataclasses.fields(Seconds))
    return Seconds(rounds * compute, rounds * (transfer + mixes) + last, rounds * (total + mixes) + last)


def with_exchange(case: Case, exchange: str) -> Case:
    """The same run in lockstep or with overlap; gamma_c as set only in the mode it was set for."""
    return case if exchange == case.settings.exchange else case.under(exchange=exchange, gamma_c=0.0)


def left_per_step(case: Case) -> float:
    """Disagreement that a gradient step leaves, on average: what a mix leaves, to the power of exchanges per step."""
    return float(case.mixing.left_per_mix ** (exchanges(case) / case.settings.inner_steps))


def exchanges(case: Case) -> int:
    """Of one visit, at steps with a gradient."""
    schedule = case.schedule
    return sum(schedule.mixes(Step(0, inner)) for inner in range(case.settings.inner_steps))
