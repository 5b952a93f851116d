"""Tokens in a line, and sequences as lists of pieces of it.

::

    line        [r r r r r][r r r][r r r r r r r][r r r r]            records end to end
    pieces       a.......a  b...b  c...........c  d.....d             from where to where, each at most L tokens
    sequences   [a.......a  b...b  - ] [c...........c] [d.....d - - - - ]     rows of at most L tokens, padded

A sequence holds one piece or several. Tokens are copied when a batch is made, not before, so that a line may be far
larger than the memory that batches take.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
Mask = NDArray[np.bool_]
Places = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Tokens:
    """Tokens in a line: ``ids`` int32 [n]; ``trained`` bool [n], true where the token is learnt."""

    ids: Ids
    trained: Mask

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class RecordTokens(Tokens):
    """One record's tokens. A record that is ``text`` may be divided anywhere; of others the context counts."""

    text: bool = False


@dataclass(frozen=True, eq=False)
class TokenLine(Tokens):
    """All records end to end: record k has the tokens from ``starts[k]`` to ``starts[k + 1]``, int64 [records + 1].

    ``texts`` bool [records] says which records are texts.
    """

    starts: Places
    texts: Mask


class Rows(NamedTuple):
    """Sequences as arrays [b, width], the width that of the longest: ``ids`` int32; ``trained`` bool; ``positions``
    int32, counted from 0 within each piece, and on through the padding behind the last."""

    ids: Ids
    trained: Mask
    positions: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Sequences:
    """Sequence k holds the pieces from ``rows[k]`` to ``rows[k + 1]``, int64 [sequences + 1]; piece p holds the tokens
    of ``line`` from ``pieces[p, 0]`` to ``pieces[p, 1]``, int64 [pieces, 2]. ``pad`` is the token that fills up a row.

    The first token of a piece is never learnt: nothing before it belongs to it.
    """

    line: Tokens
    pieces: Places
    rows: Places
    pad: int = 0

    @classmethod
    def of_rows(cls, ids: Ids, trained: Mask) -> "Sequences":
        """Sequences of equal length that are ready-made: both [n, L]."""
        count, length = ids.shape
        starts = np.arange(count, dtype=np.int64) * length
        pieces = np.stack([starts, starts + length], axis=1)
        return cls(Tokens(ids.reshape(-1), trained.reshape(-1)), pieces, np.arange(count + 1))

    @classmethod
    def joined(cls, parts: Sequence["Sequences"]) -> "Sequences":
        """The sequences of all parts, one part after the other."""
        line = Tokens(
            np.concatenate([part.line.ids for part in parts]), np.concatenate([part.line.trained for part in parts])
        )
        tokens = np.cumsum([0, *(len(part.line) for part in parts)])
        pieces = np.cumsum([0, *(len(part.pieces) for part in parts)])
        return cls(
            line,
            np.concatenate([part.pieces + start for part, start in zip(parts, tokens, strict=False)]),
            np.concatenate([[0], *(part.rows[1:] + start for part, start in zip(parts, pieces, strict=False))]),
            parts[0].pad,
        )

    def __len__(self) -> int:
        return len(self.rows) - 1

    @property
    def predicted(self) -> int:
        """How many tokens are learnt."""
        return int(self._learnt().sum())

    @property
    def tokens(self) -> int:
        """How many tokens the sequences hold, without padding."""
        return int((self.pieces[:, 1] - self.pieces[:, 0]).sum())

    def useful(self) -> "Sequences":
        """The sequences in which a token is learnt."""
        return self.take(np.flatnonzero(np.diff(_sums(self._learnt())[self.rows])))

    def take(self, numbers: Places) -> "Sequences":
        """These sequences, in this order, of the same line."""
        chosen = [np.arange(*self.rows[number : number + 2]) for number in numbers]
        rows = np.cumsum([0, *map(len, chosen)], dtype=np.int64)
        pieces = self.pieces[np.concatenate(chosen)] if chosen else self.pieces[:0]
        return Sequences(self.line, pieces, rows, self.pad)

    def gather(self, numbers: Places) -> Rows:
        """The tokens of these sequences, b > 0 of them."""
        chosen = [self.pieces[slice(*self.rows[number : number + 2])] for number in numbers]
        width = max(int((pieces[:, 1] - pieces[:, 0]).sum()) for pieces in chosen)
        ids = np.full((len(numbers), width), self.pad, self.line.ids.dtype)
        trained = np.zeros(ids.shape, np.bool_)
        positions = np.empty(ids.shape, np.int32)
        for row, pieces in enumerate(chosen):
            end = begin = 0
            for start, stop in pieces:
                begin, end = end, end + int(stop - start)
                ids[row, begin:end] = self.line.ids[start:stop]
                trained[row, begin + 1 : end] = self.line.trained[start + 1 : stop]
                positions[row, begin:end] = np.arange(end - begin)
            positions[row, end:] = np.arange(end - begin, width - begin)
        return Rows(ids, trained, positions)

    def _learnt(self) -> Places:
        """How many tokens of each piece are learnt, int64 [pieces]."""
        sums = _sums(self.line.trained)
        starts, stops = self.pieces[:, 0], self.pieces[:, 1]
        return sums[stops] - sums[np.minimum(starts + 1, stops)]


def _sums(values: NDArray[np.generic]) -> Places:
    """Sums of the first 0, 1, ... of the values, int64 [n + 1]."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(values, dtype=np.int64)])


def permutation(count: int, name: str) -> Places:
    """The numbers below ``count`` in an order that follows from the name alone, whatever the library's version."""
    rng = random.Random(name)
    return np.argsort([rng.random() for _ in range(count)], kind="stable")
