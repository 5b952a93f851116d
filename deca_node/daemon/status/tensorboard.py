"""Curves for TensorBoard: an optional extra, loaded only if the setting ``tensorboard`` is given.

TensorBoard's own package writes the records, without TensorFlow and torch. Every start makes a new file, as TensorBoard
expects. Steps are ordinals of the run, so steps that are trained again are drawn over the lost ones. As with
``metrics.jsonl``, records are lost on a full disk, and training goes on.
"""

import errno
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from deca_node.daemon.logs import say
from deca_node.protocol.errors import SettingsError, StorageError

NOT_INSTALLED = (
    "tensorboard is set, but the package tensorboard is not installed here: "
    "pip install 'deca-node[tensorboard]' (or pip install tensorboard), or leave the setting out"
)


class Curves(Protocol):
    """A receiver of named numbers over steps."""

    def add(self, group: str, figures: Mapping[str, Any], step: int) -> None:
        """Add numbers at one step. Values of other types are skipped."""

    def close(self) -> None:
        """Close the receiver."""


class TensorBoard:
    """An event file in ``folder``. Raises SettingsError if the package is missing, StorageError if the folder cannot be
    written."""

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError:
            raise SettingsError(NOT_INSTALLED) from None
        self._event, self._summary = Event, Summary
        self._path = folder / f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a+b", buffering=0)
        except OSError as problem:
            raise StorageError(
                f"no curves can be written to {folder}: {problem.strerror or problem}; choose another tensorboard"
            ) from None
        self._records = RecordWriter(_Whole(self._file))
        self._failed = False
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add(self, group: str, figures: Mapping[str, Any], step: int) -> None:
        """Add numbers at one step, under ``group/name``. Values of other types are skipped."""
        numbers = {name: value for name, value in figures.items() if isinstance(value, int | float)}
        values = [self._summary.Value(tag=f"{group}/{name}", simple_value=value) for name, value in numbers.items()]
        self._write(self._event(wall_time=time.time(), step=step, summary=self._summary(value=values)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, event: Any) -> None:
        end = self._file.seek(0, os.SEEK_END)
        try:
            self._records.write(event.SerializeToString())
        except OSError as problem:
            self._file.truncate(end)
            if not self._failed:
                why = problem.strerror or str(problem)
                say(f"nothing can be written to {self._path}: {why}; training goes on", "error")
            self._failed = True
        else:
            self._failed = False


class _Whole:
    """A file in which a short write is an error."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: bytes) -> None:
        if self._file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
