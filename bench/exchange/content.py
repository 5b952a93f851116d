"""The contents of an exchange: a file of float32 numbers per party, the same bytes for every contestant.

The numbers are normal, of the size of updates (1e-4). Libraries that send models get them as arrays of 4 MiB, like the
weights of a model.
"""

import functools
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

ARRAY_ELEMENTS = 1 << 20
MAGNITUDE = 1e-4


def write_contents(folder: Path, parties: int, elements: int, seed: int) -> tuple[str, ...]:
    """Write a file per party, and return the paths."""
    paths = []
    for party in range(parties):
        rng = np.random.default_rng((seed, party))
        path = folder / f"content-{party}.f32"
        with path.open("wb") as file:
            for _ in range(elements // ARRAY_ELEMENTS):
                (rng.standard_normal(ARRAY_ELEMENTS, np.float32) * np.float32(MAGNITUDE)).tofile(file)
        paths.append(str(path))
    return tuple(paths)


def read(path: str) -> Floats:
    """A whole content, float32 [elements]."""
    return np.fromfile(path, np.float32)


def arrays(flat: Floats) -> list[Floats]:
    """The same memory as arrays [1024, 1024]."""
    return list(flat.reshape(-1, 1024, ARRAY_ELEMENTS // 1024))


def error(arrived: list[Floats], paths: list[str]) -> float:
    """RMS(arrived - sent) / RMS(sent), where sent is the mean of the contents of ``paths``."""
    sent = [np.memmap(path, np.float32, "r").reshape(-1, ARRAY_ELEMENTS) for path in paths]
    assert sum(array.size for array in arrived) == sent[0].size, "numbers are missing"
    off = total = 0.0
    for index, array in enumerate(piece for whole in arrived for piece in whole.reshape(-1, ARRAY_ELEMENTS)):
        parts = (content[index].astype(np.float64) for content in sent)
        exact = functools.reduce(np.add, parts) / len(sent)
        off += float(np.square(array - exact).sum())
        total += float(np.square(exact).sum())
    return math.sqrt(off / total)
