"""The measurement of the reader runs, and both ways make the same number of tokens."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.reading.corpus import LONG, USUAL, write_corpus
from bench.reading.large import steps
from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_both_ways_are_measured(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.reading", "--quick", "--threads", "1"]
    done = subprocess.run(
        [*command, "--folder", str(tmp_path), "--results", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "reading-quick.json").read_text())
    assert [trial["way"] for trial in content["trials"]] == ["store", "datasets"]
    assert content["ratio"] > 0 and content["bytes"] >= 1_000_000
    assert [path.name for path in tmp_path.iterdir()] == ["reading-quick.json"]


def test_a_corpus_has_the_size_that_is_asked_for_and_no_line_twice(tmp_path: Path) -> None:
    for language in (USUAL, LONG):
        path = tmp_path / "text.jsonl"
        write_corpus(path, 1_500_000, 3, language)
        lines = path.read_text().splitlines()
        assert path.stat().st_size >= 1_500_000 and len(set(lines)) == len(lines)
        assert all(set(json.loads(line)) == {"text"} for line in lines[:10])


def test_steps_are_counted_in_a_nodes_metrics(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"time": 1, "kind": "step"}\n{"time": 2, "kind": "eval"}\n')
    assert steps(tmp_path / "metrics.jsonl") == 1 and steps(tmp_path / "absent") == 0
