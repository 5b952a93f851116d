"""A trainer of a few lines and a few numbers. It can die, return from its disk, and take over the blocks of others.

It has the whole arithmetic of compressed averaging: a public copy x^, differences e_ij, a coarse quantizer, gamma_c and
w_ij. Instead of Adam every gradient pulls a node toward a point of its own, so that nodes disagree and the audit knows
how far each node has moved itself.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from deca_node.lab.sim.checks.audit import BLOCKS, ELEMENTS, FRAME_BYTES, Audit, HalfFlow, Vector, plus, tokens_of
from deca_node.lab.sim.checks.witness import Witness, check_pace
from deca_node.lab.sim.cluster import Cluster
from deca_node.lab.sim.seats import FrameBook, Seat
from deca_node.lab.sim.weather import Weather
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.agreement import ModelFacts
from deca_node.protocol.agreed.frames import BlockVersion, Delta, FrameId, FrameSizes
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Schedule, Step
from deca_node.protocol.agreed.stopping import NOTHING_TOLD, Heldout
from deca_node.protocol.node.node import Node
from deca_node.protocol.visit.policy import Policy

LEVELS = 7
"""The quantizer has 15 levels: 4 bits."""

PULL = 0.2

NOT_VISITED = -1
BLOCK_NAMES = tuple(f"layers.{i}" for i in range(BLOCKS))


def quantized(x: Vector) -> Vector:
    """Q(x): every element to the nearest of 15 levels between -max|x| and max|x|."""
    scale = max(map(abs, x)) / LEVELS
    return [round(value / scale) * scale for value in x] if scale else [0.0] * len(x)


@dataclass
class _Edge:
    weight: float
    e: Vector | None
    """None where only moments travel."""
    applied: int = -1
    """The step of the last exchange whose flow was applied."""


@dataclass(frozen=True)
class _Kept:
    """A checkpoint: the values of every block, and the values at the end of its last visit (``frozen``). Only those of
    the active block differ."""

    position: Step
    x: tuple[tuple[float, ...], ...]
    frozen: tuple[tuple[float, ...], ...]
    versions: tuple[int, ...]
    """The activation at the end of which each block was frozen."""


@dataclass
class _Visit:
    """The state of the active block. All of it except ``gradients`` ends with the process."""

    block: int
    gradients: int = 0
    unfolded: bool = False
    x_hat: Vector = field(default_factory=list)
    edges: dict[str, _Edge] = field(default_factory=dict)
    encoded: list[int] = field(default_factory=list)


class Exchanges(Protocol):
    """The production exchange beside a fake trainer's arithmetic (:class:`deca_node.lab.sim.checks.dense.Dense`)."""

    def begin(self) -> None:
        """A visit begins."""

    def keyframe(self, x: Vector, x0: Vector) -> tuple[Vector, Any]:
        """Q8(x - x0) as numbers and as codes."""

    def difference(self, x: Vector) -> tuple[Vector, Any]:
        """Q(x - x^) as numbers and as codes."""

    def open(self, x0: Vector, ours: int, edges: Mapping[str, tuple[float, int]]) -> None:
        """Open edges."""

    def drop(self, peer: str) -> None:
        """Drop an edge."""

    def mix(self, x: Vector, flows: Sequence[tuple[str, int, int]]) -> Vector:
        """x after flows."""

    def check(self, x_hat: Vector, differences: Mapping[str, Vector]) -> None:
        """Assert that both hold the same."""

    def same(self, what: str, found: Vector, expected: Vector) -> None:
        """Assert that two vectors are equal."""


class FakeTrainer:
    """The arithmetic of one node. It asserts that commands are valid and come in the right order."""

    def __init__(
        self, name: str, settings: RunSettings, frames: FrameBook, audit: Audit, dense: Exchanges | None = None
    ) -> None:
        """With ``dense`` its exchange is held against the production exchange."""
        rng = random.Random(f"{name}:{settings.seed}")
        self.name = name
        start = 0.0 if dense is None else 0.25
        self.x0 = [[start * (block + 1)] * ELEMENTS for block in range(BLOCKS)]
        self.x = [list(x) for x in self.x0]
        self.frames = frames
        self.loss: Callable[[str], float] = lambda when: 1.0
        """The held-out loss by the moment at which it is measured."""
        self.disk: list[_Kept] = []
        """At most two checkpoints, the newest last."""
        self._places = [[rng.gauss(0, 1) for _ in range(ELEMENTS)] for _ in range(BLOCKS)]
        self._settings = settings
        self._schedule = Schedule(settings, BLOCKS, final_flush_mixes=1)
        # Moments are some more bytes, which nothing is done with.
        self._signals = (FRAME_BYTES if settings.moments_every else 0,) * BLOCKS
        self._audit = audit
        self._dense = dense
        self._visit: _Visit | None = None
        self._activation = 0
        """The current or the next activation."""
        self._frozen = [list(x) for x in self.x0]
        self._versions = [NOT_VISITED] * BLOCKS
        audit.join(self)

    # --- life ---------------------------------------------------------------------------------------

    def ready(self) -> e.TrainerReady:
        """Facts that are equal at all nodes, except for the position."""
        facts = ModelFacts("0" * 64, BLOCK_NAMES, (ELEMENTS,) * BLOCKS)
        sizes = (FRAME_BYTES,) * BLOCKS
        position = self.disk[-1].position if self.disk else Step(0, 0)
        every = FrameSizes(sizes, sizes, self._signals, (0,) * BLOCKS)
        return e.TrainerReady(facts, every, position, tokens=tokens_of(self.name))

    def restart(self) -> None:
        """Lose everything that is not on the disk."""
        before, self._visit = self.x, None
        if self._dense:
            self._dense.begin()
        if not self.disk:
            self.x, self._frozen = [list(x) for x in self.x0], [list(x) for x in self.x0]
            self._versions, self._activation = [NOT_VISITED] * BLOCKS, 0
        else:
            kept = self.disk[-1]
            self.x, self._frozen = [list(x) for x in kept.x], [list(x) for x in kept.frozen]
            self._versions, self._activation = list(kept.versions), kept.position.activation
            if kept.position.inner:
                gradients = min(kept.position.inner, self._settings.inner_steps)
                self._visit = _Visit(self._schedule[self._activation].block, gradients)
        self._audit.jumped(self.name, before, self.x)

    def give(self) -> e.Fetched | None:
        """The frozen blocks of the newest checkpoint."""
        if not self.disk:
            return None
        kept, deltas = self.disk[-1], []
        for name, x, version in zip(BLOCK_NAMES, kept.frozen, kept.versions, strict=True):
            if version != NOT_VISITED:
                path = f"{len(self._audit.given)}:{self.name}/{name}"
                self._audit.given[path] = list(x)
                deltas.append(Delta(BlockVersion(name, version), path))
        return e.Fetched(kept.position.activation, tuple(deltas))

    # --- commands -----------------------------------------------------------------------------------

    def obey(self, command: c.TrainerCommand) -> e.TrainerEvent:
        """Perform a command."""
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
                return e.Evaluated(when, self.loss(when), 1)
            case c.Save(name=name):
                assert self._visit is None
                return e.Saved(name)
            case c.Checkpoint():
                return self._checkpoint(command)
            case c.Adopt():
                return self._adopt(command)

    @property
    def _active(self) -> _Visit:
        assert self._visit is not None, "no block is active"
        return self._visit

    def _activate(self, command: c.Activate) -> e.Activated:
        assert self._visit is None, "a block is activated before the last one was frozen"
        early = not command.activation.inner_steps and self._activation < command.activation.index
        first_of_flush = command.activation.index == self._settings.rounds * BLOCKS
        in_order = command.activation.index == self._activation or (early and first_of_flush)
        assert in_order, "activations are visited in order, each once, though a run may stop early"
        self._activation = command.activation.index
        self._visit = _Visit(command.activation.block)
        block = self._visit.block
        if self._dense:
            self._dense.begin()
        if command.keyframe:
            self._write(command.keyframe, *self._keyframe(block))
        return e.Activated(command.activation.index)

    def _connect(self, command: c.Connect) -> e.Connected:
        serial, ours = self._sound(command.ours) if command.ours else (-1, [0.0] * ELEMENTS)
        self._active.x_hat = plus(self.x0[self._active.block], ours)
        refused, opened = [], {}
        for near in command.neighbours:
            theirs = self._read(near.keyframe) if near.keyframe else None
            if theirs:
                self._active.edges[near.peer] = _Edge(near.weight, plus(theirs[1], ours, -1.0))
                opened[near.peer] = (near.weight, theirs[0])
            elif not near.keyframe:
                self._active.edges[near.peer] = _Edge(near.weight, None)
            else:
                refused.append(e.Refused(near.peer, "not-finite", "its keyframe is malformed"))
        assert sum(near.weight for near in command.neighbours if near.keyframe) < 1 - 1e-9, "it keeps a weight itself"
        if self._dense and command.ours:
            self._dense.open(self.x0[self._active.block], serial, opened)
            self._check_dense()
        return e.Connected(command.activation, tuple(refused))

    def _half_step(self, command: c.HalfStep) -> e.HalfStepped:
        visit = self._active
        assert not visit.unfolded and command.step.activation == self._activation
        x = self.x[visit.block]
        if command.gradient:
            assert command.step.inner == visit.gradients < self._settings.inner_steps, "every step is taken once"
            pull = [PULL * (place - value) for place, value in zip(self._places[visit.block], x, strict=True)]
            x = self.x[visit.block] = plus(x, pull)
            self._audit.moved(self.name, visit.block, pull)
            visit.gradients += 1
            visit.unfolded = True
        if command.update:
            # A frame of moments alone leaves x and x^ as they are.
            sent = self._schedule.parameters(command.step)
            q, codes = self._difference(x, visit) if sent else ([0.0] * ELEMENTS, None)
            visit.x_hat = plus(visit.x_hat, q)
            self._write(command.update, q, codes)
            visit.encoded.append(command.update.inner)
        return e.HalfStepped(command.step, command.update)

    def _mix(self, command: c.Mix) -> e.Mixed:
        visit = self._active
        assert command.fold == visit.unfolded, "h is folded once after each gradient"
        visit.unfolded = False
        bad = {flow.peer for flow in command.flows if not self._read(flow.theirs)}
        for peer in bad:
            del visit.edges[peer]
            if self._dense:
                self._dense.drop(peer)
        before, flows = self.x[visit.block], [flow for flow in command.flows if flow.peer not in bad]
        for flow in flows:
            self._flow(visit, flow)
        flows = [f for f in flows if self._schedule.parameters(Step(f.ours.activation, f.ours.inner))]
        if self._dense and flows:
            serials = [(flow.peer, self._sound(flow.theirs)[0], self._sound(flow.ours)[0]) for flow in flows]
            self._dense.same("x after a mix", self._dense.mix(before, serials), self.x[visit.block])
        self._check_dense()
        words = ("not-finite", "its update is malformed")
        return e.Mixed(command.step, refused=tuple(e.Refused(peer, *words) for peer in sorted(bad)))

    def _flow(self, visit: _Visit, flow: c.Flow) -> None:
        """e_ij += q_j - q_i, x_i += gamma_c w_ij e_ij."""
        edge = visit.edges[flow.peer]
        assert flow.theirs.inner == flow.ours.inner in visit.encoded, "both ends of a flow are of one exchange"
        between = [inner for inner in visit.encoded if edge.applied < inner < flow.ours.inner]
        in_order = edge.applied < flow.ours.inner and (self._settings.partners == "step" or not between)
        assert in_order, "flows are applied once, in order"
        edge.applied = flow.ours.inner
        (theirs, q_theirs), (ours, q_ours) = self._sound(flow.theirs), self._sound(flow.ours)
        if not self._schedule.parameters(Step(flow.ours.activation, flow.ours.inner)):
            return
        assert edge.e is not None, "parameters travel where keyframes did"
        edge.e = plus(edge.e, plus(q_theirs, q_ours, -1.0))
        amount = [self._settings.flow_share * edge.weight * value for value in edge.e]
        self.x[visit.block] = plus(self.x[visit.block], amount)
        ends = (min(self.name, flow.theirs.sender), max(self.name, flow.theirs.sender))
        self._audit.flowed(self.name, HalfFlow(visit.block, amount, flow.theirs.activation, ends), theirs, ours)

    def _freeze(self, command: c.Freeze) -> e.Frozen:
        assert not self._active.unfolded and command.activation == self._activation
        self._end_visit()
        self._activation += 1
        return e.Frozen(command.activation)

    def _end_visit(self) -> None:
        block, self._visit = self._active.block, None
        self._frozen[block], self._versions[block] = self.x[block], self._activation

    def _checkpoint(self, command: c.Checkpoint) -> e.Checkpointed:
        position = command.position
        assert (self._visit is not None) == (position.inner > 0), "a block is active within an activation only"
        assert position.activation == self._activation and not (self._visit and self._visit.unfolded)
        frozen = tuple(map(tuple, self._frozen))
        kept = _Kept(position, tuple(map(tuple, self.x)), frozen, tuple(self._versions))
        self.disk = [*self.disk[-1:], kept]
        return e.Checkpointed(position, f"checkpoints/{position.activation}-{position.inner}")

    def _adopt(self, command: c.Adopt) -> e.Adopted:
        assert command.position > Step(self._activation, 0) and command.position.inner == 0, "no node goes back"
        if self._visit:
            self._end_visit()
        before, self.x = self.x, list(self.x)
        for delta in command.deltas:
            block = BLOCK_NAMES.index(delta.version.block)
            self.x[block] = self._frozen[block] = self._audit.given[delta.path]
            self._versions[block] = delta.version.activation
        self._audit.jumped(self.name, before, self.x)
        self._activation = command.position.activation
        return e.Adopted(command.position)

    def _keyframe(self, block: int) -> tuple[Vector, Any]:
        """Q8(x - x0), and its codes if there is a production exchange."""
        if self._dense:
            return self._dense.keyframe(self.x[block], self.x0[block])
        return quantized(plus(self.x[block], self.x0[block], -1.0)), None

    def _difference(self, x: Vector, visit: _Visit) -> tuple[Vector, Any]:
        """Q(x - x^), and its codes if there is a production exchange."""
        if self._dense:
            return self._dense.difference(x)
        return quantized(plus(x, visit.x_hat, -1.0)), None

    def _check_dense(self) -> None:
        if self._dense:
            held = {peer: edge.e for peer, edge in self._active.edges.items() if edge.e is not None}
            self._dense.check(self._active.x_hat, held)

    def _write(self, frame: FrameId, x: Vector, codes: Any = None) -> None:
        view = self.frames.view(frame)
        view[:] = self._audit.frame(x).ljust(len(view), b"\0")
        if codes is not None:
            self._audit.codes[len(self._audit.written) - 1] = codes

    def _read(self, frame: FrameId) -> tuple[int, Vector] | None:
        data = bytes(self.frames.view(frame))
        return None if any(data[FRAME_BYTES:]) else self._audit.read(data[:FRAME_BYTES])

    def _sound(self, frame: FrameId) -> tuple[int, Vector]:
        found = self._read(frame)
        assert found, f"{frame} is not what its sender wrote"
        return found


def fake_cluster(
    seed: int, names: tuple[str, ...], settings: RunSettings, policy: Policy, weather: Weather, *, dense: bool = False
) -> tuple[Cluster, Audit]:
    """A cluster of fake trainers whose rules are checked after every event. With ``dense`` the production exchange runs
    beside them."""
    audit = Audit(settings)
    witness = Witness(names, settings, BLOCKS)
    audit.declared = witness.uneven
    trainers: dict[str, FakeTrainer] = {}

    def seat(name: str, heldout: Heldout = NOTHING_TOLD) -> Seat:
        node = Node(name, names, settings, policy, heldout=heldout)
        return Seat(node, trainers[name], trainers[name].frames)

    def revive(name: str, empty: bool) -> Seat:
        trainer = trainers[name]
        trainer.frames = FrameBook()
        trainer.disk = [] if empty else trainer.disk
        trainer.restart()
        witness.reborn(name)
        return seat(name, NOTHING_TOLD if empty else cluster.hearsay.told(name))

    def watch(node: Node, event: e.Event, given: list[c.Command]) -> None:
        audit.check()
        check_pace(node)
        witness.see(node, event, given)
        witness.check_frames(node, trainers[node.name].frames.held())

    for name in names:
        exchange = _production(name, settings, audit) if dense else None
        trainers[name] = FakeTrainer(name, settings, FrameBook(), audit, exchange)
    cluster = Cluster({name: seat(name) for name in names}, weather, seed, watch, revive)
    return cluster, audit


def _production(name: str, settings: RunSettings, audit: Audit) -> Exchanges:
    # It needs torch, which most storms do not.
    from deca_node.lab.sim.checks.dense import Dense

    return Dense(name, settings.seed, settings.flow_share, audit.codes)
