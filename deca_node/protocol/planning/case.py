"""What a plan is computed from: the settings, the shape of the model, the graph of the members and the machine.

The other modules of this room take a :class:`Case` and answer one question each: bytes on the wire, memory, time, disk.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Schedule, Step
from deca_node.protocol.agreed.topology import Graph, check_edges, graph
from deca_node.protocol.agreed.weights import contraction, flush_mixes

DTYPE_BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


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
    micro_batch: int
    gradient_checkpointing: bool
    one_memory: bool = False


@dataclass(frozen=True)
class GraphFacts:
    """How fast the graph agrees. ``left_per_mix`` is the share of disagreement that one mix leaves under gamma_c."""

    nodes: int
    edges: int
    degree_min: int
    degree_max: int
    spectral_gap: float
    left_per_mix: float
    mixes_to_agree: int

    @classmethod
    def of(cls, graph: Graph, settings: RunSettings) -> "GraphFacts":
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
    mixing: GraphFacts
    machine: Machine

    @classmethod
    def of(cls, settings: RunSettings, model: ModelShape, members: Iterable[str], machine: Machine) -> "Case":
        """Raises SettingsError where the topology cannot be drawn for these members."""
        names = tuple(sorted(members))
        check_edges(names, settings)
        mixing = GraphFacts.of(graph(names, settings), settings)
        return cls(settings, model, names, mixing, machine)

    def under(self, **changes: Any) -> "Case":
        """The same with other run settings. Raises SettingsError where they contradict each other."""
        settings = dataclasses.replace(self.settings, **changes)
        if "topology" in changes or settings.flow_share != self.settings.flow_share:
            return Case.of(settings, self.model, self.members, self.machine)
        return dataclasses.replace(self, settings=settings)

    def with_exchange(self, exchange: str) -> "Case":
        """The same run in lockstep or with overlap; gamma_c as set only in the mode it was set for."""
        return self if exchange == self.settings.exchange else self.under(exchange=exchange, gamma_c=0.0)

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

    @property
    def exchanges(self) -> int:
        """Of one visit, at steps with a gradient."""
        return sum(self.schedule.mixes(Step(0, inner)) for inner in range(self.settings.inner_steps))

    @property
    def left_per_step(self) -> float:
        """Share of a disagreement that a gradient step leaves, on average: what a mix leaves, to the power of exchanges
        per step."""
        return float(self.mixing.left_per_mix ** (self.exchanges / self.settings.inner_steps))
