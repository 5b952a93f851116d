"""One and two bits per number, for first moments that are sent with error feedback: a sign, and perhaps how large.

A group of 256 numbers is a float32 scale and the codes, little-endian, the first element in the lowest bits::

    bit1   sign                        c = -1 or 1               x = c * scale     1.125 bits per element
    bit2   sign, and small or large    c = -3, -1, 1 or 3        x = c * scale     2.125 bits per element

Two bits call a number large from 1.25 times the group's mean magnitude on, which is where two levels fit normal numbers
best. The scale is the one that fits the codes best, <|x|, |c|> / <c, c>; for one bit that is the mean magnitude. So for
*any* numbers the error is |x|^2 - <x, c>^2 / <c, c>, smaller than |x|^2: what is left over can be fed back without ever
growing beyond a bound. There is no code for zero. A group of zeros has the smallest normal scale, and is zero for all
that is computed with it.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

from deca_node.numerics.codecs.base import FLOAT_TINY
from deca_node.numerics.codecs.formats import Absmax

LARGE = 1.25
"""From so many times the group's mean magnitude on, two bits call a number large."""


class Signs(Absmax):
    """Odd codes -q .. q, q = 1 or 3, in ``code_bits`` bits each. Group 256."""

    group = 256

    def __init__(self, bits: int) -> None:
        self.name, self.code_bits, self.q = f"bit{bits}", bits, 2**bits - 1
        super().__init__()
        # <|x|, |c|> is at least the sum of |x|, which is at least |x|; and <c, c> is at most q^2 times the group.
        self.contraction = math.sqrt(1.0 - 1.0 / (self.q**2 * self.group))

    def nbytes(self, elements: int) -> int:
        whole, rest = divmod(elements, self.group)
        row = 4 + self.group * self.code_bits // 8
        return row * whole + (4 + -(-rest * self.code_bits // 8) if rest else 0)

    def _encode_rows(self, x: Tensor, out: Tensor) -> bool:
        if x.numel() == 0:
            return True
        sizes = x.abs()
        top = sizes.amax().item()
        # Sums in float64, since those of large finite numbers overflow float32.
        total = sizes.sum(1, keepdim=True, dtype=torch.float64)
        codes = torch.ones_like(x)
        norm = total.new_full(total.shape, x.shape[1])
        if self.q > 1:
            large = sizes >= total.mul(LARGE / x.shape[1]).to(x.dtype)
            codes.masked_fill_(large, self.q)
            total += (self.q - 1) * sizes.masked_fill_(~large, 0.0).sum(1, keepdim=True, dtype=torch.float64)
            norm += (self.q**2 - 1) * large.sum(1, keepdim=True)
        scale = total.div_(norm).clamp_(FLOAT_TINY, self.scale_max).to(torch.float32)
        out[:, :4].copy_(scale.view(torch.uint8))
        self._pack(codes.copysign_(x), out[:, 4:])
        return math.isfinite(top)

    def _pack(self, codes: Tensor, out: Tensor) -> None:
        per = 8 // self.code_bits
        spare = per * out.shape[1] - codes.shape[1]
        # From odd codes to 0, 1, 2, 3; spare places hold zero. A byte is exact in float32.
        places = torch.nn.functional.pad(codes.add(self.q).mul_(0.5), (0, spare))
        places = places.view(out.shape[0], out.shape[1], per)
        digits = 2.0 ** (self.code_bits * torch.arange(per, dtype=codes.dtype, device=codes.device))
        out.copy_((places * digits).sum(2))

    def _unpack(self, packed: Tensor) -> Tensor:
        table = _table(self.code_bits, packed.device)
        found = table.index_select(0, packed.reshape(-1).int())
        return found.view(packed.shape[0], packed.shape[1] * table.shape[1])

    def _fit(self, codes: Tensor) -> bool:
        # Every byte is a row of codes.
        return True


@lru_cache(maxsize=8)
def _table(bits: int, device: torch.device) -> Tensor:
    """The codes of every byte, float32 [256, 8 / bits]."""
    bytes_ = torch.arange(256, device=device)[:, None]
    shifts = torch.arange(0, 8, bits, device=device)[None, :]
    places = (bytes_ >> shifts) & (2**bits - 1)
    return (2 * places - (2**bits - 1)).float()


BIT1, BIT2 = Signs(1), Signs(2)
