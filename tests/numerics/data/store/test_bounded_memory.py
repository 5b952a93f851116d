"""Data that are larger than the memory of the process that reads them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import PATIENCE_SECONDS

MIB = 1 << 20
LIMIT_MIB = 48
ROOT = Path(__file__).resolve().parents[4]


def limited(data: Path, folder: Path | str) -> "subprocess.CompletedProcess[str]":
    """The result of reading in a process that may take ``LIMIT_MIB``."""
    return subprocess.run(
        [sys.executable, "-m", "tests.numerics.data.store.limited", str(data), str(folder), str(LIMIT_MIB)],
        cwd=ROOT,
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits memory that is no page of a file")
def test_data_larger_than_memory_are_read_and_trained_on(tmp_path: Path) -> None:
    """24 million tokens and 400,000 records take 80 MB and 13 MB as arrays, and the process may take 48 MiB more than
    its libraries. In memory they do not fit; from the disk they do, and a second start as well."""
    data = tmp_path / "data.jsonl"
    with data.open("w") as file:
        for number in range(400_000):
            text = f"{number:06} " + "wind and rain, rain and snow, snow and light. "[: 20 + number % 80]
            file.write(json.dumps({"text": text}) + "\n")
    inside = limited(data, "")
    assert inside.returncode != 0 and "memory" in inside.stderr.lower()
    first, again = limited(data, tmp_path / "tokens"), limited(data, tmp_path / "tokens")
    assert first.returncode == 0, first.stderr[-2000:]
    assert again.returncode == 0, again.stderr[-2000:]
    assert int(first.stdout) == int(again.stdout) > 18_000_000
    assert not list((tmp_path / "tokens").glob("tmp*")), "unnamed files leave nothing behind"
