"""Curves for TensorBoard, where somebody wants them there: an optional extra, loaded only if it is asked for.

Its own package writes the records, without TensorFlow and without torch. A new file for every start, as TensorBoard
expects it; steps are ordinals of the run, so what was trained again lies over what was lost. As with ``metrics.jsonl``
a full disk costs records, and nothing else.
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
    """Whatever takes named numbers over steps."""

    def add(self, group: str, figures: Mapping[str, Any], step: int) -> None:
        """Numbers at one step; what is no number is passed over."""

    def close(self) -> None:
        """No more."""


class TensorBoard:
    """An event file in ``folder``. Raises SettingsError where the package is missing, StorageError where the folder
    cannot be written."""

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
        """Numbers at one step, under ``group/name``; what is no number is passed over."""
        numbers = {name: value for name, value in figures.items() if isinstance(value, int | float)}
        values = [self._summary.Value(tag=f"{group}/{name}", simple_value=value) for name, value in numbers.items()]
        self._write(self._event(wall_time=time.time(), step=step, summary=self._summary(value=values)))

    def close(self) -> None:
        """End the file."""
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
    """A file in which a write that fell short is an error."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: bytes) -> None:
        if self._file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
