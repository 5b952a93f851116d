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
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from deca_node.numerics.data.sequences import (
    NO_HEAD,
    PIECE,
    Mask,
    Pieces,
    Places,
    Sequences,
    Tokens,
    permutation,
    pieces_of,
    sizes,
    sums,
)
from deca_node.numerics.data.store.scratch import IN_MEMORY, Scratch, spans

WINDOW = 4096
"""How many pieces are packed together: enough for sequences that are full, few enough to take no time."""
DIVIDED_TOGETHER = 1 << 14


def pack(
    line: Tokens, kept: Pieces, how: str, length: int, *, pad: int, seed: int, scratch: Scratch = IN_MEMORY
) -> Sequences:
    """Parts of records, in the order of the line, packed as ``how`` says."""
    if how == "concatenated":
        return concatenated(line, kept, length, pad, scratch)
    pieces = divided(line, kept, length, scratch)
    if how == "none":
        return singles(line, pieces, pad, scratch)
    return isolated(line, pieces, length, pad, seed, scratch)


def firsts(line: Tokens, kept: Pieces, length: int, *, pad: int, scratch: Scratch = IN_MEMORY) -> Sequences:
    """A sequence for each part of a record: the first ``length`` of its tokens."""

    def parts() -> Iterator[Pieces]:
        for part in spans(len(kept)):
            pieces = kept[part].copy()
            longer = sizes(pieces) > length
            if longer.any():
                starts, heads = pieces["start"][longer], pieces["head"][longer]
                stops = starts + length - (heads != NO_HEAD)
                pieces[longer] = pieces_of(line.trained, starts, stops, heads)
            yield pieces

    return singles(line, scratch.collect(PIECE, parts()), pad, scratch)


def divided(line: Tokens, kept: Pieces, length: int, scratch: Scratch = IN_MEMORY) -> Pieces:
    """Parts of records as pieces of ``length`` >= 2 tokens at most; each piece of a part begins with the last token of
    the one before it."""
    step = length - 1

    def parts() -> Iterator[Pieces]:
        for part in spans(len(kept), DIVIDED_TOGETHER):
            whole = kept[part]
            counts = np.maximum(-(-(whole["stop"] - whole["start"] - 1) // step), 1)
            pieces = np.repeat(whole, counts)
            several = np.repeat(counts > 1, counts)
            if several.any():
                before = np.repeat(np.cumsum(counts) - counts, counts)
                begins = pieces["start"] + (np.arange(len(pieces)) - before) * step
                ends = np.minimum(begins + length, pieces["stop"])
                pieces[several] = pieces_of(line.trained, begins[several], ends[several])
            yield pieces

    return scratch.collect(PIECE, parts())


def concatenated(line: Tokens, kept: Pieces, length: int, pad: int, scratch: Scratch = IN_MEMORY) -> Sequences:
    """All parts of records in a line, cut every ``length``. A tail that is all there is becomes a sequence of its
    own."""
    total = sum(int(sizes(kept[part]).sum()) for part in spans(len(kept)))
    used = total // length * length or total
    opens: list[Mask] = []

    def parts() -> Iterator[Pieces]:
        before = 0
        for part in spans(len(kept), DIVIDED_TOGETHER):
            pieces, opening, before = _cut(line, kept[part], length, before, used)
            opens.append(opening)
            yield pieces

    pieces = scratch.collect(PIECE, parts())
    # A sequence begins with each piece that opens one.
    begins = np.flatnonzero(np.concatenate(opens)) if opens else np.empty(0, np.int64)
    return Sequences(line, pieces, np.append(begins, len(pieces)), pad, crossing=True, scratch=scratch)


def _cut(line: Tokens, kept: Pieces, length: int, before: int, used: int) -> tuple[Pieces, Mask, int]:
    """Parts of records that stand behind ``before`` tokens of others, as pieces that cross no multiple of ``length``
    and end at ``used``; which of them open a sequence; and how many tokens stand before what follows."""
    starts, stops = _merged(kept["start"], kept["stop"])
    reached = before + np.cumsum(stops - starts)
    lows = reached - (stops - starts)
    inside = lows < used
    starts, lows, highs = starts[inside], lows[inside], np.minimum(reached[inside], used)
    counts = (highs - 1) // length - lows // length + 1
    which = np.repeat(np.arange(len(starts)), counts)
    rows = lows[which] // length + np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    begins = np.maximum(lows[which], rows * length)
    ends = np.minimum(highs[which], (rows + 1) * length)
    opening = begins % length == 0
    moved = starts[which] - lows[which]
    pieces = pieces_of(line.trained, moved + begins, moved + ends, NO_HEAD, opening)
    return pieces, opening, int(reached[-1])


def _merged(starts: Places, stops: Places) -> tuple[Places, Places]:
    """The same stretches; those that follow one another are one."""
    apart = starts[1:] != stops[:-1]
    return starts[np.append(True, apart)], stops[np.append(apart, True)]


def singles(line: Tokens, pieces: Pieces, pad: int, scratch: Scratch = IN_MEMORY) -> Sequences:
    """A sequence for each piece."""
    rows = scratch.collect(np.int64, (np.arange(part.start, part.stop) for part in spans(len(pieces) + 1)))
    return Sequences(line, pieces, rows, pad, scratch=scratch)


def isolated(line: Tokens, pieces: Pieces, length: int, pad: int, seed: int, scratch: Scratch = IN_MEMORY) -> Sequences:
    """Pieces laid into as few sequences of ``length`` tokens as best-fit decreasing finds, in a random order."""
    shuffled = permutation(len(pieces), f"{seed}:packing", scratch)
    counts: list[NDArray[np.int32]] = []

    def parts() -> Iterator[Pieces]:
        for part in spans(len(shuffled), WINDOW):
            window = pieces[shuffled[part]]
            bins = best_fit(sizes(window).tolist(), length)
            counts.append(np.array([len(found) for found in bins], np.int32))
            yield window[[k for found in bins for k in found]]

    laid = scratch.collect(PIECE, parts())
    packed = Sequences(line, laid, sums(scratch, iter(counts)), pad, scratch=scratch)
    # The first sequences of a window hold its longest records; an evaluation may stop after a few sequences.
    return packed.take(permutation(len(packed), f"{seed}:sequences", scratch))


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
