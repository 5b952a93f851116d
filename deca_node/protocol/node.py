"""The node as one state machine: facts go in, commands come out, nothing else happens here.

It gathers the members, leads the trainer from block to block, and ends the run in good order::

    LOADING ---------- the model is there ------------> GATHERING
    GATHERING -------- every member was met ----------> EVALUATING
    EVALUATING ------- loss measured -----------------> VISITING, or SAVING after the last block
    VISITING --------- block written back ------------> EVALUATING, or VISITING the next
    SAVING ----------- checkpoint written ------------> LEAVING
    LEAVING ---------- every peer has finished -------> DONE
    (any) ------------ stop asked for ----------------> STOPPING --- checkpoint written ---> DONE

What happens within VISITING is the inner machine of :mod:`deca_node.protocol.visit`.
"""

from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import Any, ClassVar

from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.errors import MismatchError, PeersMissingError
from deca_node.protocol.mixing import mixes_to_agree
from deca_node.protocol.patience import Patience, Rests, Waits
from deca_node.protocol.run import RunSettings, agree
from deca_node.protocol.schedule import Schedule
from deca_node.protocol.topology import graph
from deca_node.protocol.visit import Visit, VisitPhase, VisitRules


class Phase(StrEnum):
    """Where a node stands; the picture above says what leads where."""

    LOADING = "loading"
    GATHERING = "gathering"
    EVALUATING = "evaluating"
    VISITING = "visiting"
    SAVING = "saving"
    LEAVING = "leaving"
    STOPPING = "stopping"
    DONE = "done"


OPEN_SECONDS_MIN = 30.0
"""The least an activation waits for its edges: neighbours may evaluate, and not all are equally fast at that."""


class Node:
    """One member of a run. ``handle`` takes an event and the time; the commands it returns are to be
    performed in order. ``next_deadline`` is when DeadlinePassed is due, in the clock of ``now``."""

    def __init__(self, name: str, members: tuple[str, ...], settings: RunSettings, patience: Patience) -> None:
        self.name = name
        self.members = tuple(sorted(members))
        self.settings = settings
        self.phase = Phase.LOADING
        self.counters: Counter[str] = Counter()
        self.up: set[str] = set()
        self.visit: Visit | None = None
        self._visit_before: Visit | None = None
        self._patience = patience
        self._open_waits = Waits(OPEN_SECONDS_MIN, patience.open)
        self._step_waits = Waits(patience.floor, patience.step)
        self._rests = Rests()
        self._graph = graph(self.members, settings)
        self._schedule: Schedule | None = None
        self._deadline: float | None = None
        self._met: set[str] = set()
        self._refused: set[str] = set()
        self._finished: set[str] = set()
        self._offers: dict[str, e.OpenReceived] = {}
        self._out: list[c.Command] = []

    # --- the two doors ------------------------------------------------------------------------------

    def handle(self, event: e.Event, now: float) -> list[c.Command]:
        """Take in one fact; returns what is to be done about it, in order."""
        deaf = self.phase is Phase.STOPPING and not isinstance(event, e.Saved | e.TrainerFailed)
        if self.phase is not Phase.DONE and not deaf:
            self._HANDLERS[type(event)](self, event, now)
        out, self._out = self._out, []
        return out

    def next_deadline(self) -> float | None:
        """When this node's patience ends, or None while it waits for nobody."""
        if self.phase is Phase.VISITING and self.visit is not None:
            return self.visit.deadline
        return self._deadline

    @property
    def neighbours(self) -> frozenset[str]:
        """The peers this node shares an edge with."""
        return self._graph[self.name]

    @property
    def position(self) -> int:
        """The activation this node works on, or the last it did; -1 before the first."""
        return -1 if self.visit is None else self.visit.activation.index

    @property
    def schedule(self) -> Schedule:
        """The run's activations; known once the model is."""
        assert self._schedule is not None, "the schedule is known once the model is loaded"
        return self._schedule

    def awaits(self) -> str:
        """What this node waits for right now, in words."""
        if self.phase is Phase.GATHERING:
            return f"peers: {', '.join(sorted(self._others() - self._met))}"
        if self.phase is Phase.LEAVING:
            return f"peers to finish: {', '.join(sorted(self.up - self._finished))}"
        visiting = self.visit.awaits() if self.phase is Phase.VISITING and self.visit else None
        return visiting or f"its trainer ({self.phase})"

    # --- gathering ----------------------------------------------------------------------------------

    def _trainer_ready(self, event: e.TrainerReady, now: float) -> None:
        flush = self.settings.final_flush_mixes or mixes_to_agree(self._graph, self.settings.flow_share)
        self._schedule = Schedule(self.settings, len(event.model.block_names), flush)
        self.phase = Phase.GATHERING
        self._deadline = now + self._patience.gather if self._patience.gather else None
        self._say(c.Meet(agree(self.settings, event.model, self.members)))
        self._begin_if_gathered()

    def _peer_up(self, event: e.PeerUp, now: float) -> None:
        if event.peer not in self._others():
            return
        # A peer that was met before it began counts this node in, however far it is by now.
        new = event.peer not in self._met
        self.up.add(event.peer)
        self._met.add(event.peer)
        self._refused.discard(event.peer)
        if self.phase is Phase.GATHERING and new and event.activation > 0:
            self._finish(
                PeersMissingError.exit_code,
                f"the run has already begun ({event.peer} is at activation {event.activation}); "
                "this version cannot join a run in the middle: start all nodes again with fresh data directories",
            )
        elif self.phase is Phase.GATHERING:
            self._begin_if_gathered()
        elif self.phase is Phase.VISITING and self.visit and event.peer in self.neighbours:
            self.visit.peer_up(event.peer)
        elif self.phase is Phase.LEAVING:
            # The last goodbye may have been lost with the stream before.
            self._say(c.SendBye(event.peer))

    def _peer_refused(self, event: e.PeerRefused, now: float) -> None:
        """One odd node out of many goes; the many stay and wait until it comes back in agreement."""
        self._refused.add(event.peer)
        if self.phase is Phase.GATHERING and 2 * len(self._refused) >= len(self.members):
            self._finish(MismatchError.exit_code, f"no agreement with {event.peer}: {event.sentence}")
        else:
            self._say(c.Report("refused", f"no agreement with {event.peer}: {event.sentence}", "warning"))

    def _peer_down(self, event: e.PeerDown, now: float) -> None:
        self.up.discard(event.peer)
        offer = self._offers.pop(event.peer, None)
        if offer:
            self._say(c.Release(offer.keyframe))
        if self.phase is Phase.LEAVING:
            self._leave_if_all_finished()
        elif self.phase is Phase.VISITING and self.visit:
            self.visit.peer_down(event, now)

    def _begin_if_gathered(self) -> None:
        if self._met >= self._others():
            self._deadline = None
            self._evaluate("start")

    # --- from block to block ------------------------------------------------------------------------

    def _begin_visit(self, index: int) -> None:
        rules = VisitRules(
            name=self.name,
            degree=len(self.neighbours),
            schedule=self.schedule,
            overlap=self.settings.exchange == "overlap",
            late_steps=self.settings.late_steps,
            open_waits=self._open_waits,
            step_waits=self._step_waits,
            rests=self._rests,
        )
        self.phase = Phase.VISITING
        self._visit_before = self.visit
        near = sorted(self._edges_wanted(index))
        self.visit = Visit(rules, self.schedule[index], near, self.counters, self._say)

    def _edges_wanted(self, index: int) -> set[str]:
        """Neighbours to open an edge to: those that are up and not let be, and in the final flush all that are up,
        since whoever is left out there keeps a copy of its own."""
        flush = self.schedule[index].inner_steps == 0
        return {peer for peer in self.neighbours & self.up if flush or not self._rests.resting(peer, index)}

    def _activated(self, event: e.Activated, now: float) -> None:
        assert self.visit is not None
        self.visit.activated(now)
        for peer in sorted(self._offers):
            if self._offers[peer].activation <= event.activation:
                self._take_offer(self._offers.pop(peer), now)
        self.visit.connect_if_open()

    def _open_received(self, event: e.OpenReceived, now: float) -> None:
        early = event.activation > self.position
        if early or (self.visit is not None and self.visit.phase is VisitPhase.ACTIVATING):
            replaced = self._offers.get(event.peer)
            if replaced:
                self._say(c.Release(replaced.keyframe))
            self._offers[event.peer] = event
            return
        self._take_offer(event, now)

    def _take_offer(self, offer: e.OpenReceived, now: float) -> None:
        """Open the edge, or answer that there is none: it timed out here, or its activation is past."""
        if self.visit is not None and offer.activation == self.position and self.visit.take_offer(offer, now):
            self.visit.connect_if_open()
            return
        self.counters["offers_declined"] += 1
        self._say(c.Release(offer.keyframe))
        self._say(c.SendClose(offer.peer, offer.activation, -1, f"{self.name} has begun activation {self.position}"))

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
            and self.visit.phase is not VisitPhase.FREEZING
        )

    def _connected(self, event: e.Connected, now: float) -> None:
        assert self.visit is not None
        self.visit.connected(now)

    def _half_stepped(self, event: e.HalfStepped, now: float) -> None:
        assert self.visit is not None
        self.visit.half_stepped(event, now)

    def _mixed(self, event: e.Mixed, now: float) -> None:
        assert self.visit is not None
        self.visit.release()

    def _frozen(self, event: e.Frozen, now: float) -> None:
        assert self.visit is not None
        self.visit.release()
        done = event.activation + 1
        if done == len(self.schedule):
            self._evaluate("end")
        elif done % self.schedule.blocks == 0 and self._patience.eval_every == "round":
            self._evaluate(f"round {done // self.schedule.blocks}")
        elif self._patience.eval_every == "activation":
            self._evaluate(f"activation {done}")
        else:
            self._begin_visit(done)

    def _evaluate(self, when: str) -> None:
        self.phase = Phase.EVALUATING
        self._say(c.Evaluate(when))

    def _evaluated(self, event: e.Evaluated, now: float) -> None:
        if self.position + 1 < len(self.schedule):
            self._begin_visit(self.position + 1)
        else:
            self.phase = Phase.SAVING
            self._say(c.Save("final"))

    # --- the end ------------------------------------------------------------------------------------

    def _saved(self, event: e.Saved, now: float) -> None:
        if self.phase is Phase.STOPPING:
            self._finish(0, f"stopped as asked; the model as it stood is in {event.path}")
            return
        self._say(c.Report("saved", f"the tuned model is in {event.path}"))
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
        if self.phase in (Phase.LOADING, Phase.GATHERING, Phase.LEAVING):
            self._finish(0, "stopped as asked")
            return
        if self.phase is Phase.VISITING and self.visit and self.visit.phase is not VisitPhase.FREEZING:
            self.visit.freeze()
        if self.phase is not Phase.SAVING:
            self._say(c.Save("stopped"))
        self.phase, self._deadline = Phase.STOPPING, None

    def _trainer_failed(self, event: e.TrainerFailed, now: float) -> None:
        self._finish(event.exit_code, event.sentence)

    def _deadline_passed(self, event: e.DeadlinePassed, now: float) -> None:
        deadline = self.next_deadline()
        if deadline is None or now < deadline:
            return
        if self.phase is Phase.GATHERING:
            self._finish(
                PeersMissingError.exit_code,
                f"waited {self._patience.gather:g} s for {self.awaits()}; start them, or wait longer with --wait",
            )
        elif self.phase is Phase.LEAVING:
            self._finish(0, f"the run is complete; gave up waiting for {self.awaits()}")
        elif self.visit is not None:
            self.visit.deadline_passed(now)

    def _finish(self, exit_code: int, sentence: str) -> None:
        self.phase, self._deadline = Phase.DONE, None
        self._say(c.Finish(exit_code, sentence))

    # --- small tools --------------------------------------------------------------------------------

    def _others(self) -> set[str]:
        return set(self.members) - {self.name}

    def _say(self, command: c.Command) -> None:
        self._out.append(command)

    _HANDLERS: ClassVar[dict[type, Callable[["Node", Any, float], None]]] = {
        e.TrainerReady: _trainer_ready,
        e.TrainerFailed: _trainer_failed,
        e.PeerUp: _peer_up,
        e.PeerDown: _peer_down,
        e.PeerRefused: _peer_refused,
        e.OpenReceived: _open_received,
        e.UpdateReceived: _update_received,
        e.CloseReceived: _close_received,
        e.ByeReceived: _bye_received,
        e.Activated: _activated,
        e.Connected: _connected,
        e.HalfStepped: _half_stepped,
        e.Mixed: _mixed,
        e.Frozen: _frozen,
        e.Evaluated: _evaluated,
        e.Saved: _saved,
        e.StopRequested: _stop_requested,
        e.DeadlinePassed: _deadline_passed,
    }
