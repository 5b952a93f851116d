"""Many nodes on one thread: real nodes, a fake clock, a fake network, and one seed for everything that is random.

A cluster does for all nodes what the daemon does for one: ``for command in node.handle(event, now): perform(command)``.
Commands to a trainer queue up and run one after the other in fake time. Frames are reserved, sent and released under
the daemon's rules, and a broken rule is an error where it happens. The cluster keeps a transcript, and the same seed
always gives the same transcript.

Any trainer with ``ready`` and ``obey`` fits: the production trainer with a model, or a few lines of arithmetic. Only a
trainer that endures (:class:`deca_node.lab.sim.seats.Endures`) can die, return, and give blocks to others.
"""

import random
from collections.abc import Callable
from functools import partial

from deca_node.lab.sim.fake_network import Agenda, FakeNetwork
from deca_node.lab.sim.hearsay import Hearsay
from deca_node.lab.sim.notation import Line
from deca_node.lab.sim.seats import Endures, Member, Seat
from deca_node.lab.sim.weather import Ask, Crash, Death, Weather
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.frames import FrameId
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.errors import DecaError, TrainerError
from deca_node.protocol.node.node import Node
from deca_node.protocol.visit.edges import frames_held_max

TAIL_LINES = 60
"""Lines of the transcript that a failure shows."""

DAY = 86_400.0
KILLED = e.TrainerFailed("the trainer process was killed", TrainerError.exit_code, died=True)

IDLE_BEATS = 10
"""After so many heartbeats without any other activity the cluster is stuck."""

ORDERS_MAX = 6
"""The most commands that a trainer may have in its queue."""

Watch = Callable[[Node, e.Event, list[c.Command]], None]
Revive = Callable[[str, bool], Seat]
"""Gives a crashed node of that name a new seat, with an empty disk or its own."""


class Cluster:
    """``seats`` by name. ``watch`` is called with every node, the event that it has handled and the commands that it
    has given, to check its rules."""

    def __init__(
        self,
        seats: dict[str, Seat],
        weather: Weather | None = None,
        seed: int = 0,
        watch: Watch = lambda _node, _event, _commands: None,
        revive: Revive | None = None,
    ) -> None:
        self.seed = seed
        self.seats = seats
        self.lines: list[Line] = []
        self.ends: dict[str, c.Finish] = {}
        """How each node's run ended. A node that crashed and did not return has no entry."""
        self.past: list[Node] = []
        """Nodes that crashed."""
        self.broken_rules: list[str] = []
        """Streams that a receiver ended because of broken rules."""
        self._weather = weather or Weather()
        self._watch = watch
        self._revive = revive
        self._rng = random.Random(seed)
        self._agenda = Agenda()
        names = tuple(seats)
        self._network = FakeNetwork(
            names, self._weather, self._agenda, self._rng, self._deliver, lambda name: seats[name].node.state
        )
        self.hearsay = Hearsay(names, self._weather.hearsay, self._agenda, self._rng, self._hear_news)
        self._members = {
            name: Member(seat, self._rng.uniform(*self._weather.node_slowness)) for name, seat in seats.items()
        }
        self._told = dict.fromkeys(names, -1)
        """Every node's position at the heartbeat before the last."""
        self._idle_beats = 0
        self._awaited = 0
        """Crashed nodes that will return."""
        self._plan()

    # --- life ---------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Seconds on the fake clock."""
        return self._agenda.now

    def run(self, until: float = DAY) -> dict[str, c.Finish]:
        """Run until every node has ended, and return how each ended.

        Raises AssertionError if they do not end or a rule is broken; the error shows the seed and the transcript.
        """
        try:
            while self._awaited or any(not member.gone for member in self._members.values()):
                assert self._agenda.step() and self.now <= until, f"stuck at {self.now:.3f} s: {self._standstill()}"
        except Exception as problem:
            problem.add_note(f"cluster seed {self.seed}; the transcript ends with\n{self.transcript(TAIL_LINES)}")
            raise
        return self.ends

    def tell(self, name: str, event: e.Event, at: float) -> None:
        """Give a node an event from outside at a time, such as a request to stop."""
        self._agenda.at(at, lambda: self._hear(self._members[name], event))

    def transcript(self, last: int | None = None) -> str:
        """The transcript: one line per event and, indented, per command."""
        return "\n".join(map(str, self.lines[-last:] if last else self.lines))

    def _plan(self) -> None:
        for member in self._members.values():
            self._agenda.at(self._rng.uniform(*self._weather.load), partial(self._loaded, member, member.lives))
        for pause in self._weather.pauses:
            self._agenda.at(pause.at, partial(self._pause, pause.name, pause.seconds))
        for fault in self._weather.crashes + self._weather.deaths + self._weather.asks:
            if not fault.event:
                self._agenda.at(fault.at, partial(self._befall, fault))
        self._agenda.at(self._weather.heartbeat, self._beat)

    def _befall(self, fault: Crash | Death | Ask) -> None:
        member = self._members[fault.name]
        match fault:
            case Crash():
                self._crash(member, fault)
            case Death() if member.trainer_alive and not member.gone:
                self._lose_trainer(member, KILLED)
            case Ask(what=what):
                self._hear(member, what)

    def _loaded(self, member: Member, lives: int) -> None:
        if member.gone or member.lives != lives:
            return
        member.trainer_alive = True
        member.ready = member.seat.trainer.ready()
        self._hear(member, member.ready)

    def _pause(self, name: str, seconds: float) -> None:
        member = self._members[name]
        member.paused = True
        self._agenda.at(self.now + seconds, partial(self._resume, member))

    def _resume(self, member: Member) -> None:
        """Wake a node. It finds its messages and its overdue deadline, in either order."""
        member.paused = False
        if self._rng.random() < 0.5:
            self._wake(member)
        while member.inbox and not member.gone:
            member.inbox.popleft()()
        self._wake(member)

    def _crash(self, member: Member, crash: Crash) -> None:
        if member.gone:
            return
        member.gone = True
        self._note(member, "crash")
        self.past.append(member.seat.node)
        self._network.vanish(member.name)
        self.hearsay.changed(member.name, None)
        if crash.back is not None and self._revive is not None:
            self._awaited += 1
            self._agenda.at(self.now + crash.back, partial(self._return, member.name, crash.empty))

    def _return(self, name: str, empty: bool) -> None:
        assert self._revive is not None
        self._awaited -= 1
        seat = self.seats[name] = self._revive(name, empty)
        member = self._members[name] = Member(seat, self._members[name].slowness)
        self._note(member, "back, with an empty disk" if empty else "back")
        self.hearsay.returned(name, seat.node.state.stopping.own)
        self._agenda.at(self.now + self._rng.uniform(*self._weather.load), partial(self._loaded, member, 0))

    def _note(self, member: Member, words: str) -> None:
        self.lines.append(Line(self.now, member.name, False, words))

    def _standstill(self) -> str:
        awaits = {name: m.seat.node.state.awaits() for name, m in self._members.items() if not m.gone}
        return "; ".join(f"{name} awaits {what}" for name, what in awaits.items())

    # --- one node -----------------------------------------------------------------------------------

    def _hear(self, member: Member, event: e.Event) -> None:
        if member.paused:
            member.inbox.append(partial(self._hear, member, event))
            return
        if member.gone:
            return
        node = member.seat.node
        commands = node.handle(event, self.now)
        member.heard += 1
        if commands or not isinstance(event, e.PeerProgress):
            self.lines.append(Line(self.now, node.name, False, event))
            self.lines += [Line(self.now, node.name, True, command) for command in commands]
        faults, given = self._faults_after(member), commands
        if any(isinstance(fault, Crash) for fault in faults):
            # The crash interrupts it, so that it does only a part of its commands.
            commands = commands[: self._rng.randint(0, len(commands))]
        for command in commands:
            self._perform(member, command)
        self._watch(node, event, given)
        for fault in faults:
            self._befall(fault)
        self._set_alarm(member)

    def _faults_after(self, member: Member) -> list[Crash | Death | Ask]:
        """The faults that hit a node right after the event that it has handled. Only its first life has any."""
        planned = self._weather.crashes + self._weather.deaths + self._weather.asks
        first = all(node.name != member.name for node in self.past)
        return [f for f in planned if f.event == member.heard and f.name == member.name] if first else []

    def _set_alarm(self, member: Member) -> None:
        deadline = member.seat.node.next_deadline()
        if deadline is not None and deadline != member.woken_at:
            member.woken_at = deadline
            self._agenda.at(deadline, partial(self._wake, member))

    def _wake(self, member: Member) -> None:
        deadline = member.seat.node.next_deadline()
        if deadline is not None and deadline <= self.now and not member.paused:
            self._hear(member, e.DeadlinePassed())

    def _perform(self, member: Member, command: c.Command) -> None:
        name = member.name
        match command:
            case c.Meet():
                self._network.join(name)
            case c.SendOpen(peer, activation, degree, keyframe, steps):
                self._send(member, peer, e.OpenReceived(name, activation, degree, keyframe, steps), keyframe)
            case c.SendUpdate(peer, update):
                self._send(member, peer, e.UpdateReceived(name, update), update)
            case c.SendClose(peer, activation, applied, reason, orderly):
                self._network.send(name, peer, e.CloseReceived(name, activation, applied, reason, orderly))
            case c.SendBye(peer):
                self._network.send(name, peer, e.ByeReceived(name))
            case c.Release(frame):
                member.seat.frames.release(frame)
            case c.Fetch(at_least):
                self._after(self._weather.fetch, partial(self._fetched, member, at_least))
            case c.AnnounceReady(activation):
                self.hearsay.changed(name, activation)
            case c.AnnounceHeldout(heldout):
                self.hearsay.tells(name, heldout)
            case c.RestartTrainer(seconds):
                self._agenda.at(self.now + seconds, partial(self._restart_trainer, member))
            case c.Report() | c.Offence() | c.DismissTrainer() | c.KeepBest():
                pass
            case c.Finish():
                member.gone = True
                self.ends[name] = command
                self._network.leave(name)
                self.hearsay.changed(name, None)
            case _:
                self._order(member, command)

    def _after(self, seconds: tuple[float, float], action: Callable[[], None]) -> None:
        self._agenda.at(self.now + self._rng.uniform(*seconds), action)

    # --- the trainer --------------------------------------------------------------------------------

    def _order(self, member: Member, command: c.TrainerCommand) -> None:
        """Queue a command. A frame that it asks for is reserved at once."""
        match command:
            case c.Activate(keyframe=FrameId() as frame) | c.HalfStep(update=FrameId() as frame):
                nbytes = self._nbytes(member, frame)
                assert nbytes is not None, f"{frame} is not part of this run"
                member.seat.frames.reserve(frame, nbytes)
        if not member.trainer_alive:
            # The node does not know of its end yet.
            return
        member.orders.append(command)
        assert len(member.orders) <= ORDERS_MAX, f"{member.name} piles up commands: {member.orders}"
        if len(member.orders) == 1:
            self._compute(member)

    def _compute(self, member: Member) -> None:
        seconds = self._rng.uniform(*self._weather.compute) * member.slowness
        self._agenda.at(self.now + seconds, partial(self._computed, member, member.lives))

    def _computed(self, member: Member, lives: int) -> None:
        if member.gone or member.lives != lives:
            return
        event = self._obey(member, member.orders[0])
        if isinstance(event, e.TrainerFailed) and event.died:
            self._lose_trainer(member, event)
            return
        member.orders.popleft()
        if member.orders:
            self._compute(member)
        self._answer(member, lives, event)

    def _answer(self, member: Member, lives: int, event: e.TrainerEvent) -> None:
        """Deliver the answer of a trainer, unless the trainer has died since."""
        if member.paused:
            member.inbox.append(partial(self._answer, member, lives, event))
        elif member.lives == lives:
            self._hear(member, event)

    def _obey(self, member: Member, command: c.TrainerCommand) -> e.TrainerEvent:
        failing = self._weather.checkpoint_failing
        if isinstance(command, c.Checkpoint) and failing and self._rng.random() < failing:
            return e.CheckpointFailed(command.position, "no space left on device")
        try:
            return member.seat.trainer.obey(command)
        except DecaError as problem:
            return e.TrainerFailed(str(problem), problem.exit_code)

    def _lose_trainer(self, member: Member, death: e.TrainerFailed) -> None:
        assert isinstance(member.seat.trainer, Endures)
        member.trainer_alive = False
        member.lives += 1
        member.orders.clear()
        self._note(member, "its trainer dies")
        self._hear(member, death)

    def _restart_trainer(self, member: Member) -> None:
        if not member.gone:
            assert isinstance(member.seat.trainer, Endures)
            member.seat.trainer.restart()
            self._after(self._weather.load, partial(self._loaded, member, member.lives))

    # --- the network --------------------------------------------------------------------------------

    def _send(self, member: Member, peer: str, event: e.NetworkEvent, frame: FrameId | None) -> None:
        data = bytes(member.seat.frames.view(frame)) if frame else b""
        if self._weather.malformed and self._rng.random() < self._weather.malformed:
            data = bytes(byte ^ 0xFF for byte in data)
        self._network.send(member.name, peer, event, data)

    def _deliver(self, name: str, event: e.NetworkEvent, data: bytes) -> None:
        self._take(self._members[name], event, data)

    def _take(self, member: Member, event: e.NetworkEvent, data: bytes) -> None:
        if member.paused:
            member.inbox.append(partial(self._take, member, event, data))
        elif not member.gone and self._take_in(member, event, data):
            self._hear(member, event)

    def _take_in(self, member: Member, event: e.NetworkEvent, data: bytes) -> bool:
        """Hold an incoming frame. The receiver ends the stream if it already holds the frame, or holds too many."""
        match event:
            case e.OpenReceived(keyframe=FrameId() as frame) | e.UpdateReceived(update=frame):
                problem = self._objection(member, frame, len(data))
                if problem:
                    self.broken_rules.append(f"{member.name}: {problem}")
                    self._network.cut((member.name, frame.sender), problem)
                    return False
                member.seat.frames.reserve(frame, len(data))
                member.seat.frames.view(frame)[:] = data
        return True

    def _objection(self, member: Member, frame: FrameId, nbytes: int) -> str:
        frames, held_max = member.seat.frames, frames_held_max(member.seat.node.state.settings.late_steps)
        if frame in frames:
            return f"replay of {frame}"
        if frames.held_from(frame.sender) >= held_max:
            return f"flood: {held_max} frames of {frame.sender} are held"
        return "" if nbytes == self._nbytes(member, frame) else f"{frame} has {nbytes} bytes"

    def _nbytes(self, member: Member, frame: FrameId) -> int | None:
        """The size of a frame, as the trainer gave it when it was ready, or None if there is no such frame."""
        assert member.ready is not None
        step = Step(frame.activation, frame.inner)
        return member.ready.sizes.nbytes(member.seat.node.state.schedule, frame.kind, step)

    # --- what others know and have ------------------------------------------------------------------

    def _hear_news(self, name: str, event: e.MembersChanged) -> None:
        self._hear(self._members[name], event)

    def _beat(self) -> None:
        """Every node tells all peers its position. Some of these messages are lost, and some are out of date."""
        positions = {name: seat.node.state.position for name, seat in self.seats.items()}
        before, self._told = self._told, positions
        lost = self._weather.heartbeat_lost
        for pair in self._network.live():
            for name, peer in (pair, pair[::-1]):
                draw = self._rng.random() if lost else 1.0
                if draw >= lost:
                    at = before[peer] if draw < 2 * lost else positions[peer]
                    self._hear(self._members[name], e.PeerProgress(peer, at))
        self._idle_beats = 0 if len(self._agenda) else self._idle_beats + 1
        if self._idle_beats < IDLE_BEATS:
            self._agenda.at(self.now + self._weather.heartbeat, self._beat)

    def _fetched(self, member: Member, at_least: int) -> None:
        """The newest blocks that a peer has on its disk, if they are new enough."""
        linked = partial(self._network.linked, member.name)
        there = (m.seat.trainer for name, m in self._members.items() if not m.gone and linked(name))
        found = [fetched for trainer in there if isinstance(trainer, Endures) and (fetched := trainer.give())]
        newest = max(found, key=lambda fetched: fetched.activation, default=None)
        failing = self._weather.fetch_failing and self._rng.random() < self._weather.fetch_failing
        if newest is None or newest.activation < at_least or failing:
            self._hear(member, e.FetchFailed(f"no member has reached activation {at_least}"))
        else:
            self._hear(member, newest)
