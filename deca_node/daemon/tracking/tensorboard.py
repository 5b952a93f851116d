"""Curves for TensorBoard: an optional extra, loaded only where the settings ask for it.

TensorBoard's own package writes the records, without TensorFlow and torch. Every start makes a new file, as TensorBoard
expects. Steps are ordinals of the run, so steps that are trained again are drawn over the lost ones. As with
``metrics.jsonl``, records are lost on a full disk, and training goes on.
"""

import errno
import os
import socket
import time
from collections.abc import Mapping
from io import BytesIO, FileIO
from pathlib import Path
from typing import Any

from deca_node.daemon.status.append_file import AppendFile, write_whole
from deca_node.protocol.errors import SettingsError, StorageError
from deca_node.storage.folder import REFUSED

NOT_INSTALLED = (
    "tensorboard is set, but the package tensorboard is not installed here: "
    "pip install 'deca-node[tensorboard]' (or pip install tensorboard), or leave the setting out"
)


DISK_TROUBLES = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
"""Errors of a disk that may be over later. Others, such as a file in the way, are mistakes of the setting."""


class TensorBoard:
    """An event file in ``folder``. Raises SettingsError if the package is missing or the system refuses the folder to
    this user, StorageError if the folder cannot be written."""

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError:
            raise SettingsError(NOT_INSTALLED) from None
        self._event, self._summary = Event, Summary
        path = folder / f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            if problem.errno not in DISK_TROUBLES:
                kind = SettingsError if problem.errno in REFUSED else StorageError
                raise kind(
                    f"no curves can be written to {folder}: {problem.strerror or problem}; choose another tensorboard"
                ) from None
        self._in_records = RecordWriter
        self._file = AppendFile(path, self._begin)
        self._file.open()

    def add(self, group: str, figures: Mapping[str, Any], step: int) -> None:
        """Add numbers at one step, under ``group/name``. Values of other types are skipped."""
        numbers = {name: value for name, value in figures.items() if isinstance(value, int | float)}
        values = [self._summary.Value(tag=f"{group}/{name}", simple_value=value) for name, value in numbers.items()]
        self._write(self._event(wall_time=time.time(), step=step, summary=self._summary(value=values)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, event: Any) -> None:
        self._file.write(self._record(event))

    def _begin(self, file: FileIO) -> None:
        """A file of events begins with the version of its format."""
        if file.seek(0, os.SEEK_END) == 0:
            write_whole(file, self._record(self._event(wall_time=time.time(), file_version="brain.Event:2")))

    def _record(self, event: Any) -> bytes:
        buffer = BytesIO()
        self._in_records(buffer).write(event.SerializeToString())
        return buffer.getvalue()
