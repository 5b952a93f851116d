"""What compiled code can do for one codec on one kind of device. :mod:`deca_node.numerics.codecs.table` says which code
that is.

Every kernel gives the same bits as the torch code in :mod:`deca_node.numerics.codecs.formats`. A kernel that cannot do
its work says so and touches nothing, and the caller does the work in torch: when no code was compiled, a tensor is
strided or on another device, lengths do not fit, a number to be encoded is not finite, or codes are malformed. Torch
raises the errors for the last three.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor


class CompiledFlows(ABC):
    """The flows of one mix, prepared once for all slices of a block."""

    @abstractmethod
    def mix(self, shares: Sequence[float], start: int, x: Tensor, E: Tensor, squares: Tensor) -> bool:
        """e_ij += q_j - q_i and x += E = sum of share e_ij, for as many elements from ``start`` on as x (float32) has.

        A flow with a share of 0 moves only its e_ij. E takes what x took, or has no elements. Added to ``squares``
        (float64 [3]) are the sums of squares over every edge's e_ij, over the sum of these, and over E.
        """


class Kernels:
    """The kernels of one codec on one kind of device. This base class has none: all work is left to torch."""

    def encode(self, x: Tensor, out: Tensor) -> bool:
        """Encode x (float32 [n]) into ``out`` (uint8 [nbytes(n)])."""
        return False

    def encode_difference(self, x: Tensor, x_hat: Tensor, out: Tensor) -> int:
        """q = Q(x - x^) into ``out`` and x^ += q, in one pass; returns how many elements, from the first on, are done.

        If a difference is not finite, x^ may have taken up part of the elements that are not done.
        """
        return 0

    def decode(self, codes: Tensor, start: int, y: Tensor) -> bool:
        """Decode a whole buffer of codes from element ``start`` on, as many elements as y (float32) has."""
        return False

    def add_difference(self, theirs: Tensor, ours: Tensor, start: int, e: Tensor) -> bool:
        """e += q_j - q_i: e (float32) holds elements from ``start`` on; ``theirs`` and ``ours`` are whole buffers."""
        return False

    def measure(self, codes: Tensor, elements: int) -> tuple[float, float] | None:
        """Check a whole buffer of codes: a magnitude that nothing in it exceeds, and the RMS over all elements of the
        largest magnitude that each element's group may have. None if torch has to check it."""
        return None

    def flows(self, flows: Sequence[tuple[Tensor, Tensor, Tensor]]) -> CompiledFlows | None:
        """Prepare flows (codes q_j, codes q_i, e_ij), of the whole block each. Flows of one edge share their e_ij."""
        return None
