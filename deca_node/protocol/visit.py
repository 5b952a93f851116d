"""One visit of one block, from the keyframe to the last flow: the inner half of the node's state machine.

::

    ACTIVATING ------- keyframe written --------------> OPENING
    OPENING ---------- every edge open, or late ------> CONNECTING
    CONNECTING ------- keyframes absorbed ------------> STEPPING
    STEPPING --------- update written ----------------> WAITING
    WAITING ---------- neighbours' updates, or late --> STEPPING, or DRAINING after the last step
    DRAINING --------- every edge even or closed -----> FREEZING, or STANDING where it was interrupted
    STANDING --------- told to go on -----------------> STEPPING, without edges

A visit that is interrupted closes its edges in good order, writes a checkpoint and stands still; and one that was
found in a checkpoint begins like that, standing.

Commands to the trainer are sent ahead where nothing can change them any more: a mix and the half step
after it go out together, so that the trainer never idles between the two.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.errors import WireError
from deca_node.protocol.exchange import Edge, EdgeState, Exchange
from deca_node.protocol.frames import FrameId, FrameKind
from deca_node.protocol.patience import Rests, Waits
from deca_node.protocol.schedule import Activation, Schedule, Step


class VisitPhase(StrEnum):
    """Where a visit stands; the picture above says what leads where."""

    ACTIVATING = "activating"
    OPENING = "opening"
    CONNECTING = "connecting"
    STEPPING = "stepping"
    WAITING = "waiting"
    DRAINING = "draining"
    STANDING = "standing"
    FREEZING = "freezing"


@dataclass(frozen=True)
class VisitRules:
    """What a visit needs to know of the run, and what this node has seen of its neighbours' pace."""

    name: str
    degree: int
    schedule: Schedule
    overlap: bool
    late_steps: int
    open_waits: Waits
    step_waits: Waits
    rests: Rests
    farewell: float = 3.0
    checkpoint_every: int = 0


class Visit:
    """The edges and steps of one activation at one node. ``say`` takes commands, in order."""

    def __init__(
        self,
        rules: VisitRules,
        activation: Activation,
        near: Iterable[str],
        counters: Counter[str],
        say: Callable[[c.Command], None],
        *,
        inner: int = 0,
    ) -> None:
        """A visit from its beginning; or from ``inner`` on, as a checkpoint had it: then it stands, without edges."""
        self.activation = activation
        self.phase = VisitPhase.STANDING if inner else VisitPhase.ACTIVATING
        self.deadline: float | None = None
        self._rules = rules
        self._counters = counters
        self._say = say
        self._inner = inner
        self._interrupted = False
        self._checkpoint_asked = False
        self._asked = 0.0
        self._arrivals: list[float] = []
        self._own: list[FrameId] = []
        self._releases: deque[list[FrameId]] = deque()
        steps = (i for i in range(activation.steps) if rules.schedule.mixes(Step(activation.index, i)))
        self.exchange = Exchange(activation.index, rules.degree, tuple(steps), near)
        self._keyframe: FrameId | None = None
        if self.phase is VisitPhase.ACTIVATING:
            self._keyframe = FrameId(rules.name, FrameKind.KEYFRAME, activation.index, 0) if rules.degree else None
            say(c.Activate(activation, self._keyframe))

    def awaits(self) -> str | None:
        """What the visit waits for, in words; None where that is the trainer."""
        if self.phase is VisitPhase.OPENING:
            return f"edges to open: {_names(self.exchange.offered())}"
        if self.phase in (VisitPhase.WAITING, VisitPhase.DRAINING):
            return f"updates: {_names(self.exchange.uneven() + self.exchange.closing())}"
        return None

    def applied(self, peer: str) -> int | None:
        """The last inner step whose flow was applied on the edge to ``peer``; None where there is no edge."""
        edge = self.exchange.edges.get(peer)
        return None if edge is None else edge.applied

    # --- opening ------------------------------------------------------------------------------------

    def activated(self, now: float) -> None:
        """The keyframe is written: offer every edge."""
        self.phase = VisitPhase.OPENING
        self._ask(self._rules.open_waits, now)
        for edge in self.exchange.offered():
            self._send_open(edge.peer)

    def peer_up(self, peer: str) -> None:
        """A neighbour appeared: while edges are being opened, it gets one too."""
        if self.phase in (VisitPhase.ACTIVATING, VisitPhase.OPENING):
            self.exchange.offer(peer)
        if self.phase is VisitPhase.OPENING:
            self._send_open(peer)

    def take_offer(self, offer: e.OpenReceived, now: float) -> bool:
        """The other end opened; False where there is no edge to open any more."""
        opening = self.phase is VisitPhase.OPENING
        opened = opening and self.exchange.open(offer.peer, offer.degree, offer.keyframe)
        if opened:
            self._arrivals.append(now - self._asked)
        return opened

    def connect_if_open(self) -> None:
        """Once every edge is open or given up, hand the neighbours' keyframes to the trainer."""
        if self.phase is not VisitPhase.OPENING or self.exchange.offered():
            return
        self.phase, self.deadline = VisitPhase.CONNECTING, None
        self._rules.open_waits.add(self._arrivals, len(self.exchange.edges))
        near = [c.Neighbour(edge.peer, edge.weight, edge.keyframe) for edge in self.exchange.live() if edge.keyframe]
        # An edge may have opened and closed again by now; its keyframe is nobody's, but it is held.
        held = [edge.keyframe for edge in self.exchange.edges.values() if edge.keyframe]
        self._releases.append(held + ([self._keyframe] if self._keyframe else []))
        self._say(c.Connect(self.activation.index, tuple(near), self._keyframe))

    def connected(self, event: e.Connected, now: float) -> None:
        """The keyframes are absorbed: take the first step."""
        self.release()
        self._refuse(event.refused)
        if self._interrupted:
            self.interrupt(now)
        self._half_step(now)

    def _send_open(self, peer: str) -> None:
        assert self._keyframe is not None
        self._say(c.SendOpen(peer, self.activation.index, self._rules.degree, self._keyframe))

    # --- steps --------------------------------------------------------------------------------------

    def half_stepped(self, event: e.HalfStepped, now: float) -> None:
        """The step's own update is written: send it, and see who else's has come."""
        if event.update is not None:
            self.exchange.encoded = event.step.inner
            for edge in self.exchange.opened():
                self._say(c.SendUpdate(edge.peer, event.update))
        self.phase = VisitPhase.WAITING
        self._ask(self._rules.step_waits, now)
        late = len(self._late())
        self._arrivals = [0.0] * (len(self.exchange.opened()) - late)
        self.go_on(now)

    def update_received(self, event: e.UpdateReceived, now: float) -> None:
        """A neighbour's update has come; one that is of no use, or out of order, is let go and counted."""
        try:
            used = self.exchange.arrive(event.peer, event.update)
        except WireError as problem:
            used = False
            if self.exchange.edges[event.peer].state is EdgeState.OPEN:
                self._close(self.exchange.edges[event.peer], str(problem))
        if used and self.phase is VisitPhase.WAITING:
            self._arrivals.append(now - self._asked)
        if not used:
            self._counters["updates_unused"] += 1
            self._say(c.Release(event.update))
        self.go_on(now)

    def go_on(self, now: float) -> None:
        """Something changed on an edge: see whether what this phase waits for has come."""
        if self.phase is VisitPhase.OPENING:
            self.connect_if_open()
        elif self.phase is VisitPhase.WAITING and not self._late():
            self._mix(now)
        elif self.phase is VisitPhase.DRAINING:
            self._drain(now)

    def mixed(self, event: e.Mixed) -> None:
        """The trainer has mixed; whose update was malformed loses its edge."""
        self.release()
        self._refuse(event.refused)

    @property
    def position(self) -> Step:
        """The next step that is not done and mixed."""
        return Step(self.activation.index, self._inner)

    def _half_step(self, now: float) -> None:
        step = self.position
        gradient = self._inner < self.activation.inner_steps
        live = bool(self.exchange.opened())
        stop = self._interrupted and self._inner > 0
        if stop or self._inner >= self.activation.steps or not (gradient or live):
            self._drain(now)
            return
        update = None
        if live and self._rules.schedule.mixes(step):
            update = FrameId(self._rules.name, FrameKind.UPDATE, step.activation, step.inner)
            self._own.append(update)
        self.phase, self.deadline = VisitPhase.STEPPING, None
        self._say(c.HalfStep(step, gradient, update))

    def _late(self) -> list[Edge]:
        """Edges that this step still waits for. Overlap lets flows be one exchange late, but for the last
        step with a gradient and the flush, where there is nothing left to hide them behind."""
        if self.exchange.encoded != self._inner:
            return []
        overlapped = self._rules.overlap and self._inner < self.activation.inner_steps - 1
        return self.exchange.waiting_for(self._inner, lag=1 if overlapped else 0)

    def _mix(self, now: float) -> None:
        if self.exchange.encoded == self._inner:
            self._rules.step_waits.add(self._arrivals, len(self.exchange.opened()))
        self._say_mix(self._inner, fold=self._inner < self.activation.inner_steps)
        self._inner += 1
        self._checkpoint_if_due()
        self._half_step(now)

    def _checkpoint_if_due(self) -> None:
        """Between two steps, where nothing but what the trainer holds is needed to go on."""
        every = self._rules.checkpoint_every
        due = self._checkpoint_asked or (every and self._inner % every == 0)
        if due and not self._interrupted and self._inner < self.activation.inner_steps:
            self._checkpoint_asked = False
            self._say(c.Checkpoint(self.position))

    def _say_mix(self, inner: int, *, fold: bool) -> None:
        flows = self.exchange.take_flows()
        self._counters["flows_applied"] += len(flows)
        self._counters["flows_late"] += sum(update.inner < self.exchange.encoded for _, update in flows)
        needed = self.exchange.needed_from()
        done = [update for _, update in flows] + self.exchange.leftovers()
        self._releases.append(done + [frame for frame in self._own if frame.inner < needed])
        self._own = [frame for frame in self._own if frame.inner >= needed]
        pairs = tuple(c.Flow(edge.peer, update, self._ours(update)) for edge, update in flows)
        self._say(c.Mix(Step(self.activation.index, inner), pairs, fold))

    def _ours(self, update: FrameId) -> FrameId:
        return FrameId(self._rules.name, FrameKind.UPDATE, update.activation, update.inner)

    # --- closing ------------------------------------------------------------------------------------

    def close_received(self, event: e.CloseReceived, now: float) -> None:
        """The other end closed its edge: answer with our own last flow, and catch up where we owe some."""
        edge = self.exchange.edges.get(event.peer)
        if edge is not None and self.exchange.closed_by_peer(event.peer, event.applied):
            self._counters["edges_closed_by_peer"] += 1
            self._warn("edge-closed", f"{event.peer} closed its edge for this activation: {event.reason}")
            self._say(c.SendClose(event.peer, event.activation, edge.applied, "in answer"))
        self.go_on(now)

    def peer_down(self, event: e.PeerDown, now: float) -> None:
        """The link is gone, and with it the edge, for this activation if it has begun."""
        edge = self.exchange.edges.get(event.peer)
        if self.phase in (VisitPhase.ACTIVATING, VisitPhase.OPENING):
            for frame in self.exchange.withdraw(event.peer):
                self._say(c.Release(frame))
            self.go_on(now)
            return
        if edge is not None and edge.state is not EdgeState.CLOSED and self.phase is not VisitPhase.FREEZING:
            self._lose(edge, event.sentence)
            self.go_on(now)

    def interrupt(self, now: float) -> None:
        """Close all edges in good order and then stand still, at the end of the current step."""
        self._interrupted = True
        if self.phase is VisitPhase.DRAINING:
            self.deadline = now + self._rules.farewell
            return
        for edge in self.exchange.opened():
            self._say(c.SendClose(edge.peer, self.activation.index, edge.applied, f"{self._rules.name} stops for now"))
            self.exchange.close(edge)
        if self.phase is VisitPhase.WAITING:
            self.go_on(now)

    def proceed(self, now: float) -> None:
        """Go on, without edges, from where the visit stands."""
        self._interrupted = False
        self._half_step(now)

    def ask_checkpoint(self) -> None:
        """Write a checkpoint after the current step."""
        self._checkpoint_asked = True

    def abandon(self, reason: str) -> None:
        """The trainer has died, and all that it held is lost: close the edges and let every frame go."""
        for edge in self.exchange.opened():
            self._say(c.SendClose(edge.peer, self.activation.index, edge.applied, reason))
        held = {frame for done in self._releases for frame in done} | set(self._own)
        for edge in self.exchange.edges.values():
            held.update(self.exchange.lose(edge))
            if edge.keyframe and self.phase in (VisitPhase.ACTIVATING, VisitPhase.OPENING):
                held.add(edge.keyframe)
        if self._keyframe and self.phase in (VisitPhase.ACTIVATING, VisitPhase.OPENING):
            held.add(self._keyframe)
        for frame in sorted(held):
            self._say(c.Release(frame))
        self.phase, self.deadline = VisitPhase.FREEZING, None

    def release(self) -> None:
        """The trainer has done its oldest command: nobody needs that command's frames any more."""
        for frame in self._releases.popleft():
            self._say(c.Release(frame))

    def freeze(self) -> None:
        """Write the block back as it stands."""
        stray = [update for edge in self.exchange.edges.values() for update in edge.arrived]
        self._releases.append(stray + self._own)
        self.phase, self.deadline = VisitPhase.FREEZING, None
        self._say(c.Freeze(self.activation.index))

    def _drain(self, now: float) -> None:
        """After the last step: apply what is still owed, and freeze once every edge is even or closed."""
        if self.phase is not VisitPhase.DRAINING:
            self.phase = VisitPhase.DRAINING
            self._ask(self._rules.step_waits, now)
            if self._interrupted:
                self.deadline = now + self._rules.farewell
        if self.exchange.due():
            self._say_mix(max(self._inner, 1) - 1, fold=False)
        if self.exchange.uneven() or self.exchange.closing():
            return
        if self._interrupted and self._inner < self.activation.steps:
            self._stand()
            return
        for edge in self.exchange.opened():
            self._rules.rests.kept_up(edge.peer)
        self.freeze()

    def _stand(self) -> None:
        stray = [update for edge in self.exchange.edges.values() for update in edge.arrived]
        for frame in stray + self._own:
            self._say(c.Release(frame))
        self._own = []
        for edge in self.exchange.edges.values():
            self.exchange.lose(edge)
        self.phase, self.deadline = VisitPhase.STANDING, None
        self._say(c.Checkpoint(self.position))

    def _close(self, edge: Edge, reason: str) -> None:
        self._counters["edges_dropped"] += 1
        self._warn("edge-dropped", f"edge to {edge.peer} is closed for this activation: {reason}")
        self._say(c.SendClose(edge.peer, self.activation.index, edge.applied, reason))
        self.exchange.close(edge)

    def _refuse(self, refused: Iterable[tuple[str, str]]) -> None:
        """The trainer found a neighbour's bytes malformed, and has dropped its edge."""
        for peer, sentence in refused:
            edge = self.exchange.edges[peer]
            if edge.state is not EdgeState.CLOSED:
                self._counters["edges_refused"] += 1
                self._say(c.SendClose(peer, self.activation.index, edge.applied, sentence))
                self._lose(edge, f"{peer} sent what cannot be used: {sentence}")

    def _lose(self, edge: Edge, reason: str) -> None:
        self._counters["edges_lost"] += 1
        self._counters["flows_uneven_max"] += self.exchange.uneven_max(self._rules.late_steps)
        self._warn("edge-lost", f"edge to {edge.peer} is gone for this activation: {reason}")
        for frame in self.exchange.lose(edge):
            self._say(c.Release(frame))

    def _warn(self, kind: str, sentence: str) -> None:
        self._say(c.Report(kind, sentence, "warning"))

    # --- patience -----------------------------------------------------------------------------------

    def _ask(self, waits: Waits, now: float) -> None:
        """Begin to wait for neighbours."""
        self._asked, self._arrivals = now, []
        self.deadline = now + waits.seconds()

    def _close_late(self, edge: Edge, reason: str) -> None:
        rest = self._rules.rests.late(edge.peer, self.activation.index)
        self._close(edge, f"{reason}; no edge to it for {rest} more")

    def deadline_passed(self, now: float) -> None:
        """Patience with somebody has run out: go on without."""
        self.deadline = None
        if self.phase is VisitPhase.OPENING:
            self._give_up_opening()
        elif self.phase is VisitPhase.WAITING:
            self._give_up_waiting(now)
        elif self.phase is VisitPhase.DRAINING:
            self._give_up_draining(now)

    def _give_up_opening(self) -> None:
        for edge in self.exchange.offered():
            self._close_late(edge, f"{edge.peer} did not open it in time")
        self.connect_if_open()

    def _give_up_waiting(self, now: float) -> None:
        for edge in self._late():
            if self.exchange.behind(edge, self._inner) > self._rules.late_steps:
                self._close_late(edge, f"{edge.peer} is more than {self._rules.late_steps} exchanges behind")
        self._mix(now)

    def _give_up_draining(self, now: float) -> None:
        """First close what is uneven and wait for the other ends' word; the second time, go on without."""
        for edge in self.exchange.closing():
            self._lose(edge, f"{edge.peer} did not answer the closing")
        for edge in self.exchange.uneven():
            self._close_late(edge, f"{edge.peer} did not bring its last update in time")
        self._ask(self._rules.step_waits, now)
        if self._interrupted:
            self.deadline = now + self._rules.farewell
        self._drain(now)


def _names(edges: list[Edge]) -> str:
    return ", ".join(edge.peer for edge in edges)
