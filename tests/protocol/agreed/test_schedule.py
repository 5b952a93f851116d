"""The order of the blocks, and the positions of steps in the run."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Schedule, Step

schedules = st.builds(
    lambda rounds, inner, flush, final, tau, order, seed, blocks: Schedule(
        RunSettings(rounds=rounds, inner_steps=inner, flush_mixes=flush, mix_every=tau, block_order=order, seed=seed),
        blocks,
        final,
    ),
    rounds=st.integers(1, 4),
    inner=st.integers(1, 6),
    flush=st.integers(0, 3),
    final=st.integers(1, 5),
    tau=st.integers(1, 4),
    order=st.sampled_from(["forward", "backward", "shuffled"]),
    seed=st.integers(0, 99),
    blocks=st.integers(1, 5),
)


def orders(order: str, seed: int = 0, rounds: int = 6, blocks: int = 5) -> list[list[int]]:
    """The blocks of each round, and of the flush."""
    schedule = Schedule(RunSettings(rounds=rounds, block_order=order, seed=seed), blocks, 3)
    visited = [schedule[i].block for i in range(len(schedule))]
    return [list(visited[i : i + blocks]) for i in range(0, len(visited), blocks)]


@given(schedules)
def test_ordinals_count_all_steps_of_the_run(schedule: Schedule) -> None:
    steps = [Step(i, inner) for i in range(len(schedule)) for inner in range(schedule[i].steps)]
    assert [schedule.ordinal(step) for step in steps] == list(range(len(steps)))


@given(schedules)
def test_every_round_visits_every_block_once(schedule: Schedule) -> None:
    for first in range(0, len(schedule), schedule.blocks):
        visits = [schedule[i] for i in range(first, first + schedule.blocks)]
        assert sorted(visit.block for visit in visits) == list(range(schedule.blocks))
        assert {visit.round for visit in visits} == {first // schedule.blocks}


@given(schedules)
def test_every_optimizer_step_has_its_place_in_the_learning_rate_schedule(schedule: Schedule) -> None:
    """Exactly R steps per activation, the first included; none in the flush."""
    steps = [Step(i, inner) for i in range(len(schedule)) for inner in range(schedule[i].inner_steps)]
    assert [schedule.gradient_ordinal(step) for step in steps] == list(range(schedule.gradient_steps))


@given(schedules)
def test_the_last_step_and_the_flush_always_mix(schedule: Schedule) -> None:
    for index in range(len(schedule)):
        visit = schedule[index]
        tail = range(max(0, visit.inner_steps - 1), visit.steps)
        assert all(schedule.mixes(Step(index, inner)) for inner in tail)


@pytest.mark.parametrize(
    ("mix_every", "mixing"), [(1, [0, 1, 2, 3, 4, 5, 6]), (2, [1, 3, 4, 5, 6]), (3, [2, 4, 5, 6]), (9, [4, 5, 6])]
)
def test_mix_every(mix_every: int, mixing: list[int]) -> None:
    """Every tau-th of five steps with a gradient, the last of them, and both flush mixes."""
    schedule = Schedule(RunSettings(inner_steps=5, flush_mixes=2, mix_every=mix_every), 1, 3)
    assert [inner for inner in range(7) if schedule.mixes(Step(0, inner))] == mixing


def test_orders() -> None:
    assert orders("forward") == [[0, 1, 2, 3, 4]] * 7
    assert orders("backward") == [[4, 3, 2, 1, 0]] * 6 + [[0, 1, 2, 3, 4]]


def test_shuffled_orders_are_equal_on_all_nodes_and_drawn_anew_each_round() -> None:
    drawn = orders("shuffled", seed=3)
    assert drawn == orders("shuffled", seed=3)
    assert drawn != orders("shuffled", seed=4)
    assert len({tuple(order) for order in drawn[:-1]}) > 1
    assert drawn[-1] == [0, 1, 2, 3, 4], "the flush takes the blocks as they come"


def test_there_is_nothing_before_the_first_activation_and_after_the_last() -> None:
    schedule = Schedule(RunSettings(rounds=2), 3, 4)
    assert len(schedule) == 9
    assert schedule[8].flush_mixes == 4 and schedule[8].inner_steps == 0
    for index in (-1, 9):
        with pytest.raises(IndexError, match=f"activation {index} of 9"):
            schedule[index]


def test_epochs_make_the_same_schedule_as_their_rounds() -> None:
    in_rounds = Schedule(RunSettings(rounds=3, inner_steps=4, block_order="shuffled"), 2, 5)
    in_epochs = Schedule(RunSettings(epochs=2.0, epoch_sequences=90, inner_steps=4, block_order="shuffled"), 2, 5)
    assert in_epochs.rounds == 3 and len(in_epochs) == len(in_rounds)
    assert [in_epochs[a] for a in range(len(in_epochs))] == [in_rounds[a] for a in range(len(in_rounds))]
    assert in_epochs.gradient_steps == in_rounds.gradient_steps


def test_who_meets_whom_when() -> None:
    """Moments that travel alone go to the next neighbour each time, and parameters to the first."""
    settings = RunSettings(
        inner_steps=8, flush_mixes=1, mix_every=4, moments_every=1, topology="pairs", partners="step", rounds=1
    )
    schedule, turns = Schedule(settings, 1, 3), (frozenset("b"), frozenset("c"), frozenset())
    # Steps 3, 7 and 8 carry parameters. Of the others 2 and 5 are the third graph's, in which this node is alone.
    assert schedule.meetings(schedule[0], turns) == {"b": (0, 3, 6, 7, 8), "c": (1, 4)}
    short = Schedule(dataclasses.replace(settings, inner_steps=2), 1, 3)
    assert short.met(short[0], turns) == (frozenset("b"), frozenset(), frozenset())
    assert short.meetings(short[1], (frozenset("bd"),)) == {"b": (0, 1, 2), "d": (0, 1, 2)}, "the final flush"
