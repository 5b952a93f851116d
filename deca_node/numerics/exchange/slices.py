"""A block's vector in slices that fit the cache and never straddle two parameters."""

from collections.abc import Sequence
from typing import NamedTuple

from deca_node.numerics.model.blocks import Span


class Slice(NamedTuple):
    """Elements [start, stop) of the block's vector, all of them in parameter number ``tensor``."""

    start: int
    stop: int
    tensor: int


def cut(layout: Sequence[Span], size: int) -> tuple[Slice, ...]:
    """Slices of at most ``size`` elements that do not straddle two parameters."""
    return tuple(
        Slice(start, min(start + size, span.stop), tensor)
        for tensor, span in enumerate(layout)
        for start in range(span.start, span.stop, size)
    )
