"""Batches of sequences, or of labelled records: in a new random order every epoch, or in order for evaluation.

The order of an epoch follows from the seed and the epoch's number alone. A place in the data is therefore two numbers,
and a batch is a pure function of (seed, epoch, position): a node that saved its :class:`Cursor` continues after a
restart with exactly the batches that it would have seen.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from deca_node.numerics.data.dataset import PackedData
from deca_node.numerics.data.labelled import Examples, LabelledData
from deca_node.numerics.data.sequences import Sequences, permutation
from deca_node.numerics.data.store.scratch import IN_MEMORY
from deca_node.protocol.errors import DataError

IGNORED = -100
"""The label of a token that is not learnt; torch and transformers use the same number."""


@dataclass(frozen=True, eq=False)
class Batch:
    """``input_ids`` and ``labels``, int64 [b, L], on the CPU.

    A label is the input's own id, or -100 where the token is not learnt. The model shifts labels itself: the label at
    position i is predicted from the inputs before i, and the one at position 0 never.

    ``positions``, int64 [b, L], are given where a row holds several records that must not see each other: they count
    from 0 within each record. None where every row is to be read from its beginning to its end.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor | None = None

    @property
    def predicted(self) -> int:
        """How many tokens are learnt."""
        return int((self.labels[:, 1:] != IGNORED).sum())

    def split(self, size: int | list[int]) -> Iterator["Batch"]:
        """The same batch in parts of ``size`` sequences, or of these sizes."""
        columns = [self.input_ids.split(size), self.labels.split(size)]
        return map(Batch, *columns, *([] if self.positions is None else [self.positions.split(size)]))


@dataclass(frozen=True, eq=False)
class LabelledBatch:
    """Labelled records, on the CPU: ``labels`` int64 [b], the other fields int64 [b, L], padded on the right to the
    longest record's length."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    token_type_ids: torch.Tensor
    labels: torch.Tensor

    @property
    def predicted(self) -> int:
        """How many records the loss covers."""
        return len(self.labels)

    def split(self, size: int | list[int]) -> Iterator["LabelledBatch"]:
        """The same batch in parts of ``size`` records, or of these sizes."""
        columns = (self.input_ids, self.attention_mask, self.token_type_ids, self.labels)
        return map(LabelledBatch, *(column.split(size) for column in columns))


AnyBatch = Batch | LabelledBatch
Rows = Sequences | Examples


@dataclass(frozen=True)
class Cursor:
    """A place in the data: ``position`` sequences of ``epoch`` are used up. Both count from 0."""

    epoch: int
    position: int


class Batches:
    """Batches over the training sequences, without end; every epoch uses each sequence once.

    All batches have the same size. A batch may hold the end of one epoch and the beginning of the next, and several
    epochs where there are fewer sequences than it takes.
    """

    def __init__(self, train: Rows, batch_size: int, seed: int) -> None:
        assert len(train) > 0 and batch_size > 0, "load_dataset refuses data without a sequence to train on"
        self._train = train
        self._batch_size = batch_size
        self._seed = seed
        self._cursor = Cursor(0, 0)
        self._order = self._order_of(0)

    @property
    def sequences(self) -> int:
        """How many sequences an epoch has."""
        return len(self._train)

    def next(self) -> AnyBatch:
        """The batch at the cursor; the cursor moves on to the next."""
        rows: list[NDArray[np.int64]] = []
        wanted = self._batch_size
        while wanted:
            if self._cursor.position == len(self._train):
                self.restore(Cursor(self._cursor.epoch + 1, 0))
            epoch, position = self._cursor.epoch, self._cursor.position
            rows.append(self._order[position : position + wanted])
            wanted -= len(rows[-1])
            self._cursor = Cursor(epoch, position + len(rows[-1]))
        return make_batch(self._train, np.concatenate(rows))

    def state(self) -> Cursor:
        """Where the next batch begins."""
        return self._cursor

    def restore(self, cursor: Cursor) -> None:
        """Go to a place that :meth:`state` returned.

        Raises DataError where the data has no such place: the data has changed since.
        """
        if cursor.epoch < 0 or not 0 <= cursor.position <= len(self._train):
            raise DataError(
                f"the saved place in the data is sequence {cursor.position:,} of epoch {cursor.epoch:,}, but there are "
                f"{len(self._train):,} sequences: the data has changed; bring back the data as it was, or start anew"
            )
        if cursor.epoch != self._cursor.epoch:
            self._order = self._order_of(cursor.epoch)
        self._cursor = cursor

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        scratch = self._train.scratch if isinstance(self._train, Sequences) else IN_MEMORY
        return permutation(len(self._train), f"{self._seed}:epoch:{epoch}", scratch)


def make_batch(data: Rows, rows: NDArray[np.int64]) -> AnyBatch:
    """The sequences or records with these numbers, int64 [b], as a batch."""
    if isinstance(data, Examples):
        return _labelled_batch(data.take(rows))
    ids, trained, positions = data.gather(rows)
    input_ids = torch.from_numpy(ids.astype(np.int64))
    labels = torch.where(torch.from_numpy(trained), input_ids, IGNORED)
    if (positions == np.arange(positions.shape[1])).all():
        return Batch(input_ids, labels)
    return Batch(input_ids, labels, torch.from_numpy(positions.astype(np.int64)))


def _labelled_batch(examples: Examples) -> LabelledBatch:
    """All of these records, padded on the right."""
    lengths = np.diff(examples.starts)
    mask = np.arange(lengths.max()) < lengths[:, None]
    input_ids = np.full(mask.shape, examples.pad, np.int64)
    types = np.zeros(mask.shape, np.int64)
    input_ids[mask], types[mask] = examples.ids, examples.types
    columns = (input_ids, mask.astype(np.int64), types, examples.labels)
    return LabelledBatch(*map(torch.from_numpy, columns))


def ordered_batches(data: Rows, batch_size: int, limit: int | None = None) -> Iterator[AnyBatch]:
    """All sequences or records in order, or the first ``limit`` of them; the last batch may be smaller."""
    count = len(data) if limit is None else min(limit, len(data))
    for start in range(0, count, batch_size):
        yield make_batch(data, np.arange(start, min(start + batch_size, count)))


def heldout_batches(data: PackedData | LabelledData, batch_size: int, limit: int | None = None) -> Iterator[AnyBatch]:
    """The held-out sequences or records in order, at most ``limit`` of them."""
    return ordered_batches(data.heldout, batch_size, limit)
