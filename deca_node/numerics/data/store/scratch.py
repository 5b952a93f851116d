"""Arrays that may be larger than memory: while they are small they lie in memory, and then in a file without a name.

An index has a number or two for every record. For a hundred million records that is more than a trainer should take. So
such an array is collected from chunks. Once it has ``IN_MEMORY_BYTES``, its chunks go to a file in the node's own
folder, and the array is mapped from there; the system keeps in memory the pages in use. The file loses its name as soon
as it is open, so that a crash leaves nothing behind.
"""

import contextlib
import os
import random
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from deca_node.protocol.errors import StorageError

PRIVATE_FOLDER = 0o700
"""Mode: tokens are the node's own data in another form."""
IN_MEMORY_BYTES = 64 << 20
"""Arrays up to this size stay in memory."""
CHUNK = 1 << 20
"""How many elements of an array are worked on at a time."""


@dataclass(frozen=True)
class Scratch:
    """Where large arrays lie: in files of ``folder``, or all in memory where there is none."""

    folder: Path | None = None

    def collect(self, dtype: Any, chunks: Iterable[NDArray[Any]]) -> NDArray[Any]:
        """The chunks end to end as one array [n]. Raises StorageError where the disk refuses."""
        growing = Growing(dtype, self)
        for chunk in chunks:
            growing.append(chunk)
        return growing.whole()


IN_MEMORY = Scratch()


class Growing:
    """An array that grows at its end: in memory, and in a file without a name once it is large and there is a folder
    for it. Whole, it is only read."""

    def __init__(self, dtype: Any, scratch: Scratch = IN_MEMORY) -> None:
        self._dtype = np.dtype(dtype)
        self._folder = scratch.folder
        self._kept: list[NDArray[Any]] = []
        self._bytes = 0
        self._file: IO[bytes] | None = None

    def append(self, values: NDArray[Any]) -> None:
        """Put values behind those that are there. Raises StorageError where the disk refuses."""
        values = np.ascontiguousarray(values, self._dtype)
        if self._file is None:
            self._kept.append(values)
            self._bytes += values.nbytes
            if self._folder is not None and self._bytes > IN_MEMORY_BYTES:
                self._spill(self._folder)
        elif len(values):
            with disk_refusals(self._folder):
                self._write(self._file, values.view(np.uint8).data)

    def sync(self) -> None:
        """Nothing of it outlives the process."""

    def whole(self) -> NDArray[Any]:
        """All values [n]. Raises StorageError where the disk refuses."""
        if self._file is None:
            return np.concatenate(self._kept) if self._kept else np.empty(0, self._dtype)
        with disk_refusals(self._folder), self._file as file:
            return mapped(file.fileno(), self._dtype)

    @staticmethod
    def _write(file: IO[bytes], rest: memoryview) -> None:
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            file.close()
            raise

    def _spill(self, folder: Path) -> None:
        with disk_refusals(folder):
            folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
            # Nothing is buffered, so that a full disk is noticed by the write and not when the file is given back.
            self._file = tempfile.TemporaryFile(buffering=0, dir=folder)  # noqa: SIM115  (open until it is whole)
        while self._kept:
            self.append(self._kept.pop(0))


@contextlib.contextmanager
def disk_refusals(folder: Path | None) -> Iterator[None]:
    """Raises StorageError in place of an OSError of the body, which writes to ``folder``."""
    try:
        yield
    except OSError as problem:
        raise StorageError(
            f"cannot keep the tokens of the data in {folder}: {problem.strerror or problem}; make room, repair the "
            "disk, or choose another folder: a node's with --dir, that of other commands with TMPDIR"
        ) from problem


def mapped(descriptor: int, dtype: Any) -> NDArray[Any]:
    """A file as an array that is only read. The mapping lives on when the descriptor is closed."""
    count = os.fstat(descriptor).st_size // np.dtype(dtype).itemsize
    if not count:
        return np.empty(0, dtype)
    with os.fdopen(os.dup(descriptor), "rb") as file:
        return np.memmap(file, dtype, "r", shape=(count,))


def spans(count: int, size: int = 0) -> Iterator[slice]:
    """The numbers below ``count``, in slices of ``size``, or of CHUNK."""
    size = size or CHUNK
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def permutation(count: int, name: str, scratch: Scratch = IN_MEMORY) -> NDArray[np.int64]:
    """The numbers below ``count`` in an order that follows from the name alone, whatever the library's version: that
    of ``count`` draws of Python's generator with this name as its seed."""
    _, state, _ = random.Random(name).getstate()
    # The same generator with the same state. Of numpy's, RandomState is the one whose numbers never change.
    draws = np.random.RandomState(0)
    draws.set_state(("MT19937", np.array(state[:-1], np.uint32), state[-1], 0, 0.0))
    keys = scratch.collect(np.float64, (draws.random_sample(part.stop - part.start) for part in spans(count)))
    if count <= CHUNK:
        return np.argsort(keys, kind="stable")
    return scratch.collect(np.int64, _sorted_by(keys))


def _sorted_by(keys: NDArray[np.float64]) -> Iterator[NDArray[np.int64]]:
    """The order of keys between 0 and 1, one range of keys after the other."""
    edges = np.linspace(0.0, 1.0, -(-len(keys) // CHUNK) + 1)
    for low, high in pairwise(edges):
        found = [
            part.start + np.flatnonzero((keys[part] >= low) & (keys[part] < high))
            for part in spans(len(keys), 8 * CHUNK)
        ]
        numbers = np.concatenate(found)
        yield numbers[np.argsort(keys[numbers], kind="stable")]
