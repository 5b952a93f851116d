"""How the records in one row are kept from seeing each other. It depends on the model, and the model is asked.

Positions start anew at each record. There are three ways, tried in this order::

    POSITIONS   position_ids alone: most models let transformers make a block-diagonal mask of them, with sliding
                windows where layers have them. Only without a cache: with one it ignores them in silence
    MASK        position_ids, and the same masks made by us, for models that take masks but make none of positions
    ROWS        every record in a row of its own, for what no mask reaches: recurrent layers, state spaces, convolutions

A way is right if a small pack shows two things. The outputs at the second record do not depend on the first: their
derivative by the first record's embeddings is zero, exactly, in any precision. And they are those of the record alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.masking_utils import create_masks_for_generate

from deca_node.numerics.data.batches import IGNORED, AnyBatch, Batch

PROBE = (5, 7)
"""Lengths of the two records of the small pack."""
REFUSALS = (TypeError, ValueError, RuntimeError, AttributeError, LookupError, AssertionError)
"""How architectures say that they do not take an argument, or not of this shape."""
SHORT, EXACT = 0.1, 1e-3
"""Largest RMS difference between packed and alone, in units of the logits' spread: in 16 bits, and in 32."""


class Way(Enum):
    """See the module."""

    POSITIONS = "position ids"
    MASK = "an attention mask"
    ROWS = "a row for each record"


_found: "WeakKeyDictionary[nn.Module, Way]" = WeakKeyDictionary()


def way_of(model: nn.Module) -> Way:
    """The first way that is right for this model. Found once, by a forward and a backward pass over a few tokens."""
    if model not in _found:
        _found[model] = next((way for way in (Way.POSITIONS, Way.MASK) if _isolates(model, way)), Way.ROWS)
    return _found[model]


def passes(model: nn.Module, batch: AnyBatch, size: int) -> Iterator[AnyBatch]:
    """The batch in parts of ``size`` rows (0: whole), as the model takes them. Nothing that is learnt is left out."""
    for part in batch.split(size or len(batch.input_ids)):
        if isinstance(part, Batch) and part.positions is not None and way_of(model) is Way.ROWS:
            yield from apart(part)
        else:
            yield part


def model_inputs(model: nn.Module, batch: Batch, device: torch.device) -> dict[str, Any]:
    """What the model is called with, beside ``use_cache=False``, on ``device``."""
    inputs = {"input_ids": batch.input_ids.to(device)}
    if batch.positions is None:
        return inputs
    return inputs | _placed(model, way_of(model), batch.positions.to(device))


def apart(batch: Batch) -> Iterator[Batch]:
    """A batch's records in rows of their own, padded on the right, in parts no larger than the batch. Records in which
    nothing is learnt are left out."""
    assert batch.positions is not None
    records = sorted(_records(batch), key=lambda record: -len(record[0]))
    while records:
        count = max(batch.input_ids.numel() // len(records[0][0]), 1)
        taken, records = records[:count], records[count:]
        ids, labels = zip(*taken, strict=True)
        yield Batch(_padded(ids, 0), _padded(labels, IGNORED))


def _records(batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
    """Ids and labels of each record, int64 [length]."""
    assert batch.positions is not None
    for ids, labels, positions in zip(batch.input_ids, batch.labels, batch.positions, strict=True):
        starts = [*(positions == 0).nonzero().flatten().tolist(), len(ids)]
        for start, stop in pairwise(starts):
            if (labels[start + 1 : stop] != IGNORED).any():
                yield ids[start:stop], labels[start:stop]


def _padded(rows: tuple[Tensor, ...], value: int) -> Tensor:
    return nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)


def _placed(model: nn.Module, way: Way, positions: Tensor) -> dict[str, Any]:
    """The inputs beside the ids; ``positions`` int64 [b, L]."""
    if way is not Way.MASK:
        return {"position_ids": positions}
    # A mask [b, 1, L, L], or one for each kind of layer, in the form that the model's attention takes.
    config: Any = model.config
    shape = torch.empty(*positions.shape, 1, dtype=next(model.parameters()).dtype, device=positions.device)
    masks = create_masks_for_generate(config.get_text_config(), shape, None, None, position_ids=positions)
    return {"position_ids": positions, "attention_mask": masks}


# --- is a way right? --------------------------------------------------------------------------------


def _isolates(model: nn.Module, way: Way) -> bool:
    ids, positions = _small_pack(model)
    first = PROBE[0]
    was_training = model.training
    model.eval()
    try:
        with _embeddings(model) as captured, torch.enable_grad():
            packed = _logits(model, ids, **_placed(model, way, positions))[:, first:]
            (slope,) = torch.autograd.grad(packed.float().square().sum(), captured[0])
        with torch.no_grad():
            alone = _logits(model, ids[:, first:]).float()
    except REFUSALS:
        return False
    finally:
        model.train(was_training)
    distance = (packed.detach().float() - alone).square().mean().sqrt() / alone.std()
    limit = SHORT if packed.dtype.itemsize < 4 else EXACT
    return bool((slope[:, :first] == 0).all()) and bool(distance <= limit)


def _small_pack(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Two rows of two records each, without special tokens as far as the config names them; int64 [2, 12] both."""
    config: Any = model.config
    special = {getattr(config, name, None) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    rows = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    tokens = [token for token in range(min(rows, 1000)) if token not in special]
    device = next(model.parameters()).device
    ids = torch.tensor([tokens[(7 * k + 3) % len(tokens)] for k in range(2 * sum(PROBE))], device=device)
    positions = torch.cat([torch.arange(length, device=device) for length in PROBE])
    return ids.view(2, -1), positions.expand(2, -1)


def _logits(model: nn.Module, ids: Tensor, **placed: Any) -> Tensor:
    logits: Tensor = model(input_ids=ids, use_cache=False, **placed).logits
    return logits


@contextmanager
def _embeddings(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collects the embeddings of forward passes, as leaves by which a derivative can be taken."""
    captured: list[Tensor] = []

    def catch(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        captured.append(output.detach().requires_grad_())
        return captured[-1] * 1  # Some models write into their embeddings, which a leaf does not allow.

    embedding: Any = model.get_input_embeddings()  # type: ignore[operator]
    hook = embedding.register_forward_hook(catch)
    try:
        yield captured
    finally:
        hook.remove()
