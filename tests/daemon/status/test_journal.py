"""metrics.jsonl has whole lines only, even on a full disk, and TensorBoard gets the same numbers if it is turned on."""

import errno
import json
import logging
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from deca_node.daemon.logs import log
from deca_node.daemon.status.append_file import AppendFile
from deca_node.daemon.status.journal import Journal, cut_torn_line
from deca_node.daemon.status.lives import Life, next_life
from deca_node.daemon.status.metrics import flat
from deca_node.daemon.tracking.tensorboard import TensorBoard
from deca_node.protocol import events as e
from deca_node.protocol.agreed.frames import FrameId, FrameKind
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.errors import SettingsError, StorageError
from deca_node.storage.folder import METRICS
from tests.daemon.status.test_book import Desk
from tests.daemon.web.fake_admin import STATUS


@contextmanager
def files_end_at(nbytes: int) -> Iterator[None]:
    """The system refuses to make any file longer, as on a full disk."""
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
    lines = AppendFile(path, cut_torn_line)
    lines.write(b"first\n")
    with files_end_at(9):
        lines.write(b"does not fit\n")
        lines.write(b"nor does this\n")
    assert path.read_text() == "first\n", "no line is cut short"
    lines.write(b"last\n")
    lines.close()
    assert path.read_text() == "first\nlast\n"
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"], "each is said once"


def test_a_line_that_a_crash_cut_short_goes(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("whole\ncut sh")
    lines = AppendFile(path, cut_torn_line)
    lines.write(b"next\n")
    lines.close()
    assert path.read_text() == "whole\nnext\n"


class Refusing(FileIO):
    """A file on a disk that has turned read-only: neither writing nor cutting works."""

    refuses = False

    def write(self, data: object) -> int:
        if self.refuses:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return super().write(data)  # type: ignore[arg-type]

    def truncate(self, size: int | None = None) -> int:
        if self.refuses:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return super().truncate(size)


def test_a_disk_that_turns_read_only_costs_lines_and_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cutting the line that failed fails as well; that error once ended the node."""
    monkeypatch.setattr(log, "propagate", True)
    path = tmp_path / "metrics.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, *_, **__: Refusing(path, "a+"))
        lines = AppendFile(path, cut_torn_line)
        lines.write(b"first\n")
        patch.setattr(Refusing, "refuses", True)
        lines.write(b"second\n")
        lines.write(b"third\n")
        patch.setattr(Refusing, "refuses", False)
        lines.write(b"fourth\n")
        lines.close()
    assert path.read_bytes() == b"first\nfourth\n"
    assert caplog.messages == [
        f"nothing can be written to {path}: Read-only file system; training goes on",
        f"{path} is written again; records lost meanwhile: 2",
    ]


def told(folder: Path, curves: TensorBoard | None = None) -> list[dict[str, Any]]:
    """The lines that a node in ``folder`` writes for one step, one evaluation and one sample."""
    life = next_life(folder / METRICS)
    desk = Desk(life=life)
    desk.begin()
    journal = Journal(desk.node.state, folder, curves, life)
    for event in (
        e.HalfStepped(Step(0, 0), FrameId("north", FrameKind.UPDATE, 0, 0), {"loss": 2.5}),
        e.Mixed(Step(0, 0), {"consensus_distance": 0.25}),
        e.Evaluated("round 1", 2.75, 100),
    ):
        journal.observe(event, desk.steps.observe(event))
    journal.sample(STATUS)
    journal.close()
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


def test_steps_evaluations_and_every_metric_are_written(tmp_path: Path) -> None:
    step, evaluation, sample = told(tmp_path)
    assert [line["kind"] for line in (step, evaluation, sample)] == ["step", "eval", "metrics"]
    assert (step["loss"], step["consensus_distance"], evaluation["loss"]) == (2.5, 0.25, 2.75)
    assert sample["values"] == flat(STATUS)
    assert sample["ordinal"] == 1417


def test_the_lines_of_a_second_start_say_what_came_before(tmp_path: Path) -> None:
    sent = sum(sum(peer.sent_bytes.values()) for peer in STATUS.peers)
    told(tmp_path)
    *_, step, _, sample = told(tmp_path)
    assert [(line["life"], line["bytes_sent_before"]) for line in (step, sample)] == [(2, sent), (2, sent)]
    assert next_life(tmp_path / METRICS) == Life(3, 2 * sent, 2 * 4 * 2**20)


def test_the_status_counts_the_bytes_of_all_starts() -> None:
    traffic = {"south": {"sent.update": 5, "received.update": 7}}
    status = Desk(traffic=lambda: traffic, life=Life(2, 100, 200)).status
    assert (status.starts, status.sent_bytes_total, status.received_bytes_total) == (2, 105, 207)


def test_tensorboard_reads_the_same_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    told(tmp_path, TensorBoard(tmp_path / "curves" / "north"))
    read = EventAccumulator(str(tmp_path / "curves" / "north"))
    read.Reload()
    found = {tag: [(point.step, point.value) for point in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
    assert found["step/loss"] == [(0, 2.5)]
    assert found["step/consensus_distance"] == [(0, 0.25)]
    assert [value for _, value in found["eval/loss"]] == [2.75]
    assert found["metrics/deca_heldout_loss"] == [(1417, 2.75)]
    assert not any("peer" in tag for tag in found), "numbers by peer are many, and in metrics.jsonl"


def test_tensorboard_on_a_full_disk_costs_records_and_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "propagate", True)
    caplog.set_level(logging.WARNING, "deca")
    curves = TensorBoard(tmp_path)
    (path,) = tmp_path.iterdir()
    size = path.stat().st_size
    with files_end_at(size + 10):
        curves.add("step", {"loss": 2.5}, 1)
        curves.add("step", {"loss": 2.5}, 2)
    assert path.stat().st_size == size, "no record is cut short"
    curves.add("step", {"loss": 2.5}, 3)
    curves.close()
    assert path.stat().st_size > size
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"], "each is said once"


def test_tensorboard_that_is_not_installed_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)
    with pytest.raises(SettingsError, match=r"pip install 'deca-node\[tensorboard\]'"):
        TensorBoard(tmp_path)


def test_a_folder_that_cannot_hold_curves_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="no curves can be written"):
        TensorBoard(tmp_path / "file" / "north")
