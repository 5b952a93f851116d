"""Mixing weights of edges, and how fast a graph reaches agreement.

Metropolis weights need only what both ends announce: degrees, and the shares s of the nodes in the mean. So an edge
moves as much of one end's share as of the other's, s_i w_ij = s_j w_ji, and mixing never moves the mean of all copies
that is weighted by the shares. Equal shares give a doubly stochastic matrix and the ordinary mean.
"""

import math
from collections.abc import Mapping

from deca_node.protocol.agreed.run import TOPK_FLOW_SHARE_MAX, RunSettings
from deca_node.protocol.agreed.topology import Graph

Matrix = list[list[float]]

FLUSH_TOLERANCE = 1e-4
"""The share of the disagreement that the final flush may leave."""

TOPK_LEFT_PER_MIX = 0.945
"""The share of a disagreement that a mix leaves with codec = topk at its largest gamma_c, however well the graph mixes,
since only the largest elements are sent. Measured on graphs of 2 to 32 nodes: at most 155 mixes to the tolerance."""

SHARE_ONE = 1000
"""Shares are whole numbers of thousandths: this is that of an ordinary node."""

SHARE_FACTOR_MAX = 4
"""With weights = tokens: how many times an ordinary share, and what part of it, a node's share is at most and at least.
So the ratio of two nodes' shares is at most the square of this."""

Shares = Mapping[str, int]
"""Shares by name. A node without one has an ordinary share."""

POWER_ITERATIONS = 5000
"""A ring of a hundred nodes needs so many. Most graphs need some fifty."""


def metropolis(degree: int, peer_degree: int, share: int = SHARE_ONE, peer_share: int = SHARE_ONE) -> float:
    """w_ij = min(s_i / (1 + d_i), s_j / (1 + d_j)) / s_i, from the degrees and the shares of both ends.

    With equal shares it is 1 / (1 + max(d_i, d_j)). It is never more than 1 / (1 + d_i), so a node with d_i neighbours
    keeps at least as much of its own.
    """
    return min(share / (1 + degree), peer_share / (1 + peer_degree)) / share


def share_of(settings: RunSettings, tokens: int) -> int:
    """The share of a node that trains on so many tokens."""
    if settings.weights == "equal":
        return SHARE_ONE
    share = round(SHARE_ONE * tokens / settings.weight_tokens)
    return max(SHARE_ONE // SHARE_FACTOR_MAX, min(share, SHARE_ONE * SHARE_FACTOR_MAX))


def share_fits(settings: RunSettings, share: int) -> bool:
    """Whether a node of the run may have this share."""
    factor = 1 if settings.weights == "equal" else SHARE_FACTOR_MAX
    return SHARE_ONE // factor <= share <= SHARE_ONE * factor


def matrix(graph: Graph, shares: Shares | None = None) -> Matrix:
    """W over the sorted names: Metropolis weights, and the rest of each row to one on the diagonal."""
    names = sorted(graph)
    size = {name: (len(graph[name]), (shares or {}).get(name, SHARE_ONE)) for name in names}
    rows = []
    for a in names:
        row = [metropolis(size[a][0], size[b][0], size[a][1], size[b][1]) if b in graph[a] else 0.0 for b in names]
        row[names.index(a)] = 1.0 - sum(row)
        rows.append(row)
    return rows


def contraction(graph: Graph, flow_share: float = 1.0, shares: Shares | None = None) -> float:
    """max(|lambda_2|, |lambda_n|) of (1 - gamma_c) I + gamma_c W: the share of a disagreement that a mix leaves.

    Power iteration on W - 1 pi^T, in plain Python: graphs here have at most some hundred nodes. Distances are weighted
    by pi, the nodes' parts of the sum of all shares, in which W is symmetric.
    """
    rows = [[(j, w) for j, w in enumerate(row) if w] for row in matrix(graph, shares)]
    n = len(rows)
    held = [(shares or {}).get(name, SHARE_ONE) for name in sorted(graph)]
    pi = [share / sum(held) for share in held]
    if n < 2:
        return 0.0
    vector = [math.sin(1.0 + 7.0 * i) for i in range(n)]
    size = 0.0
    for _ in range(POWER_ITERATIONS):
        mean = sum(p * v for p, v in zip(pi, vector, strict=True))
        vector = [v - mean for v in vector]
        mixed = [
            (1 - flow_share) * v + flow_share * sum(w * vector[j] for j, w in row)
            for row, v in zip(rows, vector, strict=True)
        ]
        before, size = size, math.sqrt(_norm(pi, mixed) / (_norm(pi, vector) or 1.0))
        scale = math.sqrt(_norm(pi, mixed)) or 1.0
        vector = [v / scale for v in mixed]
        if abs(size - before) < 1e-12:
            break
    return min(size, 1.0)


def _norm(pi: list[float], vector: list[float]) -> float:
    return sum(p * v * v for p, v in zip(pi, vector, strict=True))


def flush_mixes(graph: Graph, settings: RunSettings, shares: Shares | None = None) -> int:
    """Mixes per block after which the copies agree, with the run's codec and gamma_c."""
    mixes = mixes_to_agree(graph, settings.flow_share, shares=shares)
    if settings.codec != "topk" or len(graph) < 2:
        return mixes
    left = 1.0 - (1.0 - TOPK_LEFT_PER_MIX) * settings.flow_share / TOPK_FLOW_SHARE_MAX
    return max(mixes, _mixes(left, FLUSH_TOLERANCE))


def mixes_to_agree(
    graph: Graph, flow_share: float = 1.0, tolerance: float = FLUSH_TOLERANCE, shares: Shares | None = None
) -> int:
    """Mixes until at most ``tolerance`` of the disagreement is left. At least three, since the error of a quantized
    keyframe needs so many to vanish."""
    return _mixes(contraction(graph, flow_share, shares), tolerance)


def _mixes(left: float, tolerance: float) -> int:
    if left <= tolerance:
        return 3
    return max(3, math.ceil(math.log(tolerance) / math.log(left))) if left < 1.0 else 1000
