"""The share of a node's own tokens that is held out: it is never trained on, nor read as context.

There are two ways. Whole records are held out, in a random order by the seed, until the share is reached. Or the end of
every record is held out, in proportion; that is for texts, since the end of a completion is worth little without its
prompt. The rule here goes by the places of the records in the data. Runs choose by their content
(:mod:`deca_node.numerics.data.choice`), in the same two ways::

    concatenated      whole records if there are 20 or more, else the ends. Each part gets L tokens at least
    isolated, none    whole records, one at least; the ends where fewer than 20 texts are longer than L on average

Where one record is so large that training would lose half of its own share to it, the ends are held out instead, or
among chats and prompts that record is passed over.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deca_node.numerics.data.lengths import Fitted
from deca_node.numerics.data.sequences import PIECE, Mask, Pieces, Places, permutation, pieces_of, sizes
from deca_node.numerics.data.store.scratch import IN_MEMORY, Scratch, spans
from deca_node.protocol.errors import DataError

RECORDS_TO_SPLIT = 20
"""From this many records on, the held-out part is made of whole records."""


@dataclass(frozen=True, eq=False)
class Split:
    """Where each record is divided: before the place ``cuts[k]`` of the line it is kept, from there on held out.
    All records have ``tokens`` tokens."""

    records: Pieces
    cuts: Places
    tokens: int
    scratch: Scratch = IN_MEMORY

    def kept(self, trained: Mask) -> Pieces:
        """The parts to train on; ``trained`` is the line's."""
        return self._parts(trained, held=False)

    def held(self, trained: Mask) -> Pieces:
        """The parts that are held out; ``trained`` is the line's."""
        return self._parts(trained, held=True)

    def _parts(self, trained: Mask, held: bool) -> Pieces:
        def parts() -> Iterator[Pieces]:
            for part in spans(len(self.records)):
                whole, cuts = self.records[part], self.cuts[part]
                chosen = cuts < whole["stop"] if held else cuts > whole["start"]
                found, cuts = whole[chosen], cuts[chosen]
                divided = (cuts > found["start"]) & (cuts < found["stop"])
                if divided.any():
                    starts = cuts if held else found["start"]
                    stops = found["stop"] if held else cuts
                    found[divided] = pieces_of(trained, starts[divided], stops[divided])
                yield found

        return self.scratch.collect(PIECE, parts())


def split(
    path: str | Path,
    records: Fitted,
    length: int,
    holdout: float,
    seed: int,
    *,
    whole: bool,
    scratch: Scratch = IN_MEMORY,
) -> Split:
    """Hold out the share ``holdout`` < 1 of all tokens, for sequences of ``length`` tokens.

    ``whole`` says that records are not concatenated. Raises DataError where there is too little data for two parts.
    """
    splitter = _Splitter(path, records.pieces, seed, scratch)
    if not holdout:
        return splitter.of_records(np.zeros(len(records.pieces), np.bool_))
    if whole:
        return _isolated(splitter, records.texts, length, holdout)
    return _concatenated(splitter, length, holdout)


def _concatenated(splitter: "_Splitter", length: int, holdout: float) -> Split:
    check_enough(splitter.path, splitter.total, length)
    total = splitter.total
    target = min(max(round(total * holdout), length), total - length)
    if len(splitter.records) >= RECORDS_TO_SPLIT:
        held = splitter.until(target)
        if total - splitter.tokens_of(held) >= max(length, (total - target) / 2):
            return splitter.of_records(held)
    return splitter.of_ends(target)


def _isolated(splitter: "_Splitter", texts: bool, length: int, holdout: float) -> Split:
    count, total = len(splitter.records), splitter.total
    few = count == 1 or (count < RECORDS_TO_SPLIT and total > count * length)
    if texts and few:
        check_enough(splitter.path, total, length)
        return splitter.of_ends(min(max(round(total * holdout), length), total - length))
    check_two(splitter.path, count)
    target = min(max(round(total * holdout), 1), total - 1)
    held = splitter.until(target)
    if total - splitter.tokens_of(held) < (total - target) / 2:
        if texts and total >= 2 * length:
            return splitter.of_ends(target)
        held = splitter.within(target)
    return splitter.of_records(held)


def check_enough(path: str | Path, total: int, length: int) -> None:
    """Raises DataError where there are fewer tokens than two sequences need."""
    if total < 2 * length:
        raise DataError(
            f"{path}: the data come to {total:,} tokens, but {2 * length:,} are needed: one sequence to train on and "
            f"one to hold out, of {length:,} tokens each; add data, or lower sequence_length on all nodes"
        )


def check_two(path: str | Path, records: int) -> None:
    """Raises DataError where there are not two records to divide."""
    if records < 2:
        raise DataError(f"{path}: there is one record, but 2 are needed: one to train on and one to hold out")


class _Splitter:
    """Chooses records, or ends of records."""

    def __init__(self, path: str | Path, records: Pieces, seed: int, scratch: Scratch) -> None:
        self.path = path
        self.records = records
        self._seed = seed
        self._scratch = scratch
        self.total = sum(int(sizes(records[part]).sum()) for part in spans(len(records)))

    def until(self, target: int) -> Mask:
        """Records in a random order, until they come to ``target`` tokens; bool [records]."""
        held, before = np.zeros(len(self.records), np.bool_), 0
        order = self._order()
        for part in spans(len(order)):
            reached = before + np.cumsum(sizes(self.records[order[part]]))
            count = int(np.searchsorted(reached, target)) + 1
            held[order[part][:count]] = True
            if count <= len(reached):
                break
            before = int(reached[-1])
        return held

    def within(self, target: int) -> Mask:
        """Records in the same order, without those that would go beyond ``target`` tokens; the shortest if all
        would."""
        held, room = np.zeros(len(self.records), np.bool_), target
        lengths = self._scratch.collect(np.int64, (sizes(self.records[part]) for part in spans(len(self.records))))
        for record in self._order():
            if lengths[record] <= room:
                held[record] = True
                room -= lengths[record]
        if not held.any():
            held[lengths.argmin()] = True
        return held

    def tokens_of(self, held: Mask) -> int:
        """How many tokens these records have."""
        return sum(int(sizes(self.records[part])[held[part]].sum()) for part in spans(len(held)))

    def of_records(self, held: Mask) -> Split:
        """These records are held out whole."""

        def cuts() -> Iterator[Places]:
            for part in spans(len(held)):
                yield np.where(held[part], self.records["start"][part], self.records["stop"][part])

        return Split(self.records, self._scratch.collect(np.int64, cuts()), self.total, self._scratch)

    def of_ends(self, target: int) -> Split:
        """The last tokens of every record are held out, in proportion, ``target`` in all."""

        def cuts() -> Iterator[Places]:
            before = 0
            for part in spans(len(self.records)):
                ends = before + np.concatenate([[0], np.cumsum(sizes(self.records[part]))])
                # Differences of rounded-down sums: each record's share is off by less than a token, and all come to the
                # target.
                yield self.records["stop"][part] - np.diff(_shares(ends, target, self.total))
                before = int(ends[-1])

        return Split(self.records, self._scratch.collect(np.int64, cuts()), self.total, self._scratch)

    def _order(self) -> Places:
        return permutation(len(self.records), f"{self._seed}:heldout", self._scratch)


def _shares(ends: Places, target: int, total: int) -> Places:
    """``ends * target // total``. The product of two large numbers does not fit into 64 bits."""
    if total * target < 1 << 63:
        return ends * target // total
    return np.array([int(end) * target // total for end in ends], np.int64)
