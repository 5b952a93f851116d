"""int8 and int4 on a CUDA device, in one pass each: the difference with its codes, and what a flow adds to an edge.

In torch each of the two is a handful of kernels that read and write the whole slice. Here a slice is read once and
written once (:mod:`deca_node.numerics.codecs.triton_kernels`), with the same bits. Without Triton torch does the work.
It also encodes the last group of a block if that is shorter than the others.
"""

from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from deca_node.numerics.codecs.kernels import Kernels

PROGRAM_ELEMENTS = 2048
"""Elements that one program of a kernel works on."""

SLICE_ELEMENTS = 1 << 24
"""Elements of one launch: the codes of so many lie on the device until they are copied to where they go."""

SCALE_BYTES = 4


class Fused(Kernels):
    """The Triton kernels of one codec: groups of codes -q..q, ``packed`` two to a byte."""

    def __init__(self, group: int, q: int, packed: bool) -> None:
        self._group, self._q, self._packed = group, q, packed
        self._row_bytes = SCALE_BYTES + (group // 2 if packed else group)

    def encode_difference(self, x: Tensor, x_hat: Tensor, out: Tensor) -> int:
        kernels, groups = self._kernels(x), x.numel() // self._group
        if kernels is None or not (x.is_contiguous() and x_hat.is_contiguous()):
            return 0
        step = SLICE_ELEMENTS // self._group
        for first in range(0, groups, step):
            last = min(first + step, groups)
            here = slice(first * self._group, last * self._group)
            codes = out[first * self._row_bytes : last * self._row_bytes]
            if not self._encode_groups(kernels, x[here], x_hat[here], codes):
                return here.start
        return groups * self._group

    def _encode_groups(self, kernels: ModuleType, x: Tensor, x_hat: Tensor, out: Tensor) -> bool:
        """Whole groups; False if a difference is not finite."""
        groups = x.numel() // self._group
        codes = torch.empty(groups * self._row_bytes, dtype=torch.uint8, device=x.device)
        bad = torch.zeros(1, dtype=torch.int32, device=x.device)
        rows = PROGRAM_ELEMENTS // self._group
        shape = {"GROUP": self._group, "Q": self._q, "PACKED": self._packed, "ROWS": rows}
        launch = kernels.encode_difference[-(-groups // rows),]
        launch(x, x_hat, codes.view(torch.float32), codes, bad, groups, **shape, enable_fp_fusion=False)
        if bad.item():
            return False
        out.copy_(codes)
        return True

    def add_difference(self, theirs: Tensor, ours: Tensor, start: int, e: Tensor) -> bool:
        kernels = self._kernels(e)
        if kernels is None or not e.is_contiguous():
            return False
        first, n = start // self._group, e.numel()
        lead, last = start - first * self._group, -(-(start + n) // self._group)
        # The last row of a buffer may be shorter, and then the slice ends with it.
        rows = slice(first * self._row_bytes, last * self._row_bytes)
        q_j, q_i = (_aligned(codes[rows].to(e.device)) for codes in (theirs, ours))
        floats_j, floats_i = (codes[: codes.numel() // 4 * 4].view(torch.float32) for codes in (q_j, q_i))
        shape = {"GROUP": self._group, "PACKED": self._packed, "BLOCK": PROGRAM_ELEMENTS}
        launch = kernels.add_difference[-(-n // PROGRAM_ELEMENTS),]
        launch(floats_j, q_j, floats_i, q_i, q_j.numel(), lead, e, n, **shape, enable_fp_fusion=False)
        return True

    def _kernels(self, x: Tensor) -> ModuleType | None:
        return _load() if x.dtype == torch.float32 and x.numel() > 0 else None


CODECS = {"int8": Fused(256, 127, packed=False), "int4": Fused(64, 7, packed=True)}
"""The kernels by codec."""


@cache
def _load() -> ModuleType | None:
    try:
        from deca_node.numerics.codecs import triton_kernels
    except ImportError:
        return None
    return triton_kernels


def _aligned(codes: Tensor) -> Tensor:
    """Scales are read as float32, so the first byte has to lie at a multiple of four."""
    return codes if codes.data_ptr() % 4 == 0 and codes.storage_offset() % 4 == 0 else codes.clone()
