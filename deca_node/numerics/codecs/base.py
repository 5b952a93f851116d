"""What all codecs have in common: how a block's numbers are written, read and checked, slice by slice.

The formats themselves are in :mod:`deca_node.numerics.codecs.formats`, in torch. Each operation first asks the compiled
kernels of its codec and device (:mod:`deca_node.numerics.codecs.table`); what these leave is done in torch.
"""

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from deca_node.numerics.codecs.kernels import CompiledFlows
from deca_node.numerics.codecs.table import kernels_of
from deca_node.protocol.errors import TrainerError, WireError

CACHE_ELEMENTS = 1 << 17
"""Elements handled at a time on a CPU: half a megabyte of float32, which stays in a core's own cache."""

ACCELERATOR_ELEMENTS = 1 << 24
"""Elements handled at a time on other devices: enough to hide the cost of a launch, and few beside a block."""

FLOAT_MAX = torch.finfo(torch.float32).max
FLOAT_TINY = torch.finfo(torch.float32).tiny
BFLOAT_MAX = torch.finfo(torch.bfloat16).max

assert sys.byteorder == "little", "the wire format is little-endian, and codecs reinterpret memory in place"


class Measure(NamedTuple):
    """The size of the numbers in a buffer of codes: a magnitude that none of them exceeds, and a norm.

    ``rms`` is the root mean square over all elements. For codes with scales each element counts as the largest
    magnitude that its group allows. For an encoder's output this is at least the true RMS, and at most the root of the
    group's size times it. It follows from the scales alone, so a sender cannot hide large numbers from it.
    """

    largest: float
    rms: float


class SliceMeasure(NamedTuple):
    """The same for one slice of a buffer, with the sum of squares in place of the RMS."""

    largest: float
    squares: float


class NotFiniteError(TrainerError):
    """A number to be sent is NaN or infinite; ``index`` is the position of the first in its block."""

    def __init__(self, codec: str, index: int, value: float) -> None:
        super().__init__(
            f"the {codec} codec refuses element {index} of this block, which is {value}: training has diverged; "
            "a lower learning_rate is the usual cure"
        )
        self.index = index


def slice_elements(device: torch.device) -> int:
    """Elements to handle at a time on ``device``; a multiple of every codec's group."""
    return CACHE_ELEMENTS if device.type == "cpu" else ACCELERATOR_ELEMENTS


class Codec(ABC):
    """One way to write float32 numbers as bytes.

    ``contraction`` bounds ``|x - decode(encode(x))| / |x|`` in the 2-norm over any one group. The bound does not hold
    for numbers below 1e-35, for which float32 itself has too few digits.
    """

    name: str
    group: int
    bits_per_element: float
    contraction: float

    @abstractmethod
    def nbytes(self, elements: int) -> int:
        """Bytes of so many elements. At a group's start this is also the offset of element number ``elements``."""

    def encode(self, x: Tensor, out: Tensor, offset: int = 0) -> None:
        """Write ``x`` (float32 [n]) into ``out`` (uint8 [nbytes(n)], any device).

        ``offset`` is the position of x[0] in the block, for the error. Raises NotFiniteError if x holds NaN or
        infinity; then the content of ``out`` is undefined.
        """
        assert x.dtype == torch.float32 and x.dim() == 1 and out.dtype == torch.uint8
        assert out.numel() == self.nbytes(x.numel()), f"{out.numel()} bytes for {x.numel()} elements of {self.name}"
        if kernels_of(self.name, x.device).encode(x, out):
            return
        target = out if out.device == x.device else torch.empty_like(out, device=x.device)
        size = slice_elements(x.device)
        for start in range(0, x.numel(), size):
            part = x[start : start + size]
            first = self.nbytes(start)
            if not self._encode(part, target[first : first + self.nbytes(part.numel())]):
                index = int((~part.isfinite()).nonzero()[0])
                raise NotFiniteError(self.name, offset + start + index, part[index].item())
        if target is not out:
            out.copy_(target)

    def encode_difference(self, x: Tensor, x_hat: Tensor, out: Tensor) -> None:
        """q = Q(x - x^) into ``out`` (uint8 [nbytes(n)]) and x^ += q; x and x^ are float32 [n].

        Raises NotFiniteError as :meth:`encode` does; x^ may then have taken up part of q.
        """
        done = kernels_of(self.name, x.device).encode_difference(x, x_hat, out)
        size = slice_elements(x.device)
        for start in range(done, x.numel(), size):
            hat = x_hat[start : start + size]
            codes = out[self.nbytes(start) :][: self.nbytes(hat.numel())]
            self.encode(x[start : start + size] - hat, codes, start)
            hat.add_(self.decode(codes, 0, hat.numel(), hat.device))

    def add_difference(self, theirs: Tensor, ours: Tensor, start: int, e: Tensor, decoded: dict[int, Tensor]) -> None:
        """e += q_j - q_i: e (float32 [n]) holds elements from ``start`` on; ``theirs`` and ``ours`` are whole buffers.

        ``decoded`` keeps what ours decodes to in torch, so that one decoding serves every edge of the same slice.
        """
        if kernels_of(self.name, e.device).add_difference(theirs, ours, start, e):
            return
        stop = start + e.numel()
        q_j = self.decode(theirs, start, stop, e.device)
        if id(ours) not in decoded:
            decoded[id(ours)] = self.decode(ours, start, stop, e.device)
        e.add_(q_j.sub_(decoded[id(ours)]))

    def flows(self, flows: Sequence[tuple[Tensor, Tensor, Tensor]], device: torch.device) -> CompiledFlows | None:
        """Prepare flows (codes q_j, codes q_i, e_ij) for a compiled mix on ``device``; None if torch has to mix."""
        return kernels_of(self.name, device).flows(flows)

    def decode(self, codes: Tensor, start: int, stop: int, device: torch.device | None = None) -> Tensor:
        """Elements [start, stop) of a whole buffer ``codes`` (uint8), as a new float32 tensor on ``device``."""
        device = device or codes.device
        if device.type == "cpu":
            x = torch.empty(stop - start, dtype=torch.float32)
            if kernels_of(self.name, device).decode(codes, start, x):
                return x
        lead = start % self.group
        last = -(-stop // self.group) * self.group
        part = codes[self.nbytes(start - lead) : min(self.nbytes(last), codes.numel())]
        return self._decode(part.to(device))[lead : lead + stop - start]

    def largest(self, codes: Tensor, elements: int, sender: str = "a peer") -> float:
        """Check a received buffer; returns a magnitude that none of its numbers exceeds. Raises as :meth:`measure`
        does."""
        return self.measure(codes, elements, sender).largest

    def measure(self, codes: Tensor, elements: int, sender: str = "a peer") -> Measure:
        """Check a received buffer, and measure its numbers.

        Raises WireError with one of these reasons: ``bad-length`` if the length is not that of ``elements`` numbers,
        ``not-finite`` if a number is NaN or infinite, or a scale is negative, NaN or too large, ``bad-codes`` if no
        encoder writes such a code, ``bad-places`` if the places of topk do not rise or lie outside of their group.
        """
        expected = self.nbytes(elements)
        if codes.dtype != torch.uint8 or codes.numel() != expected:
            raise WireError(
                "bad-length",
                f"{sender} sent {codes.numel()} bytes of {self.name} for {elements} elements, which take {expected}",
            )
        compiled = kernels_of(self.name, codes.device).measure(codes, elements)
        return self._checked(codes, elements, sender) if compiled is None else Measure(*compiled)

    def _checked(self, codes: Tensor, elements: int, sender: str) -> Measure:
        """:meth:`measure` of a buffer that has the right length."""
        found = [self._measure(codes[a:b]) for a, b in self._byte_slices(elements)]
        # Each by itself, since Python's max() may pass a NaN over.
        if not all(math.isfinite(part.largest) for part in found):
            raise WireError("not-finite", f"{sender} sent {self.name} codes that do not stand for finite numbers")
        if not all(self._fit(codes[a:b]) for a, b in self._byte_slices(elements)):
            raise WireError("bad-codes", f"{sender} sent {self.name} codes that no encoder writes")
        squares = sum(part.squares for part in found)
        return Measure(max((part.largest for part in found), default=0.0), math.sqrt(squares / max(elements, 1)))

    def _fit(self, codes: Tensor) -> bool:
        """Whether an encoder may have written these codes."""
        return True

    def _byte_slices(self, elements: int) -> list[tuple[int, int]]:
        starts = range(0, elements, CACHE_ELEMENTS)
        return [(self.nbytes(a), self.nbytes(min(a + CACHE_ELEMENTS, elements))) for a in starts]

    @abstractmethod
    def _encode(self, x: Tensor, out: Tensor) -> bool:
        """Encode one slice; False if it is not finite."""

    @abstractmethod
    def _decode(self, codes: Tensor) -> Tensor:
        """Decode whole groups, the last of which may be short; may return a few elements too many."""

    @abstractmethod
    def _measure(self, codes: Tensor) -> SliceMeasure:
        """Measure whole groups; ``largest`` is NaN or infinite if they are malformed."""
