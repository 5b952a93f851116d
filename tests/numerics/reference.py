"""A second implementation of DECA: dense, in NumPy, straight from the equations. The engine is compared with it.

Rows are nodes and columns are parameters. It shares no code with the package, and has no slices, edges or codecs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Method:
    """The settings of one arm, under their names in ``run.toml``."""

    discrepancy: str
    h_into: str = "both"
    h_part: str = "full"
    bias_correction: str = "alpha"
    alpha1: float = 0.9
    alpha2: float = 0.999
    beta1: float = 0.5
    beta2: float = 0.99
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 0.0


@dataclass(frozen=True)
class State:
    """All nodes after one step; x, m and v are [nodes, parameters]."""

    x: Array
    m: Array
    v: Array


def simulate(
    method: Method,
    W: Array,
    x: Array,
    gradient: Callable[[int, Array], Array],
    *,
    gammas: Sequence[float],
    tensors: Sequence[int],
    signals: Sequence[str] = (),
    group: int = 256,
    matrices: Sequence[bool] = (),
    bits: int = 8,
    parameters: Sequence[bool] = (),
) -> list[State]:
    """One activation; returns the state after every step.

    ``gradient(r, x)`` gives the gradients of all nodes at inner step r, ``gammas`` one step size above
    zero per step, ``tensors`` the sizes of the parameter tensors (for ``rms``). ``signals`` names the moment signal
    of each step (none, v, m or mv; v in groups of ``group`` elements); steps beyond it have none. ``matrices`` says of
    each tensor whether it decays. m travels in so many ``bits``, in full with 8. ``parameters`` says of each step
    whether x is mixed; beyond it, it is. ``W`` is one matrix, or [steps, n, n].
    """
    each = W if W.ndim == 3 else np.broadcast_to(W, (len(gammas), *W.shape))
    fed_back = np.zeros_like(x)
    decays = np.repeat(method.weight_decay * np.array(matrices or [True] * len(tensors)), tensors)
    a1, a2 = method.alpha1, method.alpha2
    m, v = np.zeros_like(x), np.zeros_like(x)
    c1 = c2 = 0.0
    states = []
    for r, gamma in enumerate(gammas):
        W, g = each[r], gradient(r, x)
        if method.max_grad_norm:
            g = g * np.minimum(1.0, method.max_grad_norm / np.linalg.norm(g, axis=1, keepdims=True))
        m_half, v_half = a1 * m + (1 - a1) * g, a2 * v + (1 - a2) * g * g
        if method.bias_correction == "alpha":
            c1, c2 = 1 - a1 ** (r + 1), 1 - a2 ** (r + 1)
        else:
            c1, c2 = a1 * c1 + (1 - a1), a2 * c2 + (1 - a2)
        D = np.sqrt(v_half / c2) + method.epsilon
        decayed = (1 - gamma * decays) * x
        x_half = decayed - gamma * (m_half / c1) / D
        x_plus = W @ x_half if r >= len(parameters) or parameters[r] else x_half
        start = decayed if method.h_part == "full" else x_half
        h = signal(method.discrepancy, start - x_plus, gamma, D, tensors)
        m, v = folded(method, (m_half, v_half), (c1, c2), h, g)
        if r < len(signals) and signals[r] != "none":
            v = v * factors(W, v_half, group) if "v" in signals[r] else v
            if "m" in signals[r]:
                told = m_half if bits == 8 else few_bits(m_half + fed_back, bits)
                fed_back = fed_back + m_half - told
                m = m + W @ told - told
                spread = (W[:, :, None] * (told[None, :, :] - told[:, None, :]) ** 2).sum(axis=1)
                v = np.maximum(v, spread * c2 / c1**2)
        if method.bias_correction == "exact":
            c1, c2 = weights(method, c1, c2)
        x = x_plus
        states.append(State(x, m, v))
    return states


def signal(name: str, moved: Array, gamma: float, D: Array, tensors: Sequence[int]) -> Array:
    """The signal h by name; ``moved`` is x - x+ or x_half - x+."""
    if name in ("none", "decay-only"):
        return np.zeros_like(moved)
    if name == "paper":
        return -moved
    if name == "descent":
        return moved
    if name == "rms":
        s, at = np.empty_like(D), 0
        for size in tensors:
            block = D[:, at : at + size]
            s[:, at : at + size] = np.sqrt((block**2).mean(axis=1, keepdims=True))
            at += size
        return s * moved / gamma
    return D * moved / gamma


def folded(
    method: Method, half: tuple[Array, Array], c: tuple[float, float], h: Array, g: Array
) -> tuple[Array, Array]:
    """The moments after the fold."""
    m, v = half
    (a1, a2), (b1, b2) = (method.alpha1, method.alpha2), (method.beta1, method.beta2)
    if method.discrepancy == "none":
        return m, v
    in_gradient_units = method.discrepancy in ("precond", "rms", "trivial")
    k1, k2 = c if in_gradient_units and method.bias_correction == "alpha" else (1.0, 1.0)
    if method.discrepancy == "trivial":
        m_plus = m - (1 - a1) * g + (1 - a1) * k1 * h
        v_plus = np.maximum(0.0, v - (1 - a2) * g * g + (1 - a2) * k2 * h * h)
    else:
        m_plus = b1 * m + (1 - b1) * k1 * h
        v_plus = b2 * v + (1 - b2) * k2 * h * h
    return (m_plus if method.h_into != "v" else m), (v_plus if method.h_into != "m" else v)


def few_bits(z: Array, bits: int, group: int = 256) -> Array:
    """Each group of a row as odd multiples of one scale: signs with 1 bit; with 2 those from 1.25 mean magnitudes on
    count three times. The scale fits best in the mean square."""
    told = np.empty_like(z)
    for start in range(0, z.shape[1], group):
        part = z[:, start : start + group]
        c = np.where(part >= 0, 1.0, -1.0)
        if bits == 2:
            c = c * np.where(abs(part) >= 1.25 * abs(part).mean(axis=1, keepdims=True), 3.0, 1.0)
        told[:, start : start + group] = c * (part * c).sum(axis=1, keepdims=True) / (c * c).sum(axis=1, keepdims=True)
    return told


def factors(W: Array, v_half: Array, group: int) -> Array:
    """The factors of v from the v-signal, [nodes, parameters]: along an edge each group moves at most three times the v
    of its poorer end."""
    nodes, parameters = v_half.shape
    result = np.ones_like(v_half)
    for start in range(0, parameters, group):
        columns = slice(start, start + group)
        means = v_half[:, columns].mean(axis=1)
        coded = [eight_bits(means[i], largest_mean(v_half[i], group)) for i in range(nodes)]
        for i in range(nodes):
            for j in range(nodes):
                if i != j and coded[i] > 0:
                    most = 3 * min(coded[i], coded[j])
                    given = W[i, j] * max(-most, min(most, coded[j] - coded[i]))
                    result[i, columns] += given / coded[i]
    return result


def largest_mean(v: Array, group: int) -> float:
    """The largest group mean of one node."""
    return max(float(v[start : start + group].mean()) for start in range(0, len(v), group))


def eight_bits(mean: float, largest: float) -> float:
    """The nearest of 255 values that lie evenly, in octaves, between the largest mean and 40 octaves below it; or
    zero."""
    levels = np.log2(largest) - 40 * np.arange(255) / 254 if largest > 0 else np.zeros(0)
    if mean <= 0 or np.log2(mean) < levels[-1] - 20 / 254:
        return 0.0
    return float(2.0 ** levels[np.abs(levels - np.log2(mean)).argmin()])


def weights(method: Method, c1: float, c2: float) -> tuple[float, float]:
    """Total weight of the gradients in m and v after the fold, for the exact bias correction."""
    if method.discrepancy == "none":
        return c1, c2
    holds = float(method.discrepancy in ("precond", "rms", "trivial") and method.h_part == "full")
    if method.discrepancy == "trivial":
        d1, d2 = c1 - (1 - method.alpha1) * (1 - holds), c2 - (1 - method.alpha2) * (1 - holds)
    else:
        d1, d2 = (method.beta1 * c1 + (1 - method.beta1) * holds), (method.beta2 * c2 + (1 - method.beta2) * holds)
    return (d1 if method.h_into != "v" else c1), (d2 if method.h_into != "m" else c2)


def ring(n: int) -> Array:
    """Adjacency of a ring of n nodes, 0 and 1."""
    adjacency = np.zeros((n, n))
    for i in range(n):
        adjacency[i, (i + 1) % n] = adjacency[(i + 1) % n, i] = float(n > 1)
    return adjacency


def full(n: int) -> Array:
    """Adjacency of the complete graph."""
    return np.ones((n, n)) - np.eye(n)


def erdos_renyi(n: int, p: float, rng: np.random.Generator) -> Array:
    """Adjacency of a random graph, redrawn until it is connected."""
    while True:
        upper = np.triu(rng.random((n, n)) < p, 1)
        adjacency = (upper | upper.T).astype(np.float64)
        if (np.linalg.matrix_power(adjacency + np.eye(n), n) > 0).all():
            return adjacency


def metropolis(adjacency: Array) -> Array:
    """w_ij = 1 / (1 + max(d_i, d_j)) along edges, the rest to self: symmetric and doubly stochastic."""
    degree = adjacency.sum(axis=1)
    W = adjacency / (1 + np.maximum(degree[:, None], degree[None, :]))
    return W + np.diag(1 - W.sum(axis=1))


def contraction(W: Array) -> float:
    """max(|lambda_2|, |lambda_n|): the largest share of the disagreement that one mix can leave."""
    eigenvalues = np.sort(np.linalg.eigvalsh(W))
    return float(max(abs(eigenvalues[0]), abs(eigenvalues[-2]))) if len(W) > 1 else 0.0


def consensus_distance(x: Array) -> float:
    """RMS over nodes and parameters of x_i - mean."""
    return float(np.sqrt(((x - x.mean(axis=0)) ** 2).mean()))
