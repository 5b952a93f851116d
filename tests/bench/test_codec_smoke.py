"""The speeds of the codecs are measured in three ways, which give the same numbers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from deca_node.numerics.codecs.table import TABLE
from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(("int8", "cpu") not in TABLE, reason="the compiled codecs are not built in this checkout")
def test_codec_compares_three_ways(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.codec", "--quick", "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "codec-quick.json").read_text())
    assert {row["way"] for row in content["rows"]} == {"compiled", "torch, slices", "torch, whole"}
    assert {row["codec"] for row in content["rows"]} == {"int8", "int4", "topk"}
    assert all(row["gb_per_second"] > 0 for row in content["rows"])
