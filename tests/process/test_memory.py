"""How a process keeps and returns memory."""

import gc
import subprocess
import sys

import pytest

from deca_node.__main__ import main
from deca_node.process.memory import COLLECT_AFTER

HELD_AND_RETURNED = """
from pathlib import Path
from deca_node.process.memory import return_memory, settle_memory

def resident_pages():
    return int(Path("/proc/self/statm").read_text().split()[1])

settle_memory()
before = resident_pages()
buffers = [bytes([1]) * (1 << 20) for _ in range(64)]
del buffers
held = resident_pages() - before
return_memory()
print(held, resident_pages() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt and malloc_trim are glibc's")
def test_free_memory_is_held_until_it_is_returned() -> None:
    done = subprocess.run([sys.executable, "-c", HELD_AND_RETURNED], capture_output=True, text=True, check=True)
    held, after = map(int, done.stdout.split())
    assert held > 16_000, "64 MiB in pages of 4 KiB, kept for the next buffers"
    assert after < 1_000


def test_garbage_is_collected_seldom_from_the_first_line_on(monkeypatch: pytest.MonkeyPatch) -> None:
    before = gc.get_threshold()
    monkeypatch.setattr(sys, "argv", ["deca-node", "--version"])
    try:
        gc.set_threshold(700, 10, 10)
        assert main() == 0
        assert gc.get_threshold() == COLLECT_AFTER
    finally:
        gc.set_threshold(*before)
