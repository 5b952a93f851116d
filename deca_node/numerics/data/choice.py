"""Which records are held out, as a function of what is in them.

A record's key is a hash of its tokens, keyed by the run's seed. Records whose key is at most a threshold are held out::

    key      0 .......... threshold ................................ 2^64
             held out      |  trained on

The first start chooses the threshold for its data, so that the share that is asked for is reached. Later starts keep
it. So neither the order of the records nor the node's name matters, records that are added or removed move no others,
and equal records are on the same side. Where the ends of all records are held out instead, the first start chooses the
share of each record; its key decides how a fraction of a token is rounded.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deca_node.numerics.data.holdout import RECORDS_TO_SPLIT, Split, check_enough, check_two, split
from deca_node.numerics.data.lengths import Fitted
from deca_node.numerics.data.sequences import NO_HEAD, PIECE, Ids, Mask, Pieces, Places, TokenLine, sizes
from deca_node.numerics.data.store.scratch import IN_MEMORY, Scratch, spans

Keys = NDArray[np.uint64]
KEY_BITS, SHARE_BITS = 64, 32
HASHED_TOGETHER = 1 << 20
"""Tokens of a record that are hashed at a time."""


@dataclass(frozen=True)
class Choice:
    """What the first start chose.

    ``records``: those with a key up to ``threshold`` are held out, unless they have more than ``tokens_max`` tokens (0:
    no limit). ``ends``: ``share`` / 2^32 of every record. ``places``: the rule of earlier releases, by the places of
    the records in the data. ``numbered`` says that equal records have keys of their own, because too many are equal.
    """

    kind: Literal["none", "records", "ends", "places"]
    threshold: int = -1
    tokens_max: int = 0
    share: int = 0
    numbered: bool = False


@dataclass(frozen=True)
class Census:
    """The records of some data: how many, a sum of their keys that no order changes, and one that every order does."""

    records: int
    total: int
    ordered: str

    @classmethod
    def of(cls, keys: Keys) -> "Census":
        """The census of these records."""
        ordered, total = hashlib.blake2b(digest_size=8), 0
        for part in spans(len(keys)):
            ordered.update(keys[part].astype("<u8").tobytes())
            total += int(keys[part].sum(dtype=np.uint64))
        return cls(len(keys), total % (1 << KEY_BITS), ordered.hexdigest())


class HeldOut:
    """Holds out a share ``holdout`` of a node's data: as ``choice`` says, or as is chosen now where it is None.

    ``run_seed`` keys the records. ``own_seed`` is the seed of this node's own random choices, for the rule by places.
    """

    def __init__(self, run_seed: int, own_seed: int, holdout: float, choice: Choice | None = None) -> None:
        self.choice = choice
        self.census: Census | None = None
        self.own_seed = own_seed
        self.holdout = holdout
        self._key = f"{run_seed}:heldout".encode()

    def divide(
        self, path: str | Path, line: TokenLine, records: Fitted, length: int, whole: bool, scratch: Scratch
    ) -> Split:
        """Divide the records of a line for sequences of ``length`` tokens; ``whole``: they are not concatenated.

        Raises DataError where there is too little data for two parts.
        """
        pieces = records.pieces
        keys = self._keys(line.ids, pieces["start"], pieces["stop"], scratch)
        chooser = _Chooser(keys, pieces, scratch)
        if self.choice is None:
            self.choice = _chosen(path, chooser, records.texts, length, self.holdout, whole)
        if self.choice.kind == "places":
            return split(path, records, length, self.holdout, self.own_seed, whole=whole, scratch=scratch)
        return Split(pieces, chooser.cuts(self.choice), chooser.total, scratch)

    def rows(self, path: str | Path, ids: Ids, starts: Places) -> Mask | None:
        """Which of the records from ``starts[k]`` to ``starts[k + 1]`` are held out, bool [records]; None where the
        rule is that by places."""
        keys = self._keys(ids, starts[:-1], starts[1:], IN_MEMORY)
        count = len(keys)
        ones = np.zeros(count, PIECE)
        ones["stop"], ones["head"] = 1, NO_HEAD
        chooser = _Chooser(keys, ones, IN_MEMORY)
        if self.choice is None:
            if not self.holdout:
                self.choice = Choice("none")
            else:
                check_two(path, count)
                self.choice = chooser.of_records(min(max(round(count * self.holdout), 1), count - 1))
        return None if self.choice.kind == "places" else chooser.held(self.choice)

    def _keys(self, ids: Ids, starts: Places, stops: Places, scratch: Scratch) -> Keys:
        def keyed(start: int, stop: int) -> int:
            digest = hashlib.blake2b(digest_size=8, key=self._key)
            # A text may be larger than memory.
            for low in range(start, stop, HASHED_TOGETHER):
                digest.update(np.asarray(ids[low : min(low + HASHED_TOGETHER, stop)], "<i4").tobytes())
            return int.from_bytes(digest.digest(), "little")

        def parts() -> Iterator[Keys]:
            for part in spans(len(starts)):
                places = zip(starts[part].tolist(), stops[part].tolist(), strict=True)
                yield np.fromiter((keyed(start, stop) for start, stop in places), np.uint64)

        keys = scratch.collect(np.uint64, parts())
        self.census = Census.of(keys)
        return keys


def _chosen(path: str | Path, chooser: "_Chooser", texts: bool, length: int, holdout: float, whole: bool) -> Choice:
    """As :mod:`deca_node.numerics.data.holdout` chooses between whole records and ends."""
    if not holdout:
        return Choice("none")
    count, total = len(chooser.keys), chooser.total
    target = min(max(round(total * holdout), length), total - length)
    if not whole:
        check_enough(path, total, length)
        for numbered in (False, True) if count >= RECORDS_TO_SPLIT else ():
            choice = chooser.until(target, numbered)
            if total - chooser.tokens(choice) >= max(length, (total - target) / 2):
                return choice
        return chooser.of_ends(target)
    if texts and (count == 1 or (count < RECORDS_TO_SPLIT and total > count * length)):
        check_enough(path, total, length)
        return chooser.of_ends(target)
    check_two(path, count)
    target = min(max(round(total * holdout), 1), total - 1)
    for numbered in (False, True) if count >= RECORDS_TO_SPLIT else (False,):
        choice = chooser.until(target, numbered)
        if total - chooser.tokens(choice) >= (total - target) / 2:
            return choice
    if texts and total >= 2 * length:
        return chooser.of_ends(target)
    return chooser.of_records(target)


class _Chooser:
    """Finds thresholds and shares by halving intervals: each guess is one pass over the records."""

    def __init__(self, keys: Keys, records: Pieces, scratch: Scratch) -> None:
        self.keys = keys
        self._records = records
        self._scratch = scratch
        self._numbered: Keys | None = None
        self.total = sum(int(sizes(records[part]).sum()) for part in spans(len(records)))

    def until(self, target: int, numbered: bool = False) -> Choice:
        """Records in the order of their keys, until they come to ``target`` tokens."""

        def choice(threshold: int) -> Choice:
            return Choice("records", threshold, numbered=numbered)

        return choice(_least(KEY_BITS, lambda threshold: self.tokens(choice(threshold)) >= target))

    def of_records(self, target: int) -> Choice:
        """Whole records with about ``target`` tokens: fewer where little would be left to train on otherwise."""
        for numbered in (False, True):
            for choice in (self.until(target, numbered), self._within(target, numbered)):
                if self.total - self.tokens(choice) >= (self.total - target) / 2 and self.tokens(choice):
                    return choice
        return self._shortest()

    def of_ends(self, target: int) -> Choice:
        """The least share of every record that comes to ``target`` tokens."""
        return Choice(
            "ends", share=_least(SHARE_BITS, lambda share: self.tokens(Choice("ends", share=share)) >= target)
        )

    def tokens(self, choice: Choice) -> int:
        """How many tokens are held out."""
        return sum(int(self._tokens(choice, part).sum()) for part in spans(len(self.keys)))

    def held(self, choice: Choice) -> Mask:
        """Which records are held out, at least in part; bool [records]."""
        return np.concatenate([self._tokens(choice, part) > 0 for part in spans(len(self.keys))] or [np.zeros(0, bool)])

    def cuts(self, choice: Choice) -> Places:
        """The place in the line from which each record is held out."""

        def cuts() -> Iterator[Places]:
            for part in spans(len(self.keys)):
                records = self._records[part]
                yield np.maximum(records["start"], records["stop"] - self._tokens(choice, part))

        return self._scratch.collect(np.int64, cuts())

    def _tokens(self, choice: Choice, part: slice) -> Places:
        """How many tokens at the end of each record are held out."""
        lengths = sizes(self._records[part])
        if choice.kind == "ends":
            rounding = self.keys[part] >> np.uint64(KEY_BITS - SHARE_BITS)
            share = lengths.astype(np.uint64) * np.uint64(choice.share) + rounding
            return (share >> np.uint64(SHARE_BITS)).astype(np.int64)
        if choice.kind == "none" or choice.threshold < 0:
            return np.zeros_like(lengths)
        keys = self._numbers() if choice.numbered else self.keys
        held = keys[part] <= np.uint64(choice.threshold)
        return lengths * (held & (lengths <= choice.tokens_max) if choice.tokens_max else held)

    def _within(self, target: int, numbered: bool) -> Choice:
        """As ``until``, but without records of more than ``target`` tokens, and with no more than these."""

        def choice(threshold: int) -> Choice:
            return Choice("records", threshold, max(target, 1), numbered=numbered)

        return choice(_least(KEY_BITS, lambda threshold: self.tokens(choice(threshold)) > target) - 1)

    def _shortest(self) -> Choice:
        """One of the shortest records."""
        lengths = np.concatenate([sizes(self._records[part]) for part in spans(len(self._records))])
        shortest = int(lengths.min())
        return Choice("records", int(self._numbers()[lengths == shortest].min()), shortest, numbered=True)

    def _numbers(self) -> Keys:
        """Keys that count how often a record was there before; so equal records have different ones."""
        if self._numbered is None:
            order = np.argsort(self.keys, kind="stable")
            ordered = self.keys[order]
            first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
            begins = np.flatnonzero(first)
            before = np.arange(len(order)) - begins[np.cumsum(first) - 1]
            numbered = np.empty_like(self.keys)
            numbered[order] = _mixed(ordered + before.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
            self._numbered = numbered
        return self._numbered


def _mixed(keys: NDArray[Any]) -> Keys:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014): every bit of a key depends on all."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Keys = keys ^ (keys >> np.uint64(31))
    return mixed


def _least(bits: int, enough: Callable[[int], bool]) -> int:
    """The least number below 2^bits that is enough, where all larger ones are too; 2^bits - 1 where none is."""
    low, high = 0, (1 << bits) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low
