"""The node's log lines in its folder, so that they outlive the process: ``DIR/node.log``, in parts of limited size.

The file gets the lines that standard error gets, as JSON, and no others. Trouble with the disk costs lines of the file
and nothing else.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from deca_node.daemon.logs import JsonFormatter, log
from deca_node.daemon.status.append_file import PartedFile, cut_torn_line
from deca_node.protocol.errors import DecaError
from deca_node.storage.folder import LOG
from deca_node.storage.log_parts import BYTES_MAX, move_along


class LogFile(logging.Handler):
    """Writes log lines to a file."""

    def __init__(self, path: Path, bytes_max: int = BYTES_MAX) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self._lines = PartedFile(path, bytes_max, move_along, cut_torn_line)
        self._writing = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line. Lines about trouble with this very file are for the other handlers."""
        if self._writing:
            return
        self._writing = True
        try:
            self._lines.write(self.format(record).encode(errors="replace") + b"\n")
        finally:
            self._writing = False

    def close(self) -> None:
        """Close the file."""
        self._lines.close()
        super().close()


@contextlib.contextmanager
def log_kept(directory: Path, wanted: bool) -> Iterator[None]:
    """Meanwhile log lines go to the file, too, if ``wanted``; and the error that ends the node, which goes to standard
    error without being a log line."""
    file = LogFile(directory / LOG) if wanted else logging.NullHandler()
    log.addHandler(file)
    try:
        yield
    except DecaError as problem:
        file.handle(log.makeRecord(log.name, logging.ERROR, __file__, 0, "%s", (problem,), None))
        raise
    finally:
        log.removeHandler(file)
        file.close()
