"""The wire formats: how float32 numbers become bytes, and come back.

A block's differences are tiny and uneven. So the short codecs cut them into groups, and each group has its own scale:
the largest magnitude in a group of 256 becomes code 127, and the others are in proportion.

Wire format, all little-endian; n elements, no header, nothing between groups::

    fp32   n times float32
    bf16   n times bfloat16, rounded to nearest even
    int8   per group of 256:  float32 scale | 256 codes int8         x = code * scale, |code| <= 127
    int4   per group of  64:  float32 scale |  32 bytes              x = (nibble - 8) * scale
           byte b of a group holds element b in its low and element b + half in its high nibble
    topk   per group of 1024: float32 scale |  64 codes int8 | the 64 places, in 80 bytes
           the 64 largest magnitudes, as in int8; the rest is zero; places as in deca_node.numerics.codecs.places

The last group may be shorter (int4: half = ceil(elements / 2), a missing high nibble is 8; topk: the
ceil(elements / 16) largest). A group's scale lies beside its codes, so any run of whole groups is one run of bytes: a
group that starts at element ``start`` begins at byte ``nbytes(start)``, and a slice decodes without the rest.

Decoding is one exact conversion and one IEEE multiplication per element, so the same bytes give the same bits on every
node, whatever its device. Scales are float32, because differences of 1e-9 would underflow in float16. They are at least
the smallest normal float32, so nothing is divided by zero or by a denormal, and at most FLT_MAX / (largest code + 1),
so nothing decodes to infinity.

The torch code here runs on any device, and defines the bits. Compiled kernels
(:mod:`deca_node.numerics.codecs.table`) give the same bits faster.
"""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from deca_node.numerics.codecs import places as sparse
from deca_node.numerics.codecs.base import (
    BFLOAT_MAX,
    FLOAT_MAX,
    FLOAT_TINY,
    Codec,
    Measure,
    SliceMeasure,
)
from deca_node.protocol.agreed.frames import KEYFRAME_CODEC_NAME, KEYFRAME_GROUP, KEYFRAME_GROUP_BYTES
from deca_node.protocol.errors import WireError


class Float32(Codec):
    """The numbers as they are."""

    name, group, bits_per_element, contraction = "fp32", 1, 32.0, 0.0

    def nbytes(self, elements: int) -> int:
        return 4 * elements

    def _encode(self, x: Tensor, out: Tensor) -> bool:
        # Bytes are copied as bytes: a frame in shared memory need not be aligned to four.
        out.copy_(x.contiguous().view(torch.uint8))
        return math.isfinite(_absmax(x))

    def _decode(self, codes: Tensor) -> Tensor:
        return _aligned(codes, torch.float32)

    def _measure(self, codes: Tensor) -> SliceMeasure:
        x = self._decode(codes)
        return SliceMeasure(_absmax(x), _squares(x))


class BFloat16(Codec):
    """Eight significant bits; numbers beyond bfloat16's range become its largest value."""

    name, group, bits_per_element, contraction = "bf16", 1, 16.0, 2.0**-8

    def nbytes(self, elements: int) -> int:
        return 2 * elements

    def _encode(self, x: Tensor, out: Tensor) -> bool:
        largest = _absmax(x)
        if largest > BFLOAT_MAX:
            x = x.clamp(-BFLOAT_MAX, BFLOAT_MAX)
        out.copy_(x.to(torch.bfloat16).view(torch.uint8))
        return math.isfinite(largest)

    def _decode(self, codes: Tensor) -> Tensor:
        return _aligned(codes, torch.bfloat16).float()

    def _measure(self, codes: Tensor) -> SliceMeasure:
        x = self._decode(codes)
        return SliceMeasure(_absmax(x), _squares(x))


class Absmax(Codec):
    """Groups of codes -q..q, scaled by the group's largest magnitude over q.

    Rounding to nearest has an error of at most half a scale. The worst group has one element at the top and all others
    exactly half a scale from zero, which become zero: error^2 / norm^2 = (group - 1) / ((2 q)^2 + group - 1).
    """

    q: int
    code_bits = 8

    def __init__(self) -> None:
        self.row_bytes = self.nbytes(self.group)
        self.bits_per_element = 8.0 * self.row_bytes / self.group
        self.contraction = math.sqrt((self.group - 1) / (4 * self.q**2 + self.group - 1))
        self.scale_max = FLOAT_MAX / (self.q + 1)

    def _encode(self, x: Tensor, out: Tensor) -> bool:
        whole = x.numel() // self.group
        at, head = whole * self.group, whole * self.row_bytes
        finite = self._encode_rows(x[:at].view(whole, self.group), out[:head].view(whole, self.row_bytes))
        if at < x.numel():
            finite = self._encode_rows(x[at:].unsqueeze(0), out[head:].unsqueeze(0)) and finite
        return finite

    def _encode_rows(self, x: Tensor, out: Tensor) -> bool:
        """From float32 [groups, width] into uint8 [groups, 4 + bytes of the codes]."""
        if x.numel() == 0:
            return True
        work = x.abs()
        scale = work.amax(1, keepdim=True)
        # Divided by a tensor: CUDA divides by a number through its reciprocal, which gives other bits.
        scale.div_(torch.full_like(scale, self.q)).clamp_min_(FLOAT_TINY)
        top = scale.amax().item()
        torch.mul(x, scale.clamp_max_(self.scale_max).reciprocal(), out=work).round_()
        if top > self.scale_max:
            work.clamp_(-self.q, self.q)
        out[:, :4].copy_(scale.view(torch.uint8))
        self._pack(work, out[:, 4:])
        return math.isfinite(top)

    def _decode(self, codes: Tensor) -> Tensor:
        whole = codes.numel() // self.row_bytes
        head = whole * self.row_bytes
        x = self._decode_rows(codes[:head].view(whole, self.row_bytes))
        if head == codes.numel():
            return x
        return torch.cat((x, self._decode_rows(codes[head:].unsqueeze(0))))

    def _decode_rows(self, codes: Tensor) -> Tensor:
        return self._unpack(codes[:, 4:]).mul_(self._scales(codes)).view(-1)

    def _measure(self, codes: Tensor) -> SliceMeasure:
        parts = [SliceMeasure(*self._extent(self._scales(rows), self._sent(rows))) for rows in self._rows(codes)]
        largest = max((part.largest for part in parts), key=lambda found: math.inf if math.isnan(found) else found)
        return SliceMeasure(largest, sum(part.squares for part in parts))

    def _extent(self, scales: Tensor, sent: int) -> tuple[float, float]:
        low, high = (t.item() for t in torch.aminmax(scales))
        # Written so that a NaN, which fails every comparison, counts as malformed.
        if not (low >= 0.0 and high <= self.scale_max):
            return math.nan, 0.0
        return high * (self.q + 1), sent * self.q**2 * _squares(scales)

    def _fit(self, codes: Tensor) -> bool:
        return all(self._unpack(self._code_bytes(rows)).amin().item() >= -self.q for rows in self._rows(codes))

    def _rows(self, codes: Tensor) -> list[Tensor]:
        """The whole groups as rows, and then a shorter last group as a single row; either may be missing."""
        whole = codes.numel() // self.row_bytes
        head = whole * self.row_bytes
        rows = [codes[:head].view(whole, self.row_bytes)] if whole else []
        return rows + ([codes[head:].unsqueeze(0)] if head < codes.numel() else [])

    def _sent(self, rows: Tensor) -> int:
        """How many elements a row's codes stand for; one more where int4 has an odd number."""
        return self._code_bytes(rows).shape[1] * 8 // self.code_bits

    def _code_bytes(self, rows: Tensor) -> Tensor:
        return rows[:, 4:]

    @staticmethod
    def _scales(rows: Tensor) -> Tensor:
        return rows[:, :4].clone(memory_format=torch.contiguous_format).view(torch.float32)

    @abstractmethod
    def _pack(self, codes: Tensor, out: Tensor) -> None:
        """Whole float32 codes -q..q [groups, width] into bytes [groups, ...]."""

    @abstractmethod
    def _unpack(self, packed: Tensor) -> Tensor:
        """Bytes [groups, ...] into a new float32 tensor of codes [groups, width]."""


class Int8(Absmax):
    """Absmax, group 256: a byte per element and 1.6 % for the scales."""

    name, group, q = "int8", 256, 127

    def nbytes(self, elements: int) -> int:
        return 4 * -(-elements // self.group) + elements

    def _pack(self, codes: Tensor, out: Tensor) -> None:
        out.view(torch.int8).copy_(codes)

    def _unpack(self, packed: Tensor) -> Tensor:
        return packed.view(torch.int8).float()


class Int4(Absmax):
    """Absmax, group 64, two codes per byte: 4.5 bits per element."""

    name, group, q, code_bits = "int4", 64, 7, 4

    def nbytes(self, elements: int) -> int:
        whole, rest = divmod(elements, self.group)
        return 36 * whole + (4 + (rest + 1) // 2 if rest else 0)

    def _pack(self, codes: Tensor, out: Tensor) -> None:
        half = out.shape[1]
        low, high = codes[:, :half], codes[:, half:]
        if high.shape[1] < half:
            high = torch.nn.functional.pad(high, (0, half - high.shape[1]))
        # (low + 8) + 16 (high + 8), exact in float32 and one pass instead of four on bytes.
        out.copy_(torch.add(low, high, alpha=16.0).add_(136.0))

    def _unpack(self, packed: Tensor) -> Tensor:
        half = packed.shape[1]
        codes = torch.empty(packed.shape[0], 2 * half, dtype=torch.float32, device=packed.device)
        codes[:, :half].copy_(packed & 15)
        codes[:, half:].copy_(packed >> 4)
        return codes.sub_(8.0)


class TopK(Int8):
    """The 64 of every 1024 elements that are largest in magnitude, in int8: 1.2 bits per element.

    The other elements stay in the difference that is encoded next, and grow there until they are sent.
    """

    name, group, keep = "topk", 1024, 64

    def __init__(self) -> None:
        super().__init__()
        # The k largest of n elements hold at least k/n of the norm^2, less the error of int8 on them.
        kept = self.keep / self.group
        rounding = (self.keep - 1) / (4 * self.q**2 + self.keep - 1)
        self.contraction = math.sqrt(1 - kept * (1 - rounding))

    def nbytes(self, elements: int) -> int:
        whole, rest = divmod(elements, self.group)
        return whole * self._row_nbytes(self.keep) + (self._row_nbytes(self._count(rest)) if rest else 0)

    def _checked(self, codes: Tensor, elements: int, sender: str) -> Measure:
        found = super()._checked(codes, elements, sender)
        whole, rest = divmod(elements, self.group)
        head = whole * self.row_bytes
        rows = codes[:head].view(whole, self.row_bytes)
        if not (self._well_placed(rows, self.group) and (not rest or self._well_placed(codes[head:][None], rest))):
            words = "that are not in rising order or not within their group"
            raise WireError("bad-places", f"{sender} sent {self.name} codes with places of elements {words}")
        return found

    def _code_bytes(self, rows: Tensor) -> Tensor:
        return rows[:, 4 : 4 + (rows.shape[1] - 4) * 4 // 9]

    def _well_placed(self, rows: Tensor, width: int) -> bool:
        count = self._count(width)
        return sparse.rising(sparse.unpack(rows[:, 4 + count :], count), width)

    def _encode_rows(self, x: Tensor, out: Tensor) -> bool:
        count = self._count(x.shape[1])
        places = sparse.select(x, count)
        sparse.pack(places, out[:, 4 + count :])
        return super()._encode_rows(x.gather(1, places), out[:, : 4 + count])

    def _decode_rows(self, codes: Tensor) -> Tensor:
        # A row has 4 + 9/4 count bytes, rounded up. A shorter last group is decoded to the largest width it may have.
        count = (codes.shape[1] - 4) * 4 // 9
        places = sparse.unpack(codes[:, 4 + count :], count)
        values = super()._decode_rows(codes[:, : 4 + count]).view(-1, count)
        return values.new_zeros(len(codes), count * self.group // self.keep).scatter_(1, places, values).view(-1)

    def _count(self, width: int) -> int:
        return -(-width * self.keep // self.group)

    @staticmethod
    def _row_nbytes(count: int) -> int:
        return 4 + count + sparse.nbytes(count)


CODECS: dict[str, Codec] = {codec.name: codec for codec in (Float32(), BFloat16(), Int8(), Int4(), TopK())}
"""Every codec by the name that ``run.toml`` gives it."""

KEYFRAME_CODEC = CODECS[KEYFRAME_CODEC_NAME]
"""The codec of keyframes and of deltas, whatever the updates use. The first update brings what it loses."""

assert KEYFRAME_CODEC.group == KEYFRAME_GROUP and KEYFRAME_CODEC.nbytes(KEYFRAME_GROUP) == KEYFRAME_GROUP_BYTES


def _absmax(x: Tensor) -> float:
    """The largest magnitude; NaN if there is one, 0 if x is empty."""
    return x.abs().amax().item() if x.numel() else 0.0


def _squares(x: Tensor) -> float:
    """The sum of squares, which may be beyond the range of float32."""
    return float(torch.linalg.vector_norm(x, dtype=torch.float64).item() ** 2)


def _aligned(codes: Tensor, dtype: torch.dtype) -> Tensor:
    """The bytes as ``dtype``, in new memory: a frame may not be aligned, and must not change."""
    own = torch.empty(codes.numel() // dtype.itemsize, dtype=dtype, device=codes.device)
    own.view(torch.uint8).copy_(codes)
    return own
