"""Late nodes get block versions from donors, and the cost is recorded."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_donors_are_measured(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.donor", "--quick", "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "donor-quick.json").read_text())["rows"]
    assert all(row["bytes_resent"] == 0 for row in rows)
    assert all(row["mb_per_second"] > 0 for row in rows if row["late_nodes"])
