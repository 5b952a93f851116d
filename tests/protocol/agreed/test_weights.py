"""Metropolis weights and the speed of agreement, compared with NumPy's eigenvalues."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from deca_node.protocol.agreed.run import MATCHINGS, TOPOLOGIES, RunSettings
from deca_node.protocol.agreed.topology import Graph, graph
from deca_node.protocol.agreed.weights import (
    FLUSH_TOLERANCE,
    SHARE_ONE,
    contraction,
    flush_mixes,
    matrix,
    metropolis,
    mixes_to_agree,
    share_fits,
    share_of,
)

graphs = st.builds(
    lambda topology, count, seed: graph(
        [f"node-{i:02d}" for i in range(count)], RunSettings(topology=topology, edge_probability=0.4, seed=seed)
    ),
    st.sampled_from([name for name in TOPOLOGIES if name not in ("edges", *MATCHINGS)]),
    st.integers(1, 16),
    st.integers(0, 1000),
)
shares = st.sampled_from([1.0, 0.5])


def one_mix(found: Graph, share: float) -> NDArray[np.float64]:
    """(1 - gamma_c) I + gamma_c W."""
    W = np.array(matrix(found))
    return (1 - share) * np.eye(len(W)) + share * W


@given(graphs)
def test_w_is_symmetric_and_doubly_stochastic(found: Graph) -> None:
    W = np.array(matrix(found))
    assert (W == W.T).all()
    assert (W >= 0).all()
    np.testing.assert_allclose(W.sum(axis=0), 1.0, atol=1e-14)
    np.testing.assert_allclose(W.sum(axis=1), 1.0, atol=1e-14)


@given(graphs, shares)
def test_contraction_is_the_second_largest_eigenvalue(found: Graph, share: float) -> None:
    eigenvalues = np.sort(np.abs(np.linalg.eigvalsh(one_mix(found, share))))
    expected = eigenvalues[-2] if len(eigenvalues) > 1 else 0.0
    assert contraction(found, share) == pytest.approx(expected, abs=1e-7)


@given(graphs, shares)
def test_the_mixes_of_the_flush_suffice(found: Graph, share: float) -> None:
    disagreement = one_mix(found, share) - 1 / len(found)
    left = np.linalg.norm(np.linalg.matrix_power(disagreement, mixes_to_agree(found, share)), 2)
    assert left <= FLUSH_TOLERANCE * (1 + 1e-3)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_large_ring_is_not_underestimated(share: float) -> None:
    """The eigenvalues are so close together that few iterations would end below the largest."""
    ring = graph([f"node-{i:03d}" for i in range(100)], RunSettings(topology="ring"))
    exact = 1 - share * (1 - (1 + 2 * np.cos(2 * np.pi / 100)) / 3)
    assert contraction(ring, share) == pytest.approx(exact, abs=1e-8)


def test_metropolis() -> None:
    assert metropolis(1, 1) == 0.5
    assert metropolis(2, 5) == metropolis(5, 2) == 1 / 6


def test_a_full_graph_agrees_at_once_and_one_node_with_itself() -> None:
    assert contraction(graph("abcd", RunSettings(topology="full"))) == pytest.approx(0.0, abs=1e-12)
    assert contraction(graph("a", RunSettings(topology="ring"))) == 0.0
    assert mixes_to_agree(graph("a", RunSettings(topology="ring"))) == 3
    assert mixes_to_agree(graph("abcd", RunSettings(topology="full"))) == 3


@pytest.mark.parametrize(
    ("names", "changes", "mixes"),
    [
        ("abcdefgh", {}, 43),
        ("abcdefgh", {"exchange": "overlap"}, 90),
        ("abcdefgh", {"codec": "topk"}, 373),
        ("abcdefgh", {"codec": "topk", "gamma_c": 0.06}, 782),
        ("ab", {}, 3),
        ("ab", {"exchange": "overlap"}, 14),
        ("ab", {"codec": "topk"}, 163),
        ("ab", {"codec": "topk", "gamma_c": 0.06}, 345),
        ("a", {"codec": "topk"}, 3),
    ],
)
def test_the_flush_takes_as_long_as_the_graph_and_the_codec_need(
    names: str, changes: dict[str, Any], mixes: int
) -> None:
    """Every node computes this number. All have to come to the same, so the numbers stay as they are."""
    settings = RunSettings(topology="ring", **changes)
    assert flush_mixes(graph(names, settings), settings) == mixes


def test_a_graph_in_two_parts_never_agrees() -> None:
    apart = {"a": frozenset("b"), "b": frozenset("a"), "c": frozenset("d"), "d": frozenset("c")}
    assert contraction(apart) == pytest.approx(1.0)
    assert mixes_to_agree({name: frozenset() for name in "ab"}) == 1000


def test_mixes_halve_the_disagreement() -> None:
    two = graph("ab", RunSettings(topology="ring"))
    assert [mixes_to_agree(two, 0.5, tolerance) for tolerance in (0.5, 0.1, 2.0**-10)] == [3, 4, 10]


# --- nodes with other shares in the mean ------------------------------------------------------------


def drawn(found: Graph, seed: int) -> dict[str, int]:
    rng = np.random.default_rng(seed)
    return {name: int(rng.integers(250, 4001)) for name in found}


@given(graphs, st.integers(0, 1000))
def test_w_with_shares_is_reversible_and_keeps_as_much_as_without(found: Graph, seed: int) -> None:
    """s_i w_ij = s_j w_ji, so mixing leaves the mean that is weighted by the shares; rows sum to one, and no node takes
    more from its neighbours than with d + 1 equal weights."""
    shares = drawn(found, seed)
    W, s = np.array(matrix(found, shares)), np.array([shares[name] for name in sorted(found)])
    np.testing.assert_allclose(s[:, None] * W, (s[:, None] * W).T, rtol=1e-14)
    np.testing.assert_allclose(W.sum(axis=1), 1.0, atol=1e-14)
    np.testing.assert_allclose(s @ W, s, rtol=1e-12)
    degrees = np.array([len(found[name]) for name in sorted(found)])
    assert (np.diag(W) >= 1 / (1 + degrees) - 1e-12).all()


@given(graphs, shares, st.integers(0, 1000))
def test_contraction_with_shares_is_the_second_largest_eigenvalue(found: Graph, share: float, seed: int) -> None:
    held = drawn(found, seed)
    W = (1 - share) * np.eye(len(found)) + share * np.array(matrix(found, held))
    eigenvalues = np.sort(np.abs(np.linalg.eigvals(W)))
    expected = eigenvalues[-2] if len(eigenvalues) > 1 else 0.0
    assert contraction(found, share, held) == pytest.approx(expected, abs=1e-4)
    # Gershgorin: as with equal shares no eigenvalue is below 2 / (1 + d) - 1, from which the bounds on gamma_c follow.
    low = 2 / (1 + max(map(len, found.values()), default=0)) - 1
    assert np.linalg.eigvals(np.array(matrix(found, held))).real.min() >= low - 1e-9


@given(graphs)
def test_equal_shares_are_the_weights_of_metropolis_bit_for_bit(found: Graph) -> None:
    assert matrix(found, dict.fromkeys(found, SHARE_ONE)) == matrix(found)
    assert contraction(found, 1.0, {}) == contraction(found)


@pytest.mark.parametrize(
    ("tokens", "share"), [(0, 250), (100, 250), (300, 300), (1000, 1000), (2500, 2500), (10**9, 4000)]
)
def test_a_share_is_a_nodes_tokens_within_bounds(tokens: int, share: int) -> None:
    run = RunSettings(weights="tokens", weight_tokens=1000)
    assert share_of(run, tokens) == share
    assert share_of(RunSettings(), tokens) == SHARE_ONE
    assert [share_fits(run, one) for one in (249, 250, 4000, 4001)] == [False, True, True, False]
    assert [share_fits(RunSettings(), one) for one in (999, 1000, 1001)] == [False, True, False]
