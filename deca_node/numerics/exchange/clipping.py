r"""Clipped gossip: how much of a neighbour's difference may move a node, whoever the neighbour is.

With ``robust = clip`` a flow counts for no more than a radius allows (ClippedGossip of He, Karimireddy and Jaggi,
arXiv 2202.01545, with the node itself in the centre)::

    x_i += gamma_c w_ij clip(e_ij, tau_i)           clip(e, tau) = min(1, tau / |e|) e

Each parameter tensor p of the block is clipped by itself. With one norm for the whole block a neighbour could
spend all of it on the few elements of a norm's weights; so each tensor has its own share. The radius is the
smaller of two::

    tau_i,p = min( clip_radius gamma sqrt(n_p),  |e_ij|_p of the neighbour that is the (f+1)-th farthest )

gamma is the peak of the learning rate and n_p the tensor's size: a neighbour whose elements differ by
clip_radius whole steps each is at the first bound. The second, with f = ``robust_neighbours`` > 0, follows what
neighbours really are apart: of d distances at most f are those of liars, so the (f+1)-th largest is not above
the largest of an honest one. It is asked only where honest neighbours are in the majority, d >= 2 f + 1; with
fewer, f of them could agree with the node and lock all others out. A distance is the last one known: an
edge that is late does not leave the others to measure themselves.

Where the second bound is asked, a neighbour beyond ``clip_reach`` times it counts for nothing at all: one so far
out is broken or hostile, and even its clipped share would pull all its neighbours the same way at every flow. A
node that is itself far from everybody is not cut off from them by this: for it, they all are far.

What is clipped off stays in e_ij, which is the difference of two public copies: nothing is kept beside it, and the
next flow finds what is left. But one end may clip and the other may not, so the mean over nodes is no longer preserved.
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
    """The run's settings for it: f, clip_radius, gamma's peak, and clip_reach (0: no end)."""

    neighbours: int
    radius: float
    gamma_peak: float
    reach: float = 0.0

    @classmethod
    def of(cls, settings: RunSettings) -> "Clip | None":
        """None where ``robust = none``."""
        if settings.robust == "none":
            return None
        return cls(settings.robust_neighbours, settings.clip_radius, settings.learning_rate, settings.clip_reach)

    def trusts(self, neighbours: int) -> bool:
        """Whether the honest are in the majority among so many, so that what they say can be told from the rest."""
        return neighbours >= 2 * self.neighbours + 1

    def radii(self, distances: Iterable[Tensor], sizes: Sequence[int]) -> "Radii":
        """tau_i of every tensor; ``distances`` are |e_ij|, float64 [tensors] for each edge."""
        ceiling = self.radius * self.gamma_peak * torch.tensor(sizes, dtype=torch.float64).sqrt()
        known = list(distances)
        if not self.neighbours or not self.trusts(len(known)):
            return Radii(ceiling, torch.full_like(ceiling, math.inf))
        # What is not finite is farther than all that is.
        farthest = torch.stack(known).nan_to_num(nan=math.inf, posinf=math.inf).sort(dim=0, descending=True).values
        found = farthest[self.neighbours]
        return Radii(
            torch.minimum(ceiling, found), self.reach * found if self.reach else torch.full_like(found, math.inf)
        )


class Radii(NamedTuple):
    """For every tensor, how far a flow may move it, and how far away a neighbour may be to count; float64 [tensors]."""

    tau: Tensor
    reach: Tensor

    def shares(self, distances: Tensor) -> Tensor:
        """min(1, tau / |e|): what is left of each flow, float64 [flows, tensors]; 0 out of reach, and where |e| is no
        finite number. ``distances`` are |e| of every flow, float64 [flows, tensors]."""
        left = torch.where(distances > self.tau, self.tau / distances, torch.ones_like(distances))
        counts = distances.isfinite() & (distances <= self.reach)
        return torch.where(counts, left, torch.zeros_like(left))


def clipped(edges: Iterable[tuple[float, Tensor]], left: Sequence[float]) -> Iterator[tuple[float, Tensor]]:
    """(w_ij, e_ij) of every flow with its share taken into the weight, as :func:`deca.mix` takes it.

    A flow of which nothing is left is passed over, since zero times infinity is no number.
    """
    for (weight, e), share in zip(edges, left, strict=True):
        if share > 0.0:
            yield weight * share, e


def figures(peers: Sequence[str], left: Tensor) -> Mapping[str, float]:
    """Which share of the flows was clipped, counted by tensor: of all, and of every peer's."""
    cut = (left < 1.0).double().mean(dim=1)
    of: dict[str, list[float]] = {}
    for peer, share in zip(peers, cut.tolist(), strict=True):
        of.setdefault(peer, []).append(share)
    each = {f"peer.{peer}.clipped_share": sum(found) / len(found) for peer, found in of.items()}
    return {"clipped_share": float(cut.mean()), **each}
