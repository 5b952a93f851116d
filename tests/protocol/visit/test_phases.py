"""Every transition in the tables of visits and edges is reached: for each there is a way to it, walked here."""

from collections import Counter
from collections.abc import Callable

import pytest

from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.frames import FrameId, FrameKind
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Schedule
from deca_node.protocol.visit.phases import EDGE_STATES, VISIT_PHASES, EdgeCause, EdgeState, VisitCause, VisitPhase
from deca_node.protocol.visit.rules import Pace
from deca_node.protocol.visit.visit import Visit
from tests.defaults import default_policy
from tests.protocol.conftest import Seen
from tests.protocol.visit.test_edges import close_here, edges_in, link_lost, take_flows, their_close, their_offer

P, W = VisitPhase, VisitCause
KEYFRAME, UPDATE = (FrameId("b", kind, 0, 0) for kind in FrameKind)


class Walk:
    """A visit of node ``a`` with neighbour ``b``, of two steps with a gradient and none without."""

    def __init__(self, inner: int = 0, *, final_flush: bool = False) -> None:
        settings = RunSettings(rounds=1, inner_steps=2, flush_mixes=0, topology="full")
        schedule = Schedule(settings, 1, 1)
        self.said: list[c.Command] = []
        self.visit = Visit(
            Pace("a", settings, default_policy()).rules((frozenset("b"),), schedule),
            schedule[1 if final_flush else 0],
            ["b"],
            Counter(),
            self.said.append,
            inner=inner,
        )

    def activated(self) -> "Walk":
        self.visit.activated(0.0)
        return self

    def opened(self) -> "Walk":
        self.visit.take_offer(e.OpenReceived("b", self.visit.activation.index, 1, KEYFRAME), 0.0)
        self.visit.connect_if_open()
        return self

    def given_up(self) -> "Walk":
        self.visit.deadline_passed(0.0)
        return self

    def connected(self) -> "Walk":
        self.visit.connected(e.Connected(self.visit.activation.index), 0.0)
        return self

    def half_stepped(self) -> "Walk":
        [*_, order] = [command for command in self.said if isinstance(command, c.HalfStep)]
        self.visit.half_stepped(e.HalfStepped(order.step, order.update), 0.0)
        return self

    def update(self, inner: int = 0) -> "Walk":
        self.visit.update_received(e.UpdateReceived("b", FrameId("b", FrameKind.UPDATE, 0, inner)), 0.0)
        return self

    def stepping_alone(self) -> "Walk":
        """Neighbour b did not open in time, and the first step is asked for."""
        return self.activated().given_up().connected()

    def interrupted(self) -> "Walk":
        self.visit.interrupt(0.0)
        return self

    def ended(self) -> "Walk":
        self.visit.ended()
        return self

    def abandoned(self) -> "Walk":
        self.visit.abandon("the trainer of a died")
        return self


def waiting() -> Walk:
    return Walk().activated().opened().connected().half_stepped()


def draining() -> Walk:
    """Both steps are done; b has not sent its last update."""
    return waiting().update().half_stepped().given_up()


def freezing() -> Walk:
    return Walk().stepping_alone().half_stepped().half_stepped()


def standing() -> Walk:
    return Walk().stepping_alone().interrupted().half_stepped()


PHASES: dict[VisitPhase, Callable[[], Walk]] = {
    P.ACTIVATING: Walk,
    P.OPENING: lambda: Walk().activated(),
    P.CONNECTING: lambda: Walk().activated().opened(),
    P.STEPPING: lambda: Walk().activated().opened().connected(),
    P.WAITING: waiting,
    P.DRAINING: draining,
    P.STANDING: standing,
    P.FREEZING: freezing,
}


def proceeded() -> Walk:
    walk = Walk(inner=1)
    walk.visit.proceed(0.0)
    return walk


VISIT_WAYS: dict[tuple[VisitPhase, VisitCause], Callable[[], Walk]] = {
    (P.ACTIVATING, W.ACTIVATED): PHASES[P.OPENING],
    (P.OPENING, W.OPENED): PHASES[P.CONNECTING],
    (P.CONNECTING, W.STEP): PHASES[P.STEPPING],
    # In a final flush without a neighbour there is nothing to do.
    (P.CONNECTING, W.NO_STEP): lambda: Walk(final_flush=True).activated().given_up().connected(),
    (P.STEPPING, W.STEPPED): waiting,
    (P.WAITING, W.STEP): lambda: waiting().update(),
    (P.WAITING, W.NO_STEP): draining,
    (P.DRAINING, W.EVEN): freezing,
    (P.DRAINING, W.STAND): standing,
    (P.STANDING, W.STEP): proceeded,
    (P.STANDING, W.KEPT): lambda: standing().ended(),
    (P.FREEZING, W.KEPT): lambda: freezing().ended(),
    **{(phase, W.ABANDONED): lambda way=way: way().abandoned() for phase, way in PHASES.items()},
}


@pytest.mark.parametrize("phase", PHASES)
def test_the_walks_begin_where_they_say(phase: VisitPhase) -> None:
    assert PHASES[phase]().visit.phase is phase


@pytest.mark.parametrize(
    ("phase", "cause"), [(phase, cause) for phase, row in VISIT_PHASES.rows.items() for cause in row]
)
def test_every_transition_of_a_visit_is_reached(phase: VisitPhase, cause: VisitCause, seen: Seen) -> None:
    VISIT_WAYS[phase, cause]()
    assert ("visit", phase, cause) in seen


@pytest.mark.parametrize("phase", PHASES)
def test_a_visit_that_is_abandoned_stays_over(phase: VisitPhase) -> None:
    walk = PHASES[phase]().abandoned()
    said = list(walk.said)
    assert walk.abandoned().visit.phase is P.OVER
    assert walk.said == said, "the second time nothing is released, and no end is told"


@pytest.mark.parametrize(
    ("state", "cause"), [(state, cause) for state, row in EDGE_STATES.rows.items() for cause in row]
)
def test_every_transition_of_an_edge_is_reached(state: EdgeState, cause: EdgeCause, seen: Seen) -> None:
    happens = {
        EdgeCause.THEIR_OFFER: their_offer,
        EdgeCause.OUR_CLOSE: close_here,
        EdgeCause.THEIR_CLOSE: their_close,
        EdgeCause.EVEN: take_flows,
        EdgeCause.LOST: link_lost,
    }
    happens[cause](edges_in(state))
    assert ("edge", state, cause) in seen
