"""The node as one state machine: facts go in, commands come out, nothing else happens here.

It gathers the members, leads the trainer from block to block, catches up where it was away, and ends in good order::

    LOADING ---------- the model is there ------------> GATHERING, or back to where the trainer died
    GATHERING -------- enough members were met -------> EVALUATING, or where a checkpoint stood
    EVALUATING ------- loss measured -----------------> VISITING, or SAVING after the last block
    VISITING --------- block written back ------------> KEEPING
    KEEPING ---------- checkpoint written ------------> EVALUATING, or VISITING the next
    (before a visit) - half of the peers are ahead ---> FETCHING --- blocks adopted ---> AWAITING_TURN, or VISITING
    AWAITING_TURN ---- peers begin another block -----> FETCHING, or VISITING
    SAVING ----------- tuned model written -----------> LEAVING
    LEAVING ---------- every peer has finished -------> DONE, or STAYING where it is to stay
    STAYING ---------- stop asked for ----------------> DONE
    PAUSED ----------- asked to go on ----------------> where it stood
    (any) ------------ stop asked for ----------------> DONE, by way of KEEPING where a visit has to be kept

What happens within VISITING is the inner machine of :mod:`deca_node.protocol.visit.visit`. What the node knows and
shows is in :mod:`~deca_node.protocol.node.state`, who is there in :mod:`~deca_node.protocol.node.roster`, which
visit a message belongs to in :mod:`~deca_node.protocol.node.visits`, how the others are caught up with in
:mod:`~deca_node.protocol.node.catching_up`, and how a node ends in :mod:`~deca_node.protocol.node.ending`.
"""

from collections.abc import Callable
from typing import Any, ClassVar

from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.agreement import agree
from deca_node.protocol.agreed.schedule import Schedule, Step
from deca_node.protocol.errors import MismatchError, PeersMissingError
from deca_node.protocol.node.ending import COMPLETE, Ending
from deca_node.protocol.node.state import Phase
from deca_node.protocol.visit.visit import Visit, VisitPhase

__all__ = ["Node", "Phase"]

TRAINER_DEATHS_MAX = 5
"""A trainer that dies so often without a checkpoint in between will not do better the next time."""


class Node(Ending):
    """One member of a run. ``handle`` takes an event and the time; the commands it returns are to be
    performed in order. ``next_deadline`` is when DeadlinePassed is due, in the clock of ``now``.

    ``members`` are those known so far; MembersChanged replaces them. The run begins when ``wait_for`` nodes, this
    one included, have met (None: all of ``members``). ``saved_before`` says that an earlier process of this node has
    written the tuned model.
    """

    def handle(self, event: e.Event, now: float) -> list[c.Command]:
        """Take in one fact; returns what is to be done about it, in order."""
        if self.phase is not Phase.DONE:
            self._HANDLERS[type(event)](self, event, now)
        out, self._out = self._out[:], []
        return out

    @property
    def _active(self) -> Visit:
        """The visit to which a trainer's answer belongs."""
        assert self.visit is not None, "only a visit's commands have such answers"
        return self.visit

    # --- who is there -------------------------------------------------------------------------------

    def _members_changed(self, event: e.MembersChanged, now: float) -> None:
        self._roster.know(event.ready_from)
        self._look_round(now)

    def _peer_up(self, event: e.PeerUp, now: float) -> None:
        self._roster.came(event.peer, event.activation)
        if self.phase is Phase.VISITING and self.visit:
            self.visit.peer_up(event.peer)
        elif self.phase in (Phase.LEAVING, Phase.STAYING):
            # The last goodbye may have been lost with the stream before.
            self._say(c.SendBye(event.peer))
        self._look_round(now)

    def _peer_down(self, event: e.PeerDown, now: float) -> None:
        self._roster.went(event.peer)
        self._visits.offers.drop(event.peer)
        if self.phase is Phase.VISITING and self.visit:
            self.visit.peer_down(event, now)
        self._look_round(now)

    def _peer_progress(self, event: e.PeerProgress, now: float) -> None:
        if event.peer in self.up:
            self._roster.heard(event.peer, event.activation)
            self._look_round(now)

    def _peer_refused(self, event: e.PeerRefused, now: float) -> None:
        """One odd node out of many goes; the many stay and wait until it comes back in agreement."""
        self._roster.disagrees(event.peer)
        if self.phase is Phase.GATHERING and self._roster.outvoted:
            self._finish(MismatchError.exit_code, f"no agreement with {event.peer}: {event.sentence}")
        else:
            sentence = f"no agreement with {event.peer}: {event.sentence}"
            self._say(c.Report("refused", sentence, "warning", event.peer))

    def _bye_received(self, event: e.ByeReceived, now: float) -> None:
        self._roster.finished(event.peer)
        self._look_round(now)

    def _look_round(self, now: float) -> None:
        """Where this node waits for what others do, see whether they have done it."""
        match self.phase:
            case Phase.GATHERING:
                self._begin_if_gathered(now)
            case Phase.AWAITING_TURN:
                self._take_turn(now)
            case Phase.LEAVING if not self._roster.unfinished:
                self._complete()

    # --- loading and gathering ----------------------------------------------------------------------

    def _trainer_ready(self, event: e.TrainerReady, now: float) -> None:
        self.next = event.position
        if self._begun:
            self._go_on(now)
            return
        gather, regather = self._policy.gather, self._policy.regather
        if self.next > Step(0, 0):
            gather = min(gather or regather, regather)
        self.phase, self._deadline = Phase.GATHERING, now + gather if gather else None
        if self._schedule is None:
            blocks = len(event.model.block_names)
            self._schedule = Schedule(self.settings, blocks, self._roster.flush_mixes(0))
            self._say(c.Meet(agree(self.settings, event.model)))
        if self._saved_before and self.next.activation == len(self.schedule):
            self._complete()
        else:
            self._begin_if_gathered(now)

    def _begin_if_gathered(self, now: float) -> None:
        """Begin with all that are expected; a run that goes on elsewhere already need not be waited for."""
        if self._roster.gathered or self._roster.behind(self.next.activation):
            self._begin(now)

    def _begin(self, now: float) -> None:
        self._begun, self._deadline = True, None
        if self.next == Step(0, 0) and not self._roster.behind(0):
            self._evaluate("start")
        else:
            self._go_on(now)

    # --- from block to block ------------------------------------------------------------------------

    def _go_on(self, now: float) -> None:
        """Between two visits, or at a visit that a checkpoint had: what comes next?"""
        self._deadline = None
        if self._ending:
            self._finish(0, self._ending)
        elif self._pausing:
            self.phase = Phase.PAUSED
            self._visits.decline_all("pauses")
        elif self._roster.behind(self.next.activation):
            self._leave_and_fetch()
        elif self.next.activation < len(self.schedule):
            self._begin_visit(now)
        elif self._evaluated_at < self.next.activation:
            self._evaluate("end")
        else:
            self.phase = Phase.SAVING
            self._say(c.Save("final"))

    def _begin_visit(self, now: float) -> None:
        self._catching_up.back(self.next)
        self.phase, self._deadline = Phase.VISITING, None
        self._visits.begin(self.schedule, self.next, now)

    def _open_received(self, event: e.OpenReceived, now: float) -> None:
        self._roster.heard(event.peer, event.activation)
        visiting = self.phase is Phase.VISITING and self._active.phase is not VisitPhase.ACTIVATING
        early = event.activation > self.next.activation or (event.activation == self.next.activation and not visiting)
        if not early:
            self._visits.take_offer(event, now)
        elif self.phase is Phase.PAUSED:
            self._visits.decline(event, "pauses")
        elif self._catching_up.away:
            self._visits.decline(event, "is catching up")
        else:
            self._visits.offers.hold(event)
            self._look_round(now)

    def _update_received(self, event: e.UpdateReceived, now: float) -> None:
        self._visits.update_received(event, now)

    def _close_received(self, event: e.CloseReceived, now: float) -> None:
        self._visits.close_received(event, now)

    def _activated(self, event: e.Activated, now: float) -> None:
        self._visits.activated(event, now)

    def _connected(self, event: e.Connected, now: float) -> None:
        self._active.connected(event, now)

    def _half_stepped(self, event: e.HalfStepped, now: float) -> None:
        self._active.half_stepped(event, now)

    def _mixed(self, event: e.Mixed, now: float) -> None:
        self._active.mixed(event, now)

    def _frozen(self, event: e.Frozen, now: float) -> None:
        self._active.ended()
        self.next = Step(event.activation + 1, 0)
        self.phase = Phase.KEEPING
        self._say(c.Checkpoint(self.next))

    # --- between two visits -------------------------------------------------------------------------

    def _checkpointed(self, event: e.Checkpointed, now: float) -> None:
        self._trainer_deaths.reset()
        self._kept(now)

    def _checkpoint_failed(self, event: e.CheckpointFailed, now: float) -> None:
        self.counters["checkpoints_failed"] += 1
        self._say(c.Report("checkpoint-failed", f"no checkpoint was written: {event.sentence}", "error"))
        self._kept(now)

    def _kept(self, now: float) -> None:
        """A checkpoint is written, or was tried: after a visit, at a standstill, or in the midst of one."""
        if self.phase is Phase.KEEPING:
            self._evaluate_or_go_on(now)
        elif self.phase is Phase.VISITING and self._active.phase is VisitPhase.STANDING:
            self._active.ended()
            self.next = self._active.position
            self._go_on(now)

    def _evaluate_or_go_on(self, now: float) -> None:
        done, every = self.next.activation, self._policy.eval_every
        last, round_ends = done == len(self.schedule), done % self.schedule.blocks == 0
        if self._ending or last or self._evaluated_at >= done:
            self._go_on(now)
        elif every == "round" and round_ends:
            self._evaluate(f"round {done // self.schedule.blocks}")
        elif every == "activation":
            self._evaluate(f"activation {done}")
        else:
            self._go_on(now)

    def _evaluate(self, when: str) -> None:
        self.phase = Phase.EVALUATING
        self._say(c.Evaluate(when))

    def _evaluated(self, event: e.Evaluated, now: float) -> None:
        self._evaluated_at = self.next.activation
        self._go_on(now)

    # --- catching up --------------------------------------------------------------------------------

    def _leave_and_fetch(self) -> None:
        self._catching_up.leave(self.next)
        self._visits.decline_all("is catching up")
        self._fetch()

    def _fetch(self) -> None:
        self.phase, self._deadline = Phase.FETCHING, None
        self._catching_up.ask(self.next)

    def _fetched(self, event: e.Fetched, now: float) -> None:
        fetching = self.phase is Phase.FETCHING
        if not self._catching_up.fetched(event, wanted=fetching) and fetching:
            self._fetch()

    def _fetch_failed(self, event: e.FetchFailed, now: float) -> None:
        pause = self._catching_up.failed(event)
        if self.phase is Phase.FETCHING:
            self._catching_up.leave(self.next)
            self._visits.decline_all("is catching up")
            self._deadline = now + pause

    def _adopted(self, event: e.Adopted, now: float) -> None:
        self.counters["activations_skipped"] += event.position.activation - self.next.activation
        self.next = event.position
        self._visits.forget()
        self._catching_up.adopted(self.next)
        self.phase = Phase.AWAITING_TURN
        self._take_turn(now)

    def _take_turn(self, now: float) -> None:
        """Begin with the others, not in the middle of what they do: when one offers an edge, or none trains that will
        come by here."""
        index = self.next.activation
        if self._pausing or index == len(self.schedule):
            self._go_on(now)
        elif self._visits.offers.waiting(index):
            self._begin_visit(now)
        elif self._roster.behind(index):
            self._fetch()
        elif not self._roster.busy(index - 1):
            self._go_on(now)

    # --- the end ------------------------------------------------------------------------------------

    def _saved(self, event: e.Saved, now: float) -> None:
        self._say(c.Report("saved", f"the tuned model is in {event.path}"))
        if self._ending:
            self._finish(0, f"{COMPLETE} for this node", for_good=True)
            return
        self._say_goodbye(now)
        self._look_round(now)

    def _stop_requested(self, event: e.StopRequested, now: float) -> None:
        self._wind_up("stopped as asked; start it again to go on from here", now)

    def _leave_requested(self, event: e.LeaveRequested, now: float) -> None:
        self._leaving = True
        self._wind_up("left the run as asked", now)

    def _pause_requested(self, event: e.PauseRequested, now: float) -> None:
        self._pausing = True
        if self.phase is Phase.VISITING:
            self._active.interrupt(now)
        self._look_round(now)

    def _resume_requested(self, event: e.ResumeRequested, now: float) -> None:
        self._pausing = False
        if self.phase is Phase.PAUSED:
            self._go_on(now)

    def _checkpoint_requested(self, event: e.CheckpointRequested, now: float) -> None:
        if self.phase is Phase.VISITING:
            self._active.ask_checkpoint()

    def _trainer_failed(self, event: e.TrainerFailed, now: float) -> None:
        if self.phase in (Phase.LEAVING, Phase.STAYING):
            # All that it was needed for is done.
            return
        pause = self._trainer_deaths.next()
        hopeless = not event.died or self._trainer_deaths.failed > TRAINER_DEATHS_MAX
        if hopeless or self._ending or self._schedule is None:
            self._finish(event.exit_code, event.sentence)
            return
        self.counters["trainer_deaths"] += 1
        if self.visit is not None:
            self.visit.abandon(f"the trainer of {self.name} died")
        self._catching_up.trainer_died()
        self._visits.forget()
        self.phase, self._deadline = Phase.LOADING, None
        self._say(c.Report("trainer-died", f"{event.sentence}; starting another in {pause:g} s", "error"))
        self._say(c.RestartTrainer(pause))

    def _deadline_passed(self, event: e.DeadlinePassed, now: float) -> None:
        deadline = self.next_deadline()
        if deadline is None or now < deadline:
            return
        match self.phase:
            case Phase.GATHERING if self.next > Step(0, 0):
                self._begin(now)
            case Phase.GATHERING:
                waited = f"waited {self._policy.gather:g} s for {self.awaits()}"
                self._finish(PeersMissingError.exit_code, f"{waited}; start them, or wait longer with --wait")
            case Phase.FETCHING:
                self._go_on(now)
            case Phase.LEAVING:
                self._complete(f"{COMPLETE}; gave up waiting for {self.awaits()}")
            case Phase.VISITING:
                self._active.deadline_passed(now)

    _HANDLERS: ClassVar[dict[type, Callable[["Node", Any, float], None]]] = {
        e.TrainerReady: _trainer_ready,
        e.TrainerFailed: _trainer_failed,
        e.MembersChanged: _members_changed,
        e.PeerUp: _peer_up,
        e.PeerDown: _peer_down,
        e.PeerRefused: _peer_refused,
        e.PeerProgress: _peer_progress,
        e.OpenReceived: _open_received,
        e.UpdateReceived: _update_received,
        e.CloseReceived: _close_received,
        e.ByeReceived: _bye_received,
        e.Activated: _activated,
        e.Connected: _connected,
        e.HalfStepped: _half_stepped,
        e.Mixed: _mixed,
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
