"""Records that are longer than a sequence, where records stay whole.

A text is divided into pieces later. A prompt with its completion, or a chat, is truncated, as the run's ``truncation``
says:

    keep-end     its last L tokens stay: the completion, or the last turns. BOS stays in front
    keep-start   its first L tokens stay
    drop         the whole record is left out

A record in which nothing to learn is left is left out as well. Every cause is counted, and told at the start. Tokens
are never moved: what a record keeps is a piece of the line.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from deca_node.numerics.data.sequences import (
    NO_HEAD,
    PIECE,
    Mask,
    Pieces,
    TokenLine,
    learnt_between,
    pieces_of,
)
from deca_node.numerics.data.store.scratch import IN_MEMORY, Scratch, spans


class Fitted(NamedTuple):
    """The records that are used, a piece for each, in the order of the line; ``texts``: whether all of them are."""

    pieces: Pieces
    texts: bool


@dataclass
class Lengths:
    """Makes records fit, and counts: texts ``divided``; records ``cut``, and how many of these lost tokens that are
    learnt (``cut_learnt``); records ``dropped`` for their length, and for having nothing to learn (``unlearnt``)."""

    length: int
    truncation: str
    bos: int | None = None
    divides: bool = True
    """Whether texts may be divided; else they keep their first tokens."""

    divided: int = 0
    cut: int = 0
    cut_learnt: int = 0
    dropped: int = 0
    unlearnt: int = 0

    def fit(self, line: TokenLine, scratch: Scratch = IN_MEMORY) -> Fitted:
        """Every record as it is learnt, without those that are left out."""
        texts = True

        def parts() -> Iterator[Pieces]:
            nonlocal texts
            for part in spans(line.records):
                pieces, used = self._fit(line, part)
                texts = texts and bool(line.texts[part][used].all())
                yield pieces[used]

        pieces = scratch.collect(PIECE, parts())
        return Fitted(pieces, texts)

    def _fit(self, line: TokenLine, part: slice) -> tuple[Pieces, Mask]:
        """These records as pieces, and which of them are used."""
        pieces, texts = line.whole(part), line.texts[part]
        longer = pieces["stop"] - pieces["start"] > self.length
        kept_whole = texts & self.divides
        cut = longer & ~kept_whole
        dropped = cut & ~texts & (self.truncation == "drop")
        cut &= ~dropped
        lost = self._truncate(line, pieces, cut, texts)
        unlearnt = ~dropped & (pieces["learnt"] == 0)
        self.divided += _count(longer & kept_whole)
        self.dropped += _count(dropped)
        self.unlearnt += _count(unlearnt)
        self.cut += _count(cut & ~unlearnt)
        self.cut_learnt += _count(lost & ~unlearnt)
        return pieces, ~dropped & ~unlearnt

    def _truncate(self, line: TokenLine, pieces: Pieces, cut: Mask, texts: Mask) -> Mask:
        """Truncate the pieces that are ``cut``; returns which of them lose tokens to learn."""
        lost = np.zeros(len(pieces), np.bool_)
        found = np.flatnonzero(cut)
        if not len(found):
            return lost
        starts, stops = pieces["start"][found], pieces["stop"][found]
        before = learnt_between(line.trained, starts, stops)
        at_start = texts[found] | (self.truncation == "keep-start")
        # Many models were never trained without BOS, so it takes the place of one token.
        headed = ~at_start & (line.ids[starts] == (-1 if self.bos is None else self.bos))
        heads = np.where(headed, starts, NO_HEAD)
        begins = np.where(at_start, starts, stops - self.length + headed)
        ends = np.where(at_start, starts + self.length, stops)
        lost[found] = learnt_between(line.trained, begins, ends) < before
        pieces[found] = pieces_of(line.trained, begins, ends, heads)
        return lost


def as_they_are(line: TokenLine, scratch: Scratch = IN_MEMORY) -> Fitted:
    """Every record whole."""
    pieces = scratch.collect(PIECE, map(line.whole, spans(line.records)))
    return Fitted(pieces, all(bool(line.texts[part].all()) for part in spans(line.records)))


def _count(mask: Mask) -> int:
    return int(np.count_nonzero(mask))
