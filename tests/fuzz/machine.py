"""The node's state machine behind the wire: what peers may say in whatever order, and a trainer that always obeys.

Frames are taken in under the daemon's own rules, so whatever gets here could have come over a stream: an assertion
that fails here is one that a peer can make fail.
"""

from collections import deque
from collections.abc import Callable

from deca_node.lab.sim.seats import FrameBook
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.agreement import ModelFacts
from deca_node.protocol.agreed.frames import FrameId, FrameKind, FrameSizes
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.node.node import Node
from deca_node.protocol.node.phases import ENDED
from deca_node.protocol.visit.edges import frames_held_max
from tests.defaults import default_policy
from tests.fuzz.decoders import Choices, Finding

NBYTES = 4
PEERS = ("b", "c")
SETTINGS = RunSettings(rounds=2, inner_steps=3, topology="full")
SIZES = FrameSizes((NBYTES,) * 2, (NBYTES,) * 2, (0,) * 2, (0,) * 2)
READY = e.TrainerReady(ModelFacts("0" * 64, ("layers.0", "layers.1"), (1, 1)), SIZES)
ODD = (-1, 2**31, 2**32 - 1, -(2**63), 2**63 - 1)
"""Numbers that the wire can say and that no node means."""

_ANSWERS: dict[type, Callable[..., e.Event]] = {
    c.Activate: lambda command: e.Activated(command.activation.index),
    c.Connect: lambda command: e.Connected(command.activation),
    c.HalfStep: lambda command: e.HalfStepped(command.step, command.update),
    c.Mix: lambda command: e.Mixed(command.step),
    c.Freeze: lambda command: e.Frozen(command.activation),
    c.Evaluate: lambda command: e.Evaluated(command.when, 1.0, 1),
    c.Save: lambda command: e.Saved(command.name),
    c.Checkpoint: lambda command: e.Checkpointed(command.position, ""),
    c.Adopt: lambda command: e.Adopted(command.position),
}


class Machine:
    """Node ``a`` among ``a``, ``b`` and ``c``."""

    def __init__(self) -> None:
        self.now = 0.0
        self.frames = FrameBook()
        self.node = Node("a", ("a", *PEERS), SETTINGS, default_policy())
        self._orders: deque[e.Event] = deque()
        self.hear(READY)
        for peer in PEERS:
            self.hear(e.PeerUp(peer, -1))

    def hear(self, event: e.Event) -> None:
        """One event, and everything that follows from it at once."""
        for command in self.node.handle(event, self.now):
            match command:
                case c.Release(frame):
                    self.frames.release(frame)
                case c.Fetch():
                    self._orders.append(e.FetchFailed("nobody has it"))
                case c.Activate(keyframe=FrameId() as frame) | c.HalfStep(update=FrameId() as frame):
                    self.frames.reserve(frame, NBYTES)
            if answer := _ANSWERS.get(type(command)):
                self._orders.append(answer(command))
        held = [self.frames.held_from(name) for name in ("a", *PEERS)]
        if max(held) > frames_held_max(SETTINGS.late_steps) + 1 or len(self._orders) > 6:
            raise Finding(f"frames held {held}, orders {len(self._orders)}")

    def work(self) -> None:
        """The trainer does what it was asked for next."""
        if self._orders and self.node.state.phase not in ENDED:
            self.hear(self._orders.popleft())

    def pass_time(self, seconds: float) -> None:
        """Time goes on, and alarms ring."""
        self.now += seconds
        deadline = self.node.next_deadline()
        if deadline is not None and deadline <= self.now:
            self.hear(e.DeadlinePassed())

    def frame(self, peer: str, kind: FrameKind, activation: int, inner: int, degree: int) -> None:
        """A frame came whole, if the session would have let it."""
        frame = FrameId(peer, kind, activation, inner)
        nbytes = SIZES.nbytes(self.node.state.schedule, kind, Step(activation, inner))
        full = self.frames.held_from(peer) >= frames_held_max(SETTINGS.late_steps)
        if nbytes is None or frame in self.frames or full or peer not in self.node.state.up:
            return
        self.frames.reserve(frame, nbytes)
        if kind is FrameKind.KEYFRAME:
            self.hear(e.OpenReceived(peer, activation, degree, frame))
        else:
            self.hear(e.UpdateReceived(peer, frame))


def drive(data: bytes) -> None:
    """Two bytes for each thing that happens, and more where it has numbers."""
    machine, choices, happened = Machine(), Choices(data), 0
    while choices and happened < 300 and machine.node.state.phase not in ENDED:
        happened += 1
        what, peer = choices.number(), PEERS[choices.number() % len(PEERS)]
        _happen(machine, what % 13, peer, choices)


def _happen(machine: Machine, what: int, peer: str, choices: Choices) -> None:
    if what in (6, 7, 8, 9, 10) and peer not in machine.node.state.up:
        machine.hear(e.PeerUp(peer, _number(choices)))
    match what:
        case 0 | 1 | 2 | 3:
            machine.work()
        case 4:
            machine.pass_time(choices.number() * 2.0)
        case 5 if peer in machine.node.state.up:
            machine.hear(e.PeerDown(peer, "gone"))
        case 6:
            machine.frame(peer, FrameKind.KEYFRAME, choices.number() % 8, 0, _number(choices) & 0xFFFFFFFF)
        case 7 | 8:
            machine.frame(peer, FrameKind.UPDATE, choices.number() % 8, choices.number() % 16, 0)
        case 9:
            machine.hear(e.CloseReceived(peer, _number(choices) & 0xFFFFFFFF, _number(choices), "why not"))
        case 10:
            machine.hear(e.PeerProgress(peer, _number(choices)))
        case 11:
            machine.hear(e.ByeReceived(peer))
        case _:
            machine.hear(e.MembersChanged({"a": 0, "b": _number(choices), "c": _number(choices)}))


def _number(choices: Choices) -> int:
    value = choices.number()
    return value if value < 240 else ODD[value % len(ODD)]


def seeds() -> list[bytes]:
    """Two visits with both neighbours, and one that nobody joins."""
    work, visit = bytes([0, 0]), b""
    for activation in range(2):
        visit += work * 3 + bytes([6, 0, activation, 2, 6, 1, activation, 2]) + work * 3
        for inner in range(6):
            visit += bytes([7, 0, activation, inner, 7, 1, activation, inner]) + work * 3
        visit += work * 4
    return [visit, (work + bytes([4, 0, 200])) * 20, work * 3 + bytes([9, 0, 0, 0, 10, 1, 3, 5, 0]) + work * 5]
