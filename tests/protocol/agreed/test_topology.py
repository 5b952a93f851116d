"""The graph of neighbours, which every node computes alone and alike."""

import dataclasses
import math
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deca_node.protocol.agreed import topology
from deca_node.protocol.agreed.run import MATCHINGS, TOPOLOGIES, RunSettings
from deca_node.protocol.agreed.topology import Graph, check_edges, connected, final_graph, graph, turns
from deca_node.protocol.agreed.weights import contraction, matrix
from deca_node.protocol.errors import SettingsError

DRAWN = ("erdos-renyi", "random-regular")
SHAPES = tuple(name for name in TOPOLOGIES if name != "edges")


def members(count: int) -> list[str]:
    return [f"node-{i:02d}" for i in range(count)]


def of(topology: str, count: int, activation: int = 0, **settings: int | float | str) -> Graph:
    return graph(members(count), RunSettings(topology=topology, **settings), activation)


def listed(edges: str, names: str = "a b c d") -> Graph:
    return graph(names.split(), RunSettings(topology="edges", edges=edges))


def degrees(found: Graph) -> list[int]:
    return sorted(map(len, found.values()))


def eigenvalues(found: Graph) -> list[float]:
    """Eigenvalues of W, descending."""
    return [float(value) for value in np.sort(np.linalg.eigvalsh(np.array(matrix(found))))[::-1]]


# --- every graph ------------------------------------------------------------------------------------


@given(st.sampled_from(SHAPES), st.integers(0, 40), st.integers(0, 1000), st.integers(2, 7), st.integers(0, 50))
def test_graphs_are_symmetric_connected_and_without_loops(
    topology: str, count: int, seed: int, degree: int, activation: int
) -> None:
    """Every topology exists for any number of members, since nodes come and go."""
    found = of(topology, count, activation, seed=seed, degree=degree, redraw_every=3)
    assert sorted(found) == members(count)
    assert connected(found) or topology in MATCHINGS
    for name, near in found.items():
        assert name not in near
        assert all(name in found[peer] for peer in near)


@given(st.sampled_from(SHAPES), st.integers(1, 12), st.randoms(use_true_random=False))
def test_the_order_of_names_does_not_matter(topology: str, count: int, rng: random.Random) -> None:
    names = members(count)
    rng.shuffle(names)
    settings = RunSettings(topology=topology, seed=7)
    assert graph(names, settings) == graph(members(count), settings)


@pytest.mark.parametrize("topology", SHAPES)
def test_one_node_has_no_neighbour_and_two_have_each_other(topology: str) -> None:
    assert of(topology, 1) == {"node-00": frozenset()}
    assert of(topology, 2) == {"node-00": frozenset({"node-01"}), "node-01": frozenset({"node-00"})}


# --- one neighbour at a time ------------------------------------------------------------------------


@given(st.sampled_from(MATCHINGS), st.integers(1, 40), st.integers(0, 1000), st.integers(0, 50))
def test_all_are_paired_but_one_where_their_number_is_odd(topology: str, count: int, seed: int, visit: int) -> None:
    found = of(topology, count, visit, seed=seed)
    assert degrees(found) == [0] * (count % 2) + [1] * (count - count % 2)


def test_pairs_are_drawn_anew_at_each_visit_and_all_alike() -> None:
    """Over many visits each pair comes up as often as another."""
    met: Counter[tuple[str, str]] = Counter()
    for visit in range(1400):
        met.update((a, b) for a, near in of("pairs", 8, visit).items() for b in near if a < b)
    assert len(met) == 28 and sum(met.values()) == 4 * 1400
    assert max(met.values()) < 1.4 * 200 and min(met.values()) > 0.6 * 200


def test_without_one_member_most_pairs_are_the_same() -> None:
    """Two nodes may disagree for a while about a third."""
    settings, names = RunSettings(topology="pairs"), members(20)
    kept = 0
    for visit in range(50):
        whole, less = graph(names, settings, visit), graph(names[:-1], settings, visit)
        kept += sum(whole[name] == less[name] for name in names[:-1])
    assert kept > 0.6 * 50 * 19


def in_turn(topology: str, count: int, visit: int, blocks: int, **settings: int) -> tuple[Graph, ...]:
    run = RunSettings(topology=topology, partners="step", moments_every=1, mix_every=9, **settings)
    return turns(members(count), run, visit, blocks)


@pytest.mark.parametrize("topology", MATCHINGS)
@given(st.integers(1, 40), st.integers(0, 100), st.integers(0, 50))
def test_the_graphs_that_take_turns_in_a_visit(topology: str, count: int, seed: int, visit: int) -> None:
    """As many as there are bits in the numbers, each with one neighbour at most; the first is that of the visit."""
    graphs = in_turn(topology, count, visit, 5, seed=seed, rounds=99)
    assert len(graphs) == max(1, (count - 1).bit_length())
    assert graphs[0] == of(topology, count, visit, seed=seed, rounds=99) or topology == "one-peer-exponential"
    for found in graphs:
        assert degrees(found) == [0] * (count % 2) + [1] * (count - count % 2)


@pytest.mark.parametrize("count", [4, 8, 16, 32])
def test_one_visit_with_the_graphs_in_turn_is_the_mean_of_all(count: int) -> None:
    """What several visits of a block do with a partner each, log2 n signals of one visit do with partners in turn."""
    for visit in range(7):
        product = np.eye(count)
        for found in in_turn("one-peer-exponential", count, visit, 3, rounds=9):
            product = np.array(matrix(found)) @ product
        np.testing.assert_allclose(product, 1 / count, atol=1e-12)


def test_pairs_in_turn_seldom_repeat_a_pair() -> None:
    """Three times four pairs of eight nodes; only the last two that are left may have met before."""
    different = []
    for visit in range(60):
        graphs = in_turn("pairs", 8, visit, 3, rounds=99)
        different.append(len({frozenset((a, *near)) for found in graphs for a, near in found.items()}))
    assert min(different) >= 10 and sum(different) > 11.4 * 60


def test_with_one_partner_per_visit_and_in_the_final_flush_there_is_one_graph() -> None:
    assert len(turns(members(8), RunSettings(topology="pairs"), 3, 3)) == 1
    assert in_turn("pairs", 8, 9, 3, rounds=3) == (final_graph(members(8), RunSettings(topology="pairs")),)


@pytest.mark.parametrize(("count", "blocks"), [(8, 3), (8, 4), (16, 4), (16, 24)])
def test_one_peer_after_another_is_the_mean_of_all(count: int, blocks: int) -> None:
    """log2 n visits of a block leave no disagreement where n is a power of two (arXiv 2110.13363), whatever the number
    of blocks."""
    settings = RunSettings(topology="one-peer-exponential", rounds=8)
    for block in range(blocks):
        product = np.eye(count)
        for round_ in range(count.bit_length() - 1):
            product = np.array(matrix(graph(members(count), settings, round_ * blocks + block, blocks))) @ product
        np.testing.assert_allclose(product, 1 / count, atol=1e-12)


@pytest.mark.parametrize("topology", MATCHINGS)
@given(st.integers(1, 20), st.integers(0, 100))
def test_matchings_are_connected_over_time_and_in_the_final_flush(topology: str, count: int, seed: int) -> None:
    settings, blocks = RunSettings(topology=topology, seed=seed, rounds=30), 3
    union: dict[str, set[str]] = {name: set() for name in members(count)}
    for round_ in range(settings.rounds):
        for name, near in graph(members(count), settings, round_ * blocks + 1, blocks).items():
            union[name] |= near
    assert connected({name: frozenset(near) for name, near in union.items()}), "each block by itself"
    last = graph(members(count), settings, settings.rounds * blocks, blocks)
    assert last == final_graph(members(count), settings) and connected(last)
    assert max(degrees(last), default=0) <= 4


# --- regular shapes, against what is known of them --------------------------------------------------


@pytest.mark.parametrize(
    ("topology", "count", "degree"),
    [
        *(("ring", 6, 2), ("full", 6, 5)),
        *(("exponential", 4, 3), ("exponential", 8, 5), ("exponential", 9, 6), ("exponential", 16, 7)),
        *(("torus", 9, 4), ("torus", 12, 4), ("torus", 6, 3), ("torus", 8, 3), ("torus", 7, 2), ("torus", 36, 4)),
        *(("hypercube", 4, 2), ("hypercube", 8, 3), ("hypercube", 16, 4)),
    ],
)
def test_degrees(topology: str, count: int, degree: int) -> None:
    assert set(degrees(of(topology, count))) == {degree}


@pytest.mark.parametrize("count", [3, 5, 8, 16, 30])
def test_the_spectral_gap_of_a_ring(count: int) -> None:
    """W is circulant with 1/3 to each side and to itself: eigenvalues (1 + 2 cos(2 pi m / n)) / 3."""
    expected = max(abs(1 + 2 * math.cos(2 * math.pi * m / count)) / 3 for m in range(1, count))
    assert contraction(of("ring", count)) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("bits", [2, 3, 4, 5])
def test_the_spectral_gap_of_a_hypercube(bits: int) -> None:
    """Eigenvalues (1 + bits - 2 m) / (1 + bits), m of them chosen from bits: the gap is 2 / (1 + bits)."""
    found = of("hypercube", 2**bits)
    expected = sorted(
        ((1 + bits - 2 * m) / (1 + bits) for m in range(bits + 1) for _ in range(math.comb(bits, m))), reverse=True
    )
    assert eigenvalues(found) == pytest.approx(expected, abs=1e-12)
    assert 1 - contraction(found) == pytest.approx(2 / (1 + bits), abs=1e-8)


@pytest.mark.parametrize("count", [4, 7, 8, 13, 16, 33])
def test_the_spectral_gap_of_an_exponential_graph(count: int) -> None:
    """Circulant over the offsets +-2^k: eigenvalues (1 + sum over offsets of cos(2 pi m o / n)) / (1 + d)."""
    offsets = {sign * 2**k % count for k in range(10) if 2**k < count for sign in (1, -1)}
    expected = max(
        abs(1 + sum(math.cos(2 * math.pi * m * offset / count) for offset in offsets)) / (1 + len(offsets))
        for m in range(1, count)
    )
    assert contraction(of("exponential", count)) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(("count", "rows"), [(9, 3), (12, 3), (20, 4), (25, 5), (36, 6)])
def test_the_spectral_gap_of_a_torus(count: int, rows: int) -> None:
    """Eigenvalues (1 + 2 cos(2 pi a / rows) + 2 cos(2 pi b / columns)) / 5."""
    columns = count // rows
    values = [
        abs(1 + 2 * math.cos(2 * math.pi * a / rows) + 2 * math.cos(2 * math.pi * b / columns)) / 5
        for a in range(rows)
        for b in range(columns)
        if a or b
    ]
    assert contraction(of("torus", count)) == pytest.approx(max(values), abs=1e-8)


def test_an_incomplete_hypercube_lacks_corners_and_nothing_else() -> None:
    whole, seven = of("hypercube", 8), of("hypercube", 7)
    assert seven == {name: near - {"node-07"} for name, near in whole.items() if name != "node-07"}


def test_a_torus_of_a_prime_is_a_ring() -> None:
    assert of("torus", 13) == of("ring", 13)


# --- drawn at random --------------------------------------------------------------------------------


@pytest.mark.parametrize("topology", DRAWN)
def test_random_graphs_follow_from_the_seed(topology: str) -> None:
    drawn = [of(topology, 12, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("topology", DRAWN)
def test_random_graphs_are_drawn_again_where_the_run_asks_for_it(topology: str) -> None:
    """The graph changes after every ``redraw_every`` activations and not in between."""
    drawn = [of(topology, 12, activation, redraw_every=2) for activation in range(6)]
    assert drawn[0] == drawn[1] and drawn[2] == drawn[3] and drawn[4] == drawn[5]
    assert drawn[0] != drawn[2] != drawn[4] != drawn[0]
    assert of(topology, 12, 5, redraw_every=0) == of(topology, 12, 0, redraw_every=0) == drawn[0]


@pytest.mark.parametrize("topology", [name for name in SHAPES if name not in (*DRAWN, *MATCHINGS)])
def test_other_graphs_stay(topology: str) -> None:
    assert of(topology, 12, 5, redraw_every=1) == of(topology, 12)


def test_random_graphs_have_about_the_edges_that_were_asked_for() -> None:
    edges = [sum(degrees(of("erdos-renyi", 12, seed=seed))) / 2 for seed in range(50)]
    assert 0.45 < sum(edges) / 50 / 66 < 0.55


def test_a_graph_that_is_never_connected_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology, "DRAWS_MAX", 20)
    with pytest.raises(SettingsError) as refusal:
        of("erdos-renyi", 40, edge_probability=0.01)
    assert str(refusal.value) == (
        "edge_probability = 0.01: no connected graph of 40 nodes in 20 draws; raise it, or choose topology = 'ring'"
    )


@given(st.integers(0, 30), st.integers(2, 9), st.integers(0, 1000))
def test_random_regular_graphs_are_regular(count: int, degree: int, seed: int) -> None:
    """Too few nodes are all joined. If nodes times degree is odd, one node has one neighbour fewer."""
    found = degrees(of("random-regular", count, degree=degree, seed=seed))
    if count <= degree + 1:
        assert found == [count - 1] * count
    else:
        assert found == [degree - count * degree % 2] + [degree] * (count - 1)


def test_random_regular_graphs_are_all_equally_likely() -> None:
    """Six nodes with two neighbours each have 60 connected graphs, the hexagons."""
    seen = [frozenset(of("random-regular", 6, degree=2, seed=seed).items()) for seed in range(600)]
    counts = [seen.count(one) for one in set(seen)]
    assert len(counts) == 60
    assert max(counts) <= 25


def test_random_regular_graphs_agree_about_as_fast_as_any_can() -> None:
    """Friedman: |lambda| of the adjacency is close to 2 sqrt(d - 1) almost surely; W is (1 + A) / (1 + d)."""
    ramanujan = (1 + 2 * math.sqrt(3)) / 5
    found = [contraction(of("random-regular", 64, seed=seed)) for seed in range(10)]
    assert max(found) < 1.08 * ramanujan


# --- listed -----------------------------------------------------------------------------------------


def test_listed_edges() -> None:
    found = listed("a-b  b-c\nc-d a-b b-a")
    assert found == {"a": {"b"}, "b": {"a", "c"}, "c": {"b", "d"}, "d": {"c"}}


def test_listed_names_may_hold_hyphens() -> None:
    found = listed("node-1-node-2 node-2-x", "node-1 node-2 x")
    assert found == {"node-1": {"node-2"}, "node-2": {"node-1", "x"}, "x": {"node-2"}}


def test_edges_of_members_who_are_away_are_left_out() -> None:
    settings = RunSettings(topology="edges", edges="a-b b-c c-d")
    assert graph("abd", settings) == {"a": {"b"}, "b": {"a"}, "d": frozenset()}


@pytest.mark.parametrize(
    ("edges", "names", "sentence"),
    [
        ("a-b b-x", "a b", r"'b-x' does not join two members by their names, as in 'a-b'"),
        ("ab", "a b", r"'ab' does not join two members"),
        ("a-a a-b", "a b", r"'a-a' does not join two members"),
        ("a-b c-d", "a b c d", r"no path leads from a to c, d, so their models would never agree"),
        ("b-c", "a b c", r"no path leads from a to b, c, so their models would never agree; add an edge$"),
        ("a-b-c", "a b-c a-b c", r"'a-b-c' may join a with b-c or a-b with c; rename a node"),
    ],
)
def test_edges_that_do_not_fit_the_members_are_refused(edges: str, names: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=f"^edges: {sentence}"):
        check_edges(names.split(), RunSettings(topology="edges", edges=edges))


def test_edges_that_fit_are_not_refused() -> None:
    check_edges("abc", RunSettings(topology="edges", edges="c-b a-b"))
    check_edges("a", RunSettings(topology="hypercube"))


def test_edges_have_to_be_given() -> None:
    with pytest.raises(SettingsError, match=r"^topology = 'edges' needs the pairs .* edges = 'a-b b-c'$"):
        RunSettings(topology="edges", edges=" ")


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


def test_an_edge_does_not_hang_on_who_else_is_there() -> None:
    """Two nodes whose views differ by one member still agree on all edges between the others."""
    settings = RunSettings(topology="erdos-renyi", edge_probability=0.7)
    everybody = graph(members(12), settings)
    for gone in members(12):
        left = graph([name for name in members(12) if name != gone], settings)
        assert all(left[name] == everybody[name] - {gone} for name in left)


def pairs_of(found: Graph) -> str:
    return " ".join(sorted(a + b for a in found for b in found[a] if a < b))


@pytest.mark.parametrize(
    ("topology", "names", "activation", "pairs"),
    [
        ("ring", "abcde", 0, "ab ae bc cd de"),
        ("ring", "abcdef", 4, "ab af bc cd de ef"),
        ("exponential", "abcdef", 4, "ab ac ae af bc bd bf cd ce de df ef"),
        ("torus", "abcde", 0, "ab ae bc cd de"),
        ("torus", "abcdef", 4, "ab ac ad bc be cf de df ef"),
        ("hypercube", "abcde", 0, "ab ac ae bd cd"),
        ("hypercube", "abcdefg", 3, "ab ac ae bd bf cd cg ef eg"),
        ("full", "abcde", 0, "ab ac ad ae bc bd be cd ce de"),
        ("erdos-renyi", "abcde", 0, "ac ad bc bd de"),
        ("erdos-renyi", "abcde", 3, "ab ac bd ce de"),
        ("erdos-renyi", "abcdef", 4, "ab ad ae bc bd bf ce cf df ef"),
        ("random-regular", "abcde", 0, "ac ad bd be ce"),
        ("random-regular", "abcdefg", 3, "ac ad bd be cg ef fg"),
        ("random-regular", "abcdef", 4, "ab ac bd cf de ef"),
        ("pairs", "abcde", 0, "ad ce"),
        ("pairs", "abcdefg", 3, "bd cf eg"),
        ("pairs", "abcdef", 4, "af bd ce"),
        ("one-peer-exponential", "abcde", 0, "ab cd"),
        ("one-peer-exponential", "abcdefg", 3, "ae bf cg"),
        ("one-peer-exponential", "abcdef", 4, "ae bf cd"),
        ("pairs", "abcdef", 8, "ae af bd be cd cf"),
        ("one-peer-exponential", "abcdef", 8, "ae af bd be cd cf"),
    ],
)
def test_graphs_stay_as_they_are(topology: str, names: str, activation: int, pairs: str) -> None:
    """Nodes of two versions have to compute the same graph. From activation 8 on these runs are in the final flush."""
    settings = RunSettings(topology=topology, degree=2, seed=5, rounds=4)
    assert pairs_of(graph(names, settings, activation, 2)) == pairs


def test_graphs_that_take_turns_stay_as_they_are() -> None:
    settings = RunSettings(topology="pairs", seed=5, rounds=4, partners="step", moments_every=1, mix_every=4)
    assert [pairs_of(found) for found in turns("fedcba", settings, 3, 2)] == ["ae bd cf", "af be cd", "ac be df"]
    settings = dataclasses.replace(settings, topology="one-peer-exponential")
    assert [pairs_of(found) for found in turns("fedcba", settings, 3, 2)] == ["ae bf cd", "ab cd ef", "ac bd ef"]
    assert len(turns("abcdef", settings, 8, 2)) == 1, "the final flush"


def test_the_graph_of_the_flush_is_that_of_its_activation() -> None:
    drawn = RunSettings(topology="erdos-renyi", seed=5)
    assert [pairs_of(final_graph("abcde", drawn, at)) for at in (0, 3)] == ["ac ad bc bd de", "ab ac bd ce de"]
    assert final_graph("abcde", drawn) == final_graph("abcde", drawn, 0)


@pytest.mark.parametrize(("every", "graphs"), [(0, 1), (1, 4), (2, 2), (3, 2)])
def test_random_graphs_last_as_many_activations_as_the_run_asks_for(every: int, graphs: int) -> None:
    settings = RunSettings(topology="random-regular", degree=3, redraw_every=every)
    drawn = [pairs_of(graph("abcdefgh", settings, at)) for at in range(4)]
    assert len(set(drawn)) == graphs and (every != 3 or drawn[0] == drawn[2])


def test_an_example_of_an_edge_has_two_of_the_members() -> None:
    for names, example in ((["a", "b", "c"], "a-b"), (["x", "y"], "x-y"), (["x"], "a-b")):
        with pytest.raises(SettingsError) as refusal:
            check_edges(names, RunSettings(topology="edges", edges="what"))
        assert str(refusal.value) == (f"edges: 'what' does not join two members by their names, as in '{example}'")


@pytest.mark.parametrize("shape", SHAPES)
def test_no_members_have_a_graph_without_edges(shape: str) -> None:
    assert graph((), RunSettings(topology=shape)) == {}


def test_the_final_flush_begins_after_the_rounds_that_the_epochs_take() -> None:
    """3 epochs of 64 sequences are 24 steps of 8; with two blocks of 4 steps that is 3 rounds."""
    settings = RunSettings(
        topology="pairs", partners="step", moments_every=1, mix_every=4, rounds=9, inner_steps=4, batch_size=8,
        epochs=3.0, epoch_sequences=64,
    )  # fmt: skip
    assert settings.rounds_of(2) == 3
    assert [len(turns("abcd", settings, at, 2)) for at in (5, 6)] == [2, 1]
    assert graph("abcd", settings, 6, 2) == final_graph("abcd", settings)
