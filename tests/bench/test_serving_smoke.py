"""The measurements of serving run on real nodes, and their results add up."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).resolve().parents[2]


def measured(bench: str, folder: Path) -> dict[str, Any]:
    """The results of ``python -m bench.NAME --quick``."""
    command = [sys.executable, "-m", f"bench.{bench}", "--quick", "--results", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads((folder / f"{bench}-quick.json").read_text())
    return content


@pytest.mark.slow
def test_probes_are_timed_while_training_and_at_rest(tmp_path: Path) -> None:
    content = measured("probes", tmp_path)
    rows = {(row["arm"], row["what"]): row for row in content["rows"]}
    assert {arm for arm, _ in rows} == {"training", "at rest"}
    assert all(0 < row["p50"] <= row["p99"] <= row["max"] for row in rows.values())
    assert content["steps_while_asked"] > 0


@pytest.mark.slow
def test_a_scraped_node_is_compared_with_one_that_is_left_alone(tmp_path: Path) -> None:
    content = measured("scraping", tmp_path)
    assert min(content["answers"].values()) > 0
    assert len(content["curve"]) > 2
    assert all(row["scraped"] > 0 and row["alone"] > 0 for row in content["curve"])
