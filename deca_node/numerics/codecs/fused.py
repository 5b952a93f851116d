"""int8 and int4 on a CUDA device in one pass each: the difference with its codes, and what a flow adds to an edge.

In torch each is a handful of kernels that read and write the whole slice; here a slice is read once and written
once (:mod:`deca_node.numerics.codecs.triton_kernels`). The bits are those of the torch code in
:mod:`deca_node.numerics.codecs.formats`, which does the work wherever this does not: on other devices, without Triton,
for other codecs, and for the last group of a block where that is shorter.
"""

from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from deca_node.numerics.codecs.formats import Codec, Int4, Int8

PROGRAM_ELEMENTS = 2048
"""What one program works on."""


def encode_difference(codec: Codec, x: Tensor, x_hat: Tensor, out: Tensor) -> int:
    """q = Q(x - x^) into ``out`` (uint8, any device), x^ += q; returns how many elements from the first on are done.

    None are where a difference is not finite; x^ may then have taken up part of it.
    """
    kernels, groups = _kernels(codec, x), x.numel() // codec.group
    if kernels is None or not groups or not (x.is_contiguous() and x_hat.is_contiguous()):
        return 0
    assert isinstance(codec, Int8 | Int4)
    codes = torch.empty(codec.nbytes(groups * codec.group), dtype=torch.uint8, device=x.device)
    bad = torch.zeros(1, dtype=torch.int32, device=x.device)
    rows = PROGRAM_ELEMENTS // codec.group
    shape = {"GROUP": codec.group, "Q": codec.q, "PACKED": isinstance(codec, Int4), "ROWS": rows}
    launch = kernels.encode_difference[-(-groups // rows),]
    launch(x, x_hat, codes.view(torch.float32), codes, bad, groups, **shape, enable_fp_fusion=False)
    if bad.item():
        return 0
    out[: codes.numel()].copy_(codes)
    return groups * codec.group


def add_difference(codec: Codec, theirs: Tensor, ours: Tensor, start: int, e: Tensor) -> bool:
    """e += q_j - q_i: e (float32) holds elements from ``start`` on, the codes are whole buffers, on any device."""
    kernels = _kernels(codec, e)
    if kernels is None or not e.is_contiguous():
        return False
    lead, n = start % codec.group, e.numel()
    first, last = codec.nbytes(start - lead), codec.nbytes(-(-(start + n) // codec.group) * codec.group)
    q_j, q_i = (_aligned(codes[first : min(last, codes.numel())].to(e.device)) for codes in (theirs, ours))
    floats_j, floats_i = (codes[: codes.numel() // 4 * 4].view(torch.float32) for codes in (q_j, q_i))
    shape = {"GROUP": codec.group, "PACKED": isinstance(codec, Int4), "BLOCK": PROGRAM_ELEMENTS}
    launch = kernels.add_difference[-(-n // PROGRAM_ELEMENTS),]
    launch(floats_j, q_j, floats_i, q_i, q_j.numel(), lead, e, n, **shape, enable_fp_fusion=False)
    return True


def runs_on(device: torch.device) -> bool:
    """Whether kernels are for this device."""
    return device.type == "cuda"


def _kernels(codec: Codec, x: Tensor) -> ModuleType | None:
    fits = type(codec) in (Int8, Int4) and x.dtype == torch.float32 and x.numel() > 0
    return _load() if fits and runs_on(x.device) else None


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
