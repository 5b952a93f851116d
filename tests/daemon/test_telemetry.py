"""Metrics are whole lines, whatever the disk does."""

import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deca_node.daemon.telemetry import LineFile, log


@contextmanager
def files_end_at(nbytes: int) -> Iterator[None]:
    """The system refuses to make any file longer, as it does where a disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_costs_lines_and_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "propagate", True)
    caplog.set_level(logging.WARNING, "deca")
    path = tmp_path / "metrics.jsonl"
    lines = LineFile(path)
    lines.append("first")
    with files_end_at(9):
        lines.append("does not fit")
        lines.append("nor does this")
    assert path.read_text() == "first\n", "no line is cut short"
    lines.append("last")
    lines.close()
    assert path.read_text() == "first\nlast\n"
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"], "each is said once"


def test_a_line_that_a_crash_cut_short_goes(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("whole\ncut sh")
    lines = LineFile(path)
    lines.append("next")
    lines.close()
    assert path.read_text() == "whole\nnext\n"
