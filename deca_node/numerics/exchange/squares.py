"""Sums of squares, added slice by slice: an RMS over a whole block is made of them."""

import math

import torch
from torch import Tensor

from deca_node.numerics.device import wide


class Squares:
    """Sums of squares by name. They are kept on the device, so that no slice waits for it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums: dict[str, Tensor] = {}
        self._elements: dict[str, int] = {}

    def add(self, name: str, x: Tensor) -> None:
        """Add the squares of x, float32 [n]."""
        self.add_sum(name, square(x), x.numel())

    def add_sum(self, name: str, total: Tensor, elements: int) -> None:
        """Add the sum of the squares of so many elements, float64 [] (float32 on MPS)."""
        if name not in self._sums:
            self._sums[name] = torch.zeros((), dtype=wide(self._device), device=self._device)
        self._sums[name] += total
        self._elements[name] = self._elements.get(name, 0) + elements

    def roots(self) -> dict[str, float]:
        """The RMS by name, over all elements that were added."""
        return {name: math.sqrt(total.item() / self._elements[name]) for name, total in self._sums.items()}


def square(x: Tensor) -> Tensor:
    """The sum of squares of x (float32 [n]) as a scalar on its device, float64 (float32 on MPS)."""
    return torch.dot(x, x).to(wide(x.device))
