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
    LEAVING ---------- every peer has finished -------> DONE
    PAUSED ----------- asked to go on ----------------> where it stood
    (any) ------------ stop asked for ----------------> DONE, by way of KEEPING where a visit has to be kept

What happens within VISITING is the inner machine of :mod:`deca_node.protocol.visit`.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any, ClassVar

from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.errors import MismatchError, PeersMissingError
from deca_node.protocol.mixing import mixes_to_agree
from deca_node.protocol.offers import Offers
from deca_node.protocol.patience import Attempts, Patience, Rests, Waits
from deca_node.protocol.progress import NOT_TRAINING, Progress
from deca_node.protocol.run import RunSettings, agree
from deca_node.protocol.schedule import Activation, Schedule, Step
from deca_node.protocol.topology import Graph, graph
from deca_node.protocol.visit import Visit, VisitPhase, VisitRules


class Phase(StrEnum):
    """Where a node stands; the picture above says what leads where."""

    LOADING = "loading"
    GATHERING = "gathering"
    EVALUATING = "evaluating"
    VISITING = "visiting"
    KEEPING = "keeping"
    FETCHING = "fetching"
    AWAITING_TURN = "awaiting-turn"
    PAUSED = "paused"
    SAVING = "saving"
    LEAVING = "leaving"
    DONE = "done"


OPEN_SECONDS_MIN = 30.0
"""The least an activation waits for its edges: neighbours may evaluate, and not all are equally fast at that."""

TRAINER_DEATHS_MAX = 5
"""A trainer that dies so often without a checkpoint in between will not do better the next time."""


class Node:
    """One member of a run. ``handle`` takes an event and the time; the commands it returns are to be
    performed in order. ``next_deadline`` is when DeadlinePassed is due, in the clock of ``now``.

    ``members`` are those known so far; MembersChanged replaces them. The run begins when ``wait_for`` nodes, this
    one included, have met (None: all of ``members``).
    """

    def __init__(
        self,
        name: str,
        members: Iterable[str],
        settings: RunSettings,
        patience: Patience,
        wait_for: int | None = None,
    ) -> None:
        self.name = name
        self.settings = settings
        self.phase = Phase.LOADING
        self.counters: Counter[str] = Counter()
        self.up: set[str] = set()
        self.visit: Visit | None = None
        self.next = Step(0, 0)
        """The first step that is not done yet, as of the last visit's end."""
        self._ready_from = dict.fromkeys([*members, name], 0)
        self._wait_for = len(self._ready_from) if wait_for is None else wait_for
        self._visit_before: Visit | None = None
        self._patience = patience
        self._open_waits = Waits(OPEN_SECONDS_MIN, patience.open)
        self._step_waits = Waits(patience.floor, patience.step)
        self._rests = Rests()
        self._schedule: Schedule | None = None
        self._deadline: float | None = None
        self._met: set[str] = set()
        self._refused: set[str] = set()
        self._finished: set[str] = set()
        self._progress = Progress()
        self._trainer_deaths = Attempts(1.0, 60.0)
        self._fetch_failures = Attempts(1.0, 30.0)
        self._offers = Offers(self._say)
        self._ending = ""
        self._pausing = False
        self._away = False
        self._evaluated_at = -1
        self._out: list[c.Command] = []

    # --- the two doors ------------------------------------------------------------------------------

    def handle(self, event: e.Event, now: float) -> list[c.Command]:
        """Take in one fact; returns what is to be done about it, in order."""
        if self.phase is not Phase.DONE:
            self._HANDLERS[type(event)](self, event, now)
        out, self._out = self._out[:], []
        return out

    def next_deadline(self) -> float | None:
        """When this node's patience ends, or None while it waits for nobody."""
        if self.phase is Phase.VISITING and self.visit is not None:
            return self.visit.deadline
        return self._deadline

    @property
    def members(self) -> tuple[str, ...]:
        """Who takes part, as far as this node knows, in order of their names."""
        return tuple(sorted(self._ready_from))

    @property
    def position(self) -> int:
        """The activation this node works on or is about to; the schedule's length once all are done; NOT_TRAINING
        before the first, while it catches up, and in a pause."""
        away = self.phase in (Phase.FETCHING, Phase.AWAITING_TURN, Phase.PAUSED)
        fresh = self.phase in (Phase.LOADING, Phase.GATHERING) and self.next == Step(0, 0)
        return NOT_TRAINING if away or fresh else self.next.activation

    @property
    def schedule(self) -> Schedule:
        """The run's activations; known once the model is."""
        assert self._schedule is not None, "the schedule is known once the model is loaded"
        return self._schedule

    def graph(self, activation: int) -> Graph:
        """Who shares edges with whom in an activation, among the members that count by then."""
        names = {name for name, ready in self._ready_from.items() if 0 <= ready <= activation} | {self.name}
        return graph(names, self.settings)

    def awaits(self) -> str:
        """What this node waits for right now, in words."""
        match self.phase:
            case Phase.GATHERING:
                missing = sorted(set(self.members) - self._met - {self.name})
                return f"peers: {', '.join(missing) or f'{self._wait_for - 1 - len(self._met)} more'}"
            case Phase.LEAVING:
                return f"peers to finish: {', '.join(sorted(self.up - self._finished))}"
            case Phase.FETCHING:
                return "donors: blocks that were trained while this node was away"
            case Phase.AWAITING_TURN:
                return f"its turn: peers train activation {self.next.activation}, this node joins at the next"
            case Phase.PAUSED:
                return "somebody to let it go on (deca-node resume)"
        visiting = self.visit.awaits() if self.phase is Phase.VISITING and self.visit else None
        return visiting or f"its trainer ({self.phase})"

    # --- loading and gathering ----------------------------------------------------------------------

    def _trainer_ready(self, event: e.TrainerReady, now: float) -> None:
        again = self._schedule is not None
        self.next = event.position
        if again:
            self._go_on(now)
            return
        self._schedule = Schedule(self.settings, len(event.model.block_names), self._flush_mixes(0))
        self.phase = Phase.GATHERING
        self._deadline = now + self._patience.gather if self._patience.gather else None
        if self.next > Step(0, 0):
            self._deadline = now + min(self._patience.regather, self._patience.gather or self._patience.regather)
        self._say(c.Meet(agree(self.settings, event.model)))
        self._begin_if_gathered(now)

    def _flush_mixes(self, activation: int) -> int:
        """How many mixes make the copies agree in the final flush; it depends on who is there."""
        return self.settings.final_flush_mixes or mixes_to_agree(self.graph(activation), self.settings.flow_share)

    def _members_changed(self, event: e.MembersChanged, now: float) -> None:
        self._ready_from = {**event.ready_from, self.name: event.ready_from.get(self.name, 0)}

    def _peer_up(self, event: e.PeerUp, now: float) -> None:
        self.up.add(event.peer)
        self._met.add(event.peer)
        self._refused.discard(event.peer)
        self._ready_from.setdefault(event.peer, 0)
        self._progress.heard(event.peer, event.activation)
        if self.phase is Phase.GATHERING:
            self._begin_if_gathered(now)
        elif self.phase is Phase.VISITING and self.visit and event.peer in self.graph(self.next.activation)[self.name]:
            self.visit.peer_up(event.peer)
        elif self.phase is Phase.LEAVING:
            # The last goodbye may have been lost with the stream before.
            self._say(c.SendBye(event.peer))
        elif self.phase is Phase.AWAITING_TURN:
            self._take_turn(now)

    def _peer_refused(self, event: e.PeerRefused, now: float) -> None:
        """One odd node out of many goes; the many stay and wait until it comes back in agreement."""
        self._refused.add(event.peer)
        if self.phase is Phase.GATHERING and 2 * len(self._refused) >= self._wait_for:
            self._finish(MismatchError.exit_code, f"no agreement with {event.peer}: {event.sentence}")
        else:
            self._say(c.Report("refused", f"no agreement with {event.peer}: {event.sentence}", "warning"))

    def _peer_down(self, event: e.PeerDown, now: float) -> None:
        self.up.discard(event.peer)
        self._progress.gone(event.peer)
        self._offers.drop(event.peer)
        if self.phase is Phase.LEAVING:
            self._leave_if_all_finished()
        elif self.phase is Phase.VISITING and self.visit:
            self.visit.peer_down(event, now)
        elif self.phase is Phase.AWAITING_TURN:
            self._take_turn(now)

    def _peer_progress(self, event: e.PeerProgress, now: float) -> None:
        if event.peer in self.up:
            self._progress.heard(event.peer, event.activation)
        if self.phase is Phase.AWAITING_TURN:
            self._take_turn(now)
        elif self.phase is Phase.GATHERING:
            self._begin_if_gathered(now)

    def _begin_if_gathered(self, now: float) -> None:
        """Begin with all that are expected; a run that goes on elsewhere already need not be waited for."""
        if len(self._met) + 1 >= self._wait_for or self._progress.behind(self.next.activation):
            self._begin(now)

    def _begin(self, now: float) -> None:
        self._deadline = None
        fresh = self.next == Step(0, 0) and not self._progress.behind(0)
        if fresh:
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
        elif self._progress.behind(self.next.activation):
            self._fetch()
        elif self.next.activation < len(self.schedule):
            self._begin_visit(now)
        elif self._evaluated_at < self.next.activation:
            self._evaluate("end")
        else:
            self.phase = Phase.SAVING
            self._say(c.Save("final"))

    def _begin_visit(self, now: float) -> None:
        if self._away:
            self._away = False
            self._say(c.AnnounceReady(self.next.activation))
        near = self.graph(self.next.activation)[self.name]
        activation = self._activation(self.next.activation)
        rules = VisitRules(
            name=self.name,
            degree=len(near),
            schedule=self.schedule,
            overlap=self.settings.exchange == "overlap",
            late_steps=self.settings.late_steps,
            open_waits=self._open_waits,
            step_waits=self._step_waits,
            rests=self._rests,
            farewell=self._patience.farewell,
            checkpoint_every=self._patience.checkpoint_every,
        )
        self.phase = Phase.VISITING
        self._visit_before = self.visit
        inner = self.next.inner
        wanted = [] if inner else sorted(self._edges_wanted(activation, near))
        self.visit = Visit(rules, activation, wanted, self.counters, self._say, inner=inner)
        if inner:
            self.visit.proceed(now)

    def _activation(self, index: int) -> Activation:
        planned = self.schedule[index]
        return planned if planned.inner_steps else dataclasses.replace(planned, flush_mixes=self._flush_mixes(index))

    def _edges_wanted(self, activation: Activation, near: Iterable[str]) -> set[str]:
        """Neighbours to open an edge to: those that are up and not let be, and in the final flush all that are up,
        since whoever is left out there keeps a copy of its own."""
        flush = activation.inner_steps == 0
        return {peer for peer in near if peer in self.up and (flush or not self._rests.resting(peer, activation.index))}

    def _activated(self, event: e.Activated, now: float) -> None:
        if self.visit is None or self.visit.activation.index != event.activation:
            return
        self.visit.activated(now)
        for offer in self._offers.due(event.activation):
            self._take_offer(offer, now)
        self.visit.connect_if_open()

    def _open_received(self, event: e.OpenReceived, now: float) -> None:
        self._progress.heard(event.peer, event.activation)
        activating = self.visit is not None and self.visit.phase is VisitPhase.ACTIVATING
        visiting = self.phase is Phase.VISITING and not activating
        if event.activation > self.next.activation or (event.activation == self.next.activation and not visiting):
            if self.phase is Phase.PAUSED:
                self._decline(event, "pauses")
                return
            self._offers.hold(event)
            if self.phase is Phase.AWAITING_TURN:
                self._take_turn(now)
            return
        self._take_offer(event, now)

    def _take_offer(self, offer: e.OpenReceived, now: float) -> None:
        """Open the edge, or answer that there is none: it timed out here, or its activation is past."""
        visiting = self.phase is Phase.VISITING and self.visit is not None
        if visiting and self.visit and offer.activation == self.next.activation and self.visit.take_offer(offer, now):
            self.visit.connect_if_open()
            return
        self._decline(offer, f"is at activation {self.next.activation}")

    def _decline(self, offer: e.OpenReceived, why: str) -> None:
        self.counters["offers_declined"] += 1
        self._say(c.Release(offer.keyframe))
        self._say(c.SendClose(offer.peer, offer.activation, -1, f"{self.name} {why}"))

    def _update_received(self, event: e.UpdateReceived, now: float) -> None:
        if self._visiting(event.update.activation) and self.visit is not None:
            self.visit.update_received(event, now)
            return
        self.counters["updates_unused"] += 1
        self._say(c.Release(event.update))

    def _close_received(self, event: e.CloseReceived, now: float) -> None:
        if self.visit is not None and self._visiting(event.activation):
            self.visit.close_received(event, now)
            return
        for visit in (self.visit, self._visit_before):
            if visit is not None and visit.activation.index == event.activation:
                self._answer_late_close(visit, event)

    def _answer_late_close(self, visit: Visit, event: e.CloseReceived) -> None:
        """The visit has ended here: say how far it went, so that the other end can catch up."""
        applied = visit.applied(event.peer)
        if applied is not None and applied > event.applied:
            self._say(c.SendClose(event.peer, event.activation, applied, f"{self.name} has ended this activation"))

    def _visiting(self, activation: int) -> bool:
        return (
            self.phase is Phase.VISITING
            and self.visit is not None
            and self.visit.activation.index == activation
            and self.visit.phase not in (VisitPhase.FREEZING, VisitPhase.STANDING)
        )

    def _connected(self, event: e.Connected, now: float) -> None:
        assert self.visit is not None
        self.visit.connected(event, now)

    def _half_stepped(self, event: e.HalfStepped, now: float) -> None:
        assert self.visit is not None
        self.visit.half_stepped(event, now)

    def _mixed(self, event: e.Mixed, now: float) -> None:
        assert self.visit is not None
        self.visit.mixed(event)

    def _frozen(self, event: e.Frozen, now: float) -> None:
        assert self.visit is not None
        self.visit.release()
        self.next = Step(event.activation + 1, 0)
        self._keep()

    def _keep(self) -> None:
        self.phase = Phase.KEEPING
        self._say(c.Checkpoint(self.next))

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
        elif self.visit is not None and self.visit.phase is VisitPhase.STANDING:
            self.next = self.visit.position
            if self._ending:
                self._finish(0, self._ending)
            elif self._pausing:
                self.phase = Phase.PAUSED
            else:
                self.visit.proceed(now)

    def _evaluate_or_go_on(self, now: float) -> None:
        done, every = self.next.activation, self._patience.eval_every
        last, at_start = done == len(self.schedule), done == 0
        round_ends = every == "round" and done % self.schedule.blocks == 0
        if self._ending or last or at_start or self._evaluated_at >= done:
            self._go_on(now)
        elif round_ends:
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

    def _fetch(self) -> None:
        if not self._away:
            self._away = True
            self._say(c.AnnounceReady(NOT_TRAINING))
            self._say(c.Report("behind", f"peers are past activation {self.next.activation}: catching up with them"))
        self.phase, self._deadline = Phase.FETCHING, None
        self._say(c.Fetch(self.next.activation + 1))

    def _fetched(self, event: e.Fetched, now: float) -> None:
        self._fetch_failures.reset()
        if self.phase is Phase.FETCHING:
            self._say(c.Adopt(Step(event.activation, 0), event.deltas))

    def _fetch_failed(self, event: e.FetchFailed, now: float) -> None:
        if self.phase is not Phase.FETCHING:
            return
        pause = self._fetch_failures.next()
        self._say(c.Report("fetch-failed", f"{event.sentence}; trying again in {pause:g} s", "warning"))
        self._deadline = now + pause

    def _adopted(self, event: e.Adopted, now: float) -> None:
        self.counters["activations_skipped"] += event.position.activation - self.next.activation
        self.next = event.position
        self.visit = self._visit_before = None
        self._say(c.Checkpoint(self.next))
        self._say(c.AnnounceReady(self.next.activation + 1))
        self._away = False
        self.phase = Phase.AWAITING_TURN
        self._take_turn(now)

    def _take_turn(self, now: float) -> None:
        """Begin with the others, not in the middle of what they do: when one offers an edge, or none trains here."""
        if self._ending or self._pausing:
            self._go_on(now)
        elif self._offers.waiting(self.next.activation):
            self._begin_visit(now)
        elif self._progress.behind(self.next.activation):
            self._fetch()
        elif not self._progress.busy(self.next.activation):
            self._go_on(now)

    # --- the end ------------------------------------------------------------------------------------

    def _saved(self, event: e.Saved, now: float) -> None:
        self._say(c.Report("saved", f"the tuned model is in {event.path}"))
        if self._ending:
            self._finish(0, "the run is complete for this node")
            return
        for peer in sorted(self.up):
            self._say(c.SendBye(peer))
        self.phase, self._deadline = Phase.LEAVING, now + self._patience.finish
        self._leave_if_all_finished()

    def _bye_received(self, event: e.ByeReceived, now: float) -> None:
        self._finished.add(event.peer)
        if self.phase is Phase.LEAVING:
            self._leave_if_all_finished()

    def _leave_if_all_finished(self) -> None:
        if self.up <= self._finished:
            self._finish(0, "the run is complete")

    def _stop_requested(self, event: e.StopRequested, now: float) -> None:
        self._wind_up("stopped as asked; start it again to go on from here", now)

    def _leave_requested(self, event: e.LeaveRequested, now: float) -> None:
        self._wind_up("left the run as asked", now)

    def _wind_up(self, ending: str, now: float) -> None:
        """End as soon as what was trained is kept."""
        self._ending = self._ending or ending
        visit = self.visit if self.phase is Phase.VISITING else None
        worked = visit is not None and (visit.position.inner > 0 or visit.phase is VisitPhase.FREEZING)
        if visit is not None and (worked or visit.phase in (VisitPhase.STEPPING, VisitPhase.WAITING)):
            visit.interrupt(now)
        elif self.phase not in (Phase.KEEPING, Phase.SAVING):
            self._finish(0, self._ending)

    def _pause_requested(self, event: e.PauseRequested, now: float) -> None:
        self._pausing = True
        if self.phase is Phase.VISITING and self.visit:
            self.visit.interrupt(now)
        elif self.phase is Phase.AWAITING_TURN:
            self._go_on(now)

    def _resume_requested(self, event: e.ResumeRequested, now: float) -> None:
        self._pausing = False
        if self.phase is Phase.PAUSED:
            standing = self.visit is not None and self.visit.phase is VisitPhase.STANDING
            if standing and self.visit and not self._progress.behind(self.next.activation):
                self.phase = Phase.VISITING
                self.visit.proceed(now)
            else:
                self._go_on(now)

    def _checkpoint_requested(self, event: e.CheckpointRequested, now: float) -> None:
        if self.phase is Phase.VISITING and self.visit:
            self.visit.ask_checkpoint()

    def _trainer_failed(self, event: e.TrainerFailed, now: float) -> None:
        if self.phase is Phase.LEAVING:
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
        self.visit = self._visit_before = None
        self.phase, self._deadline = Phase.LOADING, None
        self._say(c.Report("trainer-died", f"{event.sentence}; starting another in {pause:g} s", "error"))
        self._say(c.RestartTrainer(pause))

    def _deadline_passed(self, event: e.DeadlinePassed, now: float) -> None:
        deadline = self.next_deadline()
        if deadline is None or now < deadline:
            return
        if self.phase is Phase.GATHERING and self.next > Step(0, 0):
            self._begin(now)
        elif self.phase is Phase.GATHERING:
            self._finish(
                PeersMissingError.exit_code,
                f"waited {self._patience.gather:g} s for {self.awaits()}; start them, or wait longer with --wait",
            )
        elif self.phase is Phase.FETCHING:
            self._deadline = None
            self._go_on(now)
        elif self.phase is Phase.LEAVING:
            self._finish(0, f"the run is complete; gave up waiting for {self.awaits()}")
        elif self.visit is not None:
            self.visit.deadline_passed(now)

    def _finish(self, exit_code: int, sentence: str) -> None:
        self.phase, self._deadline = Phase.DONE, None
        self._say(c.Finish(exit_code, sentence))

    def _say(self, command: c.Command) -> None:
        self._out.append(command)

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
