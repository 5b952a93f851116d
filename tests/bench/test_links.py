"""``bench.links``: what it makes of the runs, and the pace of its trainers."""

import runpy
import time
from pathlib import Path

import pytest

from bench.links.__main__ import ALONE, PACE, summary
from deca_node.numerics.engine import BlockEngine


def row(turn: int, arm: str, seconds: float, mean: float) -> dict[str, object]:
    return {"turn": turn, "arm": arm, "step_seconds": seconds, "step_seconds_mean": mean, "waiting_seconds": 0.0}


def test_ratios_are_taken_within_a_turn() -> None:
    found = summary(
        [
            *(row(0, ALONE, seconds, seconds) for seconds in (0.9, 1.1)),
            row(0, "overlap int4", 1.2, 1.3),
            row(1, ALONE, 2.0, 2.0),
            row(1, "overlap int4", 2.2, 3.0),
        ]
    )
    assert found["over_alone_all"] == {ALONE: [1.0, 1.0], "overlap int4": [1.2, 1.1]}
    assert found["over_alone"]["overlap int4"] == 1.15
    assert found["mean_over_alone"]["overlap int4"] == pytest.approx(1.4)


@pytest.mark.parametrize(("computing", "left"), [(0.1, 0.25), (0.5, 0.0)])
def test_a_paced_step_computes_and_then_waits_for_what_is_left(
    monkeypatch: pytest.MonkeyPatch, computing: float, left: float
) -> None:
    now, slept = [100.0], []

    def half_step(engine: BlockEngine, gamma: float) -> dict[str, float]:
        now[0] += computing
        return {"loss": gamma}

    monkeypatch.setattr(BlockEngine, "half_step", half_step)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setenv("LINKS_PACE_SECONDS", "0.35")
    runpy.run_path(str(Path(PACE) / "sitecustomize.py"))["_install"]()
    assert BlockEngine.half_step(None, 0.5) == {"loss": 0.5}  # type: ignore[arg-type, call-arg]
    assert slept == [pytest.approx(left)]
