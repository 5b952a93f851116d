"""The measurements run, and their results are valid and add up."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.memory.__main__ import kept
from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).resolve().parents[2]


def measured(bench: str, folder: Path, *options: str) -> dict[str, Any]:
    """The results of ``python -m bench.NAME --quick``, on a tiny model with one thread."""
    command = [sys.executable, "-m", f"bench.{bench}", "--quick", "--threads", "1", "--dtypes", "float32"]
    done = subprocess.run(
        [*command, "--results", str(folder), *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads((folder / f"{bench}-quick.json").read_text())
    assert content["machine"]["torch"] != "-"
    assert content["command"].startswith(f"python -m bench.{bench} --quick")
    return content


@pytest.mark.slow
def test_step_runs_without_badam_and_without_network(tmp_path: Path) -> None:
    rows = measured("step", tmp_path, "--ours-only", "--positions", "middle")["rows"]
    ours = ["gradient only", "deca, no neighbours", "deca, 2 neighbours, int8", "AdamW, all parameters"]
    assert [row["arm"] for row in rows] == ours
    assert [row["block"] for row in rows] == ["layers.1"] * 3 + ["whole"]
    assert all(row["tokens_per_second"] > 0 for row in rows)
    assert all(row["step_seconds"] > 0 and row["cpu_seconds"] > 0 for row in rows)


@pytest.mark.slow
def test_memory_is_measured_for_three_blocks_with_and_without_neighbours(tmp_path: Path) -> None:
    content = measured("memory", tmp_path, "--ours-only")
    rows = content["rows"]
    assert [(row["arm"], row["block"]) for row in content["others"]] == [("adamw", "whole")]
    blocks = [(row["block"], row["neighbours"]) for row in rows]
    assert blocks == [(block, count) for block in ("embedding", "layers.1", "head") for count in (0, 2)]
    assert all(row["promised_mib"] > 0 and row["measured_mib"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("dtype", "neighbours", "state", "exchange"),
    [("bfloat16", 0, 16, 0), ("float32", 0, 12, 0), ("bfloat16", 2, 16, 12), ("float32", 1, 12, 8)],
)
def test_what_is_kept_per_element(dtype: str, neighbours: int, state: int, exchange: int) -> None:
    """Master, gradient and moments; x̂ and a difference per neighbour; one frame per end of an edge."""
    ends = exchange / 4
    assert kept(dtype, neighbours) == (state, exchange, ends * (1 + 4 / 256))
