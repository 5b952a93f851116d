"""The length of a run that fits a time, sequences that fit the records, and steps that fit the model."""

import pytest

from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.planning.length import (
    LEAST,
    PASSES_MAX,
    VISIT_MIN,
    fitting_length,
    fitting_rate,
    fitting_sequence,
)


@pytest.mark.parametrize("seconds", [30.0, 180.0, 3600.0, 1e6])
@pytest.mark.parametrize("step_seconds", [0.01, 0.3, 2.0])
@pytest.mark.parametrize("blocks", [3, 5, 38])
@pytest.mark.parametrize("pass_steps", [1.0, 17.0, 12_345.6])
def test_the_run_ends_in_time_and_does_not_see_the_data_too_often(
    seconds: float, step_seconds: float, blocks: int, pass_steps: float
) -> None:
    found = fitting_length(seconds, step_seconds, blocks, pass_steps)
    shortest = (found.rounds, found.inner_steps) == (1, LEAST)
    assert found.seconds <= seconds or shortest
    assert found.block_passes <= PASSES_MAX or shortest
    assert found.steps == found.rounds * found.inner_steps * blocks
    assert LEAST <= found.inner_steps <= RunSettings.inner_steps
    assert found.rounds == 1 or found.inner_steps >= VISIT_MIN
    RunSettings(rounds=found.rounds, inner_steps=found.inner_steps)


@pytest.mark.parametrize(
    ("of_block", "expected"),
    [(5, (1, 5)), (40, (3, 13)), (100, (4, 25)), (192, (4, 48)), (480, (10, 48)), (500, (10, 48))],
)
def test_rounds_grow_once_visits_are_long(of_block: int, expected: tuple[int, int]) -> None:
    found = fitting_length(of_block * 5 * 1.0, 1.0, 5, 1e9)
    assert (found.rounds, found.inner_steps) == expected


def test_most_of_the_time_is_used() -> None:
    for seconds in range(100, 5000, 7):
        assert fitting_length(float(seconds), 1.0, 5, 1e9).seconds >= 0.75 * seconds


@pytest.mark.parametrize(
    ("lengths", "limit", "expected"),
    [
        ([5, 9], None, 64),
        ([80] * 150, None, 128),
        ([80] * 99 + [4000], None, 128),
        ([900] * 10, None, RunSettings.sequence_length),
        ([900] * 10, 100, 100),
        ([40], 24, 24),
    ],
)
def test_nearly_all_records_fit_a_sequence(lengths: list[int], limit: int | None, expected: int) -> None:
    assert fitting_sequence(lengths, limit) == expected


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [(162_240, 5e-3), (1_000_576, 2e-3), (134_000_000, 2e-4), (1_500_000_000, 5e-5), (8_000_000_000, 5e-5)],
)
def test_small_models_take_larger_steps(parameters: int, expected: float) -> None:
    assert fitting_rate(parameters) == expected
