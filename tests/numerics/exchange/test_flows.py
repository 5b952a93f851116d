"""Edge flows: one end adds exactly what the other end loses, however coarse or late the updates are."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from deca_node.numerics import deca
from deca_node.numerics.codecs.base import CACHE_ELEMENTS, Codec
from deca_node.numerics.codecs.formats import CODECS, KEYFRAME_CODEC
from deca_node.numerics.exchange.flows import FlowBytes, PublicCopies, write_keyframe
from deca_node.numerics.model.blocks import Origin
from deca_node.protocol.errors import WireError
from tests.numerics import reference
from tests.numerics.reference import Array

ELEMENTS = 700
CPU = torch.device("cpu")

codecs = pytest.mark.parametrize("codec", CODECS.values(), ids=lambda codec: codec.name)
dense = pytest.mark.parametrize(
    "codec", [codec for codec in CODECS.values() if codec.name != "topk"], ids=lambda codec: codec.name
)


class Net:
    """Nodes that only gossip, in one process: x, public copies and frames of all of them."""

    def __init__(self, codec: Codec, W: Array, x: Tensor, gamma_c: float = 1.0) -> None:
        self.W, self.x, self.gamma_c = W, x, gamma_c
        self.nodes = range(len(x))
        origin = origin_of(torch.full((x.shape[1],), 0.3))
        keyframes = [keyframe_of(row, origin) for row in x]
        self.public = [PublicCopies(codec, x.shape[1], origin, k, CPU) for k in keyframes]
        self.updates: list[list[Tensor]] = []
        for i, j in self.edges():
            self.public[i].open(str(j), float(W[i, j]), keyframes[j], keyframes[i])

    def edges(self) -> list[tuple[int, int]]:
        return [(i, j) for i in self.nodes for j in self.nodes if i != j and self.W[i, j] > 0]

    def send(self) -> None:
        """Every node writes the update of the next step."""
        frames = [torch.empty(p.codec.nbytes(self.x.shape[1]), dtype=torch.uint8) for p in self.public]
        for public, x, frame in zip(self.public, self.x, frames, strict=True):
            public.difference(x, frame)
        self.updates.append(frames)

    def apply(self, i: int, j: int, step: int) -> None:
        """Node i applies its edge's flow with j of one step."""
        flow = FlowBytes(str(j), self.updates[step][j], self.updates[step][i])
        self.public[i].check([flow])
        self.x[i], _ = deca.mix(self.x[i], self.public[i].advance([flow], 0, self.x.shape[1]), self.gamma_c)

    def mix(self) -> None:
        """One lockstep exchange on all edges."""
        self.send()
        for i, j in self.edges():
            self.apply(i, j, len(self.updates) - 1)


def origin_of(x0: Tensor) -> Origin:
    return lambda start, stop: x0[start:stop]


def keyframe_of(x: Tensor, origin: Origin) -> Tensor:
    out = torch.empty(KEYFRAME_CODEC.nbytes(x.numel()), dtype=torch.uint8)
    write_keyframe(x, origin, out)
    return out


def start(nodes: int, spread: float = 1e-2, elements: int = ELEMENTS) -> Tensor:
    rng = torch.Generator().manual_seed(5)
    return 0.3 + spread * torch.randn(nodes, elements, generator=rng)


def random_graph(nodes: int) -> Array:
    return reference.metropolis(reference.erdos_renyi(nodes, 0.4, np.random.default_rng(11)))


def mean_error(net: Net, before: Tensor) -> float:
    """How far the mean over nodes has moved, in units of float32's rounding of x."""
    moved = (net.x.double().mean(dim=0) - before.double().mean(dim=0)).abs().max().item()
    return moved / (torch.finfo(torch.float32).eps * before.abs().max().item())


@codecs
def test_both_ends_of_an_edge_are_opposite_bit_for_bit(codec: Codec) -> None:
    """e_ij = -e_ji bit for bit, from the keyframe on, in whatever order the two nodes work."""
    net = Net(codec, random_graph(6), start(6))
    for _ in range(4):
        for i, j in net.edges():
            there, back = net.public[i].edges[str(j)].e, net.public[j].edges[str(i)].e
            assert torch.equal(there, -back)
            assert there.abs().max() > 0
        net.mix()
        net.x += 1e-3 * torch.randn(net.x.shape, generator=torch.Generator().manual_seed(9))


@dense
def test_the_difference_of_public_copies_is_what_an_edge_holds(codec: Codec) -> None:
    """e_ij = x^_j - x^_i, and x^ follows x: the quantization error travels with the next difference."""
    net = Net(codec, random_graph(4), start(4))
    for _ in range(6):
        net.send()
        step = len(net.updates) - 1
        for i, j in net.edges():
            flow = FlowBytes(str(j), net.updates[step][j], net.updates[step][i])
            list(net.public[i].advance([flow], 0, ELEMENTS))
            expected = net.public[j].x_hat - net.public[i].x_hat
            torch.testing.assert_close(net.public[i].edges[str(j)].e, expected, rtol=0, atol=5e-7)
    for public, x in zip(net.public, net.x, strict=True):
        torch.testing.assert_close(public.x_hat, x, rtol=0, atol=1e-6)


@codecs
def test_the_mean_is_unchanged_by_compressed_mixing(codec: Codec) -> None:
    """The mean over nodes is unchanged by compressed mixing: flows cancel up to float32 rounding."""
    net = Net(codec, random_graph(8), start(8))
    before = net.x.clone()
    for _ in range(10):
        net.mix()
    assert mean_error(net, before) < 10
    assert (net.x - before).abs().max() > 1e-3


@codecs
def test_the_mean_is_unchanged_by_late_flows(codec: Codec) -> None:
    """The mean over nodes is unchanged by late mixing: each end of an edge applies its flows when they arrive."""
    rng = random.Random(4)
    net = Net(codec, random_graph(8), start(8), gamma_c=0.5)
    before = net.x.clone()
    applied = dict.fromkeys(net.edges(), 0)
    for _ in range(12):
        net.send()
        apply_some(net, applied, lambda behind: rng.randint(0, behind))
    apply_some(net, applied, lambda behind: behind)
    assert mean_error(net, before) < 20
    assert reference.consensus_distance(net.x.numpy()) < reference.consensus_distance(before.numpy())


def apply_some(net: Net, applied: dict[tuple[int, int], int], how_many: Callable[[int], int]) -> None:
    """Each end of each edge applies some of its waiting flows, in step order."""
    for (i, j), done in applied.items():
        for step in range(done, done + how_many(len(net.updates) - done)):
            net.apply(i, j, step)
            applied[i, j] = step + 1


@dense
@pytest.mark.parametrize("nodes", [2, 8])
def test_compressed_gossip_contracts_as_fast_as_exact_gossip(codec: Codec, nodes: int) -> None:
    """8 and 4 bits contract as fast as exact gossip and end at the same consensus.

    If exact gossip is faster than the codec (two nodes agree at once), the codec's own contraction remains, one mix
    late: the move of a mix travels with the next update.
    """
    W, x = random_graph(nodes), start(nodes)
    first, exact, net = reference.consensus_distance(x.numpy()), x.double().numpy(), Net(codec, W, x.clone())
    for step in range(1, 16):
        net.mix()
        exact = W @ exact
        bound = max(reference.consensus_distance(exact), codec.contraction ** (step - 1) * first)
        assert reference.consensus_distance(net.x.numpy()) <= 1.05 * bound + 1e-5 * first
    assert reference.consensus_distance(net.x.numpy() - exact) < 1e-3 * first
    assert np.abs((net.x.numpy() - exact).mean(axis=0)).max() < 1e-6


def test_fp32_flows_are_exact_gossip() -> None:
    """With Q = identity and gamma_c = 1 this is exact gossip, x+ = W x, from the first mix on."""
    W, x = random_graph(6), start(6)
    net, exact = Net(CODECS["fp32"], W, x.clone()), x.double().numpy()
    for _ in range(5):
        net.mix()
        exact = W @ exact
        np.testing.assert_allclose(net.x.numpy(), exact, rtol=0, atol=5e-7)


def test_late_edges_catch_up_in_one_mix() -> None:
    """An edge two steps behind appears twice in a mix, each time with the difference of its step."""
    x = start(2)
    W = reference.metropolis(reference.full(2))
    late, prompt = Net(CODECS["int8"], W, x.clone(), 0.5), Net(CODECS["int8"], W, x.clone(), 0.5)
    for net in (late, prompt):
        net.send()
        net.send()
    flows = [FlowBytes("1", late.updates[s][1], late.updates[s][0]) for s in (0, 1)]
    late.x[0], E = deca.mix(late.x[0], late.public[0].advance(flows, 0, ELEMENTS), 0.5)
    for step in (0, 1):
        prompt.apply(0, 1, step)
    torch.testing.assert_close(late.x[0], prompt.x[0], rtol=0, atol=1e-7)
    torch.testing.assert_close(E, late.x[0] - x[0], rtol=0, atol=1e-7)


@codecs
def test_flows_apply_slice_by_slice_as_to_the_whole(codec: Codec) -> None:
    """Slices may begin anywhere: parameters do not end at the codec's group boundaries."""
    W = reference.metropolis(reference.full(2))
    nets = [Net(codec, W, start(2)) for _ in range(2)]
    for net in nets:
        net.send()
    whole, sliced = (net.public[0] for net in nets)
    flows = [FlowBytes("1", nets[0].updates[0][1], nets[0].updates[0][0])]
    list(whole.advance(flows, 0, ELEMENTS))
    for first, last in [(0, 1), (1, 300), (300, 301), (301, ELEMENTS)]:
        list(sliced.advance(flows, first, last))
    assert torch.equal(whole.edges["1"].e, sliced.edges["1"].e)


def test_large_blocks_walk_in_slices() -> None:
    elements = CACHE_ELEMENTS + 1000
    net = Net(CODECS["int8"], reference.metropolis(reference.full(2)), start(2, elements=elements))
    before = net.x.clone()
    for _ in range(3):
        net.mix()
    assert reference.consensus_distance(net.x.numpy()) < 1e-3 * reference.consensus_distance(before.numpy())


@codecs
def test_keyframes_are_int8_of_the_distance_from_the_start(codec: Codec) -> None:
    """x^ = x0 + Q8(x - x0), whatever the codec of the updates: the keyframe's error is 1/254 of the distance."""
    x0, x = torch.full((ELEMENTS,), 0.3), start(1)[0]
    public = PublicCopies(codec, ELEMENTS, origin_of(x0), keyframe_of(x, origin_of(x0)), CPU)
    error = (public.x_hat - x).abs().max()
    assert 0 < error <= (x - x0).abs().max() / 254 * 1.001


def test_a_dropped_edge_lets_its_memory_go_and_leaves_the_others() -> None:
    net = Net(CODECS["int8"], reference.metropolis(reference.full(3)), start(3))
    net.public[0].drop("1")
    assert list(net.public[0].edges) == ["2"]
    net.send()
    net.apply(0, 2, 0)
    with pytest.raises(KeyError):
        net.apply(0, 1, 0)


def test_a_malformed_keyframe_or_update_is_refused_before_anything_moves() -> None:
    net = Net(CODECS["int8"], reference.metropolis(reference.full(2)), start(2))
    net.send()
    theirs = net.updates[0][1].clone()
    theirs[:4] = 255  # a scale that is NaN
    e = net.public[0].edges["1"].e.clone()
    with pytest.raises(WireError, match=r"^1 sent int8 codes"):
        net.public[0].check([FlowBytes("1", theirs, net.updates[0][0])])
    with pytest.raises(WireError, match=r"^5 sent"):
        net.public[0].open("5", 0.5, theirs[:-1], net.updates[0][0])
    assert torch.equal(net.public[0].edges["1"].e, e)
    assert "5" not in net.public[0].edges
