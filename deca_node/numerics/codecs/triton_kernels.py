"""The Triton kernels behind :mod:`deca_node.numerics.codecs.fused`. Triton comes with torch's CUDA builds.

Arithmetic is float32 in the order of ``formats.py`` and ``codec.c``, so that the bits are those of the torch code.
Divisions round to nearest (``div_rn``), and launches turn off the fusing of multiplications with additions.
"""

import triton  # type: ignore[import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, unused-ignore]

SCALE_BYTES = tl.constexpr(4)
INFINITY_BITS = tl.constexpr(0x7F800000)
FLOAT_MAX = tl.constexpr(3.4028234663852886e38)
FLOAT_TINY = tl.constexpr(1.1754943508222875e-38)
ROUNDER = tl.constexpr(12582912.0)
"""1.5 * 2^23: added and subtracted, it rounds magnitudes below 2^22 to whole numbers, ties to even."""


@triton.jit
def encode_difference(
    x: tl.tensor,
    x_hat: tl.tensor,
    scales: tl.tensor,
    codes: tl.tensor,
    bad: tl.tensor,
    groups: tl.tensor,
    GROUP: tl.constexpr,
    Q: tl.constexpr,
    PACKED: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """q = Q(x - x^), x^ += q, for whole groups, ROWS of them per program.

    x and x^ are float32 [groups * GROUP]; ``scales`` (float32) and ``codes`` (uint8) point to the same bytes. A group
    that is not finite is not encoded, its x^ stays, and ``bad`` (int32 [1]) becomes 1.
    """
    # Both halves of a group are handled together: one byte of int4 holds an element of each.
    HALF: tl.constexpr = GROUP // 2
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    low = row[:, None] * GROUP + tl.arange(0, HALF)[None, :]
    there = (row < groups)[:, None]
    hat_low = tl.load(x_hat + low, mask=there, other=0.0)
    hat_high = tl.load(x_hat + low + HALF, mask=there, other=0.0)
    d_low = tl.load(x + low, mask=there, other=0.0) - hat_low
    d_high = tl.load(x + low + HALF, mask=there, other=0.0) - hat_high
    # Bits of magnitudes are ordered as the magnitudes are, and NaN stands above infinity.
    bits = tl.maximum(tl.max(_magnitude_bits(d_low), 1), tl.max(_magnitude_bits(d_high), 1))
    finite = bits < INFINITY_BITS
    tl.atomic_max(bad, tl.max(1 - finite.to(tl.int32), 0))
    largest = tl.where(finite, bits, 0).to(tl.float32, bitcast=True)
    scale = tl.minimum(tl.maximum(tl.div_rn(largest, Q * 1.0), FLOAT_TINY), FLOAT_MAX / (Q + 1.0))[:, None]
    inverse = tl.div_rn(tl.full(scale.shape, 1.0, tl.float32), scale)
    c_low, c_high = _rounded(d_low, inverse, Q), _rounded(d_high, inverse, Q)
    write = there & finite[:, None]
    tl.store(x_hat + low, hat_low + c_low * scale, mask=write)
    tl.store(x_hat + low + HALF, hat_high + c_high * scale, mask=write)
    ROW_BYTES: tl.constexpr = SCALE_BYTES + (HALF if PACKED else GROUP)
    tl.store(scales + row[:, None] * (ROW_BYTES // 4), scale, mask=write)
    to = codes + row[:, None] * ROW_BYTES + SCALE_BYTES + tl.arange(0, HALF)[None, :]
    if PACKED:
        tl.store(to, (c_low + c_high * 16.0 + 136.0).to(tl.int32).to(tl.uint8), mask=write)
    else:
        tl.store(to, (c_low.to(tl.int32) & 255).to(tl.uint8), mask=write)
        tl.store(to + HALF, (c_high.to(tl.int32) & 255).to(tl.uint8), mask=write)


@triton.jit
def add_difference(
    scales_j: tl.tensor,
    codes_j: tl.tensor,
    scales_i: tl.tensor,
    codes_i: tl.tensor,
    nbytes: tl.tensor,
    start: tl.tensor,
    e: tl.tensor,
    n: tl.tensor,
    GROUP: tl.constexpr,
    PACKED: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """e += q_j - q_i: e is float32 [n], and its first element is number ``start`` of both buffers of ``nbytes``."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = i < n
    group, within = (start + i) // GROUP, (start + i) % GROUP
    q_j = _decoded(scales_j, codes_j, nbytes, group, within, there, GROUP, PACKED)
    q_i = _decoded(scales_i, codes_i, nbytes, group, within, there, GROUP, PACKED)
    tl.store(e + i, tl.load(e + i, mask=there) + (q_j - q_i), mask=there)


@triton.jit
def _decoded(
    scales: tl.tensor,
    codes: tl.tensor,
    nbytes: tl.tensor,
    group: tl.tensor,
    within: tl.tensor,
    there: tl.tensor,
    GROUP: tl.constexpr,
    PACKED: tl.constexpr,
) -> tl.tensor:
    ROW_BYTES: tl.constexpr = SCALE_BYTES + (GROUP // 2 if PACKED else GROUP)
    scale = tl.load(scales + group * (ROW_BYTES // 4), mask=there, other=0.0)
    row = codes + group * ROW_BYTES + SCALE_BYTES
    if PACKED:
        # The last group may be shorter; its halves then divide its own elements.
        half = tl.minimum(nbytes - group * ROW_BYTES - SCALE_BYTES, GROUP // 2)
        high = within >= half
        byte = tl.load(row + tl.where(high, within - half, within), mask=there, other=0).to(tl.int32)
        code = tl.where(high, byte >> 4, byte & 15) - 8
    else:
        code = tl.load(row + within, mask=there, other=0).to(tl.int8, bitcast=True).to(tl.int32)
    return code.to(tl.float32) * scale


@triton.jit
def _magnitude_bits(x: tl.tensor) -> tl.tensor:
    return x.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def _rounded(x: tl.tensor, inverse: tl.tensor, Q: tl.constexpr) -> tl.tensor:
    """Whole numbers -Q..Q nearest to x * inverse."""
    codes = (x * inverse + ROUNDER) - ROUNDER
    return tl.minimum(tl.maximum(codes, -Q * 1.0), Q * 1.0)
