"""Edge flows: what travels are differences, and what one end of an edge adds the other end takes.

Each node keeps, for the active block, a public copy x^ of itself that its neighbours could reconstruct,
and per edge the difference of the two public copies::

    keyframe     k_i = Q8(x_i - x0)                  x^_i = x0 + k_i         e_ij  = k_j - k_i
    each step    q_i = Q(x_half,i - x^_i)            x^_i += q_i             e_ij += q_j - q_i
                                                                             x_i  += gamma_c w_ij e_ij

What the quantizer loses stays in x_half - x^ and travels with the next difference, so no error feedback
is needed beside it. Both ends of an edge decode the same bytes and subtract them in the same way, hence
e_ij = -e_ji bit for bit: the flows of an edge cancel, whenever they are applied, and the mean over nodes
stays where it is however coarse or late the updates are.

All tensors are flat, float32 and on the block's device, save the codes, which may lie in shared memory.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from deca_node.numerics.codecs.base import Codec, slice_elements
from deca_node.numerics.codecs.formats import KEYFRAME_CODEC
from deca_node.numerics.model.blocks import Origin


class FlowBytes(NamedTuple):
    """One edge's exchange: the neighbour's codes and ours of the same step (uint8, whole buffers)."""

    peer: str
    theirs: Tensor
    ours: Tensor


@dataclass
class EdgeDifference:
    """One open edge: its mixing weight w_ij, and e_ij = x^_j - x^_i (float32 [elements]).

    ``distances`` is |e_ij| by parameter tensor when it was last measured, float64 [tensors] on the CPU.
    """

    weight: float
    e: Tensor
    distances: Tensor | None = None


def write_keyframe(x: Tensor, origin: Origin, out: Tensor) -> None:
    """Encode Q8(x - x0) into ``out`` (uint8 [KEYFRAME_CODEC.nbytes(elements)])."""
    for start, stop in _slices(x):
        difference = x[start:stop] - origin(start, stop).to(x.device)
        KEYFRAME_CODEC.encode(difference, _bytes(KEYFRAME_CODEC, out, start, stop), start)


class PublicCopies:
    """One node's end of all edges during one activation: its own x^ and an e_ij per neighbour."""

    def __init__(self, codec: Codec, elements: int, origin: Origin, ours: Tensor, device: torch.device) -> None:
        """Start from x^ = x0 + k; ``ours`` holds the codes of the keyframe that went to all neighbours."""
        self.codec = codec
        self.edges: dict[str, EdgeDifference] = {}
        self.x_hat = torch.empty(elements, dtype=torch.float32, device=device)
        for start, stop in _slices(self.x_hat):
            k = KEYFRAME_CODEC.decode(ours, start, stop, device)
            torch.add(origin(start, stop).to(device), k, out=self.x_hat[start:stop])

    def open(self, peer: str, weight: float, theirs: Tensor, ours: Tensor) -> None:
        """Open an edge: e_ij = k_j - k_i. Raises WireError where ``theirs`` is no keyframe of this block."""
        KEYFRAME_CODEC.largest(theirs, self.x_hat.numel(), peer)
        e = torch.empty_like(self.x_hat)
        for start, stop in _slices(e):
            k_j, k_i = (KEYFRAME_CODEC.decode(codes, start, stop, e.device) for codes in (theirs, ours))
            torch.sub(k_j, k_i, out=e[start:stop])
        self.edges[peer] = EdgeDifference(weight, e)

    def drop(self, peer: str) -> None:
        """Close an edge for the rest of the activation. Its weight goes to self, because no flow comes."""
        del self.edges[peer]

    def difference(self, x_half: Tensor, out: Tensor) -> None:
        """Encode q = Q(x_half - x^) into ``out`` (uint8 [codec.nbytes(elements)]) and add q to x^.

        Raises NotFiniteError as the codec does; x^ may then have taken up part of the block.
        """
        self.codec.encode_difference(x_half, self.x_hat, out)

    def check(self, flows: Sequence[FlowBytes]) -> None:
        """Raise WireError where a neighbour's codes are malformed, before any of them is used."""
        for flow in flows:
            self.codec.largest(flow.theirs, self.x_hat.numel(), flow.peer)

    def measure(self, flows: Sequence[FlowBytes], pieces: Sequence[tuple[int, int, int]], tensors: int) -> Tensor:
        """|e_ij| as it will be once each of ``flows`` is applied, by parameter tensor: float64 [flows, tensors].

        A norm needs the whole tensor before the first slice is mixed, so the flows are applied to copies that fit
        the cache, and once more in :meth:`advance`. ``pieces`` are (start, stop, tensor). Every edge then knows its
        newest ``distances``, those too that have no flow here.
        """
        device = self.x_hat.device
        squares = torch.zeros(len(flows), tensors, dtype=torch.float64, device=device)
        unheard = [e for peer, e in self.edges.items() if e.distances is None and peer not in {f.peer for f in flows}]
        opened = torch.zeros(len(unheard), tensors, dtype=torch.float64, device=device)
        for start, stop, tensor in pieces:
            copies = {flow.peer: self.edges[flow.peer].e[start:stop].clone() for flow in flows}
            for row, (_, e) in enumerate(self._advanced(flows, start, stop, copies)):
                squares[row, tensor] += torch.dot(e, e)
            for row, edge in enumerate(unheard):
                squares_here = torch.dot(edge.e[start:stop], edge.e[start:stop])
                opened[row, tensor] += squares_here
        distances = squares.sqrt_().cpu()
        for edge, found in zip(unheard, opened.sqrt_().cpu(), strict=True):
            edge.distances = found
        for flow, found in zip(flows, distances, strict=True):
            self.edges[flow.peer].distances = found
        return distances

    def advance(self, flows: Sequence[FlowBytes], start: int, stop: int) -> Iterator[tuple[float, Tensor]]:
        """Apply flows, in their order, to elements [start, stop): e_ij += q_j - q_i, yielding (w_ij, e_ij).

        This is what :func:`deca.mix` takes. A late edge comes once per step it missed, so each pair must
        be used before the next is asked for.
        """
        yield from self._advanced(flows, start, stop, {f.peer: self.edges[f.peer].e[start:stop] for f in flows})

    def _advanced(
        self, flows: Sequence[FlowBytes], start: int, stop: int, differences: Mapping[str, Tensor]
    ) -> Iterator[tuple[float, Tensor]]:
        """Apply flows to the ``differences`` of their edges, elements [start, stop) each."""
        ours: dict[int, Tensor] = {}
        for flow in flows:
            e = differences[flow.peer]
            self.codec.add_difference(flow.theirs, flow.ours, start, e, ours)
            yield self.edges[flow.peer].weight, e


def _slices(x: Tensor) -> Iterator[tuple[int, int]]:
    """Cache-sized slices that begin at group boundaries of every codec."""
    size = slice_elements(x.device)
    return ((start, min(start + size, x.numel())) for start in range(0, x.numel(), size))


def _bytes(codec: Codec, out: Tensor, start: int, stop: int) -> Tensor:
    return out[codec.nbytes(start) : codec.nbytes(start) + codec.nbytes(stop - start)]
