"""A file that grows by whole records while the node trains. Trouble with the disk costs records, and nothing else."""

import contextlib
import errno
import os
from collections.abc import Callable
from io import FileIO
from pathlib import Path

from deca_node.daemon.logs import log

LINE_BYTES_MAX = 1 << 20
"""No line of the files that hold lines is longer."""


def keep_all(_file: FileIO) -> None:
    """Take a file as it is."""


def write_whole(file: FileIO, record: bytes) -> None:
    """Add a record at the end, whole or not at all. Raises OSError."""
    end = file.seek(0, os.SEEK_END)
    try:
        if file.write(record) != len(record):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        with contextlib.suppress(OSError):
            file.truncate(end)
        raise


class AppendFile:
    """Adds records to the file at ``path``, each whole or not at all.

    A record that cannot be written is lost. The log says when that begins and when it is over. The file is opened for
    the first record, and again after every failure; ``repair`` takes it whenever it is opened.
    """

    def __init__(self, path: Path, repair: Callable[[FileIO], None] = keep_all) -> None:
        self._path = path
        self._repair = repair
        self._file: FileIO | None = None
        self._lost = 0

    def open(self) -> None:
        """Open the file now, before there is a record. Trouble is told of when there is one."""
        with contextlib.suppress(OSError):
            self._open()

    def write(self, record: bytes) -> None:
        """Add a record, or count it as lost."""
        try:
            write_whole(self._open(), record)
        except OSError as problem:
            self._lose(problem)
        else:
            self._recover()

    def close(self) -> None:
        """Close the file. Some filesystems report a full disk only now; then there is nothing left to do."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        self._file = None

    def _open(self) -> FileIO:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = self._path.open("a+b", buffering=0)
            try:
                self._repair(file)
            except OSError:
                file.close()
                raise
            self._file = file
        return self._file

    def _lose(self, problem: OSError) -> None:
        if not self._lost:
            log.error("nothing can be written to %s: %s; training goes on", self._path, problem.strerror or problem)
        self._lost += 1
        self.close()

    def _recover(self) -> None:
        if self._lost:
            log.warning("%s is written again; records lost meanwhile: %d", self._path, self._lost)
        self._lost = 0


class PartedFile(AppendFile):
    """The same in parts: when the newest part is full, ``move_along`` makes room for a new one."""

    def __init__(
        self,
        path: Path,
        bytes_max: int,
        move_along: Callable[[Path], None],
        repair: Callable[[FileIO], None] = keep_all,
    ) -> None:
        super().__init__(path, repair)
        self._bytes_max, self._move_along = bytes_max, move_along

    def _open(self) -> FileIO:
        file = super()._open()
        if file.seek(0, os.SEEK_END) < self._bytes_max:
            return file
        self.close()
        self._move_along(self._path)
        return super()._open()


def cut_torn_line(file: FileIO) -> None:
    """Cut the end of a last line that a crash left without its newline. For ``repair``."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - LINE_BYTES_MAX))
    torn = len(file.read().rpartition(b"\n")[2])
    if torn:
        file.truncate(size - torn)
