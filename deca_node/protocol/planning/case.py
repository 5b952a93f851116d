"""The inputs of a plan: the settings, the shape of the model, the graph of the members and the machine.

The other modules of this room take a :class:`Case` and answer one question each: bytes on the wire, memory, time, disk.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Schedule, Step
from deca_node.protocol.agreed.topology import Graph, check_edges, final_graph, graph
from deca_node.protocol.agreed.weights import contraction, flush_mixes

DTYPE_BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Curve:
    """Bytes for each sequence of L tokens: fixed + linear L + square L^2."""

    fixed: float = 0.0
    linear: float = 0.0
    square: float = 0.0

    def at(self, sequences: int, length: int) -> int:
        """Bytes for so many sequences of this length."""
        return max(0, round(sequences * (self.fixed + length * (self.linear + length * self.square))))

    @classmethod
    def sum(cls, curves: Sequence["Curve"]) -> "Curve":
        """The sum of curves."""
        return cls(*(sum(getattr(c, name) for c in curves) for name in ("fixed", "linear", "square")))

    @classmethod
    def mean(cls, curves: Sequence["Curve"]) -> "Curve":
        """The mean of curves, of which there is one at least."""
        total = cls.sum(curves)
        return cls(*(value / len(curves) for value in (total.fixed, total.linear, total.square)))

    @classmethod
    def through(cls, lengths: Sequence[int], values: Sequence[float]) -> "Curve":
        """The curve through three points."""
        (a, b, c), (x, y, z) = lengths, values
        first, second = (y - x) / (b - a), (z - y) / (c - b)
        square = (second - first) / (c - a)
        linear = first - square * (a + b)
        return cls(x - a * (linear + a * square), linear, square)


@dataclass(frozen=True)
class BlockShape:
    """One block. ``multiplied`` counts the elements of matrices that every token is multiplied with. The fields
    ``..._from`` are sums over all layers that a backward pass to this block crosses, the block included.

    ``frame_bytes`` is the size of the whole block by codec, ``v_bytes`` that of its v-signal, and ``m_bytes`` that of
    its m-signal by ``moment_bits``.
    ``activations`` are the bytes that a step of this block keeps and needs beside parameters, ``checkpointed`` the same
    with gradient checkpointing; None where the model could not be traced.
    """

    name: str
    elements: int
    largest_tensor: int
    layers: int
    layers_from: int
    multiplied: int
    multiplied_from: int
    frame_bytes: Mapping[str, int]
    v_bytes: int
    m_bytes: Mapping[int, int]
    activations: Curve | None = None
    checkpointed: Curve | None = None


@dataclass(frozen=True)
class ModelShape:
    """A model cut into blocks, bottom up. ``dtype_bytes`` is the size of a parameter in the checkpoint; ``frozen``
    counts parameters in no block, such as those of a tower for pictures. Of a sharded model ``layer`` elements are
    gathered at a time, those of the largest layer, and ``together`` elements for the whole of a pass."""

    name: str
    blocks: tuple[BlockShape, ...]
    dtype_bytes: int
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    frozen: int = 0
    layer: int = 0
    together: int = 0

    @property
    def elements(self) -> int:
        """The number of parameters."""
        return sum(block.elements for block in self.blocks) + self.frozen


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A node's machine: its link (each way), its sustained arithmetic, and its memory (None: unknown).

    ``one_memory``: frames are in the memory in which the model is trained, as on a CPU, and all ranks share it. With
    several ``ranks`` on GPUs, arithmetic and memory are those of one of them. ``sharded``: each rank holds a part of
    the model, and not all of it.
    """

    bits_per_second: float = 1e8
    latency_seconds: float = 0.02
    flops_per_second: float = 2e13
    memory_bytes: float | None = None
    micro_batch: int
    gradient_checkpointing: bool
    one_memory: bool = False
    ranks: int = 1
    sharded: bool = False


@dataclass(frozen=True)
class GraphFacts:
    """The graph, and how fast it agrees. A mix with gamma_c leaves the share ``left_per_mix`` of a disagreement.
    ``mixes_to_agree`` and ``final_degree_max`` are about the graph of the final flush."""

    nodes: int
    edges: int
    degree_min: int
    degree_max: int
    spectral_gap: float
    left_per_mix: float
    mixes_to_agree: int
    final_degree_max: int

    @classmethod
    def of(cls, graph: Graph, settings: RunSettings, final: Graph) -> "GraphFacts":
        """The facts of one graph. ``final`` is that of the final flush."""
        degrees = [len(near) for near in graph.values()]
        left, flow_share = contraction(graph), settings.flow_share
        return cls(
            nodes=len(graph),
            edges=sum(degrees) // 2,
            degree_min=min(degrees),
            degree_max=max(degrees),
            spectral_gap=1.0 - left,
            left_per_mix=left if flow_share == 1.0 else contraction(graph, flow_share),
            mixes_to_agree=flush_mixes(final, settings),
            final_degree_max=max(map(len, final.values())),
        )


@dataclass(frozen=True)
class Case:
    """All inputs of a plan. If the run draws its random graph again and again, ``mixing`` holds the facts of the first
    drawing."""

    settings: RunSettings
    model: ModelShape
    members: tuple[str, ...]
    mixing: GraphFacts
    machine: Machine

    @classmethod
    def of(cls, settings: RunSettings, model: ModelShape, members: Iterable[str], machine: Machine) -> "Case":
        """The case of a run with these members. Raises SettingsError if the topology does not fit them."""
        names = tuple(sorted(members))
        check_edges(names, settings)
        mixing = GraphFacts.of(graph(names, settings), settings, final_graph(names, settings))
        return cls(settings, model, names, mixing, machine)

    def under(self, **changes: Any) -> "Case":
        """The same case with other run settings. Raises SettingsError if they contradict each other."""
        settings = dataclasses.replace(self.settings, **changes)
        if {"topology", "degree"} & set(changes) or settings.flow_share != self.settings.flow_share:
            return Case.of(settings, self.model, self.members, self.machine)
        return dataclasses.replace(self, settings=settings)

    def with_exchange(self, exchange: str) -> "Case":
        """The same case in lockstep or with overlap. If the mode changes, gamma_c becomes the largest stable value."""
        return self if exchange == self.settings.exchange else self.under(exchange=exchange, gamma_c=0.0)

    def on(self, **changes: Any) -> "Case":
        """The same case with changes to the machine."""
        return dataclasses.replace(self, machine=dataclasses.replace(self.machine, **changes))

    @property
    def final_flush_mixes(self) -> int:
        """Mixes per block in the final flush."""
        return self.settings.final_flush_mixes or self.mixing.mixes_to_agree

    @property
    def schedule(self) -> Schedule:
        """The run's activations."""
        return Schedule(self.settings, len(self.model.blocks), self.final_flush_mixes)

    @property
    def dtype_bytes(self) -> int:
        """Bytes of one parameter in the dtype of training."""
        return DTYPE_BYTES.get(self.settings.dtype, self.model.dtype_bytes)

    @property
    def share(self) -> int:
        """Sequences of a batch that a rank takes, at most."""
        return -(-self.settings.batch_size // self.machine.ranks)

    @property
    def micro_batch(self) -> int:
        """Sequences per forward pass."""
        return min(self.machine.micro_batch or self.share, self.share)

    @property
    def exchanges(self) -> int:
        """Exchanges of one visit at steps with a gradient."""
        return sum(self.schedule.mixes(Step(0, inner)) for inner in range(self.settings.inner_steps))

    @property
    def left_per_step(self) -> float:
        """The share of a disagreement that a gradient step leaves on average: ``left_per_mix`` to the power of the
        exchanges of parameters per step."""
        steps = range(self.settings.inner_steps)
        mixes = sum(self.schedule.parameters(Step(0, inner)) for inner in steps)
        return float(self.mixing.left_per_mix ** (mixes / len(steps)))
