"""The script for a GPU runs on a CPU, with tiny models of the same kinds."""

import json
import subprocess
from pathlib import Path

import pytest

from bench.gpu.shapes import SHAPES, shrunk
from bench.trial import of_config
from deca_node.numerics.model.blocks import partition
from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).resolve().parents[2]


def test_shapes_are_those_of_the_published_models() -> None:
    import torch

    for name, parameters in {
        "Qwen2.5-0.5B": 494_032_768,
        "Qwen2.5-3B": 3_085_938_688,
        "Llama-3.1-8B": 8_030_261_248,
    }.items():
        with torch.device("meta"):
            model = of_config(SHAPES[name])
        assert sum(p.numel() for p in model.parameters()) == parameters
        assert len(partition(of_config(shrunk(SHAPES[name])), 1)) == 4 + (not SHAPES[name]["tie_word_embeddings"])


@pytest.mark.slow
def test_every_part_runs_without_a_gpu(tmp_path: Path) -> None:
    command = ["bench/gpu.sh", "--dry-run", "--threads", "1", "--steps", "2", "--shapes", "Qwen2.5-0.5B"]
    command += ["--packages", "", "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu-quick.json").read_text())
    assert found["dry_run"] and found["command"].startswith("python -m bench.gpu --dry-run")
    assert found["kernels"].get("passed") or "Triton is not installed" in found["kernels"]["missing"]
    assert {row["codec"] for row in found["codecs"]["rows"]} >= {"int8", "int4"}
    arms = [(row["arm"], row["checkpointing"], "problem" in row) for row in found["steps"]["rows"]]
    assert arms[:4] == [("deca", False, False)] * 3 + [("deca", True, False)]
    assert all(row["finite"] and row["peak_bytes"] > 0 for row in found["steps"]["rows"])
    one, two = found["ranks"]["rows"]
    assert one["loss"] == pytest.approx(two["loss"], rel=0.01) and two["devices"] == "cpu*2"


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bench/gpu.sh", "--results", str(tmp_path)],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    if done.returncode:
        assert "there is no NVIDIA GPU here; --dry-run" in done.stderr
        assert not list(tmp_path.iterdir())
