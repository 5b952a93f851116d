"""The measurement of floods runs, and every probe is answered beside a small one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_probes_are_answered_beside_a_small_flood(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.flood", "--quick", "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "flood-quick.json").read_text())["rows"]
    assert {row["asked"] for row in rows} == {"/livez", "/readyz", "gRPC health"}
    assert [row["failed"] for row in rows] == [0] * 9
    assert all(row["open"] > 0 for row in rows if row["flood from"] != "none")
