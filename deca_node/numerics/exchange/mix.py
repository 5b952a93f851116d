"""What the flows of one mix do to a block, slice by slice: e_ij += q_j - q_i and x += gamma_c sum_j w_ij e_ij.

``mixing.c`` does all of it in one pass over memory where it can. Elsewhere torch does, one operation after the other,
to the same bits of e, x and E; the figures, which are sums over a block, may differ in their last digits.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from deca_node.numerics import deca
from deca_node.numerics.exchange import clipping
from deca_node.numerics.exchange.flows import FlowBytes, PublicCopies
from deca_node.numerics.exchange.squares import square


class BlockMix:
    """The flows of one mix, in the order in which they are applied."""

    def __init__(self, public: PublicCopies, flows: Sequence[FlowBytes], gamma_c: float) -> None:
        """``flows`` hold the codes alone, checked."""
        self._public = public
        self._flows = flows
        self._gamma_c = gamma_c
        self._weights = [public.edges[flow.peer].weight for flow in flows]
        self._differences = {flow.peer: public.edges[flow.peer].e for flow in flows}
        tensors = [(flow.theirs, flow.ours, self._differences[flow.peer]) for flow in flows]
        self._compiled = public.codec.flows(tensors, public.x_hat.device)
        self._elements = 0
        # Sums of squares over every e_ij, over the sum over j of them, over E; on the device, so that no slice waits.
        self._squares = torch.zeros(3, dtype=torch.float64, device=public.x_hat.device)

    def apply(self, x: Tensor, start: int, left: Sequence[float] | None = None, *, needs_E: bool) -> Tensor | None:
        """Mix elements [start, start + n) of the block: x (float32 [n]) takes E = gamma_c sum_j w_ij e_ij, in place.

        ``left`` is what clipping leaves of each flow; None: all of it. Returns E (float32 [n]), which may be None where
        nobody needs it.
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
        # With one neighbour the sum over all of them is at hand.
        of_sum = squares[0] if len(differences) == 1 else square(torch.stack(differences).sum(0))
        self._squares += torch.stack((torch.stack(squares).sum(), of_sum, square(E)))
        return E

    def figures(self) -> Mapping[str, float]:
        """Over all elements that were mixed: the disagreement with each neighbour that was heard, the distance to the
        mean over the node and these, and what the flows came to. RMS each."""
        neighbours, elements = len(self._differences), max(self._elements, 1)
        disagreement, of_sum, flow = (self._squares / elements).sqrt_().tolist()
        return {
            "disagreement_rms": disagreement / math.sqrt(neighbours),
            # sum_j e_ij / (d + 1) is how far the mean over a node and its d neighbours lies from the node.
            "consensus_distance": of_sum / (neighbours + 1),
            "flow_rms": flow,
        }
