"""One visit of one block, from the keyframe to the last flow: the inner half of the node's state machine.

::

    ACTIVATING -> OPENING -> CONNECTING -> STEPPING <-> WAITING -> DRAINING -> FREEZING -> OVER
                                                                      '-----> STANDING -> OVER

:data:`deca_node.protocol.visit.phases.VISIT_PHASES` says what leads where, and why. A visit that is interrupted closes
its edges in good order, writes a checkpoint and takes no further step: it is STANDING. A visit that a checkpoint had
begins like that. Only a visit with gradients can be interrupted, since the flows of a mix without gradients cannot be
had later.

The visit sends commands to the trainer ahead where nothing can change them any more. A mix and the half step after it
go out together, so that the trainer never idles between the two.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable

from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.frames import FrameId, FrameKind
from deca_node.protocol.agreed.schedule import Activation, Step
from deca_node.protocol.errors import WireError
from deca_node.protocol.visit.closing import Closing
from deca_node.protocol.visit.edges import Edge, Edges
from deca_node.protocol.visit.loans import Loans
from deca_node.protocol.visit.phases import VISIT_PHASES, EdgeState, VisitCause, VisitPhase
from deca_node.protocol.visit.rules import VisitRules
from deca_node.protocol.visit.waits import Wait


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
        """A visit from its beginning, with an edge to every peer in ``wanted``. With ``inner`` above 0 it is the visit
        that a checkpoint had, standing before that inner step, without edges."""
        self.activation = activation
        self.phase = VisitPhase.STANDING if inner else VisitPhase.ACTIVATING
        self._rules = rules
        self._counters = counters
        self._say = say
        self._inner = inner
        self._interrupted = False
        self._checkpoint_asked = False
        self._mixing = False
        self._meetings = rules.schedule.meetings(activation, rules.turns)
        self.edges = Edges(activation.index, rules.degree, self._meetings, () if inner else wanted, rules.weigh)
        self._wait = Wait()
        self._loans = Loans(say)
        self._closing = Closing(self.edges, self._loans, rules, counters, say)
        self._keyframe: FrameId | None = None
        if self.phase is VisitPhase.ACTIVATING:
            # Parameters travel in the first of the activation's graphs, and need a keyframe.
            self._keyframe = FrameId(rules.name, FrameKind.KEYFRAME, activation.index, 0) if rules.turns[0] else None
            say(c.Activate(activation, self._keyframe))

    @property
    def deadline(self) -> float | None:
        """When the visit waits no longer; None while it waits for no neighbour."""
        return self._wait.deadline

    @property
    def position(self) -> Step:
        """The first step that is not done and mixed."""
        return Step(self.activation.index, self._inner)

    @property
    def exchanging(self) -> bool:
        """Whether anything may still flow over its edges."""
        return self.phase not in (VisitPhase.FREEZING, VisitPhase.STANDING, VisitPhase.OVER)

    @property
    def worth_keeping(self) -> bool:
        """Whether a checkpoint at the end of the current step would keep more than the one before the visit does."""
        begun = self._inner > 0 or self.phase in (VisitPhase.STEPPING, VisitPhase.WAITING)
        return self.phase is VisitPhase.FREEZING or (begun and self.activation.inner_steps > 0)

    def awaits(self) -> str | None:
        """What the visit waits for, as text; None where it waits for the trainer."""
        if self.phase is VisitPhase.OPENING:
            return f"edges to open: {_names(self.edges.offered())}"
        if self.phase in (VisitPhase.WAITING, VisitPhase.DRAINING):
            return f"updates: {_names(self.edges.uneven() + self.edges.closing())}"
        return None

    def _move(self, cause: VisitCause) -> None:
        self.phase = VISIT_PHASES.after(self.phase, cause)

    # --- opening ------------------------------------------------------------------------------------

    def activated(self, now: float) -> None:
        """The keyframe is written: offer every edge."""
        self._move(VisitCause.ACTIVATED)
        self._wait.begin(now, self._rules.open_waits.seconds())
        if self._interrupted:
            for edge in self.edges.offered():
                self.edges.close(edge)
        for edge in self.edges.offered():
            self._send_open(edge.peer)

    def peer_up(self, peer: str) -> None:
        """A stream to a peer is open. A neighbour is offered an edge, as long as edges are opening."""
        if peer not in self._rules.near or self._interrupted:
            return
        if self.phase in (VisitPhase.ACTIVATING, VisitPhase.OPENING):
            self.edges.offer(peer)
        if self.phase is VisitPhase.OPENING:
            self._send_open(peer)

    def take_offer(self, offer: e.OpenReceived, now: float) -> bool:
        """A neighbour's offer has come. False where there is no edge to open any more."""
        opening = self.phase is VisitPhase.OPENING
        opened = opening and self.edges.open(offer.peer, offer.degree, offer.keyframe, self._steps_of(offer))
        if opened:
            self._wait.arrived(now)
        return opened

    def _steps_of(self, offer: e.OpenReceived) -> Collection[int] | None:
        """The exchanges that an offer names; None: all. Without a keyframe no parameters travel."""
        if offer.keyframe and not offer.steps:
            return None
        parameters = self._rules.schedule.parameters
        named = (Step(self.activation.index, inner) for inner in offer.steps if 0 <= inner < self.activation.steps)
        return [step.inner for step in named if offer.keyframe or not parameters(step)]

    def connect_if_open(self) -> None:
        """Hand the neighbours' keyframes to the trainer once every edge is open or given up."""
        if self.phase is not VisitPhase.OPENING or self.edges.offered():
            return
        self._move(VisitCause.OPENED)
        self._rules.open_waits.add(self._wait.end(), len(self.edges.by_peer))
        # An end that has sent no keyframe of its own exchanges no parameters, whatever the other end has sent.
        told = self._rules.turns[0] if self._keyframe else frozenset()
        near = ((edge, edge.keyframe if edge.peer in told else None) for edge in self.edges.live())
        opened = tuple(c.Neighbour(edge.peer, edge.weight, keyframe) for edge, keyframe in near)
        self._say(c.Connect(self.activation.index, opened, self._keyframe))
        self._loans.lend_all(self._take_keyframes())

    def connected(self, event: e.Connected, now: float) -> None:
        """The trainer has absorbed the keyframes: take the first step."""
        self._loans.answered()
        self._closing.refused(event.refused)
        self._next_step(now)

    def _send_open(self, peer: str) -> None:
        steps = self._meetings[peer] if len(self._rules.turns) > 1 else ()
        keyframe = self._keyframe if peer in self._rules.turns[0] else None
        self._say(c.SendOpen(peer, self.activation.index, self._rules.degree, keyframe, steps))

    def _take_keyframes(self) -> list[FrameId]:
        ours, self._keyframe = self._keyframe, None
        return self.edges.take_keyframes() + ([ours] if ours else [])

    # --- steps --------------------------------------------------------------------------------------

    def half_stepped(self, event: e.HalfStepped, now: float) -> None:
        """The half step is done: send its update, and mix if the neighbours' updates are there."""
        if event.update is not None:
            self.edges.encode(event.step.inner)
            for edge in self.edges.due_at(event.step.inner):
                self._say(c.SendUpdate(edge.peer, event.update))
        self._move(VisitCause.STEPPED)
        there = len(self.edges.opened()) - len(self._late())
        self._wait.begin(now, self._rules.step_waits.seconds(), there)
        self.go_on(now)

    def update_received(self, event: e.UpdateReceived, now: float) -> None:
        """A neighbour's update has arrived whole. One that is of no use, or out of order, is released and counted."""
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
            self._closing.mixes_on(event.peer, over=self.phase in (VisitPhase.FREEZING, VisitPhase.OVER))

    def go_on(self, now: float) -> None:
        """An edge has changed: go on if this phase waits for nothing more."""
        if self.phase is VisitPhase.OPENING:
            self.connect_if_open()
        elif self.phase is VisitPhase.WAITING and not self._late():
            self._mix(now)
        elif self.phase is VisitPhase.DRAINING:
            self._drain()

    def mixed(self, event: e.Mixed, now: float) -> None:
        """The trainer has mixed. Neighbours whose updates it refused lose their edges."""
        self._mixing = False
        self._loans.answered()
        self._closing.refused(event.refused)
        self.edges.mixed()
        if self.phase is VisitPhase.DRAINING:
            self._drain()

    def _next_step(self, now: float) -> None:
        """Ask for the next half step; or begin to drain where there is none to take."""
        step, gradient = self.position, self._inner < self.activation.inner_steps
        live = self.edges.lead_on(self._inner)
        stop = self._interrupted and self._inner > 0
        if stop or self._inner >= self.activation.steps or not (gradient or live):
            self._move(VisitCause.NO_STEP)
            self._wait.begin(now, self._parting_seconds())
            self._drain()
            return
        update = None
        if self.edges.due_at(self._inner):
            update = FrameId(self._rules.name, FrameKind.UPDATE, step.activation, step.inner)
            self._loans.wrote(update)
        self._move(VisitCause.STEP)
        self._say(c.HalfStep(step, gradient, update))

    def _late(self) -> list[Edge]:
        """The edges that this step still waits for. With overlap flows may be one exchange late, except at the last
        step with a gradient and in the flush, where no computation is left to hide the transfer behind."""
        if self.edges.encoded != self._inner:
            return []
        overlapped = self._rules.overlap and self._inner < self.activation.inner_steps - 1
        return self.edges.waiting_for(lag=1 if overlapped else 0)

    def _mix(self, now: float) -> None:
        arrivals = self._wait.end()
        if self.edges.encoded == self._inner:
            self._rules.step_waits.add(arrivals, len(self.edges.opened()))
        self._say_mix(self._inner, fold=self._inner < self.activation.inner_steps)
        self._inner += 1
        self._checkpoint_if_due()
        self._next_step(now)

    def _checkpoint_if_due(self) -> None:
        """Ask for a checkpoint between two steps, where the trainer's own state is all that going on needs."""
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
        self._loans.lend([u for _, u in flows] + self.edges.leftovers(), self.edges.needs)

    def _ours(self, update: FrameId) -> FrameId:
        return FrameId(self._rules.name, FrameKind.UPDATE, update.activation, update.inner)

    # --- the end ------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Apply the flows that are still owed, and end the visit once every edge is even or closed."""
        if self.edges.due():
            if self._mixing:
                # The trainer's answer may refuse a neighbour, which then loses its edge.
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
        """Have the block written back as it stands."""
        self._move(VisitCause.EVEN)
        for edge in self.edges.opened():
            self._rules.rests.kept_up(edge.peer)
        self._closing.over()
        self._say(c.Freeze(self.activation.index))
        self._loans.lend_all(self.edges.end())

    def _stand(self) -> None:
        """Have a checkpoint written, and take no further step."""
        self._move(VisitCause.STAND)
        self._say(c.Checkpoint(self.position))
        self._loans.lend_all(self.edges.end())

    def ended(self) -> None:
        """The block is written back; or the checkpoint of a standing visit is written, or could not be."""
        self._move(VisitCause.KEPT)
        self._loans.answered()

    def proceed(self, now: float) -> None:
        """Go on, without edges, from where the visit stands."""
        self._next_step(now)

    # --- from outside -------------------------------------------------------------------------------

    def close_received(self, event: e.CloseReceived, now: float) -> None:
        """A neighbour has closed its end: catch up with it where this end owes flows."""
        if self.exchanging:
            self._closing.closed_by_peer(event.peer, event.applied, event.reason)
            self.go_on(now)
        else:
            self._closing.answer_late(event.peer, event.applied, event.reason)

    def peer_down(self, event: e.PeerDown, now: float) -> None:
        """The stream to a peer is lost, and with it the edge. While edges are opening it can be offered again."""
        edge = self.edges.by_peer.get(event.peer)
        if self.phase in (VisitPhase.ACTIVATING, VisitPhase.OPENING):
            self._loans.release(self.edges.withdraw(event.peer))
        elif edge is not None and edge.state is not EdgeState.CLOSED:
            self._closing.lose(edge, event.sentence)
        self.go_on(now)

    def interrupt(self, now: float) -> None:
        """Close all edges in good order, and stand still at the end of the current step; the first step is always
        taken."""
        if self._interrupted or not self.activation.inner_steps or not self.exchanging:
            return
        self._interrupted = True
        if self.phase is VisitPhase.ACTIVATING:
            return
        if self.phase is VisitPhase.DRAINING:
            self._wait.begin(now, self._parting_seconds())
            return
        # While edges are opening, neighbours that were offered one must hear of it too.
        self._closing.stop(self.edges.offered() + self.edges.opened())
        self.go_on(now)

    def ask_checkpoint(self) -> None:
        """Have a checkpoint written after the current step."""
        self._checkpoint_asked = True

    def abandon(self, reason: str) -> None:
        """Give the visit up, since its trainer has died or is about to end. The other ends are told, and every frame is
        released."""
        if self.phase is VisitPhase.OVER:
            return
        self._closing.abandon(reason, offers_sent=self.phase is VisitPhase.OPENING)
        self._loans.release_all()
        self._loans.release(self._take_keyframes() + self.edges.end())
        self._move(VisitCause.ABANDONED)
        self._wait.end()

    # --- late neighbours ----------------------------------------------------------------------------

    def deadline_passed(self, now: float) -> None:
        """The wait for neighbours is over: go on without those that are late."""
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
        allowed = self._rules.late_steps
        exchanges = f"{allowed} exchange{'s' if allowed > 1 else ''}"
        for edge in self._late():
            if self.edges.behind(edge) > allowed:
                self._closing.close_late(edge, f"{edge.peer} is more than {exchanges} behind")
        self._mix(now)

    def _give_up_draining(self, now: float) -> None:
        """The first time, close the uneven edges and wait for the other ends' closes; the second time, end them."""
        for edge in self.edges.closing():
            self._closing.lose(edge, f"{edge.peer} did not answer the close")
        for edge in self.edges.uneven():
            self._closing.close_late(edge, f"{edge.peer} did not send its last update in time")
        self._wait.begin(now, self._parting_seconds())
        self._drain()


def _names(edges: list[Edge]) -> str:
    return ", ".join(edge.peer for edge in edges)
