"""The soak: its schedule, its judgement, and ten minutes of it."""

from itertools import islice
from pathlib import Path

import pytest

from tests.e2e.faults import allow
from tests.soak.figures import Course, Outcome, Sample, memory_by_role, outcome, redone
from tests.soak.run import soak
from tests.soak.schedule import KINDS, NAMES, WITNESS, faults

MINUTES = 10.0
CALM = Course(dict.fromkeys(NAMES, 2.0), frozenset(range(100)), 0, 1e-5, 600.0)


def judged(samples: list[Sample] | None = None, troubles: tuple[str, ...] = (), **changed: object) -> Outcome:
    rough = Course(**{**vars(CALM), **changed})  # type: ignore[arg-type]
    return outcome(CALM, rough, samples or [], seed=0, happened={"kill": 2}, starts=6, troubles=troubles)


def test_a_schedule_follows_from_its_seed_and_begins_with_one_of_each_kind() -> None:
    first, again, other = (list(islice(faults(seed), 300)) for seed in (1, 1, 2))
    assert first == again != other
    assert {fault.kind for fault in first[: len(KINDS)]} == set(KINDS)
    assert all(WITNESS not in fault.names for fault in first if fault.kind in ("kill", "kill_trainer", "stop"))
    assert all(set(fault.names) < set(NAMES) for fault in first)


def test_a_soak_in_which_all_went_well_is_told_so(tmp_path: Path) -> None:
    found = judged(losses=dict.fromkeys(NAMES, 2.03))
    assert found.broken == []
    assert found.sentences()[-1] == "every promise was kept"
    found.write(tmp_path / "soak.json")
    assert '"loss_percent": 1.4' in (tmp_path / "soak.json").read_text()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"losses": dict.fromkeys(NAMES, 2.05)}, "the loss is +2.50 % off"),
        ({"losses": dict.fromkeys(NAMES, 1.95)}, "the loss is -2.50 % off"),
        ({"losses": {}}, "the loss is +nan % off"),
        ({"steps": frozenset(range(98))}, "2 steps of the run were done by no node"),
        ({"distance": 0.1}, "copies differ by 1.0e-01"),
        ({"distance": float("nan")}, "copies differ by nan"),
        ({"troubles": ("south ended by itself with 70: why",)}, "south ended by itself with 70: why"),
    ],
)
def test_a_broken_promise_is_told(changed: dict[str, object], says: str) -> None:
    found = judged(**changed)  # type: ignore[arg-type]
    assert [sentence.startswith(says) for sentence in found.broken] == [True]
    assert found.sentences()[-1].startswith(f"BROKEN: {says}")


def life(pid: int, start: float, mib: float, per_hour: float) -> list[Sample]:
    """A process that takes memory at first, and then grows."""
    young = [Sample("north", "the daemon", pid, start + second, round(second * 2**20)) for second in range(0, 120, 2)]
    return young + [
        Sample("north", "the daemon", pid, start + second, round((mib + per_hour * second / 3600) * 2**20))
        for second in range(120, 1200, 2)
    ]


@pytest.mark.parametrize("per_hour", [0.0, 100.0])
def test_memory_is_that_of_settled_processes_each_around_its_own_mean(per_hour: float) -> None:
    samples = [*life(1, 0.0, 100.0, per_hour), *life(2, 1300.0, 180.0, per_hour)]
    found = memory_by_role(samples)["the daemon"]
    assert found["mib_per_hour"] == pytest.approx(per_hour, abs=0.1)
    broken = judged(samples, seconds=3600.0).broken
    assert bool(broken) == bool(per_hour)
    assert judged(samples, seconds=300.0).broken == [], "some megabytes in minutes are no leak"


def test_steps_that_are_done_again_are_counted() -> None:
    assert redone([{"ordinal": 1}, {"ordinal": 2}, {"ordinal": 2}, {"ordinal": 3}]) == 1


@pytest.mark.slow
def test_ten_minutes_under_everything_that_happens(tmp_path: Path) -> None:
    allow(120 * MINUTES + 3600)
    found = soak(tmp_path, MINUTES, seed=1, say=print)
    assert found.broken == [], "\n".join(found.sentences())
