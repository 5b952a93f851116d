"""A rank's part of a batch, and what it computes of it. Rank 0 does the same as the others."""

import resource
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from deca_node.numerics.data.batches import AnyBatch
from deca_node.numerics.learning.loss import backward
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
