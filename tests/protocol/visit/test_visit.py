"""One visit, event by event: what it asks of the trainer and tells the neighbours, and when it goes on."""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.frames import FrameId, FrameKind
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Schedule, Step
from deca_node.protocol.visit.phases import EdgeState, VisitPhase
from deca_node.protocol.visit.rules import Pace, VisitRules
from deca_node.protocol.visit.visit import Visit
from deca_node.protocol.visit.waits import WaitTimes
from tests.defaults import default_policy

SETTINGS = RunSettings(rounds=2, inner_steps=3, flush_mixes=1, late_steps=2, exchange="lockstep", signal="none")
B, C = frozenset("b"), frozenset("c")


class Noted(WaitTimes):
    """Waits that keep what they are told: the arrivals of each, and of how many neighbours."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds, seconds)
        self.told: list[tuple[list[float], int]] = []

    def add(self, arrivals: Iterable[float], expected: int) -> None:
        self.told.append((list(arrivals), expected))


class Driven:
    """A visit of node a in a run of one block, and everything that it says. Edges open within 10 s, steps within 5."""

    def __init__(self, *turns: frozenset[str], activation: int = 0, inner: int = 0, **changes: Any) -> None:
        self.said: list[c.Command] = []
        self.counters: Counter[str] = Counter()
        settings = dataclasses.replace(SETTINGS, **changes)
        schedule = Schedule(settings, 1, final_flush_mixes=2)
        self.opens, self.steps = Noted(10.0), Noted(5.0)
        pace = Pace("a", settings, default_policy(farewell=3.0))
        plain = pace.rules(turns or (B | C,), schedule)
        self.rules: VisitRules = dataclasses.replace(plain, open_waits=self.opens, step_waits=self.steps)
        self.visit = Visit(
            self.rules, schedule[activation], sorted(self.rules.near), self.counters, self.said.append, inner=inner
        )
        self.index = activation

    def frame(self, sender: str, kind: FrameKind = FrameKind.UPDATE, inner: int = 0) -> FrameId:
        return FrameId(sender, kind, self.index, inner)

    def offer(self, peer: str, now: float = 1.0, *, keyframe: bool = True, steps: tuple[int, ...] = ()) -> bool:
        frame = self.frame(peer, FrameKind.KEYFRAME) if keyframe else None
        return self.visit.take_offer(e.OpenReceived(peer, self.index, 2, frame, steps), now)

    def connected(self) -> "Driven":
        """The same visit with every edge open, at its first step."""
        self.visit.activated(0.0)
        for peer in sorted(self.rules.near):
            assert self.offer(peer)
        self.visit.connect_if_open()
        self.visit.connected(e.Connected(self.index, ()), 2.0)
        return self

    def stepped(self, now: float) -> None:
        """The trainer has done the half step that it was asked for last."""
        asked = self.of(c.HalfStep)[-1]
        self.visit.half_stepped(e.HalfStepped(asked.step, asked.update), now)

    def update(self, peer: str, inner: int, now: float) -> None:
        self.visit.update_received(e.UpdateReceived(peer, self.frame(peer, inner=inner)), now)

    def mixed(self, now: float) -> None:
        self.visit.mixed(e.Mixed(self.of(c.Mix)[-1].step), now)

    def through(self, steps: int) -> None:
        """Take whole steps, with updates of all neighbours at once."""
        for _ in range(steps):
            inner = self.visit.position.inner
            self.stepped(10.0 + inner)
            for peer in sorted(self.rules.near):
                self.update(peer, inner, 10.0 + inner)
            self.mixed(10.0 + inner)

    def close(self, peer: str, applied: int, reason: str, now: float) -> None:
        self.visit.close_received(e.CloseReceived(peer, self.index, applied, reason), now)

    def phase(self) -> VisitPhase:
        return self.visit.phase

    def of(self, kind: type[Any]) -> list[Any]:
        return [command for command in self.said if isinstance(command, kind)]


# --- opening ----------------------------------------------------------------------------------------


def test_a_visit_begins_with_its_keyframe() -> None:
    driven = Driven(activation=1)
    keyframe = FrameId("a", FrameKind.KEYFRAME, 1, 0)
    assert driven.said == [c.Activate(driven.visit.activation, keyframe)]
    driven.said.clear()
    driven.visit.activated(3.0)
    assert driven.said == [c.SendOpen(peer, 1, 2, keyframe, ()) for peer in ("b", "c")]
    assert driven.visit.deadline == 13.0


def test_a_visit_that_a_checkpoint_had_has_no_edges_and_asks_for_nothing() -> None:
    driven = Driven(inner=2)
    assert driven.visit.edges.by_peer == {} and driven.said == []
    assert driven.phase() is VisitPhase.STANDING and driven.visit.position == Step(0, 2)
    driven.visit.proceed(1.0)
    assert driven.said == [c.HalfStep(Step(0, 2), True, None)]


def test_all_edges_open_and_the_trainer_gets_their_keyframes() -> None:
    driven = Driven()
    driven.visit.activated(0.0)
    assert driven.offer("b", 1.5) and driven.offer("c", 4.0)
    driven.said.clear()
    driven.visit.connect_if_open()
    keyframes = [driven.frame(peer, FrameKind.KEYFRAME) for peer in "bca"]
    near = tuple(c.Neighbour(frame.sender, 1 / 3, frame) for frame in keyframes[:2])
    assert driven.said == [c.Connect(0, near, keyframes[2])]
    assert driven.opens.told == [([1.5, 4.0], 2)] and driven.visit.deadline is None
    driven.visit.connected(e.Connected(0, ()), 5.0)
    assert driven.said[1:4] == [c.Release(frame) for frame in keyframes]


def test_a_second_offer_opens_nothing() -> None:
    driven = Driven()
    driven.visit.activated(0.0)
    assert driven.offer("b") and not driven.offer("b") and not driven.offer("stranger")
    assert driven.visit.awaits() == "edges to open: c"


def test_a_visit_that_is_interrupted_before_its_keyframe_opens_no_edge() -> None:
    driven = Driven()
    driven.visit.interrupt(0.0)
    driven.said.clear()
    driven.visit.activated(1.0)
    assert driven.said == []
    assert {edge.state for edge in driven.visit.edges.by_peer.values()} == {EdgeState.CLOSED}
    driven.visit.connect_if_open()
    assert driven.said == [c.Connect(0, (), driven.frame("a", FrameKind.KEYFRAME))]


# --- graphs that take turns -------------------------------------------------------------------------

TURNS = {"signal": "mv", "moments_every": 1, "mix_every": 3, "inner_steps": 6}
"""Parameters travel at steps 2 and 5 and in the flush (6), over the first graph. Moments alone travel over the first at
steps 0 and 4, and over the second at 1 and 3."""


def test_offers_name_their_steps_where_graphs_take_turns() -> None:
    driven = Driven(B, C, **TURNS)
    driven.visit.activated(0.0)
    ours = driven.frame("a", FrameKind.KEYFRAME)
    assert driven.of(c.SendOpen) == [
        c.SendOpen("b", 0, 1, ours, (0, 2, 4, 5, 6)),
        c.SendOpen("c", 0, 1, None, (1, 3)),
    ]


@pytest.mark.parametrize(
    ("keyframe", "steps", "taken"),
    [
        (True, (), (0, 1, 2, 3, 4, 5, 6)),
        (True, (1, 2, 99), (1, 2)),
        (False, (0, 1, 2, 3, -1, 99), (0, 1, 3)),
        (False, (), ()),
    ],
)
def test_exchanges_that_both_ends_expect_take_place(
    keyframe: bool, steps: tuple[int, ...], taken: tuple[int, ...]
) -> None:
    """Without a keyframe no parameters travel."""
    driven = Driven(B, B, **TURNS)
    driven.visit.activated(0.0)
    assert driven.offer("b", keyframe=keyframe, steps=steps)
    assert driven.visit.edges.by_peer["b"].steps == taken


def test_an_end_without_a_keyframe_takes_none() -> None:
    driven = Driven(frozenset(), B, **TURNS)
    assert driven.of(c.Activate) == [c.Activate(driven.visit.activation, None)]
    driven.visit.activated(0.0)
    assert driven.offer("b")
    driven.visit.connect_if_open()
    assert driven.of(c.Connect) == [c.Connect(0, (c.Neighbour("b", 1 / 3, None),), None)]


# --- steps ------------------------------------------------------------------------------------------


def test_a_step_waits_for_all_updates_and_mixes_them() -> None:
    driven = Driven().connected()
    assert driven.said[-1] == c.HalfStep(Step(0, 0), True, driven.frame("a"))
    driven.update("b", 0, 2.5)
    driven.stepped(3.0)
    assert driven.said[-2:] == [c.SendUpdate(peer, driven.frame("a")) for peer in ("b", "c")]
    assert driven.visit.deadline == 8.0 and driven.visit.awaits() == "updates: b, c"
    driven.said.clear()
    driven.update("c", 0, 4.0)
    flows = tuple(c.Flow(peer, driven.frame(peer), driven.frame("a")) for peer in ("b", "c"))
    assert driven.said == [
        c.Mix(Step(0, 0), flows, True),
        c.HalfStep(Step(0, 1), True, driven.frame("a", inner=1)),
    ]
    assert driven.steps.told == [([0.0, 1.0], 2)], "b was there before the wait began"
    assert driven.visit.deadline is None and driven.visit.awaits() is None


def test_an_update_of_no_use_does_not_count_as_an_arrival() -> None:
    driven = Driven(B).connected()
    driven.stepped(3.0)
    driven.update("stranger", 0, 3.5)
    assert driven.counters["updates_unused"] == 1
    driven.update("b", 0, 4.0)
    assert driven.steps.told == [([1.0], 1)]


def test_an_update_before_the_half_step_is_no_arrival_of_the_wait() -> None:
    driven = Driven().connected()
    driven.update("b", 0, 2.5)
    driven.update("c", 0, 2.5)
    driven.stepped(3.0)
    assert driven.steps.told == [([0.0, 0.0], 2)]


def test_flows_are_counted_and_late_ones_too() -> None:
    driven = Driven().connected()
    driven.stepped(3.0)
    driven.update("b", 0, 3.0)
    driven.visit.deadline_passed(8.0)
    assert driven.counters["flows_applied"] == 1 and driven.counters["flows_late"] == 0
    driven.stepped(9.0)
    driven.update("c", 0, 9.0)
    driven.update("c", 1, 9.0)
    driven.update("b", 1, 9.0)
    assert driven.counters["flows_applied"] == 4 and driven.counters["flows_late"] == 1


def test_a_step_without_an_exchange_adds_nothing_to_the_waits() -> None:
    driven = Driven(B, mix_every=2, inner_steps=4).connected()
    assert driven.said[-1] == c.HalfStep(Step(0, 0), True, None)
    driven.stepped(3.0)
    assert driven.steps.told == []
    driven.stepped(4.0)
    driven.update("b", 1, 6.0)
    assert driven.steps.told == [([2.0], 1)]


def test_a_checkpoint_is_written_once_for_each_time_that_it_is_asked_for() -> None:
    driven = Driven(B).connected()
    driven.visit.ask_checkpoint()
    driven.through(2)
    assert driven.of(c.Checkpoint) == [c.Checkpoint(Step(0, 1))]


# --- the end ----------------------------------------------------------------------------------------


def test_a_visit_ends_with_its_block_and_clears_the_record_of_those_that_kept_up() -> None:
    driven = Driven(B)
    assert driven.rules.rests.late("b", 0) == 1
    driven.connected().through(4)
    assert driven.phase() is VisitPhase.FREEZING and driven.of(c.Freeze) == [c.Freeze(0)]
    assert driven.counters["flows_applied"] == 4
    assert driven.rules.rests.late("b", 5) == 1, "a second time in a row would be 2"


def test_an_interrupted_visit_stands_if_steps_with_gradients_are_left() -> None:
    driven = Driven(B).connected()
    driven.through(1)
    driven.visit.interrupt(20.0)
    driven.stepped(21.0)
    driven.close("b", 1, "in answer", 22.0)
    assert driven.phase() is VisitPhase.STANDING
    assert driven.of(c.Checkpoint) == [c.Checkpoint(Step(0, 2))] and not driven.of(c.Freeze)


@pytest.mark.parametrize("taken", [2, 3])
def test_an_interrupted_visit_whose_gradients_are_done_writes_its_block_back(taken: int) -> None:
    driven = Driven(B).connected()
    driven.through(taken)
    driven.visit.interrupt(20.0)
    driven.stepped(21.0)
    if driven.visit.edges.closing():
        driven.close("b", taken, "in answer", 22.0)
    assert driven.phase() is VisitPhase.FREEZING and driven.of(c.Freeze) == [c.Freeze(0)]
    assert not driven.of(c.Checkpoint)


def test_an_interruption_while_the_visit_drains_shortens_the_wait() -> None:
    driven = Driven(B).connected()
    driven.through(3)
    driven.stepped(20.0)
    driven.visit.deadline_passed(25.0)
    assert driven.phase() is VisitPhase.DRAINING and driven.visit.deadline == 30.0
    assert driven.visit.awaits() == "updates: b"
    driven.visit.interrupt(26.0)
    assert driven.visit.deadline == 29.0
    driven.visit.interrupt(28.0)
    assert driven.visit.deadline == 29.0, "a second one changes nothing"


def test_a_visit_without_gradients_is_not_interrupted() -> None:
    """The flows of the final flush cannot be had later."""
    driven = Driven(B, activation=2).connected()
    driven.visit.interrupt(5.0)
    assert not driven.of(c.SendClose)
    driven.through(2)
    assert driven.phase() is VisitPhase.FREEZING and driven.counters["flows_applied"] == 2


def test_a_close_at_the_last_step_ends_the_wait_and_begins_the_last_one() -> None:
    driven = Driven().connected()
    driven.through(3)
    driven.stepped(20.0)
    driven.update("b", 3, 20.0)
    assert driven.phase() is VisitPhase.WAITING
    driven.close("c", 2, "c is tired", 21.0)
    assert driven.phase() is VisitPhase.FREEZING
    assert driven.of(c.SendClose) == [c.SendClose("c", 0, 2, "in answer", True)]


def test_a_neighbour_that_never_answers_costs_two_waits() -> None:
    driven = Driven(B).connected()
    driven.through(3)
    driven.stepped(20.0)
    driven.visit.deadline_passed(25.0)
    driven.visit.deadline_passed(30.0)
    assert [close.peer for close in driven.of(c.SendClose)] == ["b"] and driven.visit.deadline == 35.0
    driven.visit.deadline_passed(35.0)
    assert driven.phase() is VisitPhase.FREEZING and driven.visit.deadline is None
    assert driven.counters["edges_lost"] == 1 and driven.counters["edges_dropped"] == 1


def test_a_close_that_comes_when_the_block_is_written_back_is_answered_in_its_way() -> None:
    driven = Driven().connected()
    driven.through(4)
    assert driven.phase() is VisitPhase.FREEZING
    driven.said.clear()
    driven.close("b", 2, "b is tired", 30.0)
    assert driven.said == [c.SendClose("b", 0, 3, "a has ended this activation", True)]
    driven.said.clear()
    driven.close("c", 2, "in answer", 30.0)
    assert not driven.of(c.SendClose) and driven.counters["flows_uneven_max"] == 1
