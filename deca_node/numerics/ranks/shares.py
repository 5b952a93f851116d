"""A rank's part of a batch, and what it computes of it. Rank 0 does the same as the others."""

import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from deca_node.numerics.data.batches import AnyBatch
from deca_node.numerics.learning.isolation import passes
from deca_node.numerics.learning.loss import backward, batch_nll, judging, score
from deca_node.numerics.learning.privacy import Losses, clipped_sum
from deca_node.numerics.ranks.orders import Gradient


def share_of(batch: AnyBatch, rank: int, ranks: int) -> AnyBatch | None:
    """The rows of a batch that a rank takes: as many as each other rank, or one more or less. None: no row."""
    rows = len(batch.input_ids)
    sizes = [rows // ranks + (each < rows % ranks) for each in range(ranks)]
    parts: list[AnyBatch] = [*batch.split(sizes)]
    return parts[rank] if sizes[rank] else None


def add_gradient(
    model: nn.Module, grad: Tensor, share: AnyBatch | None, order: Gradient, micro_batch: int, device: torch.device
) -> Losses:
    """Add a share's gradient to ``grad``, which is zero; returns its part of the mean loss, or of the sum of losses
    where the gradient is private."""
    if order.clip:
        singles = share.split(1) if share is not None else ()
        return clipped_sum(grad, [partial(backward, model, one, 0, device) for one in singles], order.clip)
    loss = backward(model, share, micro_batch, device, order.counted) if share is not None else 0.0
    return Losses(loss, order.counted)


def add_even_gradient(
    model: nn.Module, batch: AnyBatch, order: Gradient, micro_batch: int, device: torch.device, rank: int, ranks: int
) -> Losses:
    """Run the backward passes of a rank's share through a sharded model; returns the share's part of the mean loss.

    Every rank runs as many passes as the others, since a layer's parameters are gathered at all ranks or at none. A
    pass that a rank has no rows for counts nothing.
    """
    shares = [share_of(batch, each, ranks) for each in range(ranks)]
    total = 0.0
    for part, counts in even(model, shares, rank, micro_batch):
        loss = batch_nll(model, part, device) / order.counted * float(counts)
        loss.backward()
        total += float(loss.detach())
    return Losses(total, order.counted)


@torch.no_grad()
def score_even(
    model: nn.Module, batches: Sequence[AnyBatch | None], rank: int, device: torch.device, labels: int
) -> Tensor:
    """:func:`~deca_node.numerics.learning.loss.score` of a rank's batch, through a sharded model; zeros without one.

    Every rank runs as many passes as the others.
    """
    own = batches[rank]
    row = torch.zeros(1 + labels * labels, dtype=torch.float64)
    if own is not None:
        row = score(model, own, device, labels)
    with judging(model):
        for part, counts in even(model, batches, rank, 0):
            if not counts:
                batch_nll(model, part, device)
    return row


def even(model: nn.Module, shares: Sequence[AnyBatch | None], rank: int, size: int) -> Iterator[tuple[AnyBatch, bool]]:
    """The passes of one rank's share, and others that do not count, so that every rank has the same number."""
    parts = [[] if share is None else list(passes(model, share, size)) for share in shares]
    yield from ((part, True) for part in parts[rank])
    rows: list[AnyBatch] = [*next(part for each in parts for part in each).split(1)]
    yield from ((rows[0], False) for _ in range(max(map(len, parts)) - len(parts[rank])))


def timed(work: Callable[[], Losses], device: torch.device) -> Tensor:
    """Do a rank's work; returns its row of figures, float64 [4]: losses and their number, seconds, peak bytes."""
    began = time.perf_counter()
    losses = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    row = [losses.total, losses.examples, time.perf_counter() - began, peak_bytes(device)]
    return torch.tensor(row, dtype=torch.float64)


def peak_bytes(device: torch.device) -> int:
    """The most memory that this process has used so far: that of its CUDA device, or else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
