"""The loss that the model is tuned for, and the judgements that are made with it.

The loss is the mean negative log-likelihood in nats: of the tokens that are learnt, or of a classifier's labels.
"""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from deca_node.numerics.data.batches import IGNORED, AnyBatch, Batch, LabelledBatch
from deca_node.numerics.learning.chunked import cut_losses
from deca_node.numerics.learning.isolation import model_inputs, passes


@dataclass(frozen=True)
class Scores:
    """``loss`` in nats per token or record, over ``count`` of them. ``scalars`` holds a classifier's shares, from 0 to
    1: ``accuracy``, and ``macro_f1``, in which every label that occurs has the same weight."""

    loss: float
    count: int
    scalars: Mapping[str, float] = field(default_factory=dict)


def nll_sum(model: nn.Module, batch: Batch, device: torch.device) -> Tensor:
    """Sum of the losses of all learnt tokens; a float32 scalar."""
    return _token_losses(model, batch, device, "sum")


def nll_per_row(model: nn.Module, batch: Batch, device: torch.device) -> Tensor:
    """The same sum for each row; float32 [b]."""
    return _token_losses(model, batch, device, "none").view(len(batch.input_ids), -1).sum(dim=1)


def _token_losses(model: nn.Module, batch: Batch, device: torch.device, reduction: str) -> Tensor:
    """Cross entropy of each learnt token given those before it in its record, float32; [b (L - 1)] or a scalar."""
    inputs, labels = model_inputs(model, batch, device), batch.labels.to(device)
    cut = cut_losses(model, inputs, labels)
    if cut is not None:
        return cut.sum() if reduction == "sum" else cut.reshape(-1)
    # Without use_cache = False transformers would make a cache, and with a cache no mask between records.
    logits = model(**inputs, use_cache=False).logits[:, :-1].float()
    targets = labels[:, 1:].reshape(-1)
    return nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), targets, ignore_index=IGNORED, reduction=reduction
    )


def class_logits(model: nn.Module, batch: LabelledBatch, device: torch.device) -> Tensor:
    """The classifier's logits for each record, float32 [b, labels]."""
    inputs: dict[str, Any] = {
        "input_ids": batch.input_ids.to(device),
        "attention_mask": batch.attention_mask.to(device),
    }
    if (getattr(model.config, "type_vocab_size", None) or 0) > 1:
        inputs["token_type_ids"] = batch.token_type_ids.to(device)
    # Decoders would keep keys and values for a continuation that never comes; encoders have no such argument.
    if "use_cache" in inspect.signature(model.forward).parameters:
        inputs["use_cache"] = False
    logits: Tensor = model(**inputs).logits
    return logits.float()


def backward(
    model: nn.Module, batch: AnyBatch, micro_batch: int, device: torch.device, counted: int | None = None
) -> float:
    """Backward passes for the gradient of the batch's mean loss, ``micro_batch`` sequences at a time (0: all).

    Every token or record weighs the same, however the batch is cut. Returns the mean loss, in nats per token or record.
    If the batch is a rank's share of a larger one, ``counted`` is what that one counts; gradients and losses of all
    shares then add up to those of the whole.
    """
    counted = max(batch.predicted, 1) if counted is None else counted
    total = 0.0
    for part in passes(model, batch, micro_batch):
        loss = batch_nll(model, part, device) / counted
        loss.backward()
        total += float(loss.detach())
    return total


@torch.no_grad()
def score(model: nn.Module, batch: AnyBatch, device: torch.device, labels: int = 0) -> Tensor:
    """The sum of the losses of a batch, and the table of a classifier's answers: float64 [1 + labels²] on the CPU."""
    found = torch.zeros(1 + labels * labels, dtype=torch.float64)
    with judging(model):
        if isinstance(batch, LabelledBatch):
            logits = class_logits(model, batch, device).cpu()
            found[0] = nn.functional.cross_entropy(logits, batch.labels, reduction="sum")
            found[1:] = torch.bincount(batch.labels * labels + logits.argmax(dim=1), minlength=labels * labels)
        else:
            found[0] = sum(float(batch_nll(model, part, device)) for part in passes(model, batch, 0))
    return found


def summed(rows: Iterable[tuple[Tensor, int]], labels: int = 0) -> Scores:
    """What the results of :func:`score` come to, each with the number of tokens or records that its batch counts."""
    total, counted = torch.zeros(1 + labels * labels, dtype=torch.float64), 0
    for row, count in rows:
        total += row
        counted += count
    table = total[1:].to(torch.int64).view(labels, labels)
    return Scores(float(total[0]) / max(counted, 1), counted, shares(table) if labels and counted else {})


def evaluate(model: nn.Module, batches: Iterable[AnyBatch], device: torch.device) -> tuple[float, int]:
    """Mean loss in nats over all learnt tokens, or all records, of ``batches``, and how many there are."""
    found = summed((score(model, batch, device), batch.predicted) for batch in batches)
    return found.loss, found.count


def classify(model: nn.Module, batches: Iterable[LabelledBatch], device: torch.device, labels: int) -> Scores:
    """How well the model sorts the records of ``batches`` into ``labels`` labels."""
    return summed(((score(model, batch, device, labels), batch.predicted) for batch in batches), labels)


def shares(table: Tensor) -> dict[str, float]:
    """Accuracy and macro-F1 of a table of counts, int64 [true label, answered label], with one record at least.

    F1 of a label is 2 hits / (records of it + times answered); the mean is over the labels that occur in either.
    """
    hits = table.diagonal()
    occurring = table.sum(dim=1) + table.sum(dim=0)
    f1 = 2.0 * hits[occurring > 0] / occurring[occurring > 0]
    return {"accuracy": float(hits.sum() / table.sum()), "macro_f1": float(f1.mean())}


def batch_nll(model: nn.Module, batch: AnyBatch, device: torch.device) -> Tensor:
    """Sum of the losses of all learnt tokens, or of all records, in the batch; a float32 scalar."""
    if isinstance(batch, LabelledBatch):
        logits = class_logits(model, batch, device)
        return nn.functional.cross_entropy(logits, batch.labels.to(device), reduction="sum")
    return nll_sum(model, batch, device)


@contextmanager
def judging(model: nn.Module) -> Iterator[None]:
    """Turn dropout off meanwhile, and back to what it was afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
