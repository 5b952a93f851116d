"""How long a node waits, and which late neighbours get no edge for a while."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deca_node.protocol.visit.waits import MARGIN, REST_MAX, WAITS_KEPT, WAITS_NEEDED, Attempts, Rests, Wait, WaitTimes


def test_the_limit_alone_holds_before_enough_was_seen() -> None:
    waits = WaitTimes(2.0, 120.0)
    for _ in range(WAITS_NEEDED - 1):
        waits.add([0.1], 1)
    assert waits.seconds() == 120.0
    waits.add([0.1], 1)
    assert waits.seconds() == 2.0


def test_a_deadline_follows_what_was_seen_within_its_limits() -> None:
    waits = WaitTimes(2.0, 120.0)
    for _ in range(50):
        waits.add([5.0, 5.0], 2)
    assert waits.seconds() == MARGIN * 5.0
    for _ in range(200):
        waits.add([60.0, 60.0], 2)
    assert waits.seconds() == 120.0


@pytest.mark.parametrize("neighbours", [2, 3, 5])
def test_one_slow_neighbour_does_not_stretch_the_deadline(neighbours: int) -> None:
    waits = WaitTimes(0.5, 120.0)
    for _ in range(50):
        waits.add([0.2] * (neighbours - 1) + [100.0], neighbours)
    assert waits.seconds() == pytest.approx(MARGIN * 0.2)


def test_neighbours_that_never_delivered_count_as_late_not_as_absent() -> None:
    waits = WaitTimes(0.5, 120.0)
    for _ in range(50):
        waits.add([], 1)
    assert waits.seconds() == 120.0, "nothing was seen, so nothing is known"


@given(st.lists(st.lists(st.floats(0, 1e6), max_size=5), max_size=50), st.floats(0.01, 10), st.floats(0.01, 1e3))
def test_deadlines_stay_within_floor_and_limit(seen: list[list[float]], floor: float, limit: float) -> None:
    waits = WaitTimes(floor, limit)
    for arrivals in seen:
        waits.add(arrivals, len(arrivals))
    assert min(floor, limit) <= waits.seconds() <= limit


def test_a_wait_tells_when_those_came_that_did() -> None:
    wait = Wait()
    wait.begin(10.0, 5.0, there=1)
    assert wait.deadline == 15.0
    wait.arrived(12.0)
    assert wait.end() == [0.0, 2.0]
    assert wait.deadline is None
    wait.begin(20.0, 1.0)
    assert wait.end() == []


def test_attempts_double_their_pauses_until_one_works() -> None:
    attempts = Attempts(1.0, 5.0)
    assert [attempts.next() for _ in range(4)] == [1.0, 2.0, 4.0, 5.0]
    attempts.reset()
    assert (attempts.failed, attempts.next()) == (0, 1.0)


def test_rests_double_and_end_with_one_activation_kept_up() -> None:
    rests = Rests()
    assert [rests.late("slow", 0) for _ in range(6)] == [1, 2, 4, 8, 16, REST_MAX]
    rests = Rests()
    assert rests.late("slow", 5) == 1
    assert rests.resting("slow", 6)
    assert not rests.resting("slow", 7)
    assert rests.late("slow", 7) == 2
    rests.kept_up("slow")
    assert rests.late("slow", 20) == 1
    assert not rests.resting("other", 20)


def test_the_deadline_is_a_high_quantile_of_the_last_waits() -> None:
    waits = WaitTimes(0.5, 1e6)
    for seconds in range(1, 21):
        waits.add([float(seconds)], 1)
    assert waits.seconds() == MARGIN * 19, "19 of 20 waits were not longer"
    for _ in range(WAITS_KEPT):
        waits.add([1.0], 1)
    assert waits.seconds() == MARGIN, "what was long ago is forgotten"


def test_the_median_of_the_neighbours_that_were_expected_counts() -> None:
    waits = WaitTimes(0.0, 1e6)
    for _ in range(WAITS_NEEDED):
        waits.add([3.0, 1.0, 2.0], 4)
    assert waits.seconds() == MARGIN * 2.0
    assert WaitTimes(5.0, 3.0).seconds() == 3.0, "no floor is above the limit"
