"""How records are laid into sequences of at most L tokens.

::

    records        [a a a a a] [b b b] [c c c c c c c c c c c] [d d d d]
    isolated       [a a a a a b b b] [c c c c c c c c] [c c c c d d d d]     records whole, positions start anew
    none           [a a a a a] [b b b] [c c c c c c c c] [c c c c] [d d d d]       one record per sequence
    concatenated   [a a a a a b b b] [c c c c c c c c] [c c c d d d d]..           cut every L tokens

**isolated** (the default). Every record stands whole in one sequence, beside others where there is room; nothing of one
record is context for another. The records are shuffled by the seed and taken in windows; within a window the longest
comes first, into the sequence with the least room that takes it (best-fit decreasing).

**none**. As isolated, but a sequence holds one record.

**concatenated**. The records are laid end to end in the order of the files and cut every L tokens, wherever a record
begins or ends: a token attends to the records before its own. This is usual for long texts. Tokens behind the last cut
(fewer than L) are dropped, unless they are all there is.

A text longer than L becomes several pieces; each begins with the last token of the piece before it, so that every token
is predicted once. Other records are no longer than L here (:mod:`deca_node.numerics.data.lengths`).
"""

from bisect import bisect_left, insort

import numpy as np

from deca_node.numerics.data.sequences import Mask, Places, Sequences, TokenLine, Tokens, permutation

WINDOW = 4096
"""How many pieces are packed together: enough for sequences that are full, few enough to take no time."""


def pack(line: TokenLine, kept: Mask, how: str, length: int, *, pad: int, seed: int) -> Sequences:
    """The tokens of ``line`` that are ``kept``, bool [n] with at most one stretch of each record, packed as ``how``
    says."""
    if how == "concatenated":
        return concatenated(Tokens(line.ids[kept], line.trained[kept]), length, pad)
    pieces = divided(*stretches(line, kept), length)
    return isolated(line, pieces, length, pad, seed) if how == "isolated" else singles(line, pieces, pad)


def firsts(line: TokenLine, kept: Mask, length: int, *, pad: int) -> Sequences:
    """A sequence for each record: the first ``length`` of its tokens that are ``kept`` (bool [n])."""
    starts, stops = stretches(line, kept)
    return singles(line, np.stack([starts, np.minimum(stops, starts + length)], axis=1), pad)


def stretches(line: TokenLine, kept: Mask) -> tuple[Places, Places]:
    """Where the kept part of each record begins and ends, int64 [records] each; records of which nothing is kept are
    left out."""
    sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept, dtype=np.int64)])
    counts = np.diff(sums[line.starts])
    found = np.flatnonzero(counts)
    # The kept tokens of a record follow one another, so the first of them and their number are enough.
    starts = np.flatnonzero(kept)[sums[line.starts[:-1]][found]]
    return starts, starts + counts[found]


def divided(starts: Places, stops: Places, length: int) -> Places:
    """Stretches of a line as pieces of ``length`` >= 2 tokens at most, int64 [pieces, 2]; each piece of a stretch
    begins with the last token of the one before it."""
    step = length - 1
    counts = np.maximum(-(-(stops - starts - 1) // step), 1)
    before = np.repeat(np.cumsum(counts) - counts, counts)
    begins = np.repeat(starts, counts) + (np.arange(counts.sum()) - before) * step
    return np.stack([begins, np.minimum(begins + length, np.repeat(stops, counts))], axis=1)


def concatenated(tokens: Tokens, length: int, pad: int) -> Sequences:
    """All tokens in a line, cut every ``length``. A tail that is all there is becomes a sequence of its own."""
    count = max(len(tokens) // length, min(len(tokens), 1))
    starts = np.arange(count, dtype=np.int64) * length
    pieces = np.stack([starts, np.minimum(starts + length, len(tokens))], axis=1)
    return Sequences(tokens, pieces, np.arange(count + 1), pad)


def singles(line: Tokens, pieces: Places, pad: int) -> Sequences:
    """A sequence for each piece."""
    return Sequences(line, pieces, np.arange(len(pieces) + 1), pad)


def isolated(line: Tokens, pieces: Places, length: int, pad: int, seed: int) -> Sequences:
    """Pieces laid into as few sequences of ``length`` tokens as best-fit decreasing finds, in a random order."""
    shuffled = pieces[permutation(len(pieces), f"{seed}:packing")]
    bins: list[list[int]] = []
    for start in range(0, len(shuffled), WINDOW):
        window = shuffled[start : start + WINDOW]
        bins += ([start + k for k in found] for found in best_fit((window[:, 1] - window[:, 0]).tolist(), length))
    # The first sequences of a window hold its longest records; an evaluation may stop after a few sequences.
    bins = [bins[k] for k in permutation(len(bins), f"{seed}:sequences")]
    rows = np.cumsum([0, *map(len, bins)], dtype=np.int64)
    order = np.array([k for found in bins for k in found], np.int64)
    return Sequences(line, shuffled[order], rows, pad)


def best_fit(lengths: list[int], capacity: int) -> list[list[int]]:
    """The numbers of all items, each of ``capacity`` at most, in bins that their lengths do not overfill: the longest
    item first, into the bin with the least room that takes it."""
    bins: list[list[int]] = []
    rooms: list[tuple[int, int]] = []
    """(room, bin) of every bin that is not full, sorted."""
    for item in sorted(range(len(lengths)), key=lambda k: -lengths[k]):
        found = bisect_left(rooms, (lengths[item], 0))
        room, into = rooms.pop(found) if found < len(rooms) else (capacity, len(bins))
        if into == len(bins):
            bins.append([])
        bins[into].append(item)
        if room > lengths[item]:
            insort(rooms, (room - lengths[item], into))
    return bins
