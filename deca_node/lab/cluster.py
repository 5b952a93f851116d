"""Many nodes on one thread: real nodes, a fake clock, a fake network, and one seed for all that is left to chance.

A cluster does what the daemon does, ``for command in node.handle(event, now): perform(command)``, for every
node at once. Commands to a trainer queue up and are obeyed one after the other, each in fake time; frames are
reserved, sent and released under the daemon's rules, and breaking one of them is an error at the place where
it happens. What happened is kept as a transcript, and the same seed always gives the same one.

Any trainer will do that is ready and obeys: the production one over a model, or a few lines of arithmetic.
"""

import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

from deca_node.lab.fake_network import Agenda, Network, Weather
from deca_node.lab.notation import write
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.errors import DecaError
from deca_node.protocol.exchange import frames_held_max
from deca_node.protocol.frames import FrameId
from deca_node.protocol.node import Node
from deca_node.protocol.schedule import Step

TAIL_LINES = 60
"""How much of the transcript a failure shows."""

DAY = 86_400.0


class Obeys(Protocol):
    """A trainer, as far as a cluster is concerned."""

    def ready(self) -> e.TrainerReady:
        """The model's facts and the sizes of frames."""

    def obey(self, command: c.TrainerCommand) -> e.TrainerEvent:
        """Do what is asked, and say that it is done."""


class FrameBook:
    """One node's frames, in plain memory. To take a frame twice, or to use one that is not held, is an error."""

    def __init__(self) -> None:
        self._frames: dict[FrameId, bytearray] = {}

    def __len__(self) -> int:
        return len(self._frames)

    def __contains__(self, frame: FrameId) -> bool:
        return frame in self._frames

    def held(self) -> list[FrameId]:
        """All frames that are held."""
        return sorted(self._frames)

    def held_from(self, sender: str) -> int:
        """How many frames of one sender are held."""
        return sum(frame.sender == sender for frame in self._frames)

    def reserve(self, frame: FrameId, nbytes: int) -> None:
        """Take a frame in."""
        assert frame not in self._frames, f"{frame} is held already"
        self._frames[frame] = bytearray(nbytes)

    def view(self, frame: FrameId) -> memoryview:
        """The bytes of a held frame, writable; what a trainer takes as its ``frames``."""
        assert frame in self._frames, f"{frame} is not held"
        return memoryview(self._frames[frame])

    def release(self, frame: FrameId) -> None:
        """Let a frame go."""
        assert frame in self._frames, f"{frame} is released, but it is not held"
        del self._frames[frame]


class Seat(NamedTuple):
    """A node, its trainer, and the frames that both see."""

    node: Node
    trainer: Obeys
    frames: FrameBook


class Line(NamedTuple):
    """One line of the transcript: what a node heard, or (``said``) what it asked for."""

    when: float
    node: str
    said: bool
    fact: e.Event | c.Command

    def __str__(self) -> str:
        return f"{self.when:9.3f} {self.node}{'    ' if self.said else ' '}{write(self.fact)}"


@dataclass
class _Member:
    """A seat and what goes on at it. ``inbox`` holds what came in during a pause."""

    seat: Seat
    slowness: float
    ready: e.TrainerReady | None = None
    orders: deque[c.TrainerCommand] = field(default_factory=deque)
    inbox: deque[Callable[[], None]] = field(default_factory=deque)
    paused: bool = False
    gone: bool = False
    woken_at: float | None = None


class Cluster:
    """``seats`` by name. ``watch`` is called after every event that a node handled, to check what must always hold."""

    def __init__(
        self,
        seats: Mapping[str, Seat],
        weather: Weather | None = None,
        seed: int = 0,
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        self.seed = seed
        self.seats = seats
        self.lines: list[Line] = []
        self.ends: dict[str, c.Finish] = {}
        """How each node's run ended; a node that crashed has no entry."""
        self.broken_rules: list[str] = []
        """Streams that a receiver ended because of what came over them."""
        self._weather = weather or Weather()
        self._watch = watch
        self._rng = random.Random(seed)
        self._agenda = Agenda()
        self._network = Network(
            seats, self._weather, self._agenda, self._rng, self._deliver, lambda name: seats[name].node.position
        )
        self._members = {
            name: _Member(seat, self._rng.uniform(*self._weather.node_slowness)) for name, seat in seats.items()
        }
        self._plan()

    # --- life ---------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Seconds on the fake clock."""
        return self._agenda.now

    def run(self, until: float = DAY) -> dict[str, c.Finish]:
        """Let time pass until every node has ended; returns how each did.

        Raises AssertionError where they do not, or where a rule is broken; seed and transcript are told along.
        """
        try:
            while any(not member.gone for member in self._members.values()):
                assert self._agenda.step() and self.now <= until, f"stuck at {self.now:.3f} s: {self._standstill()}"
        except Exception as problem:
            problem.add_note(f"cluster seed {self.seed}; the transcript ends with\n{self.transcript(TAIL_LINES)}")
            raise
        return self.ends

    def tell(self, name: str, event: e.Event, at: float) -> None:
        """Let a node hear of something at a time; for what comes from outside, such as a request to stop."""
        self._agenda.at(at, partial(self._hear, self._members[name], event))

    def transcript(self, last: int | None = None) -> str:
        """What happened, one line per event and, further in, per command."""
        return "\n".join(map(str, self.lines[-last:] if last else self.lines))

    def _plan(self) -> None:
        for member in self._members.values():
            self._agenda.at(self._rng.uniform(*self._weather.load), partial(self._loaded, member))
        for pause in self._weather.pauses:
            member = self._members[pause.name]
            self._agenda.at(pause.at, partial(setattr, member, "paused", True))
            self._agenda.at(pause.at + pause.seconds, partial(self._resume, member))
        for crash in self._weather.crashes:
            self._agenda.at(crash.at, partial(self._crash, self._members[crash.name]))

    def _loaded(self, member: _Member) -> None:
        member.ready = member.seat.trainer.ready()
        self._hear(member, member.ready)

    def _resume(self, member: _Member) -> None:
        """A node that wakes finds its mail and its overdue deadline, in either order."""
        member.paused = False
        if self._rng.random() < 0.5:
            self._wake(member)
        while member.inbox and not member.gone:
            member.inbox.popleft()()
        self._wake(member)

    def _crash(self, member: _Member) -> None:
        if not member.gone:
            member.gone = True
            self._network.vanish(member.seat.node.name)

    def _standstill(self) -> str:
        awaits = {name: m.seat.node.awaits() for name, m in self._members.items() if not m.gone}
        return "; ".join(f"{name} awaits {what}" for name, what in awaits.items())

    # --- one node -----------------------------------------------------------------------------------

    def _hear(self, member: _Member, event: e.Event) -> None:
        if member.paused:
            member.inbox.append(partial(self._hear, member, event))
            return
        if member.gone:
            return
        node = member.seat.node
        self.lines.append(Line(self.now, node.name, False, event))
        commands = node.handle(event, self.now)
        self.lines += [Line(self.now, node.name, True, command) for command in commands]
        for command in commands:
            self._perform(member, command)
        self._watch()
        self._set_alarm(member)

    def _set_alarm(self, member: _Member) -> None:
        deadline = member.seat.node.next_deadline()
        if deadline is not None and deadline != member.woken_at:
            member.woken_at = deadline
            self._agenda.at(deadline, partial(self._wake, member))

    def _wake(self, member: _Member) -> None:
        deadline = member.seat.node.next_deadline()
        if deadline is not None and deadline <= self.now and not member.paused:
            self._hear(member, e.DeadlinePassed())

    def _perform(self, member: _Member, command: c.Command) -> None:
        name = member.seat.node.name
        match command:
            case c.Meet():
                self._network.join(name)
            case c.SendOpen(peer, activation, degree, keyframe):
                self._send(member, peer, e.OpenReceived(name, activation, degree, keyframe), keyframe)
            case c.SendUpdate(peer, update):
                self._send(member, peer, e.UpdateReceived(name, update), update)
            case c.SendClose(peer, activation, applied, reason):
                self._network.send(name, peer, e.CloseReceived(name, activation, applied, reason))
            case c.SendBye(peer):
                self._network.send(name, peer, e.ByeReceived(name))
            case c.Release(frame):
                member.seat.frames.release(frame)
            case c.Report() | c.AnnounceReady():
                pass
            case c.Finish():
                member.gone = True
                self.ends[name] = command
                self._network.leave(name)
            case _:
                self._order(member, command)

    # --- the trainer --------------------------------------------------------------------------------

    def _order(self, member: _Member, command: c.TrainerCommand) -> None:
        """Queue a command; the frame that it asks to be written is reserved at once."""
        match command:
            case c.Activate(keyframe=FrameId() as frame) | c.HalfStep(update=FrameId() as frame):
                nbytes = self._nbytes(member, frame)
                assert nbytes is not None, f"{frame} is not part of this run"
                member.seat.frames.reserve(frame, nbytes)
        member.orders.append(command)
        if len(member.orders) == 1:
            self._compute(member)

    def _compute(self, member: _Member) -> None:
        seconds = self._rng.uniform(*self._weather.compute) * member.slowness
        self._agenda.at(self.now + seconds, partial(self._computed, member))

    def _computed(self, member: _Member) -> None:
        if member.gone:
            return
        try:
            event = member.seat.trainer.obey(member.orders[0])
        except DecaError as problem:
            event = e.TrainerFailed(str(problem), problem.exit_code)
        member.orders.popleft()
        if member.orders:
            self._compute(member)
        self._hear(member, event)

    # --- the network --------------------------------------------------------------------------------

    def _send(self, member: _Member, peer: str, event: e.NetworkEvent, frame: FrameId) -> None:
        self._network.send(member.seat.node.name, peer, event, bytes(member.seat.frames.view(frame)))

    def _deliver(self, name: str, event: e.NetworkEvent, data: bytes) -> None:
        member = self._members[name]
        if member.paused:
            member.inbox.append(partial(self._deliver, name, event, data))
        elif not member.gone and self._take_in(member, event, data):
            self._hear(member, event)

    def _take_in(self, member: _Member, event: e.NetworkEvent, data: bytes) -> bool:
        """Hold the frame that came along. A receiver ends the stream where it holds the frame already, or too many."""
        match event:
            case e.OpenReceived(keyframe=frame) | e.UpdateReceived(update=frame):
                problem = self._objection(member, frame, len(data))
                if problem:
                    self.broken_rules.append(f"{member.seat.node.name}: {problem}")
                    self._network.cut((member.seat.node.name, frame.sender), problem)
                    return False
                member.seat.frames.reserve(frame, len(data))
                member.seat.frames.view(frame)[:] = data
        return True

    def _objection(self, member: _Member, frame: FrameId, nbytes: int) -> str:
        frames, held_max = member.seat.frames, frames_held_max(member.seat.node.settings.late_steps)
        if frame in frames:
            return f"replay of {frame}"
        if frames.held_from(frame.sender) >= held_max:
            return f"flood: {held_max} frames of {frame.sender} are held"
        return "" if nbytes == self._nbytes(member, frame) else f"{frame} has {nbytes} bytes"

    def _nbytes(self, member: _Member, frame: FrameId) -> int | None:
        """What a frame takes, as the trainer said when it was ready; None where there is no such frame."""
        assert member.ready is not None
        step = Step(frame.activation, frame.inner)
        return member.ready.sizes.nbytes(member.seat.node.schedule, frame.kind, step)


def seats(nodes: Iterable[Node], trainer: Callable[[Node, FrameBook], Obeys]) -> dict[str, Seat]:
    """A seat for every node, with the trainer that ``trainer(node, frames)`` makes for it."""
    books = ((node, FrameBook()) for node in nodes)
    return {node.name: Seat(node, trainer(node, frames), frames) for node, frames in books}
