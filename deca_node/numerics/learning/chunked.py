"""The loss in chunks of a sequence, so that the logits of a whole batch never exist at once.

With a vocabulary of 152,000 the float32 logits of 4,096 tokens take 2.5 GB, and the loss and its gradient as much again
each. So the last hidden states are made first, and then the head and the loss, some tokens at a time. The backward pass
computes each chunk's logits anew (torch.utils.checkpoint), which costs one more forward pass of the head. Small logits
are left whole.

The head is run by the model itself, with its inner model replaced for the moment by one that returns the hidden states:
so a family's own scaling or capping of logits is kept. Whether that gives the model's logits is tried on a few tokens.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import BaseModelOutput

from deca_node.numerics.data.batches import IGNORED

CHUNK_BYTES = 128 << 20
"""The size of a chunk's float32 logits. A batch whose logits are no larger is not cut."""
TOKENS = 4
"""Tokens of the trial."""
ALIKE = 1e-2
"""The largest relative difference of logits in the trial; in 16 bits, products of other shapes round otherwise."""

_chunkable: "WeakKeyDictionary[nn.Module, bool]" = WeakKeyDictionary()


def cut_losses(model: nn.Module, inputs: dict[str, Any], labels: Tensor) -> Tensor | None:
    """The loss of each token given those before it, float32 [b, L - 1], as the sum of chunks makes it; ``labels`` int64
    [b, L] on the model's device. None if the logits are small, or the model cannot be cut."""
    rows, length = labels.shape
    size = int(CHUNK_BYTES // (4 * _vocabulary(model) * rows)) if _vocabulary(model) else length
    if size >= length - 1 or not chunkable(model):
        return None
    hidden, targets = _hidden(model, inputs)[:, :-1], labels[:, 1:]
    pairs = zip(hidden.split(max(size, 1), dim=1), targets.split(max(size, 1), dim=1), strict=True)
    parts = [checkpoint(_losses, model, inputs["input_ids"], *pair, use_reentrant=False) for pair in pairs]
    return torch.cat(parts, dim=1)


def leave_whole(model: nn.Module) -> None:
    """Never cut the losses of this model."""
    _chunkable[model] = False


@torch.no_grad()
def chunkable(model: nn.Module) -> bool:
    """Whether head and inner model of a model can be run apart. Found once, by a forward pass over a few tokens."""
    if model not in _chunkable:
        _chunkable[model] = _same_apart(model)
    return _chunkable[model]


def _same_apart(model: nn.Module) -> bool:
    inner = getattr(model, "base_model", model)
    if inner is model or not _vocabulary(model):
        return False
    training = model.training
    model.eval()
    try:
        device = next(model.parameters()).device
        ids = torch.arange(TOKENS, device=device)[None] % _vocabulary(model)
        whole = model(input_ids=ids, use_cache=False).logits.float()
        parts = _hidden(model, {"input_ids": ids}).split(TOKENS // 2, dim=1)
        apart = torch.cat([_logits(model, ids, part) for part in parts], dim=1).float()
    except (TypeError, ValueError, RuntimeError, AttributeError, LookupError, AssertionError):
        return False
    finally:
        model.train(training)
    return apart.shape == whole.shape and bool((apart - whole).norm() <= ALIKE * whole.norm())


def _vocabulary(model: nn.Module) -> int:
    head = getattr(model, "get_output_embeddings", lambda: None)()
    weight = getattr(head, "weight", None)
    return 0 if weight is None else int(weight.shape[0])


def _losses(model: nn.Module, ids: Tensor, hidden: Tensor, targets: Tensor) -> Tensor:
    logits = _logits(model, ids, hidden).float()
    flat = nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), ignore_index=IGNORED, reduction="none"
    )
    return flat.view(targets.shape)


def _hidden(model: nn.Module, inputs: dict[str, Any]) -> Tensor:
    """The last hidden states [b, L, hidden], with the whole model's graph but that of the head."""
    found: list[Tensor] = []

    def first_token(forward: Callable[..., Any], *given: Any, **named: Any) -> Any:
        out = forward(*given, **named)
        found.append(out.last_hidden_state)
        return type(out)(**{**out, "last_hidden_state": out.last_hidden_state[:, :1]})

    with _replaced(model, first_token):
        model(**inputs, use_cache=False)
    return found[0]


def _logits(model: nn.Module, ids: Tensor, hidden: Tensor) -> Tensor:
    """The head's logits of some hidden states."""
    with _replaced(model, lambda *_, **__: _Only(last_hidden_state=hidden)):
        logits: Tensor = model(input_ids=ids[:, : hidden.shape[1]], use_cache=False).logits
    return logits


class _Only(BaseModelOutput):
    """Hidden states, and None of everything else that an inner model may return, such as the routes of experts."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


@contextmanager
def _replaced(model: nn.Module, by: Callable[..., Any]) -> Iterator[None]:
    """Have ``by`` called in place of the inner model's forward, which is its first argument."""
    inner: Any = model.base_model
    forward = inner.forward
    inner.forward = lambda *given, **named: by(forward, *given, **named)
    try:
        yield
    finally:
        del inner.forward
