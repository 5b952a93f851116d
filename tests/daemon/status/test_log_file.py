"""The log file: the lines of standard error as JSON, in parts of limited size, whatever the disk does."""

import errno
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from deca_node.daemon.logs import log, say
from deca_node.daemon.status import append_file
from deca_node.daemon.status.log_file import LogFile, log_kept
from deca_node.protocol.errors import StorageError
from deca_node.storage.folder import LOG
from deca_node.storage.log_parts import OLD_PARTS, lines_since


@pytest.fixture(autouse=True)
def heard() -> Iterator[list[str]]:
    """What the other handlers get, as standard error does."""
    lines: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    ear, level, propagate = Ear(), log.level, log.propagate
    log.addHandler(ear)
    log.setLevel("INFO")
    log.propagate = False
    yield lines
    log.removeHandler(ear)
    log.setLevel(level)
    log.propagate = propagate


def messages(folder: Path) -> list[str]:
    return [json.loads(line)["message"] for line in lines_since(folder)[0]]


def test_the_file_gets_the_lines_that_standard_error_gets(tmp_path: Path, heard: list[str]) -> None:
    with log_kept(tmp_path, wanted=True):
        say("peer süd is here", peer="süd")
        say("a figure of a step", "debug")
        say("peer süd is gone", "warning", peer="süd")
    say("after the node has ended")
    assert messages(tmp_path) == heard[:2] == ["peer süd is here", "peer süd is gone"]
    assert json.loads(lines_since(tmp_path)[0][1])["peer"] == "süd"


def test_the_error_that_ends_a_node_is_the_last_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError), log_kept(tmp_path, wanted=True):
        raise StorageError("cannot write final: No space left on device")
    last = json.loads(lines_since(tmp_path)[0][-1])
    assert (last["level"], last["message"]) == ("error", "cannot write final: No space left on device")


def test_without_the_setting_there_is_no_file(tmp_path: Path) -> None:
    with log_kept(tmp_path, wanted=False):
        say("hello")
    with pytest.raises(StorageError), log_kept(tmp_path, wanted=False):
        raise StorageError("the end")
    assert list(tmp_path.iterdir()) == []


def test_the_parts_have_a_size_and_a_number(tmp_path: Path) -> None:
    file = LogFile(tmp_path / LOG, bytes_max=500)
    log.addHandler(file)
    for number in range(200):
        say(f"line {number}")
    log.removeHandler(file)
    file.close()
    parts = sorted(tmp_path.iterdir())
    assert [path.name for path in parts] == [LOG, *(f"{LOG}.{number + 1}" for number in range(OLD_PARTS))]
    assert all(path.stat().st_size < 600 for path in parts)
    kept = messages(tmp_path)
    assert kept == [f"line {number}" for number in range(200 - len(kept), 200)]


def test_a_torn_line_of_a_crash_is_cut(tmp_path: Path) -> None:
    (tmp_path / LOG).write_text('{"time": 1, "level": "info", "message": "whole"}\n{"time": 2, "lev')
    with log_kept(tmp_path, wanted=True):
        say("next")
    assert messages(tmp_path) == ["whole", "next"]


def test_a_disk_that_takes_nothing_is_told_once_and_the_node_goes_on(
    tmp_path: Path, heard: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with log_kept(tmp_path, wanted=True):
        monkeypatch.setattr(append_file, "write_whole", full)
        for number in range(3):
            say(f"line {number}")
        monkeypatch.undo()
        say("line 3")
    trouble = f"nothing can be written to {tmp_path / LOG}: No space left on device; training goes on"
    again = f"{tmp_path / LOG} is written again; records lost meanwhile: 3"
    assert sorted(heard) == sorted([trouble, "line 0", "line 1", "line 2", again, "line 3"])
    assert messages(tmp_path) == ["line 3"]


def test_a_part_that_cannot_move_along_costs_lines_and_no_space(tmp_path: Path, heard: list[str]) -> None:
    (tmp_path / f"{LOG}.1" / "in the way").mkdir(parents=True)
    file = LogFile(tmp_path / LOG, bytes_max=500)
    log.addHandler(file)
    for number in range(50):
        say(f"line {number}")
    log.removeHandler(file)
    file.close()
    assert (tmp_path / LOG).stat().st_size < 600
    assert sum("training goes on" in line for line in heard) == 1
