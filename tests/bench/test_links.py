"""``bench.links``: the summary of the runs, and the pace of the trainers."""

import json
import runpy
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.links.__main__ import ALONE, PACE, summary
from bench.links.wire import NotPermittedError, check_permitted
from deca_node.numerics.engine import BlockEngine
from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).resolve().parents[2]


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
    runpy.run_path(str(PACE / "sitecustomize.py"))["_install"]()
    assert BlockEngine.half_step(None, 0.5) == {"loss": 0.5}  # type: ignore[arg-type, call-arg]
    assert slept == [pytest.approx(left)]


@pytest.mark.slow
def test_steps_keep_their_pace_and_overlap_hides_the_line(tmp_path: Path) -> None:
    try:
        check_permitted()
    except NotPermittedError as error:
        pytest.skip(str(error))
    command = [sys.executable, "-m", "bench.links", "--quick", "--codecs", "int4", "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "links-quick.json").read_text())
    assert list(found["over_alone"]) == [ALONE, "overlap int4", "lockstep int4", "overlap int4 unlimited"]
    assert found["step_seconds"][ALONE] >= found["job"]["pace_seconds"]
    assert found["over_alone"]["overlap int4"] < found["over_alone"]["lockstep int4"]
