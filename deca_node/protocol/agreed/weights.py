"""Mixing weights of edges, and how fast a graph reaches agreement.

Metropolis weights need only the degrees that both ends announce, so they are symmetric by construction. Their matrix is
doubly stochastic, so mixing never moves the mean.
"""

import math

from deca_node.protocol.agreed.run import TOPK_FLOW_SHARE_MAX, RunSettings
from deca_node.protocol.agreed.topology import Graph

Matrix = list[list[float]]

FLUSH_TOLERANCE = 1e-4
"""The share of the disagreement that the final flush may leave."""

TOPK_LEFT_PER_MIX = 0.945
"""The share of a disagreement that a mix leaves with codec = topk at its largest gamma_c, however well the graph mixes,
since only the largest elements are sent. Measured on graphs of 2 to 32 nodes: at most 155 mixes to the tolerance."""

POWER_ITERATIONS = 5000
"""A ring of a hundred nodes needs so many. Most graphs need some fifty."""


def metropolis(degree: int, peer_degree: int) -> float:
    """w_ij = 1 / (1 + max(d_i, d_j)), from the degrees of both ends."""
    return 1.0 / (1 + max(degree, peer_degree))


def matrix(graph: Graph) -> Matrix:
    """W over the sorted names: Metropolis weights, and the rest of each row to one on the diagonal."""
    names = sorted(graph)
    rows = []
    for a in names:
        row = [metropolis(len(graph[a]), len(graph[b])) if b in graph[a] else 0.0 for b in names]
        row[names.index(a)] = 1.0 - sum(row)
        rows.append(row)
    return rows


def contraction(graph: Graph, flow_share: float = 1.0) -> float:
    """max(|lambda_2|, |lambda_n|) of (1 - gamma_c) I + gamma_c W: the share of a disagreement that a mix leaves.

    Power iteration on W - 11^T/n, in plain Python: graphs here have at most some hundred nodes.
    """
    rows = [[(j, w) for j, w in enumerate(row) if w] for row in matrix(graph)]
    n = len(rows)
    if n < 2:
        return 0.0
    vector = [math.sin(1.0 + 7.0 * i) for i in range(n)]
    size = 0.0
    for _ in range(POWER_ITERATIONS):
        mean = sum(vector) / n
        vector = [v - mean for v in vector]
        mixed = [
            (1 - flow_share) * v + flow_share * sum(w * vector[j] for j, w in row)
            for row, v in zip(rows, vector, strict=True)
        ]
        before, size = size, math.sqrt(sum(v * v for v in mixed) / (sum(v * v for v in vector) or 1.0))
        scale = math.sqrt(sum(v * v for v in mixed)) or 1.0
        vector = [v / scale for v in mixed]
        if abs(size - before) < 1e-12:
            break
    return min(size, 1.0)


def flush_mixes(graph: Graph, settings: RunSettings) -> int:
    """Mixes per block after which the copies agree, with the run's codec and gamma_c."""
    mixes = mixes_to_agree(graph, settings.flow_share)
    if settings.codec != "topk" or len(graph) < 2:
        return mixes
    left = 1.0 - (1.0 - TOPK_LEFT_PER_MIX) * settings.flow_share / TOPK_FLOW_SHARE_MAX
    return max(mixes, _mixes(left, FLUSH_TOLERANCE))


def mixes_to_agree(graph: Graph, flow_share: float = 1.0, tolerance: float = FLUSH_TOLERANCE) -> int:
    """Mixes until at most ``tolerance`` of the disagreement is left. At least three, since the error of a quantized
    keyframe needs so many to vanish."""
    return _mixes(contraction(graph, flow_share), tolerance)


def _mixes(left: float, tolerance: float) -> int:
    if left <= tolerance:
        return 3
    return max(3, math.ceil(math.log(tolerance) / math.log(left))) if left < 1.0 else 1000
