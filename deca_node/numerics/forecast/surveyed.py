"""What a survey of the data found: one object for the whole, one for its sequences, one for each record shown."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Shown:
    """A record as it is learnt. Of its ``tokens`` those that are ``learnt`` are in the loss; ``label`` is that of a
    labelled record. ``tokens_left_out`` of a long record's middle are not shown. ``fate`` says how it was made to
    fit."""

    source: str
    kind: str
    count: int
    tokens: tuple[str, ...]
    learnt: tuple[bool, ...]
    tokens_left_out: int = 0
    fate: str = ""
    label: str = ""


@dataclass(frozen=True)
class Packed:
    """The sequences. ``full`` is the share of their places that hold a token; ``empty`` counts sequences that were left
    out because nothing is learnt in them, ``tail_tokens`` those behind the last cut of concatenated records."""

    packing: str
    length: int
    count: int
    tokens: int
    learnt_tokens: int
    full: float
    empty: int = 0
    tail_tokens: int = 0


@dataclass(frozen=True, eq=False)
class Survey:
    """``kinds`` counts records by kind or label. ``lengths`` int64 [records] are tokens per record, before
    it was made to fit; in JSON they are a list of ``from``, ``to`` and ``records``.

    ``causes`` counts what happened to records on the way, by a sentence; ``named`` has the first few of each.
    ``notes`` counts what chat templates leave out. ``repeated`` counts records that repeat an earlier one token by
    token.
    """

    kinds: Mapping[str, int]
    files: tuple[str, ...]
    tokens: int
    learnt_tokens: int
    lengths: NDArray[np.int64]
    packed: Packed | None
    shown: tuple[Shown, ...] = ()
    causes: Mapping[str, int] = field(default_factory=dict)
    named: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)
    repeated: int = 0
    repeated_named: tuple[str, ...] = ()
    bad: int = 0
    bad_sentences: tuple[str, ...] = ()

    @property
    def records(self) -> int:
        """How many records are good, whether they fit or not."""
        return sum(self.kinds.values())

    @property
    def histogram(self) -> list[tuple[int, int, int]]:
        """Lengths in bins between powers of two: the least and the largest length of a bin, and how many are in it.
        Empty bins stand between others only."""
        _, powers = np.frexp(np.maximum(self.lengths - 1, 1))  # the bits of each number
        counts = np.bincount(powers).tolist()
        bins = range(int(powers.min()), int(powers.max()) + 1)
        return [(2 ** (power - 1) + 1 if power > 1 else 1, 2**power, counts[power]) for power in bins]
