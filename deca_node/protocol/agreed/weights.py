"""How much of a neighbour's copy flows over an edge, and how fast a graph comes to agree.

Metropolis weights need only the degrees that both ends announce, so they are symmetric by construction,
and the matrix they form is doubly stochastic: mixing never moves the mean.
"""

import math

from deca_node.protocol.agreed.run import TOPK_FLOW_SHARE_MAX, RunSettings
from deca_node.protocol.agreed.topology import Graph

Matrix = list[list[float]]

FLUSH_TOLERANCE = 1e-4
"""What share of the disagreement the flush that ends a run may leave."""

TOPK_LEFT_PER_MIX = 0.945
"""What share of a disagreement a mix leaves under codec = topk at its largest gamma_c, however well the graph mixes:
what is not among the largest waits. Measured: 155 mixes to the tolerance at most, on graphs of 2 to 32 nodes."""

POWER_ITERATIONS = 5000
"""A ring of a hundred nodes needs them; most graphs are done after some fifty."""


def metropolis(degree: int, peer_degree: int) -> float:
    """w_ij = 1 / (1 + max(d_i, d_j)), from the degrees of both ends."""
    return 1.0 / (1 + max(degree, peer_degree))


def matrix(graph: Graph) -> Matrix:
    """W over the sorted names: Metropolis weights, and on the diagonal what is left to one."""
    names = sorted(graph)
    rows = []
    for a in names:
        row = [metropolis(len(graph[a]), len(graph[b])) if b in graph[a] else 0.0 for b in names]
        row[names.index(a)] = 1.0 - sum(row)
        rows.append(row)
    return rows


def contraction(graph: Graph, flow_share: float = 1.0) -> float:
    """max(|lambda_2|, |lambda_n|) of (1 - gamma_c) I + gamma_c W: what one mix leaves of the disagreement.

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
    """Mixes per block after which the copies agree, under the run's codec and gamma_c."""
    mixes = mixes_to_agree(graph, settings.flow_share)
    if settings.codec != "topk" or len(graph) < 2:
        return mixes
    left = 1.0 - (1.0 - TOPK_LEFT_PER_MIX) * settings.flow_share / TOPK_FLOW_SHARE_MAX
    return max(mixes, _mixes(left, FLUSH_TOLERANCE))


def mixes_to_agree(graph: Graph, flow_share: float = 1.0, tolerance: float = FLUSH_TOLERANCE) -> int:
    """Mixes until at most ``tolerance`` of the disagreement is left; at least three, since a quantized
    keyframe needs them to shed its own error."""
    return _mixes(contraction(graph, flow_share), tolerance)


def _mixes(left: float, tolerance: float) -> int:
    if left <= tolerance:
        return 3
    return max(3, math.ceil(math.log(tolerance) / math.log(left))) if left < 1.0 else 1000
