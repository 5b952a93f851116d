"""Who is whose neighbour: every node must come to the same graph by itself."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deca_node.protocol.errors import SettingsError
from deca_node.protocol.run import RunSettings
from deca_node.protocol.topology import Graph, connected, graph

TOPOLOGIES = ("ring", "full", "erdos-renyi")


def members(count: int) -> list[str]:
    return [f"node-{i:02d}" for i in range(count)]


@given(st.sampled_from(TOPOLOGIES), st.integers(1, 24), st.integers(0, 1000))
def test_graphs_are_symmetric_connected_and_without_loops(topology: str, count: int, seed: int) -> None:
    found = graph(members(count), RunSettings(topology=topology, seed=seed))
    assert sorted(found) == members(count)
    assert connected(found)
    for name, near in found.items():
        assert name not in near
        assert all(name in found[peer] for peer in near)


@given(st.sampled_from(TOPOLOGIES), st.integers(1, 12), st.randoms(use_true_random=False))
def test_the_order_of_names_does_not_matter(topology: str, count: int, rng: random.Random) -> None:
    names = members(count)
    rng.shuffle(names)
    settings = RunSettings(topology=topology, seed=7)
    assert graph(names, settings) == graph(members(count), settings)


def test_degrees() -> None:
    assert {len(near) for near in graph(members(6), RunSettings(topology="ring")).values()} == {2}
    assert {len(near) for near in graph(members(6), RunSettings(topology="full")).values()} == {5}


def test_small_rings() -> None:
    assert graph(["a"], RunSettings(topology="ring")) == {"a": frozenset()}
    assert graph(["a", "b"], RunSettings(topology="ring")) == {"a": frozenset("b"), "b": frozenset("a")}


def test_random_graphs_follow_from_the_seed() -> None:
    drawn = [graph(members(8), RunSettings(topology="erdos-renyi", seed=seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_random_graphs_have_about_the_edges_that_were_asked_for() -> None:
    settings = [RunSettings(topology="erdos-renyi", edge_probability=0.5, seed=seed) for seed in range(50)]
    edges = [sum(map(len, graph(members(12), s).values())) / 2 for s in settings]
    assert 0.45 < sum(edges) / 50 / 66 < 0.55


def test_a_graph_that_is_never_connected_is_refused() -> None:
    settings = RunSettings(topology="erdos-renyi", edge_probability=0.01)
    with pytest.raises(SettingsError, match=r"^edge_probability = 0.01: no connected graph of 9 nodes .* 'ring'$"):
        graph(members(9), settings)


@pytest.mark.parametrize(
    ("edges", "expected"),
    [("", True), ("a", True), ("ab", True), ("ab cd", False), ("ab bc cd", True), ("ab bc d", False)],
)
def test_connected(edges: str, expected: bool) -> None:
    near: dict[str, set[str]] = {name: set() for name in edges if name != " "}
    for a, b in (pair for pair in edges.split() if len(pair) == 2):
        near[a].add(b)
        near[b].add(a)
    found: Graph = {name: frozenset(peers) for name, peers in near.items()}
    assert connected(found) is expected
