"""Arrays that grow in files of a folder that only this user may read."""

import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deca_node.numerics.data.store.scratch import mapped

PRIVATE_FILE = 0o600
"""Mode: tokens are the node's own data in another form."""


class Column(Protocol):
    """An array that grows at its end."""

    def append(self, values: NDArray[Any]) -> None:
        """Put values behind those that are there. Raises OSError where the disk refuses."""

    def sync(self) -> None:
        """Make everything durable that was appended. Raises OSError."""

    def whole(self) -> NDArray[Any]:
        """All values, which are only read from then on. Raises OSError."""


class FileColumn:
    """A column in a file, of which the first ``count`` values stay and what follows them is cut off."""

    def __init__(self, path: Path, dtype: Any, count: int) -> None:
        self._path = path
        self._dtype = np.dtype(dtype)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, PRIVATE_FILE)
        os.ftruncate(descriptor, count * self._dtype.itemsize)
        os.lseek(descriptor, 0, os.SEEK_END)
        self._file = os.fdopen(descriptor, "wb", buffering=1 << 20)

    def append(self, values: NDArray[Any]) -> None:
        """Write the values."""
        if len(values):
            self._file.write(np.ascontiguousarray(values, self._dtype).view(np.uint8).data)

    def sync(self) -> None:
        """Make the file durable."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def whole(self) -> NDArray[Any]:
        """The file, mapped; it is closed, and its name may change."""
        self._file.close()
        return read_column(self._path, self._dtype)

    def close(self) -> None:
        """Give the file back, whatever becomes of it."""
        self._file.close()


def read_column(path: Path, dtype: Any) -> NDArray[Any]:
    """A finished column, mapped. Raises OSError."""
    with path.open("rb") as file:
        return mapped(file.fileno(), dtype)
