"""Lifeguard's arithmetic as its paper states it (arXiv 1707.00788), and SWIM's bound on retelling."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deca_node.protocol.errors import SettingsError
from deca_node.protocol.membership.profiles import LAN, PROFILES, Profile
from deca_node.protocol.membership.suspicion import (
    LocalHealth,
    Suspicion,
    retransmissions,
    suspicion_min,
    suspicion_seconds,
)


@pytest.mark.parametrize(("size", "seconds"), [(1, 4.0), (8, 4.0), (10, 4.0), (100, 8.0), (1000, 12.0)])
def test_least_suspicion_is_alpha_log10_n_intervals(size: int, seconds: float) -> None:
    assert suspicion_min(size, LAN) == pytest.approx(seconds)


def test_a_lone_accuser_waits_the_longest_and_k_confirmations_the_least() -> None:
    """Section IV-B: T(0) = Max, T(K) = Min, and the first confirmations shorten the wait the most."""
    waits = [suspicion_seconds(c, 3, 5.0, 30.0) for c in range(4)]
    assert waits[0] == 30.0
    assert waits[3] == pytest.approx(5.0)
    drops = [before - after for before, after in pairwise(waits)]
    assert drops == sorted(drops, reverse=True)
    assert waits[1] == pytest.approx(30.0 - 25.0 * math.log(2) / math.log(4))


@given(st.integers(0, 50), st.integers(-2, 20), st.floats(0.1, 100), st.floats(1, 20))
def test_suspicion_stays_within_its_bounds(confirmations: int, expected: int, least: float, stretch: float) -> None:
    wait = suspicion_seconds(confirmations, expected, least, least * stretch)
    assert least <= wait <= least * stretch * (1 + 1e-9)


def test_only_independent_accusers_confirm() -> None:
    suspicion = Suspicion.begin(100.0, 8, LAN, "a")
    assert suspicion.deadline == 100.0 + 24.0
    assert not suspicion.confirm("a")
    assert suspicion.deadline == 124.0
    assert suspicion.confirm("b")
    assert suspicion.confirm("c")
    assert not suspicion.confirm("d"), "K confirmations are enough; more are not worth telling"
    assert suspicion.deadline == pytest.approx(104.0)


@pytest.mark.parametrize("size", [2, 1])
def test_where_nobody_could_confirm_the_wait_is_the_least(size: int) -> None:
    assert Suspicion.begin(0.0, size, LAN, "a").deadline == 4.0


def test_a_rumour_is_told_lambda_log_n_times() -> None:
    assert [retransmissions(n, LAN) for n in (1, 8, 9, 99, 256)] == [2, 4, 4, 8, 10]


def test_local_health_stays_within_its_bounds() -> None:
    health = LocalHealth(8)
    health.recover()
    assert health.multiplier == 1
    health.worsen(4)
    health.worsen(20)
    assert health.multiplier == 9
    health.recover()
    assert health.score == 7


def test_profiles_leave_others_time_to_try() -> None:
    assert set(PROFILES) == {"lan", "wan", "local"}
    with pytest.raises(SettingsError, match="so that other members have time"):
        Profile(probe_timeout=1.0)
