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
found in a checkpoint begins like that, standing. Only visits with gradients can be interrupted: what others add to a
mix cannot be had later.

Commands to the trainer are sent ahead where nothing can change them any more: a mix and the half step
after it go out together, so that the trainer never idles between the two.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from enum import StrEnum

from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.frames import FrameId, FrameKind
from deca_node.protocol.agreed.schedule import Activation, Step
from deca_node.protocol.errors import WireError
from deca_node.protocol.visit.closing import Closing
from deca_node.protocol.visit.edges import Edge, Edges, EdgeState
from deca_node.protocol.visit.loans import Loans
from deca_node.protocol.visit.rules import VisitRules
from deca_node.protocol.visit.waits import Wait


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


class Visit:
    """The edges and steps of one activation at one node. ``say`` takes commands, in order."""

    def __init__(
        self,
        rules: VisitRules,
        activation: Activation,
        wanted: Iterable[str],
        counters: Counter[str],
        say: Callable[[c.Command], None],
        *,
        inner: int = 0,
    ) -> None:
        """A visit from its beginning, with an edge to each of those who are ``wanted``; or from ``inner`` on, as a
        checkpoint had it: then it stands, without edges."""
        self.activation = activation
        self.phase = VisitPhase.STANDING if inner else VisitPhase.ACTIVATING
        self._rules = rules
        self._counters = counters
        self._say = say
        self._inner = inner
        self._interrupted = False
        self._checkpoint_asked = False
        self._mixing = False
        steps = (i for i in range(activation.steps) if rules.schedule.mixes(Step(activation.index, i)))
        self.edges = Edges(activation.index, len(rules.near), tuple(steps), () if inner else wanted)
        self._wait = Wait()
        self._loans = Loans(say)
        self._closing = Closing(self.edges, self._loans, rules, counters, say)
        self._keyframe: FrameId | None = None
        if self.phase is VisitPhase.ACTIVATING:
            self._keyframe = FrameId(rules.name, FrameKind.KEYFRAME, activation.index, 0) if rules.near else None
            say(c.Activate(activation, self._keyframe))

    @property
    def deadline(self) -> float | None:
        """When the visit's patience ends; None while it waits for no neighbour."""
        return self._wait.deadline

    @property
    def position(self) -> Step:
        """The next step that is not done and mixed."""
        return Step(self.activation.index, self._inner)

    @property
    def exchanging(self) -> bool:
        """Whether anything may still flow over its edges."""
        return self.phase not in (VisitPhase.FREEZING, VisitPhase.STANDING)

    @property
    def worth_keeping(self) -> bool:
        """Whether a checkpoint now or soon would keep anything that the last one before the visit has not got."""
        begun = self._inner > 0 or self.phase in (VisitPhase.STEPPING, VisitPhase.WAITING)
        return self.phase is VisitPhase.FREEZING or (begun and self.activation.inner_steps > 0)

    def awaits(self) -> str | None:
        """What the visit waits for, in words; None where that is the trainer."""
        if self.phase is VisitPhase.OPENING:
            return f"edges to open: {_names(self.edges.offered())}"
        if self.phase in (VisitPhase.WAITING, VisitPhase.DRAINING):
            return f"updates: {_names(self.edges.uneven() + self.edges.closing())}"
        return None

    # --- opening ------------------------------------------------------------------------------------

    def activated(self, now: float) -> None:
        """The keyframe is written: offer every edge."""
        self.phase = VisitPhase.OPENING
        self._wait.begin(now, self._rules.open_waits.seconds())
        if self._interrupted:
            for edge in self.edges.offered():
                self.edges.close(edge)
        for edge in self.edges.offered():
            self._send_open(edge.peer)

    def peer_up(self, peer: str) -> None:
        """A neighbour appeared: while edges are being opened, it gets one too."""
        if peer not in self._rules.near or self._interrupted:
            return
        if self.phase in (VisitPhase.ACTIVATING, VisitPhase.OPENING):
            self.edges.offer(peer)
        if self.phase is VisitPhase.OPENING:
            self._send_open(peer)

    def take_offer(self, offer: e.OpenReceived, now: float) -> bool:
        """The other end opened; False where there is no edge to open any more."""
        opening = self.phase is VisitPhase.OPENING
        opened = opening and self.edges.open(offer.peer, offer.degree, offer.keyframe)
        if opened:
            self._wait.arrived(now)
        return opened

    def connect_if_open(self) -> None:
        """Once every edge is open or given up, hand the neighbours' keyframes to the trainer."""
        if self.phase is not VisitPhase.OPENING or self.edges.offered():
            return
        self.phase = VisitPhase.CONNECTING
        self._rules.open_waits.add(self._wait.end(), len(self.edges.by_peer))
        near = [c.Neighbour(edge.peer, edge.weight, edge.keyframe) for edge in self.edges.live() if edge.keyframe]
        self._say(c.Connect(self.activation.index, tuple(near), self._keyframe))
        self._loans.lend_all(self._take_keyframes())

    def connected(self, event: e.Connected, now: float) -> None:
        """The keyframes are absorbed: take the first step."""
        self._loans.answered()
        self._closing.refused(event.refused)
        self._half_step(now)

    def _send_open(self, peer: str) -> None:
        assert self._keyframe is not None
        self._say(c.SendOpen(peer, self.activation.index, len(self._rules.near), self._keyframe))

    def _take_keyframes(self) -> list[FrameId]:
        ours, self._keyframe = self._keyframe, None
        return self.edges.take_keyframes() + ([ours] if ours else [])

    # --- steps --------------------------------------------------------------------------------------

    def half_stepped(self, event: e.HalfStepped, now: float) -> None:
        """The step's own update is written: send it, and see who else's has come."""
        if event.update is not None:
            self.edges.encoded = event.step.inner
            for edge in self.edges.opened():
                self._say(c.SendUpdate(edge.peer, event.update))
        self.phase = VisitPhase.WAITING
        there = len(self.edges.opened()) - len(self._late())
        self._wait.begin(now, self._rules.step_waits.seconds(), there)
        self.go_on(now)

    def update_received(self, event: e.UpdateReceived, now: float) -> None:
        """A neighbour's update has come; one that is of no use, or out of order, is let go and counted."""
        if not self.exchanging:
            self._let_go(event)
            return
        try:
            used = self.edges.arrive(event.peer, event.update)
        except WireError as problem:
            used = False
            self._closing.offended(self.edges.by_peer[event.peer], problem)
        if used and self.phase is VisitPhase.WAITING:
            self._wait.arrived(now)
        if not used:
            self._let_go(event)
        self.go_on(now)

    def _let_go(self, event: e.UpdateReceived) -> None:
        self._counters["updates_unused"] += 1
        self._loans.release([event.update])
        if event.update.inner >= self.activation.steps:
            self._closing.mixes_on(event.peer, over=self.phase is VisitPhase.FREEZING)

    def go_on(self, now: float) -> None:
        """Something changed on an edge: see whether what this phase waits for has come."""
        if self.phase is VisitPhase.OPENING:
            self.connect_if_open()
        elif self.phase is VisitPhase.WAITING and not self._late():
            self._mix(now)
        elif self.phase is VisitPhase.DRAINING:
            self._drain(now)

    def mixed(self, event: e.Mixed, now: float) -> None:
        """The trainer has mixed; whose update was malformed loses its edge."""
        self._mixing = False
        self._loans.answered()
        self._closing.refused(event.refused)
        self.edges.mixed()
        if self.phase is VisitPhase.DRAINING:
            self._drain(now)

    def _half_step(self, now: float) -> None:
        step = self.position
        gradient = self._inner < self.activation.inner_steps
        live = bool(self.edges.opened())
        stop = self._interrupted and self._inner > 0
        if stop or self._inner >= self.activation.steps or not (gradient or live):
            self._drain(now)
            return
        update = None
        if live and self._rules.schedule.mixes(step):
            update = FrameId(self._rules.name, FrameKind.UPDATE, step.activation, step.inner)
            self._loans.wrote(update)
        self.phase = VisitPhase.STEPPING
        self._say(c.HalfStep(step, gradient, update))

    def _late(self) -> list[Edge]:
        """Edges that this step still waits for. Overlap lets flows be one exchange late, but for the last
        step with a gradient and the flush, where there is nothing left to hide them behind."""
        if self.edges.encoded != self._inner:
            return []
        overlapped = self._rules.overlap and self._inner < self.activation.inner_steps - 1
        return self.edges.waiting_for(self._inner, lag=1 if overlapped else 0)

    def _mix(self, now: float) -> None:
        arrivals = self._wait.end()
        if self.edges.encoded == self._inner:
            self._rules.step_waits.add(arrivals, len(self.edges.opened()))
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
        flows = self.edges.take_flows()
        self._counters["flows_applied"] += len(flows)
        self._counters["flows_late"] += sum(update.inner < self.edges.encoded for _, update in flows)
        pairs = tuple(c.Flow(edge.peer, update, self._ours(update)) for edge, update in flows)
        self._say(c.Mix(Step(self.activation.index, inner), pairs, fold))
        self._mixing = True
        self._loans.lend([u for _, u in flows] + self.edges.leftovers(), self.edges.needed_from())

    def _ours(self, update: FrameId) -> FrameId:
        return FrameId(self._rules.name, FrameKind.UPDATE, update.activation, update.inner)

    # --- the end ------------------------------------------------------------------------------------

    def _drain(self, now: float) -> None:
        """After the last step: apply what is still owed, and freeze once every edge is even or closed."""
        if self.phase is not VisitPhase.DRAINING:
            self.phase = VisitPhase.DRAINING
            self._wait.begin(now, self._parting_seconds())
        if self.edges.due():
            if self._mixing:
                # The trainer may be about to say that one of the neighbours has lost its edge.
                return
            self._say_mix(max(self._inner, 1) - 1, fold=False)
        if self.edges.uneven() or self.edges.closing():
            return
        self._wait.end()
        if self._interrupted and self._inner < self.activation.inner_steps:
            self._stand()
        else:
            self._freeze()

    def _parting_seconds(self) -> float:
        return self._rules.farewell if self._interrupted else self._rules.step_waits.seconds()

    def _freeze(self) -> None:
        """Write the block back as it stands."""
        self.phase = VisitPhase.FREEZING
        for edge in self.edges.opened():
            self._rules.rests.kept_up(edge.peer)
        self._closing.over()
        self._say(c.Freeze(self.activation.index))
        self._loans.lend_all(self.edges.end())

    def _stand(self) -> None:
        """Write down where the visit stands, and take no further step."""
        self.phase = VisitPhase.STANDING
        self._say(c.Checkpoint(self.position))
        self._loans.lend_all(self.edges.end())

    def ended(self) -> None:
        """The block is written back, or the standstill's checkpoint is written or was tried."""
        self._loans.answered()

    def proceed(self, now: float) -> None:
        """Go on, without edges, from where the visit stands."""
        self._interrupted = False
        self._half_step(now)

    # --- from outside -------------------------------------------------------------------------------

    def close_received(self, event: e.CloseReceived, now: float) -> None:
        """The other end closed its edge: catch up where we owe flows."""
        if self.exchanging:
            self._closing.closed_by_peer(event.peer, event.applied, event.reason)
            self.go_on(now)
        else:
            self._closing.answer_late(event.peer, event.applied)

    def peer_down(self, event: e.PeerDown, now: float) -> None:
        """The link is gone, and with it the edge, for this activation if it has begun."""
        edge = self.edges.by_peer.get(event.peer)
        if self.phase in (VisitPhase.ACTIVATING, VisitPhase.OPENING):
            self._loans.release(self.edges.withdraw(event.peer))
        elif edge is not None and edge.state is not EdgeState.CLOSED:
            self._closing.lose(edge, event.sentence)
        self.go_on(now)

    def interrupt(self, now: float) -> None:
        """Close all edges in good order, and stand still at the end of the current step, but not before the first."""
        if self._interrupted or not self.activation.inner_steps or not self.exchanging:
            return
        self._interrupted = True
        if self.phase is VisitPhase.ACTIVATING:
            return
        if self.phase is VisitPhase.DRAINING:
            self._wait.begin(now, self._parting_seconds())
            return
        # In OPENING those that were offered an edge must hear of it too.
        self._closing.part(self.edges.offered() + self.edges.opened(), f"{self._rules.name} stops for now")
        self.go_on(now)

    def ask_checkpoint(self) -> None:
        """Write a checkpoint after the current step."""
        self._checkpoint_asked = True

    def abandon(self, reason: str) -> None:
        """Nothing of this visit will be gone on with: its trainer has died, or is about to. Tell the other ends, and
        let every frame go."""
        self._closing.abandon(reason, offers_sent=self.phase is VisitPhase.OPENING)
        self._loans.release_all()
        self._loans.release(self._take_keyframes() + self.edges.end())
        self.phase = VisitPhase.FREEZING
        self._wait.end()

    # --- patience -----------------------------------------------------------------------------------

    def deadline_passed(self, now: float) -> None:
        """Policy with somebody has run out: go on without."""
        self._wait.deadline = None
        if self.phase is VisitPhase.OPENING:
            self._give_up_opening()
        elif self.phase is VisitPhase.WAITING:
            self._give_up_waiting(now)
        elif self.phase is VisitPhase.DRAINING:
            self._give_up_draining(now)

    def _give_up_opening(self) -> None:
        for edge in self.edges.offered():
            self._closing.close_late(edge, f"{edge.peer} did not open it in time")
        self.connect_if_open()

    def _give_up_waiting(self, now: float) -> None:
        for edge in self._late():
            if self.edges.behind(edge, self._inner) > self._rules.late_steps:
                self._closing.close_late(edge, f"{edge.peer} is more than {self._rules.late_steps} exchanges behind")
        self._mix(now)

    def _give_up_draining(self, now: float) -> None:
        """First close what is uneven and wait for the other ends' word; the second time, go on without."""
        for edge in self.edges.closing():
            self._closing.lose(edge, f"{edge.peer} did not answer the closing")
        for edge in self.edges.uneven():
            self._closing.close_late(edge, f"{edge.peer} did not bring its last update in time")
        self._wait.begin(now, self._parting_seconds())
        self._drain(now)


def _names(edges: list[Edge]) -> str:
    return ", ".join(edge.peer for edge in edges)
