"""Arrays that may be larger than memory: while they are small they lie in memory, and then in a file without a name.

An index has a number or two for every record. For a hundred million records that is more than a trainer should take. So
such an array is collected from chunks. Once it has ``IN_MEMORY_BYTES``, its chunks go to a file in the node's own
folder, and the array is mapped from there; the system keeps in memory the pages in use. The file loses its name as soon
as it is open, so that a crash leaves nothing behind.
"""

import os
import random
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

IN_MEMORY_BYTES = 64 << 20
"""Arrays up to this size stay in memory."""
CHUNK = 1 << 20
"""How many elements of an array are worked on at a time."""


@dataclass(frozen=True)
class Scratch:
    """Where large arrays lie: in files of ``folder``, or all in memory where there is none."""

    folder: Path | None = None

    def collect(self, dtype: Any, chunks: Iterable[NDArray[Any]]) -> NDArray[Any]:
        """The chunks end to end as one array [n]. Raises OSError where the disk refuses."""
        kept: list[NDArray[Any]] = []
        rest = iter(chunks)
        size = 0
        for chunk in rest:
            kept.append(chunk)
            size += chunk.nbytes
            if self.folder is not None and size > IN_MEMORY_BYTES:
                return self._on_disk(self.folder, dtype, kept, rest)
        return np.concatenate(kept).astype(dtype, copy=False) if kept else np.empty(0, dtype)

    def _on_disk(
        self, folder: Path, dtype: Any, kept: list[NDArray[Any]], rest: Iterator[NDArray[Any]]
    ) -> NDArray[Any]:
        with tempfile.TemporaryFile(dir=folder) as file:
            while kept:
                file.write(np.ascontiguousarray(kept.pop(0), dtype).data.cast("B"))
            for chunk in rest:
                if len(chunk):
                    file.write(np.ascontiguousarray(chunk, dtype).data.cast("B"))
            file.flush()
            return mapped(file.fileno(), dtype)


IN_MEMORY = Scratch()


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
