"""Tokens in a line, and sequences as lists of pieces of it.

::

    line        [r r r r r][r r r][r r r r r r r][r r r r]            records end to end
    pieces       a.......a  b...b  c...........c  d.....d             from where to where, each at most L tokens
    sequences   [a.......a  b...b  - ] [c...........c] [d.....d - - - - ]     rows of at most L tokens, padded

A sequence holds one piece or several. Tokens are copied when a batch is made, not before. So the line may lie on disk,
and so may the pieces and the rows, of which there are millions for a large line.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deca_node.numerics.data.store.scratch import IN_MEMORY, Scratch, permutation, spans

__all__ = [
    "Ids",
    "Mask",
    "PaddedRows",
    "Pieces",
    "Places",
    "RecordTokens",
    "Sequences",
    "TokenLine",
    "Tokens",
    "permutation",
]

Ids = NDArray[Any]
"""int32, or uint16 on disk where the vocabulary is small enough."""
Mask = NDArray[np.bool_]
Places = NDArray[np.int64]

PIECE = np.dtype([("start", np.int64), ("stop", np.int64), ("head", np.int64), ("learnt", np.int64)])
"""A piece holds the tokens of a line from ``start`` to ``stop``, with the token at the place ``head`` in front where
that is not ``NO_HEAD``. ``learnt`` tokens of it are learnt; the first one never is, since nothing before it belongs to
it."""
NO_HEAD = -1
Pieces = NDArray[np.void]
"""An array of PIECE."""
COUNTED_TOGETHER = 1 << 22
"""How many tokens are looked at together when learnt ones are counted."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """Tokens in a line: ``ids`` int32 [n]; ``trained`` bool [n], true where the token is learnt."""

    ids: Ids
    trained: Mask

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class RecordTokens(Tokens):
    """One record's tokens. A record that is ``text`` may be divided anywhere; of others the context counts. ``more``
    says that these are not all of its tokens: those of the next belong to it as well."""

    text: bool = False
    more: bool = False


@dataclass(frozen=True, eq=False)
class TokenLine(Tokens):
    """All records end to end: record k has the tokens from ``starts[k]`` to ``starts[k + 1]``, int64 [records + 1].

    ``texts`` bool [records] says which records are texts; ``learnt`` int64 [records] how many tokens of each are
    learnt, its first token left aside.
    """

    starts: Places
    texts: Mask
    learnt: Places

    @classmethod
    def of(cls, ids: Ids, trained: Mask, starts: Places, texts: Mask) -> "TokenLine":
        """A line whose learnt tokens are counted here."""
        stops = starts[1:]
        return cls(ids, trained, starts, texts, learnt_between(trained, np.minimum(starts[:-1] + 1, stops), stops))

    @property
    def records(self) -> int:
        """How many records there are."""
        return len(self.texts)

    def whole(self, part: slice) -> Pieces:
        """These records as pieces."""
        pieces = np.empty(part.stop - part.start, PIECE)
        pieces["start"], pieces["stop"] = self.starts[part], self.starts[part.start + 1 : part.stop + 1]
        pieces["head"], pieces["learnt"] = NO_HEAD, self.learnt[part]
        return pieces


class PaddedRows(NamedTuple):
    """Sequences as arrays [b, width], the width that of the longest: ``ids`` int32; ``trained`` bool; ``positions``
    int32, counted from 0 within each piece, and on through the padding behind the last."""

    ids: Ids
    trained: Mask
    positions: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Sequences:
    """Sequence k holds the pieces from ``rows[k]`` to ``rows[k + 1]``, int64 [sequences + 1], of ``line``. ``pad`` is
    the token that fills up a row.

    With ``crossing`` the pieces of a sequence go on from each other, as one text; otherwise they are apart.
    """

    line: Tokens
    pieces: Pieces
    rows: Places
    pad: int = 0
    crossing: bool = False
    scratch: Scratch = IN_MEMORY

    @classmethod
    def of_rows(cls, ids: Ids, trained: Mask) -> "Sequences":
        """Sequences of equal length that are ready-made: both [n, L]."""
        count, length = ids.shape
        starts = np.arange(count, dtype=np.int64) * length
        line = Tokens(ids.reshape(-1), trained.reshape(-1))
        return cls(line, pieces_of(line.trained, starts, starts + length), np.arange(count + 1))

    @classmethod
    def joined(cls, parts: Sequence["Sequences"]) -> "Sequences":
        """The sequences of all parts, one part after the other, in memory."""
        line = Tokens(
            np.concatenate([part.line.ids for part in parts]), np.concatenate([part.line.trained for part in parts])
        )
        tokens = np.cumsum([0, *(len(part.line) for part in parts)])
        before = np.cumsum([0, *(len(part.pieces) for part in parts)])
        pieces = [moved(part.pieces, start) for part, start in zip(parts, tokens, strict=False)]
        rows = [part.rows[1:] + start for part, start in zip(parts, before, strict=False)]
        return cls(line, np.concatenate(pieces), np.concatenate([[0], *rows]), parts[0].pad, parts[0].crossing)

    def __len__(self) -> int:
        return len(self.rows) - 1

    @property
    def predicted(self) -> int:
        """How many tokens are learnt."""
        return sum(int(self.pieces["learnt"][part].sum()) for part in spans(len(self.pieces)))

    @property
    def tokens(self) -> int:
        """How many tokens the sequences hold, without padding."""
        return sum(int(sizes(self.pieces[part]).sum()) for part in spans(len(self.pieces)))

    def useful(self) -> "Sequences":
        """The sequences in which a token is learnt."""
        return self.take(self.scratch.collect(np.int64, map(self._useful, spans(len(self)))))

    def _useful(self, part: slice) -> Places:
        rows = self.rows[part.start : part.stop + 1]
        learnt = np.add.reduceat(self.pieces["learnt"][rows[0] : rows[-1]], rows[:-1] - rows[0])
        return part.start + np.flatnonzero(learnt)

    def take(self, numbers: Places) -> "Sequences":
        """These sequences, in this order, of the same line."""
        parts = list(spans(len(numbers)))
        rows = sums(self.scratch, (self._counts(numbers[part]) for part in parts))
        pieces = self.scratch.collect(PIECE, (self.pieces[self._members(numbers[part])] for part in parts))
        return Sequences(self.line, pieces, rows, self.pad, self.crossing, self.scratch)

    def _counts(self, numbers: Places) -> Places:
        return self.rows[numbers + 1] - self.rows[numbers]

    def _members(self, numbers: Places) -> Places:
        """The numbers of all pieces of these sequences."""
        counts = self._counts(numbers)
        before = np.cumsum(counts) - counts
        return np.arange(counts.sum()) + np.repeat(self.rows[numbers] - before, counts)

    def gather(self, numbers: Places) -> PaddedRows:
        """The tokens of these sequences, b > 0 of them."""
        chosen = [self.pieces[slice(*self.rows[number : number + 2])] for number in numbers]
        width = max(int(sizes(pieces).sum()) for pieces in chosen)
        ids = np.full((len(numbers), width), self.pad, np.int32)
        trained = np.zeros(ids.shape, np.bool_)
        positions = np.empty(ids.shape, np.int32)
        for row, pieces in enumerate(chosen):
            end = begin = 0
            for start, stop, head, _ in pieces.tolist():
                goes_on = self.crossing and end > 0
                origin = begin if goes_on else end
                begin, headed = origin, int(head != NO_HEAD)
                if headed:
                    ids[row, end] = self.line.ids[head]
                first, end = end + headed, end + headed + stop - start
                ids[row, first:end] = self.line.ids[start:stop]
                trained[row, first:end] = self.line.trained[start:stop]
                trained[row, origin] = False
                positions[row, origin:end] = np.arange(end - origin)
            positions[row, end:] = np.arange(end - begin, width - begin)
        return PaddedRows(ids, trained, positions)


# --- pieces -----------------------------------------------------------------------------------------------


def pieces_of(trained: Mask, starts: Places, stops: Places, heads: Places | int = NO_HEAD, first: Any = True) -> Pieces:
    """Pieces of a line with their learnt tokens counted. ``first`` says, for each piece or for all, whether it has a
    first token that is not learnt; a piece with a head has that in front."""
    pieces = np.empty(len(starts), PIECE)
    pieces["start"], pieces["stop"], pieces["head"] = starts, stops, heads
    unlearnt = (pieces["head"] == NO_HEAD) & first
    pieces["learnt"] = learnt_between(trained, np.minimum(starts + unlearnt, stops), stops)
    return pieces


def sizes(pieces: Pieces) -> Places:
    """How many tokens each piece has."""
    return pieces["stop"] - pieces["start"] + (pieces["head"] != NO_HEAD)


def moved(pieces: Pieces, by: int) -> Pieces:
    """The pieces of a line that stands behind ``by`` other tokens."""
    found = pieces.copy()
    found["start"] += by
    found["stop"] += by
    found["head"] = np.where(pieces["head"] == NO_HEAD, NO_HEAD, pieces["head"] + by)
    return found


def sums(scratch: Scratch, chunks: Iterable[NDArray[Any]]) -> Places:
    """Sums of the first 0, 1, ... of all values, int64 [n + 1]."""

    def parts() -> Iterator[Places]:
        total = 0
        yield np.zeros(1, np.int64)
        for chunk in chunks:
            found = np.cumsum(chunk, dtype=np.int64) + total
            yield found
            total = int(found[-1]) if len(found) else total

    return scratch.collect(np.int64, parts())


def learnt_between(trained: Mask, starts: Places, stops: Places) -> Places:
    """How many tokens are learnt from each start to its stop, int64 [n]. The line is read once if starts ascend."""
    counts = np.zeros(len(starts), np.int64)
    ascending = np.split(np.arange(len(starts)), np.flatnonzero(np.diff(starts) < 0) + 1)
    for run in ascending:
        low = 0
        while low < len(run):
            base = starts[run[low]]
            high = low + int(np.searchsorted(starts[run[low:]], base + COUNTED_TOGETHER))
            near = run[low:high]
            ends = np.minimum(stops[near], base + 2 * COUNTED_TOGETHER)
            found = np.concatenate([[0], np.cumsum(trained[base : ends.max()], dtype=np.int64)])
            counts[near] = found[ends - base] - found[starts[near] - base]
            for far in near[stops[near] > ends]:
                rest = (part.start for part in spans(int(stops[far] - base), COUNTED_TOGETHER))
                counts[far] += sum(
                    np.count_nonzero(trained[base + at : min(base + at + COUNTED_TOGETHER, stops[far])])
                    for at in rest
                    if at >= 2 * COUNTED_TOGETHER
                )
            low = high
    return counts
