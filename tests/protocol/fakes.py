"""A trainer of a few lines and a few numbers, and the audit that all trainers of a cluster share.

The arithmetic is that of compressed averaging in full: a public copy x^, differences e_ij, a coarse
quantizer, gamma_c and w_ij. Instead of Adam every gradient pulls a node toward a place of its own, so that
nodes disagree and the audit knows by how much each has moved itself.
"""

import random
import struct
from dataclasses import dataclass, field

from deca_node.lab.cluster import Cluster, FrameBook, Seat
from deca_node.lab.fake_network import Weather
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.frames import FrameId
from deca_node.protocol.node import Node
from deca_node.protocol.patience import Patience
from deca_node.protocol.run import ModelFacts, RunSettings
from deca_node.protocol.sizes import FrameSizes

ELEMENTS = 4
BLOCKS = 2
LEVELS = 7
"""The quantizer has 15 levels: 4 bits."""

PULL = 0.2

Vector = list[float]


def quantized(x: Vector) -> Vector:
    """Q(x): every element to the nearest of 15 levels between -max|x| and max|x|."""
    scale = max(map(abs, x)) / LEVELS
    return [round(value / scale) * scale for value in x] if scale else [0.0] * len(x)


def plus(x: Vector, y: Vector, factor: float = 1.0) -> Vector:
    return [a + factor * b for a, b in zip(x, y, strict=True)]


def pack(x: Vector) -> bytes:
    return struct.pack(f"{ELEMENTS}d", *x)


def unpack(data: memoryview) -> Vector:
    return list(struct.unpack(f"{ELEMENTS}d", data))


@dataclass
class Audit:
    """What must hold between nodes, whatever the network does.

    ``start`` and ``drift`` hold the sum over nodes of x at the start and of what gradients added since, per
    block; ``single`` the flows that one end of an edge has applied and the other has not yet.
    """

    trainers: list["FakeTrainer"] = field(default_factory=list)
    start: list[Vector] = field(default_factory=lambda: [[0.0] * ELEMENTS for _ in range(BLOCKS)])
    drift: list[Vector] = field(default_factory=lambda: [[0.0] * ELEMENTS for _ in range(BLOCKS)])
    single: dict[tuple[int, int, str, str], tuple[int, Vector]] = field(default_factory=dict)
    frames: dict[FrameId, bytes] = field(default_factory=dict)
    applied: int = 0

    def join(self, trainer: "FakeTrainer") -> None:
        """One more node."""
        self.trainers.append(trainer)
        self.start = [plus(total, x) for total, x in zip(self.start, trainer.x, strict=True)]

    def moved(self, block: int, by: Vector) -> None:
        """A gradient has moved one node."""
        self.drift[block] = plus(self.drift[block], by)

    def wrote(self, frame: FrameId, data: bytes) -> None:
        """A frame is written; a keyframe is written once per activation, an update once per step."""
        assert frame not in self.frames, f"{frame} is written twice"
        self.frames[frame] = data

    def flowed(self, block: int, name: str, theirs: FrameId, amount: Vector) -> None:
        """One end has applied a flow: it is held against the other end's, which must be its exact opposite."""
        self.applied += 1
        ends = sorted((name, theirs.sender))
        key = (theirs.activation, theirs.inner, ends[0], ends[1])
        if key not in self.single:
            self.single[key] = (block, amount)
            return
        assert self.single.pop(key) == (block, [-value for value in amount]), f"the two ends of {key} differ"

    def check(self) -> None:
        """The sum over nodes is what it was, but for the gradients and for flows that one end has still to apply."""
        for block in range(BLOCKS):
            expected = plus(self.start[block], self.drift[block])
            for at, amount in self.single.values():
                expected = plus(expected, amount) if at == block else expected
            found = [sum(column) for column in zip(*(t.x[block] for t in self.trainers), strict=True)]
            assert all(abs(a - b) < 1e-9 for a, b in zip(found, expected, strict=True)), (
                f"the mean of block {block} has moved: {found}, expected {expected}"
            )

    def spread(self) -> float:
        """The largest distance between two nodes in any element."""
        blocks = [[trainer.x[block] for trainer in self.trainers] for block in range(BLOCKS)]
        columns = [column for block in blocks for column in zip(*block, strict=True)]
        return max(max(column) - min(column) for column in columns)


@dataclass
class _Edge:
    weight: float
    e: Vector
    applied: int = -1
    """Index of the last exchange whose flow was applied."""


class FakeTrainer:
    """One node's end of the arithmetic. It asserts that it is asked for the right things in the right order."""

    def __init__(self, name: str, settings: RunSettings, frames: FrameBook, audit: Audit) -> None:
        rng = random.Random(f"{name}:{settings.seed}")
        self.name = name
        self.x0 = [[0.0] * ELEMENTS for _ in range(BLOCKS)]
        self.x = [list(x) for x in self.x0]
        self._places = [[rng.gauss(0, 1) for _ in range(ELEMENTS)] for _ in range(BLOCKS)]
        self._settings = settings
        self._frames = frames
        self._audit = audit
        self._block: int | None = None
        self._unfolded = False
        self._gradients = 0
        self._x_hat: Vector = []
        self._edges: dict[str, _Edge] = {}
        self._encoded: list[int] = []
        audit.join(self)

    def ready(self) -> e.TrainerReady:
        """Equal at all nodes, as it must be."""
        facts = ModelFacts("0" * 64, tuple(f"layers.{i}" for i in range(BLOCKS)), (ELEMENTS,) * BLOCKS)
        sizes = (8 * ELEMENTS,) * BLOCKS
        return e.TrainerReady(facts, FrameSizes(sizes, sizes, (0,) * BLOCKS))

    def obey(self, command: c.TrainerCommand) -> e.TrainerEvent:
        """Do what is asked."""
        match command:
            case c.Activate():
                return self._activate(command)
            case c.Connect():
                return self._connect(command)
            case c.HalfStep():
                return self._half_step(command)
            case c.Mix():
                return self._mix(command)
            case c.Freeze():
                return self._freeze(command)
            case c.Evaluate(when):
                return e.Evaluated(when, 1.0, 1)
            case c.Save(name):
                return e.Saved(name)
            case c.Checkpoint(position):
                return e.Checkpointed(position, f"checkpoints/{position.activation}-{position.inner}")
            case c.Adopt(position):
                return e.Adopted(position)

    def _activate(self, command: c.Activate) -> e.Activated:
        assert self._block is None, "a block is activated before the last one was frozen"
        self._block = command.activation.block
        self._gradients, self._edges, self._encoded = 0, {}, []
        if command.keyframe:
            self._write(command.keyframe, quantized(plus(self.x[self._block], self.x0[self._block], -1.0)))
        return e.Activated(command.activation.index)

    def _connect(self, command: c.Connect) -> e.Connected:
        assert self._block is not None
        ours = unpack(self._frames.view(command.ours)) if command.ours else [0.0] * ELEMENTS
        self._x_hat = plus(self.x0[self._block], ours)
        for near in command.neighbours:
            self._edges[near.peer] = _Edge(near.weight, plus(self._read(near.keyframe), ours, -1.0))
        return e.Connected(command.activation)

    def _half_step(self, command: c.HalfStep) -> e.HalfStepped:
        assert self._block is not None and not self._unfolded
        if command.gradient:
            assert command.step.inner == self._gradients < self._settings.inner_steps
            pull = [PULL * (place - x) for place, x in zip(self._places[self._block], self.x[self._block], strict=True)]
            self.x[self._block] = plus(self.x[self._block], pull)
            self._audit.moved(self._block, pull)
            self._gradients += 1
            self._unfolded = True
        if command.update:
            q = quantized(plus(self.x[self._block], self._x_hat, -1.0))
            self._x_hat = plus(self._x_hat, q)
            self._write(command.update, q)
            self._encoded.append(command.update.inner)
        return e.HalfStepped(command.step, command.update)

    def _mix(self, command: c.Mix) -> e.Mixed:
        assert command.fold == self._unfolded, "h is folded once after each gradient"
        self._unfolded = False
        for flow in command.flows:
            self._flow(flow)
        return e.Mixed(command.step)

    def _flow(self, flow: c.Flow) -> None:
        """e_ij += q_j - q_i, x_i += gamma_c w_ij e_ij."""
        assert self._block is not None
        edge = self._edges[flow.peer]
        edge.applied += 1
        assert flow.theirs.inner == flow.ours.inner == self._encoded[edge.applied], "flows are applied once, in order"
        edge.e = plus(edge.e, plus(self._read(flow.theirs), self._read(flow.ours), -1.0))
        amount = [self._settings.flow_share * edge.weight * value for value in edge.e]
        self.x[self._block] = plus(self.x[self._block], amount)
        self._audit.flowed(self._block, self.name, flow.theirs, amount)

    def _freeze(self, command: c.Freeze) -> e.Frozen:
        assert self._block is not None and (not self._unfolded or command.activation >= 0)
        self._block, self._unfolded = None, False
        return e.Frozen(command.activation)

    def _write(self, frame: FrameId, x: Vector) -> None:
        self._frames.view(frame)[:] = pack(x)
        self._audit.wrote(frame, pack(x))

    def _read(self, frame: FrameId) -> Vector:
        """A frame's values, which must be those that its sender wrote."""
        view = self._frames.view(frame)
        assert self._audit.frames[frame] == view
        return unpack(view)


NAMES = "abcdefgh"


def fake_cluster(
    seed: int, nodes: int, settings: RunSettings, patience: Patience, weather: Weather
) -> tuple[Cluster, Audit]:
    """A cluster of fake trainers whose audit is held after every event."""
    audit, seats = Audit(), {}
    for name in NAMES[:nodes]:
        frames = FrameBook()
        seats[name] = Seat(
            Node(name, tuple(NAMES[:nodes]), settings, patience), FakeTrainer(name, settings, frames, audit), frames
        )
    return Cluster(seats, weather, seed, audit.check), audit
