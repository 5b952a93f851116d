r"""Clipped gossip: a limit on how far any neighbour can move a node.

With ``robust = clip`` a flow counts within a radius (ClippedGossip of He, Karimireddy and Jaggi, arXiv 2202.01545, with
the node itself in the centre)::

    x_i += gamma_c w_ij clip(e_ij, tau_i)           clip(e, tau) = min(1, tau / |e|) e

Each parameter tensor p of the block is clipped by itself. With one radius for the whole block a neighbour could spend
all of it on the few weights of a normalization layer. The radius is the smaller of two::

    tau_i,p = min( clip_radius gamma sqrt(n_p),  |e_ij|_p of the neighbour that is the (f+1)-th farthest )

gamma is the peak of the learning rate and n_p the tensor's size: a neighbour whose every element differs by clip_radius
whole steps is at the first bound. The second bound, with f = ``robust_neighbours`` > 0, follows the actual distances
between neighbours. At most f of the d distances are those of dishonest neighbours, so the (f+1)-th largest is at most
the largest of an honest one. The second bound is used only if honest neighbours are in the majority, d >= 2 f + 1; with
fewer neighbours, f of them could agree with the node and so exclude all others. The last known distance of every edge
counts, so that a late edge does not change the bound of the others.

With the second bound in use, a neighbour beyond ``clip_reach`` times that bound does not count at all. A neighbour so
far out is broken or hostile, and even its clipped flow would pull all its neighbours the same way at every step. A node
that is itself far from all others is not cut off by this rule: for it all neighbours are far.

The clipped part stays in e_ij, the difference of the two public copies, and the next flow finds it there. But one end
may clip while the other does not, so the mean over nodes is no longer preserved exactly.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from deca_node.protocol.agreed.run import RunSettings


@dataclass(frozen=True)
class Clip:
    """The run's settings for clipping: f, clip_radius, gamma's peak, and clip_reach (0: no limit)."""

    neighbours: int
    radius: float
    gamma_peak: float
    reach: float = 0.0

    @classmethod
    def of(cls, settings: RunSettings) -> "Clip | None":
        """The settings of a run; None under ``robust = none``."""
        if settings.robust == "none":
            return None
        return cls(settings.robust_neighbours, settings.clip_radius, settings.learning_rate, settings.clip_reach)

    def trusts(self, neighbours: int) -> bool:
        """Whether honest neighbours are in the majority among so many."""
        return neighbours >= 2 * self.neighbours + 1

    def radii(self, distances: Iterable[Tensor], sizes: Sequence[int]) -> "Radii":
        """The radii of every tensor. ``distances`` are |e_ij|, float64 [tensors] for each edge; ``sizes`` are the
        n_p."""
        ceiling = self.radius * self.gamma_peak * torch.tensor(sizes, dtype=torch.float64).sqrt()
        known = list(distances)
        if not self.neighbours or not self.trusts(len(known)):
            return Radii(ceiling, torch.full_like(ceiling, math.inf))
        # A distance that is not finite is farther than all that are.
        farthest = torch.stack(known).nan_to_num(nan=math.inf, posinf=math.inf).sort(dim=0, descending=True).values
        found = farthest[self.neighbours]
        return Radii(
            torch.minimum(ceiling, found), self.reach * found if self.reach else torch.full_like(found, math.inf)
        )


class Radii(NamedTuple):
    """Per tensor, float64 [tensors]: ``tau`` limits a flow; a neighbour farther away than ``reach`` does not count."""

    tau: Tensor
    reach: Tensor

    def shares(self, distances: Tensor) -> Tensor:
        """The share of each flow that counts, min(1, tau / |e|): float64 [flows, tensors]. It is 0 for a neighbour out
        of reach, and if |e| is not finite. ``distances`` are |e| of every flow, float64 [flows, tensors]."""
        left = torch.where(distances > self.tau, self.tau / distances, torch.ones_like(distances))
        counts = distances.isfinite() & (distances <= self.reach)
        return torch.where(counts, left, torch.zeros_like(left))


def clipped(edges: Iterable[tuple[float, Tensor]], left: Sequence[float]) -> Iterator[tuple[float, Tensor]]:
    """(w_ij, e_ij) of every flow for :func:`deca.mix`, with the weight multiplied by the share in ``left``.

    A flow with a share of 0 is left out, since zero times infinity is NaN.
    """
    for (weight, e), share in zip(edges, left, strict=True):
        if share > 0.0:
            yield weight * share, e


def figures(peers: Sequence[str], left: Tensor) -> Mapping[str, float]:
    """The share of flows that were clipped, counted by tensor: of all flows, and of each peer's."""
    cut = (left < 1.0).double().mean(dim=1)
    of: dict[str, list[float]] = {}
    for peer, share in zip(peers, cut.tolist(), strict=True):
        of.setdefault(peer, []).append(share)
    each = {f"peer.{peer}.clipped_share": sum(found) / len(found) for peer, found in of.items()}
    return {"clipped_share": float(cut.mean()), **each}
