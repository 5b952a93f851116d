"""Applies the flows of one mix to a block, slice by slice: e_ij += q_j - q_i and x += gamma_c sum_j w_ij e_ij.

If the codec has compiled kernels, ``mixing.c`` does this in one pass over memory. Otherwise torch does it, one
operation after the other, with the same bits in e, x and E. The figures are sums over a block and may differ in their
last digits.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from deca_node.numerics import deca
from deca_node.numerics.device import wide
from deca_node.numerics.exchange import clipping
from deca_node.numerics.exchange.flows import FlowBytes, PublicCopies
from deca_node.numerics.exchange.squares import square


class BlockMix:
    """One mix of one block: its flows, in the order in which they are applied."""

    def __init__(self, public: PublicCopies, flows: Sequence[FlowBytes], gamma_c: float) -> None:
        """``flows`` hold checked codes, without the other parts of update frames."""
        self._public = public
        self._flows = flows
        self._gamma_c = gamma_c
        self._weights = [public.edges[flow.peer].weight for flow in flows]
        self._differences = {flow.peer: public.edges[flow.peer].e for flow in flows}
        tensors = [(flow.theirs, flow.ours, self._differences[flow.peer]) for flow in flows]
        self._compiled = public.codec.flows(tensors, public.x_hat.device)
        self._elements = 0
        # Sums of squares over every e_ij, over sum_j e_ij, and over E; on the device, so that no slice waits for them.
        self._squares = torch.zeros(3, dtype=wide(public.x_hat.device), device=public.x_hat.device)

    def apply(self, x: Tensor, start: int, left: Sequence[float] | None = None, *, needs_E: bool) -> Tensor | None:
        """Mix elements [start, start + n) of the block: x (float32 [n]) takes E = gamma_c sum_j w_ij e_ij, in place.

        ``left`` is the share of each flow that clipping leaves; None means all of it. Returns E (float32 [n]), or
        possibly None if E is not needed.
        """
        self._elements += x.numel()
        left = [1.0] * len(self._flows) if left is None else left
        if self._compiled is not None:
            shares = [self._gamma_c * (weight * share) for weight, share in zip(self._weights, left, strict=True)]
            E = torch.empty(x.numel() if needs_E else 0)
            if self._compiled.mix(shares, start, x, E, self._squares):
                return E if needs_E else None
        return self._in_torch(x, start, left)

    def _in_torch(self, x: Tensor, start: int, left: Sequence[float]) -> Tensor:
        stop = start + x.numel()
        edges = self._public.advance(self._flows, start, stop)
        _, E = deca.mix(x, clipping.clipped(edges, left), self._gamma_c, out=x)
        differences = [e[start:stop] for e in self._differences.values()]
        squares = [square(e) for e in differences]
        # With one neighbour the sum over all neighbours is known already.
        of_sum = squares[0] if len(differences) == 1 else square(torch.stack(differences).sum(0))
        self._squares += torch.stack((torch.stack(squares).sum(), of_sum, square(E)))
        return E

    def figures(self) -> Mapping[str, float]:
        """Three RMS figures over all elements that were mixed: the disagreement with each neighbour that was heard, the
        distance to the mean over this node and these neighbours, and the sum of the flows."""
        neighbours, elements = len(self._differences), max(self._elements, 1)
        disagreement, of_sum, flow = (self._squares / elements).sqrt_().tolist()
        return {
            "disagreement_rms": disagreement / math.sqrt(neighbours),
            # sum_j e_ij / (d + 1) is how far the mean over a node and its d neighbours lies from the node.
            "consensus_distance": of_sum / (neighbours + 1),
            "flow_rms": flow,
        }
