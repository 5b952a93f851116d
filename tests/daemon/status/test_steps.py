"""One finished step: which events make it, how long it took, and what is not a step."""

import pytest

from deca_node.daemon.status.steps import StepDone, measured_at
from deca_node.protocol import events as e
from deca_node.protocol.agreed.schedule import Step
from tests.daemon.status.test_book import READY, Desk


def begun() -> Desk:
    desk = Desk(traffic=lambda: {"south": {"sent.update": 7, "received.update": 5}, "west": {"sent.control": 1}})
    desk.begin()
    return desk


def finish(desk: Desk, seconds: float, inner: int = 0) -> StepDone | None:
    """A step whose work takes half a second of ``seconds``."""
    desk.now += seconds
    assert desk.steps.observe(e.HalfStepped(Step(0, inner), None, {"loss": 3.0, "compute_seconds": 0.5})) is None
    return desk.steps.observe(e.Mixed(Step(0, inner), {"mix_seconds": float("nan")}))


def test_both_halves_make_one_value() -> None:
    done = finish(begun(), 2.0)
    assert done is not None
    assert (done.step, done.activation.index, done.ordinal) == (Step(0, 0), 0, 0)
    assert (done.seconds, done.wait_seconds, done.clock, done.time) == (2.0, 1.5, 102.0, 1e9 + 102.0)
    assert (done.sent_bytes, done.received_bytes) == (8, 5)
    assert set(done.figures) == {"loss", "compute_seconds", "mix_seconds"}


@pytest.mark.parametrize("event", [e.Activated(0), e.ResumeRequested(), READY])
def test_a_step_begins_with_its_visit_and_not_with_the_pause_before(event: e.Event) -> None:
    desk = begun()
    finish(desk, 1.0)
    desk.now += 600.0
    desk.steps.observe(event)
    done = finish(desk, 2.0, inner=1)
    assert done is not None and done.seconds == 2.0


def test_a_late_flow_mixed_after_its_step_is_no_second_step() -> None:
    desk = begun()
    assert finish(desk, 1.0) is not None
    assert desk.steps.observe(e.Mixed(Step(0, 0))) is None


def test_half_a_step_of_a_dead_trainer_counts_for_nothing() -> None:
    desk = begun()
    desk.steps.observe(e.HalfStepped(Step(0, 0), None))
    desk.steps.observe(READY)
    assert desk.steps.observe(e.Mixed(Step(0, 0))) is None


def test_measurements_count_from_the_end_of_the_visit() -> None:
    desk = Desk()
    desk.tell(READY)
    assert measured_at(desk.node.state) == 0
    desk = begun()
    assert measured_at(desk.node.state) == 4
