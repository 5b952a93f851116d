"""Edge flows: differences travel, and the flow that one end of an edge adds is the flow that the other end takes.

For the active block each node keeps a public copy x^, which its neighbours could reconstruct, and for each edge the
difference of the two public copies::

    keyframe     k_i = Q8(x_i - x0)                  x^_i = x0 + k_i         e_ij  = k_j - k_i
    each step    q_i = Q(x_half,i - x^_i)            x^_i += q_i             e_ij += q_j - q_i
                                                                             x_i  += gamma_c w_ij e_ij

The quantization error stays in x_half - x^ and travels with the next difference, so no separate error feedback is
needed. Both ends of an edge decode the same bytes and subtract them in the same way, hence e_ij = -e_ji bit for bit.
So the flows of an edge cancel, whenever they are applied, and the mean over nodes is preserved, however coarse or late
the updates are.

All tensors are flat, float32 and on the block's device. Only the codes may lie elsewhere, in shared memory.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from deca_node.numerics.codecs.base import Codec, slice_elements
from deca_node.numerics.codecs.formats import KEYFRAME_CODEC
from deca_node.numerics.device import wide
from deca_node.numerics.model.blocks import Origin
from deca_node.protocol.agreed.schedule import Content


class FlowBytes(NamedTuple):
    """One edge's exchange of one step: the neighbour's bytes and ours (uint8), either whole update frames or their
    codes. ``content`` says what whole frames carry; None where their length tells."""

    peer: str
    theirs: Tensor
    ours: Tensor
    content: Content | None = None


@dataclass
class EdgeDifference:
    """One open edge: its mixing weight w_ij, and e_ij = x^_j - x^_i (float32 [elements]).

    ``distances`` is the last measured |e_ij| by parameter tensor, float64 [tensors] on the CPU.
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
    """One node's end of all edges during one activation: its own x^, and an e_ij per neighbour."""

    def __init__(self, codec: Codec, elements: int, origin: Origin, ours: Tensor, device: torch.device) -> None:
        """Start from x^ = x0 + k; ``ours`` holds the codes of the keyframe that was sent to all neighbours."""
        self.codec = codec
        self.edges: dict[str, EdgeDifference] = {}
        self.x_hat = torch.empty(elements, dtype=torch.float32, device=device)
        for start, stop in _slices(self.x_hat):
            k = KEYFRAME_CODEC.decode(ours, start, stop, device)
            torch.add(origin(start, stop).to(device), k, out=self.x_hat[start:stop])

    def open(self, peer: str, weight: float, theirs: Tensor, ours: Tensor) -> None:
        """Open an edge: e_ij = k_j - k_i. Raises WireError if ``theirs`` is not a keyframe of this block."""
        KEYFRAME_CODEC.largest(theirs, self.x_hat.numel(), peer)
        e = torch.empty_like(self.x_hat)
        for start, stop in _slices(e):
            k_j, k_i = (KEYFRAME_CODEC.decode(codes, start, stop, e.device) for codes in (theirs, ours))
            torch.sub(k_j, k_i, out=e[start:stop])
        self.edges[peer] = EdgeDifference(weight, e)

    def drop(self, peer: str) -> None:
        """Close an edge for the rest of the activation, if parameters travel over it. Without its flows its weight goes
        to this node itself."""
        self.edges.pop(peer, None)

    def difference(self, x_half: Tensor, out: Tensor) -> None:
        """Encode q = Q(x_half - x^) into ``out`` (uint8 [codec.nbytes(elements)]) and add q to x^.

        Raises NotFiniteError as the codec does; then x^ may have taken up part of q.
        """
        self.codec.encode_difference(x_half, self.x_hat, out)

    def check(self, flows: Sequence[FlowBytes]) -> None:
        """Raise WireError if a neighbour's codes are malformed; no flow has been used then."""
        for flow in flows:
            self.codec.largest(flow.theirs, self.x_hat.numel(), flow.peer)

    def measure(self, flows: Sequence[FlowBytes], pieces: Sequence[tuple[int, int, int]], tensors: int) -> Tensor:
        """|e_ij| after each of ``flows``, by parameter tensor: float64 [flows, tensors].

        A norm needs the whole tensor before the first slice is mixed. So the flows are applied twice: here to copies
        that fit the cache, and later in :meth:`advance`. ``pieces`` are (start, stop, tensor). Every edge's
        ``distances`` are renewed, also those of new edges without a flow here.
        """
        device = self.x_hat.device
        squares = torch.zeros(len(flows), tensors, dtype=wide(device), device=device)
        unheard = [e for peer, e in self.edges.items() if e.distances is None and peer not in {f.peer for f in flows}]
        opened = torch.zeros(len(unheard), tensors, dtype=wide(device), device=device)
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
        """Apply flows, in their order, to elements [start, stop): e_ij += q_j - q_i. Yields (w_ij, e_ij) after each.

        :func:`deca.mix` takes these pairs. A late edge comes once per step that it missed, so each pair must be used
        before the next is asked for.
        """
        yield from self._advanced(flows, start, stop, {f.peer: self.edges[f.peer].e[start:stop] for f in flows})

    def _advanced(
        self, flows: Sequence[FlowBytes], start: int, stop: int, differences: Mapping[str, Tensor]
    ) -> Iterator[tuple[float, Tensor]]:
        """Apply flows to the ``differences`` of their edges, which hold elements [start, stop)."""
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
