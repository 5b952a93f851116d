"""Which compiled code does a codec's work on which kind of device: the one table of that choice.

::

               cpu                        cuda
    int8       native (C)                 fused (Triton)
    int4       native (C)                 fused (Triton)
    topk       native (C)                 torch
    the rest   torch                      torch
"""

from collections.abc import Mapping

import torch

from deca_node.numerics.codecs import fused, native
from deca_node.numerics.codecs.kernels import Kernels

Table = Mapping[tuple[str, str], Kernels]
"""Kernels by the codec's name and torch's word for a kind of device."""

TABLE: Table = {
    **{(codec, "cpu"): kernels for codec, kernels in native.load_built().items()},
    **{(codec, "cuda"): kernels for codec, kernels in fused.CODECS.items()},
}

TORCH = Kernels()


def kernels_of(codec: str, device: torch.device) -> Kernels:
    """The kernels of a codec on a device; where the table has none, all work is left to torch."""
    return TABLE.get((codec, device.type), TORCH)
