"""What the model is tuned for: the mean negative log-likelihood of the tokens that count, in nats."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from deca_node.numerics.batches import IGNORED, Batch


def nll_sum(model: nn.Module, input_ids: Tensor, labels: Tensor) -> Tensor:
    """Sum of the next-token losses where ``labels`` (int64 [b, L]) are not ignored; a float32 scalar."""
    logits = model(input_ids=input_ids, use_cache=False).logits[:, :-1]
    targets = labels[:, 1:]
    return nn.functional.cross_entropy(
        logits.float().reshape(-1, logits.shape[-1]), targets.reshape(-1), ignore_index=IGNORED, reduction="sum"
    )


def backward(model: nn.Module, batch: Batch, micro_batch: int, device: torch.device) -> float:
    """Backward passes for the gradient of the batch's mean loss, ``micro_batch`` sequences at a time (0: all).

    Every token weighs the same, however the batch is cut. Returns the mean loss, in nats per token.
    """
    size = micro_batch or len(batch.input_ids)
    tokens = max(batch.predicted, 1)
    total = 0.0
    for ids, labels in zip(batch.input_ids.split(size), batch.labels.split(size), strict=True):
        loss = nll_sum(model, ids.to(device), labels.to(device)) / tokens
        loss.backward()
        total += float(loss.detach())
    return total


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[Batch], device: torch.device) -> tuple[float, int]:
    """Mean loss over all tokens that count in ``batches``, in nats per token, and how many there are."""
    was_training = model.training
    model.eval()
    total, tokens = 0.0, 0
    for batch in batches:
        total += float(nll_sum(model, batch.input_ids.to(device), batch.labels.to(device)))
        tokens += batch.predicted
    model.train(was_training)
    return total / max(tokens, 1), tokens
