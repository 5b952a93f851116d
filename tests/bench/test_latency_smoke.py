"""The latency measurement runs, and shows that a ping does not have to queue behind frames."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.latency import LOADS
from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_pings_beside_the_frames_are_faster_than_among_them(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.latency", "--quick", "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "latency-quick.json").read_text())
    rows = {(row["load"], row["what"]): row for row in content["rows"]}
    assert {load for load, _ in rows} == set(LOADS)
    assert len(rows) == 4 * len(LOADS)
    assert rows["all it can", "control ping"]["gigabytes_per_second"] > 0
    assert rows["all it can", "control ping"]["p50"] < rows["all it can", "exchange ping"]["p50"]
