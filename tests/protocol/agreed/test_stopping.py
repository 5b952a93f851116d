"""The rule by which members judge their held-out losses: which round is the best."""

import math

import pytest

from deca_node.protocol.agreed.stopping import ROUNDS_TOLD_MAX, Heldout, Losses, best_round, mean_loss

FALLING_THEN_FLAT = {0: 3.1, 1: 2.6, 2: 2.4, 3: 2.5, 4: 2.4}


@pytest.mark.parametrize(
    ("losses", "until", "gain", "best"),
    [
        ({"a": FALLING_THEN_FLAT}, 4, 0.0, 2),
        ({"a": FALLING_THEN_FLAT}, 1, 0.0, 1),
        ({"a": FALLING_THEN_FLAT}, 4, 0.3, 1),
        ({"a": FALLING_THEN_FLAT}, 4, 1.0, 0),
        ({"a": {0: 3.0, 1: 2.0}, "b": {0: 3.0, 1: 3.5}}, 1, 0.0, 1),
        ({"a": {0: 3.0, 1: 2.0}, "b": {0: 3.0, 1: 4.5}}, 1, 0.0, 0),
        ({"a": {0: 3.0, 1: 3.0}, "b": {0: 9.0}}, 1, 0.0, 0),
        ({"a": {0: 3.0, 1: 2.9}, "b": {1: 9.0}}, 1, 0.0, 1),
        ({"a": {0: 3.0, 1: None, 2: 2.0}, "b": {}}, 2, 0.0, 2),
        ({"a": {0: 3.0}, "b": {1: 5.0}}, 1, 0.0, 1),
        ({"a": {0: None}}, 3, 0.0, None),
        ({}, 3, 0.0, None),
    ],
    ids=[
        "falls, then stays",
        "only so far",
        "the gain counts from the best",
        "nothing gains so much",
        "the mean falls",
        "the mean rises",
        "a member that left does not count as a gain",
        "a member that came does not count as a loss",
        "rounds without a value",
        "no member in common",
        "told nothing",
        "no member",
    ],
)
def test_the_best_round(losses: Losses, until: int, gain: float, best: int | None) -> None:
    assert best_round(losses, until, gain) == best


def test_the_order_of_the_members_does_not_matter() -> None:
    """To the last bit, or two members might judge differently."""
    told = {name: {0: 3.0, 1: 3.0 + shift} for name, shift in (("a", 1e16), ("b", -1e16), ("c", -1e-3))}
    assert best_round(told, 1, 0.0) == best_round(dict(reversed(told.items())), 1, 0.0) == 1


def test_the_mean_is_over_the_members_that_told() -> None:
    assert mean_loss({"a": {1: 2.0}, "b": {1: 4.0}, "c": {0: 9.0}, "d": {1: None}}, 1) == 3.0


@pytest.mark.parametrize(
    ("losses", "sound"),
    [
        ((), True),
        (((0, 3.0), (1, None), (5, 2.0)), True),
        (((1, 3.0), (0, 2.0)), False),
        (((1, 3.0), (1, 2.0)), False),
        (((0, math.nan),), False),
        (((0, math.inf),), False),
        (tuple((number, 1.0) for number in range(ROUNDS_TOLD_MAX + 1)), False),
    ],
)
def test_what_a_peer_may_tell(losses: tuple[tuple[int, float | None], ...], sound: bool) -> None:
    assert Heldout(losses).sound == sound
