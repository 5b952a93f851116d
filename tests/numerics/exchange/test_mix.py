"""The mix in one compiled pass gives the bits of torch for any flows, and the figures of a plain sum."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from deca_node.numerics.codecs.base import CACHE_ELEMENTS, Codec
from deca_node.numerics.codecs.formats import CODECS, KEYFRAME_CODEC
from deca_node.numerics.codecs.table import Table
from deca_node.numerics.exchange.flows import FlowBytes, PublicCopies
from deca_node.numerics.exchange.mix import BlockMix
from tests.numerics.codecs.compiled import (
    NO_KERNELS,
    RAGGED,
    any_codes,
    codecs,
    encoded,
    noise,
    public_copies,
    seeds,
    sizes,
    using,
)

GAMMA_C = 0.7
PEERS = "abcd"

Mixed = tuple[Tensor, Tensor | None, list[Tensor]]
"""x, E and the e_ij of all edges."""


def opened(codec: Codec, n: int, neighbours: int) -> PublicCopies:
    """A node with so many edges."""
    public, ours = public_copies(codec, noise(n)), encoded(KEYFRAME_CODEC, noise(n, 1))
    for seed, peer in enumerate(PEERS[:neighbours], start=2):
        public.open(peer, 0.1 * seed, encoded(KEYFRAME_CODEC, noise(n, seed)), ours)
    return public


def frames(codec: Codec, n: int, order: str, seed: int = 0) -> list[FlowBytes]:
    """A flow of each peer in ``order``; flows of the same step share our codes."""
    ours = [any_codes(codec, n, seed + step) for step in range(len(order))]
    seen = [order[:i].count(peer) for i, peer in enumerate(order)]
    return [
        FlowBytes(p, any_codes(codec, n, seed + 99 + i), ours[step])
        for i, (p, step) in enumerate(zip(order, seen, strict=True))
    ]


def mixed(
    public: PublicCopies,
    flows: Sequence[FlowBytes],
    spans: Sequence[tuple[int, int]],
    left: list[float] | None,
    needs_E: bool,
) -> tuple[Mixed, dict[str, float]]:
    n = public.x_hat.numel()
    x, E, mixing = noise(n, 7), torch.zeros(n), BlockMix(public, flows, GAMMA_C)
    for start, stop in spans:
        found = mixing.apply(x[start:stop], start, left, needs_E=needs_E)
        if needs_E:
            assert found is not None
            E[start:stop] = found
    return (x, E if needs_E else None, [edge.e for edge in public.edges.values()]), dict(mixing.figures())


def assert_same(one: Mixed, other: Mixed) -> None:
    for a, b in zip((*one[:2], *one[2]), (*other[:2], *other[2]), strict=True):
        assert (a is None and b is None) or (
            a is not None and b is not None and a.numpy().tobytes() == b.numpy().tobytes()
        )


def both_ways(
    kernels: Table, codec: Codec, n: int, order: str, spans: Sequence[tuple[int, int]], *,
    seed: int = 0, left: list[float] | None = None, needs_E: bool = True,
) -> None:  # fmt: skip
    flows, neighbours = frames(codec, n, order, seed), len(set(order))
    with using(kernels) as returned:
        compiled, _ = mixed(opened(codec, n, neighbours), flows, spans, left, needs_E)
    assert all(returned)
    with using(NO_KERNELS):
        expected, _ = mixed(opened(codec, n, neighbours), flows, spans, left, needs_E)
    assert_same(compiled, expected)


@codecs
@pytest.mark.parametrize("order", ["a", "aa", "ab", "abcd", "abab", "aab"])
@pytest.mark.parametrize("needs_E", [True, False])
def test_any_flows_mix_to_the_bits_of_torch(kernels: Table, codec: Codec, order: str, needs_E: bool) -> None:
    """One edge or several, on time or several steps late, with E for the fold or without."""
    both_ways(kernels, codec, 3000, order, [(0, 1000), (1000, 1001), (1001, 3000)], needs_E=needs_E)


@codecs
@pytest.mark.parametrize("n", RAGGED)
def test_every_length_mixes_to_the_bits_of_torch(kernels: Table, codec: Codec, n: int) -> None:
    both_ways(kernels, codec, n, "ab", [(0, n)])


@codecs
@given(n=sizes, seed=seeds, data=st.data())
def test_any_slices_mix_to_the_bits_of_torch(
    kernels: Table, codec: Codec, n: int, seed: int, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=3)))
    left = data.draw(st.none() | st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=3, max_size=3))
    both_ways(kernels, codec, n, "aba", list(zip([0, *cuts], [*cuts, n], strict=True)), seed=seed, left=left)


@codecs
def test_a_flow_of_which_nothing_is_left_moves_its_edge_alone(kernels: Table, codec: Codec) -> None:
    public, flows = opened(codec, 500, 1), frames(codec, 500, "a")
    before = public.edges["a"].e.clone()
    with using(kernels):
        (x, E, (e,)), _ = mixed(public, flows, [(0, 500)], [0.0], needs_E=True)
    assert torch.equal(x, noise(500, 7)) and E is not None and not E.any()
    assert torch.equal(e, before + (codec.decode(flows[0].theirs, 0, 500) - codec.decode(flows[0].ours, 0, 500)))


def test_both_ends_of_an_edge_gain_what_the_other_loses(kernels: Table) -> None:
    """e_ij = -e_ji bit for bit, so with one weight for both ends the two E add up to exactly zero."""
    codec, n = CODECS["int4"], 5000
    theirs, ours = encoded(codec, noise(n, 3)), encoded(codec, noise(n, 4))
    ends = [opened(codec, n, 1), opened(codec, n, 1)]
    torch.neg(ends[0].edges["a"].e, out=ends[1].edges["a"].e)
    with using(kernels):
        (_, E, _), _ = mixed(ends[0], [FlowBytes("a", theirs, ours)], [(0, n)], None, needs_E=True)
        (_, back, _), _ = mixed(ends[1], [FlowBytes("a", ours, theirs)], [(0, n)], None, needs_E=True)
    assert E is not None and back is not None and E.abs().sum() > 0 and torch.equal(E, -back)


@pytest.mark.parametrize("way", ["compiled", "torch"])
@pytest.mark.parametrize("order", ["a", "abc", "abcab"])
def test_figures_are_the_distances_that_their_names_say(kernels: Table, way: str, order: str) -> None:
    """For one of several nodes: the distance to its neighbours, to the mean over all, and the move by the flows."""
    codec, n = CODECS["int8"], CACHE_ELEMENTS + 300
    public, ours = opened(codec, n, len(set(order))), encoded(codec, noise(n, 40))
    flows = [FlowBytes(peer, encoded(codec, noise(n, 50 + i)), ours) for i, peer in enumerate(order)]
    with using(kernels if way == "compiled" else NO_KERNELS):
        (x, E, differences), figures = mixed(public, flows, [(0, 100), (100, n)], None, needs_E=True)
    assert E is not None
    others = torch.stack(differences).double().numpy()
    nodes = np.concatenate([np.zeros((1, n)), others])  # this node stands at 0
    rms = {
        "disagreement_rms": np.sqrt(np.mean(others**2)),
        "consensus_distance": np.sqrt(np.mean(nodes.mean(axis=0) ** 2)),
        "flow_rms": E.double().square().mean().sqrt().item(),
    }
    assert figures == pytest.approx(rms, rel=1e-5)
    torch.testing.assert_close(x, noise(n, 7) + E)


@codecs
def test_lengths_that_do_not_fit_touch_nothing(kernels: Table, codec: Codec) -> None:
    """The compiled code checks every length: an error in Python must not become a write beyond an array."""
    codes, e, x = encoded(codec, noise(320)), noise(320, 1), noise(320, 2)
    E, squares, before = torch.zeros(320), torch.zeros(3, dtype=torch.float64), (e.clone(), x.clone())

    def mix(theirs: Tensor, ours: Tensor, e: Tensor, start: int, x: Tensor, E: Tensor, squares: Tensor) -> bool:
        flows = kernels[codec.name, "cpu"].flows([(codes, codes, before[0].clone()), (theirs, ours, e)])
        assert flows is not None
        return flows.mix([0.5, 0.5], start, x, E, squares)

    assert not mix(codes[:-1], codes, e, 0, x, E, squares)
    assert not mix(codes, codes[:-1], e, 0, x, E, squares)
    assert not mix(codes, codes, e[1:], 0, x, E, squares)
    assert not mix(codes, codes, e, 1, x, E, squares)
    assert not mix(codes, codes, e, -1, x[:2], E[:2], squares)
    assert not mix(codes, codes, e, 0, x, E[1:], squares)
    assert not mix(codes, codes, e, 0, x, E, squares[1:])
    assert not E.any() and not squares.any() and torch.equal(e, before[0]) and torch.equal(x, before[1])
    assert mix(codes, codes, e, 0, x, E, squares) and mix(codes, codes, e, 0, x, E[:0], squares)


def test_what_the_compiled_code_cannot_take_is_left_to_torch(kernels: Table) -> None:
    codes, e = encoded(CODECS["int8"], noise(600)), noise(600)
    int8 = kernels["int8", "cpu"]
    assert int8.flows([(codes, codes, e.double())]) is None
    assert int8.flows([(codes, codes, e[::2])]) is None
    assert int8.flows([(codes, codes.to("meta"), e)]) is None
    with using(kernels) as returned:
        flow = FlowBytes("a", encoded(CODECS["fp32"], noise(600, 1)), encoded(CODECS["fp32"], noise(600, 2)))
        (x, _, (moved,)), _ = mixed(opened(CODECS["fp32"], 600, 1), [flow], [(0, 600)], None, needs_E=False)
    assert returned and all(returned), "keyframes were encoded and decoded, codecs without a compiled form not asked"
    torch.testing.assert_close(x, noise(600, 7) + GAMMA_C * 0.2 * moved)
