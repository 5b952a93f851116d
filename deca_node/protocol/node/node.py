"""The node as one state machine: facts go in, commands come out, nothing else happens here.

The node gathers the members, leads the trainer from block to block, catches up where it was away, and ends in good
order. :mod:`deca_node.protocol.node.phases` has the table of its phases; what happens within VISITING is the machine of
:mod:`deca_node.protocol.visit.visit`.
"""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.agreement import agree
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.agreed.stopping import NOTHING_TOLD, Heldout
from deca_node.protocol.agreed.weights import share_of
from deca_node.protocol.node.ending import COMPLETE, Ending
from deca_node.protocol.node.gathering import Gathering
from deca_node.protocol.node.phases import ENDED, Cause, Phase
from deca_node.protocol.node.state import NodeState
from deca_node.protocol.node.visits import Visits
from deca_node.protocol.visit.phases import VisitPhase
from deca_node.protocol.visit.policy import Policy
from deca_node.protocol.visit.visit import Visit

TRAINER_DEATHS_MAX = 5
"""Deaths of the trainer, without a checkpoint between them, after which the node starts no other."""

EventHandler = Callable[["Node", Any, float], None]


def _visits(method: Callable[[Visits, Any, float], None]) -> EventHandler:
    """A handler that leaves an event over an edge to the visit that the event names."""
    return lambda node, event, now: method(node.state.visits, event, now)


def _visit(method: Callable[[Visit, Any, float], None]) -> EventHandler:
    """A handler that leaves a trainer's answer to the current visit."""
    return lambda node, event, now: method(node.state.active, event, now)


class Node:
    """One member of a run. ``handle`` takes an event and the time; the commands that it returns are to be performed in
    order. ``next_deadline`` is when DeadlinePassed is due. ``state`` is for reading.

    ``members`` are the members known so far; MembersChanged replaces them. The run begins when ``wait_for`` nodes, this
    one included, have met (None: all of ``members``). ``saved_before`` says that an earlier process of this node has
    written the tuned model, ``alone`` how that model is this node's own, and ``heldout`` what it told of its losses.
    """

    def __init__(
        self,
        name: str,
        members: Iterable[str],
        settings: RunSettings,
        policy: Policy,
        wait_for: int | None = None,
        saved_before: bool = False,
        alone: str = "",
        heldout: Heldout = NOTHING_TOLD,
    ) -> None:
        self.name = name
        self.state = NodeState(name, members, settings, policy, wait_for, saved_before, alone, heldout)
        self._ending = Ending(self.state)
        self._gathering = Gathering(self.state, self._ending)

    def handle(self, event: e.Event, now: float) -> list[c.Command]:
        """Take in one fact; returns the commands that follow from it, in order."""
        if self.state.phase not in ENDED:
            self._HANDLERS[type(event)](self, event, now)
        return self.state.take_commands()

    def next_deadline(self) -> float | None:
        """When DeadlinePassed is due, in the clock of ``now``; None while this node waits for no peer."""
        if self.state.phase is Phase.VISITING:
            return self.state.active.deadline
        return self.state.deadline

    # --- who is there -------------------------------------------------------------------------------

    def _members_changed(self, event: e.MembersChanged, now: float) -> None:
        self.state.roster.know(event.ready_from)
        self.state.heard_losses(event.heldout)
        self._look_round(now)

    def _peer_up(self, event: e.PeerUp, now: float) -> None:
        self.state.roster.came(event.peer, event.activation, event.share)
        if self.state.phase is Phase.VISITING:
            self.state.active.peer_up(event.peer)
        elif self.state.phase in (Phase.LEAVING, Phase.STAYING):
            # The last goodbye may have been lost with the stream before.
            self.state.say(c.SendBye(event.peer))
        self._look_round(now)

    def _peer_down(self, event: e.PeerDown, now: float) -> None:
        self.state.roster.went(event.peer)
        self.state.visits.offers.drop(event.peer)
        if self.state.phase is Phase.VISITING:
            self.state.active.peer_down(event, now)
        self._look_round(now)

    def _peer_progress(self, event: e.PeerProgress, now: float) -> None:
        if event.peer in self.state.up:
            self.state.roster.heard(event.peer, event.activation)
            self._look_round(now)

    def _peer_refused(self, event: e.PeerRefused, now: float) -> None:
        self._gathering.refused(event, now)

    def _bye_received(self, event: e.ByeReceived, now: float) -> None:
        self.state.roster.finished(event.peer)
        self._look_round(now)

    def _look_round(self, now: float) -> None:
        """News of peers: go on if this node waits for just that."""
        match self.state.phase:
            case Phase.GATHERING:
                self._begin_if_gathered(now)
            case Phase.AWAITING_TURN:
                self._take_turn(now)
            case Phase.LEAVING if not self.state.roster.unfinished:
                self._ending.complete(now)

    # --- loading and gathering ----------------------------------------------------------------------

    def _trainer_ready(self, event: e.TrainerReady, now: float) -> None:
        state = self.state
        state.next = event.position
        if state.begun:
            self._go_on(now)
            return
        if not state.planned:
            # A share is fixed for this start: a trainer that replaces another one changes nothing.
            share = state.roster.shares[self.name] = share_of(state.settings, event.tokens)
            state.plan(len(event.model.block_names))
            state.say(c.Meet(agree(state.settings, event.model), share))
        if state.saved_before and state.next.activation == len(state.schedule):
            self._ending.complete(now)
            return
        state.move(Cause.LOADED, self._gathering.begin(now))
        self._begin_if_gathered(now)

    def _begin_if_gathered(self, now: float) -> None:
        if self._gathering.complete:
            self._begin(now)

    def _begin(self, now: float) -> None:
        self.state.begun = True
        if self.state.next == Step(0, 0) and not self.state.roster.behind(0):
            self._evaluate("start")
        else:
            self._go_on(now)

    # --- from block to block ------------------------------------------------------------------------

    def _go_on(self, now: float) -> None:
        """Do what comes next, between two visits or at a visit that a checkpoint had."""
        state = self.state
        state.settle_next()
        if state.ending:
            self._ending.finish(Cause.STOP, state.ending_code, state.ending)
        elif state.pausing:
            state.move(Cause.PAUSE)
            state.visits.decline_all("pauses")
        elif state.roster.behind(state.next.activation):
            state.catching_up.leave(state.next)
            state.visits.decline_all("is catching up")
            self._fetch()
        elif state.next.activation < len(state.schedule):
            self._begin_visit(now)
        elif state.evaluated_at < state.next.activation:
            self._evaluate("end")
        else:
            state.move(Cause.TRAINED)
            state.alone = state.visits.left_alone if state.roster.shared else ""
            state.say(c.Save("final", state.alone))

    def _begin_visit(self, now: float) -> None:
        state = self.state
        state.catching_up.back(state.next)
        state.move(Cause.VISIT)
        state.visit_began = now
        state.visits.begin(state.schedule, state.next, now)

    def _open_received(self, event: e.OpenReceived, now: float) -> None:
        state = self.state
        state.roster.heard(event.peer, event.activation)
        visiting = state.phase is Phase.VISITING and state.active.phase is not VisitPhase.ACTIVATING
        early = event.activation > state.next.activation or (event.activation == state.next.activation and not visiting)
        if not early:
            state.visits.take_offer(event, now)
        elif state.phase is Phase.PAUSED:
            state.visits.decline(event, "pauses")
        elif state.catching_up.away:
            state.visits.decline(event, "is catching up")
        else:
            state.visits.offers.hold(event)
            self._look_round(now)

    def _frozen(self, event: e.Frozen, now: float) -> None:
        state = self.state
        state.visits.frozen()
        state.stopping.visited(now - state.visit_began)
        state.next = Step(event.activation + 1, 0)
        state.move(Cause.WRITTEN)
        state.say(c.Checkpoint(state.next))

    # --- between two visits -------------------------------------------------------------------------

    def _checkpointed(self, event: e.Checkpointed, now: float) -> None:
        self.state.trainer_deaths.reset()
        self._kept(now)

    def _checkpoint_failed(self, event: e.CheckpointFailed, now: float) -> None:
        self.state.counters["checkpoints_failed"] += 1
        self.state.say(c.Report("checkpoint-failed", f"no checkpoint was written: {event.sentence}", "error"))
        self._kept(now)

    def _kept(self, now: float) -> None:
        """A checkpoint is written, or could not be: after a visit, at a standstill, or in the middle of a visit."""
        state = self.state
        if state.phase is Phase.KEEPING:
            self._evaluate_or_go_on(now)
        elif state.phase is Phase.VISITING and state.active.phase is VisitPhase.STANDING:
            state.active.ended()
            state.next = state.active.position
            self._go_on(now)

    def _evaluate_or_go_on(self, now: float) -> None:
        state = self.state
        done, every, blocks = state.next.activation, state.policy.eval_every, state.schedule.blocks
        if state.ending or done == len(state.schedule) or state.evaluated_at >= done:
            self._go_on(now)
        elif (every == "round" or state.stopping.on) and done % blocks == 0:
            self._evaluate(f"round {done // blocks}")
        elif every == "activation":
            self._evaluate(f"activation {done}")
        else:
            self._go_on(now)

    def _evaluate(self, when: str) -> None:
        self.state.move(Cause.MEASURE)
        self.state.say(c.Evaluate(when, self.state.to_keep))

    def _evaluated(self, event: e.Evaluated, now: float) -> None:
        self.state.measured(event)
        self._go_on(now)

    # --- catching up --------------------------------------------------------------------------------

    def _fetch(self) -> None:
        self.state.move(Cause.BEHIND)
        self.state.catching_up.ask(self.state.next)

    def _fetched(self, event: e.Fetched, now: float) -> None:
        fetching = self.state.phase is Phase.FETCHING
        if not self.state.catching_up.fetched(event, wanted=fetching) and fetching:
            self.state.catching_up.ask(self.state.next)

    def _fetch_failed(self, event: e.FetchFailed, now: float) -> None:
        state = self.state
        pause = state.catching_up.failed(event)
        if state.phase is Phase.FETCHING:
            state.catching_up.leave(state.next)
            state.visits.decline_all("is catching up")
            state.deadline = now + pause

    def _adopted(self, event: e.Adopted, now: float) -> None:
        state = self.state
        state.counters["activations_skipped"] += event.position.activation - state.next.activation
        state.next = event.position
        state.visits.adopted()
        state.catching_up.adopted(state.next)
        state.move(Cause.ADOPTED)
        self._take_turn(now)

    def _take_turn(self, now: float) -> None:
        """Begin together with the peers, not in the middle of what they do: when one of them offers an edge, or when no
        peer trains any more that will come by here."""
        state = self.state
        state.settle_next()
        index = state.next.activation
        if state.pausing or index == len(state.schedule):
            self._go_on(now)
        elif state.visits.offers.waiting(index):
            self._begin_visit(now)
        elif state.roster.behind(index):
            self._fetch()
        elif not state.roster.busy(index - 1):
            self._go_on(now)

    # --- the end ------------------------------------------------------------------------------------

    def _saved(self, event: e.Saved, now: float) -> None:
        self.state.stopping.judge_last()
        self.state.say(c.Report("saved", f"the tuned model is in {event.path}"))
        if self.state.alone:
            self.state.say(c.Report("alone", f"this model is not the others': {self.state.alone}", "warning"))
        if self.state.ending:
            self._ending.finish(Cause.STOP, 0, f"{COMPLETE} for this node", for_good=True)
            return
        self._ending.say_goodbye(now)
        self._look_round(now)

    def _stop_requested(self, event: e.StopRequested, now: float) -> None:
        self._ending.wind_up("the node stopped as asked; start it again to go on from here", now)

    def _leave_requested(self, event: e.LeaveRequested, now: float) -> None:
        self.state.leaving = True
        self._ending.wind_up("the node left the run as asked", now)

    def _pause_requested(self, event: e.PauseRequested, now: float) -> None:
        self.state.pausing = True
        if self.state.phase is Phase.VISITING:
            self.state.active.interrupt(now)
        self._look_round(now)

    def _resume_requested(self, event: e.ResumeRequested, now: float) -> None:
        self.state.pausing = False
        if self.state.phase is Phase.PAUSED:
            self._go_on(now)

    def _checkpoint_requested(self, event: e.CheckpointRequested, now: float) -> None:
        if self.state.phase is Phase.VISITING:
            self.state.active.ask_checkpoint()

    def _trainer_failed(self, event: e.TrainerFailed, now: float) -> None:
        state = self.state
        if state.phase in (Phase.LEAVING, Phase.STAYING):
            # The trainer has done all that it was needed for.
            return
        pause = state.trainer_deaths.next()
        hopeless = not event.died or state.trainer_deaths.failed > TRAINER_DEATHS_MAX
        if hopeless or state.ending or not state.planned:
            self._ending.finish(Cause.FAIL, event.exit_code, event.sentence)
            return
        state.counters["trainer_deaths"] += 1
        if state.visit is not None:
            state.visit.abandon(f"the trainer of {self.name} died")
        state.catching_up.trainer_died()
        state.visits.forget()
        state.move(Cause.DIED)
        state.say(c.Report("trainer-died", f"{event.sentence}; starting another in {pause:g} s", "error"))
        state.say(c.RestartTrainer(pause))

    def _deadline_passed(self, event: e.DeadlinePassed, now: float) -> None:
        deadline = self.next_deadline()
        if deadline is None or now < deadline:
            return
        state = self.state
        match state.phase:
            case Phase.GATHERING:
                if self._gathering.deadline_passed(now):
                    self._begin(now)
            case Phase.FETCHING:
                self._go_on(now)
            case Phase.LEAVING:
                self._ending.complete(now, f"{COMPLETE}; gave up waiting for {state.awaits()}")
            case Phase.STAYING:
                self._ending.finish(Cause.STOP, 0, COMPLETE, for_good=True)
            case Phase.VISITING:
                state.active.deadline_passed(now)

    _HANDLERS: ClassVar[dict[type, EventHandler]] = {
        e.TrainerReady: _trainer_ready,
        e.TrainerFailed: _trainer_failed,
        e.MembersChanged: _members_changed,
        e.PeerUp: _peer_up,
        e.PeerDown: _peer_down,
        e.PeerRefused: _peer_refused,
        e.PeerProgress: _peer_progress,
        e.OpenReceived: _open_received,
        e.UpdateReceived: _visits(Visits.update_received),
        e.CloseReceived: _visits(Visits.close_received),
        e.ByeReceived: _bye_received,
        e.Activated: _visits(Visits.activated),
        e.Connected: _visit(Visit.connected),
        e.HalfStepped: _visit(Visit.half_stepped),
        e.Mixed: _visit(Visit.mixed),
        e.Frozen: _frozen,
        e.Checkpointed: _checkpointed,
        e.CheckpointFailed: _checkpoint_failed,
        e.Evaluated: _evaluated,
        e.Fetched: _fetched,
        e.FetchFailed: _fetch_failed,
        e.Adopted: _adopted,
        e.Saved: _saved,
        e.StopRequested: _stop_requested,
        e.LeaveRequested: _leave_requested,
        e.PauseRequested: _pause_requested,
        e.ResumeRequested: _resume_requested,
        e.CheckpointRequested: _checkpoint_requested,
        e.DeadlinePassed: _deadline_passed,
    }
