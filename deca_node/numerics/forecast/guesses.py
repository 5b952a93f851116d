"""Answers for a model on the meta device that asks for numbers, which there are none of there.

A few architectures read a number in the middle of a step: how many tokens an expert gets, whether a row has padding,
how long the longest sequence is. What they read decides how much memory a step takes. The answers are those of an even
spread::

    a number        1, and for a truth value the one that the tracer tries
    split by counts as many rows for every expert
    non-zero places of a vector all of them, since every expert gets tokens; of a mask of pairs one of so many experts
                    (as the last vector had places)
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
"""What the configs call the number of experts."""


class Answers(TorchDispatchMode):
    """Answers operations that need numbers; ``truth`` is the answer to a question of yes or no."""

    def __init__(self, experts: int, *, truth: bool) -> None:
        super().__init__()
        self._experts, self._truth = experts, truth

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if args and isinstance(args[0], Tensor) and args[0].is_meta:
            if func is torch.ops.aten._local_scalar_dense.default:
                return (
                    self._truth
                    if args[0].dtype == torch.bool
                    else torch.ones((), dtype=args[0].dtype, device="cpu").item()
                )
            if func is torch.ops.aten.nonzero.default:
                found = args[0].numel()
                if args[0].dim() < 2:
                    self._experts = max(found, 1)
                else:
                    found = -(-found // self._experts)
                return args[0].new_empty(found, args[0].dim(), dtype=torch.long)
        return func(*args, **(kwargs or {}))


class Even(TorchFunctionMode):
    """Splits by counts that nobody knows into equal parts."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.tolist and args[0].is_meta:
            return torch.ones(args[0].shape, dtype=args[0].dtype, device="cpu").tolist()
        if func in (Tensor.split, torch.split) and args[0].is_meta:
            return func(args[0], *_even(args, kwargs), **kwargs)
        return func(*args, **kwargs)


def experts_of(config: Any) -> int:
    """How many experts a layer has; 1 if it has none."""
    named = (getattr(config, name, None) for name in EXPERTS)
    return max((value for value in named if isinstance(value, int)), default=1)


def _even(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    if len(args) < 2 or not isinstance(args[1], list | tuple):
        return args[1:]
    sizes, dim = args[1], args[2] if len(args) > 2 else kwargs.get("dim", 0)
    rows = args[0].shape[dim]
    if sum(sizes) == rows:
        return args[1:]
    most = -(-rows // len(sizes))
    return [min(most, max(0, rows - k * most)) for k in range(len(sizes))], *args[2:]
