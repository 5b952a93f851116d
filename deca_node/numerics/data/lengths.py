"""Records that are longer than a sequence, where records stay whole.

A text is divided into pieces later. A prompt with its completion, or a chat, is truncated, as the run's ``truncation``
says:

    keep-end     its last L tokens stay: the completion, or the last turns. BOS stays in front
    keep-start   its first L tokens stay
    drop         the whole record is left out

A record in which nothing to learn is left is left out as well. Every cause is counted, and told at the start.
"""

from dataclasses import dataclass

import numpy as np

from deca_node.numerics.data.sequences import RecordTokens


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

    def fit(self, record: RecordTokens) -> RecordTokens | None:
        """The record as it is learnt; None where it is left out."""
        fitted = record
        if len(record) > self.length:
            if record.text and self.divides:
                self.divided += 1
            elif self.truncation == "drop" and not record.text:
                self.dropped += 1
                return None
            else:
                fitted = self._truncated(record)
        if not fitted.trained[1:].any():
            self.unlearnt += 1
            return None
        if fitted is not record:
            self.cut += 1
            self.cut_learnt += int(np.count_nonzero(fitted.trained) < np.count_nonzero(record.trained))
        return fitted

    def _truncated(self, record: RecordTokens) -> RecordTokens:
        if record.text or self.truncation == "keep-start":
            return RecordTokens(record.ids[: self.length], record.trained[: self.length], record.text)
        ids, trained = record.ids[-self.length :].copy(), record.trained[-self.length :].copy()
        if record.ids[0] == self.bos:
            # Many models were never trained without it.
            ids[0], trained[0] = record.ids[0], False
        return RecordTokens(ids, trained)
