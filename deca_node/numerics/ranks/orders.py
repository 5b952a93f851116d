"""What rank 0 asks of the others. An order goes as JSON; the batches that it is about go as one vector of numbers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from deca_node.numerics.data.batches import AnyBatch, Batch, LabelledBatch

Shapes = list[list[int]]
"""The shapes of a batch's columns, in the order of its fields. A batch of sequences has two or three of them, and one
of labelled records four."""


@dataclass(frozen=True)
class Gradient:
    """Add your share's gradient in block number ``block`` of one batch, which counts ``counted`` tokens or records.

    ``clip`` is the norm that each record's gradient is clipped to; 0 if it is not private. ``draw`` is the seed of
    what is drawn at random on the way.
    """

    block: int
    counted: int
    draw: int
    clip: float = 0.0


@dataclass(frozen=True)
class Judge:
    """Score the batch with your number, if there is one, for a classifier of so many ``labels`` (0: it is none)."""

    labels: int


@dataclass(frozen=True)
class Read:
    """Give your part of a parameter of a sharded model to rank 0."""

    name: str


@dataclass(frozen=True)
class Write:
    """Take from rank 0 what it changes, elements [start, stop), in your part of a parameter of a sharded model."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class End:
    """There is no more to do."""


Order = Gradient | Judge | Read | Write | End
_ORDERS: dict[str, type[Order]] = {kind.__name__: kind for kind in (Gradient, Judge, Read, Write, End)}


def to_word(order: Order, renewed: Sequence[int], batches: Sequence[AnyBatch]) -> tuple[Any, Tensor]:
    """The order, the numbers of the blocks that are renewed before it, and its batches; the inverse of
    :func:`from_word`."""
    columns = [_columns(batch) for batch in batches]
    word = {
        "order": type(order).__name__,
        "fields": asdict(order),
        "renewed": list(renewed),
        "batches": [[list(column.shape) for column in each] for each in columns],
    }
    flat = [column.reshape(-1) for each in columns for column in each]
    return word, torch.cat(flat) if flat else torch.empty(0, dtype=torch.int64)


def from_word(word: Any, numbers: Tensor) -> tuple[Order, list[int], list[AnyBatch]]:
    """The order, the blocks that are renewed before it, and its batches."""
    batches, start = [], 0
    for shapes in word["batches"]:
        columns = []
        for shape in shapes:
            stop = start + torch.Size(shape).numel()
            columns.append(numbers[start:stop].view(shape))
            start = stop
        batches.append(_batch(columns))
    return _ORDERS[word["order"]](**word["fields"]), word["renewed"], batches


def _columns(batch: AnyBatch) -> list[Tensor]:
    if isinstance(batch, LabelledBatch):
        return [batch.input_ids, batch.attention_mask, batch.token_type_ids, batch.labels]
    return [batch.input_ids, batch.labels, *([] if batch.positions is None else [batch.positions])]


def _batch(columns: Sequence[Tensor]) -> AnyBatch:
    return LabelledBatch(*columns) if len(columns) == 4 else Batch(*columns)
