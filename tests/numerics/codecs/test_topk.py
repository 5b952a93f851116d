"""The sparse codec: few elements travel, the others wait at the sender, and a smaller gamma_c keeps this stable."""

import itertools
import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from deca_node.numerics import deca
from deca_node.numerics.codecs import places as sparse
from deca_node.numerics.codecs.base import Codec
from deca_node.numerics.codecs.formats import CODECS
from deca_node.numerics.exchange.flows import FlowBytes
from deca_node.protocol.agreed.run import TOPK_FLOW_SHARE_MAX, RunSettings
from deca_node.protocol.agreed.topology import graph
from deca_node.protocol.agreed.weights import TOPK_LEFT_PER_MIX, flush_mixes, matrix
from deca_node.protocol.errors import SettingsError, WireError
from tests.numerics import reference
from tests.numerics.exchange.test_flows import Net, mean_error, start

TOPK: Codec = CODECS["topk"]
GROUP, KEPT = 1024, 64
ROW_BYTES = 4 + KEPT + KEPT + KEPT // 4


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def encoded(x: Tensor) -> Tensor:
    out = torch.empty(TOPK.nbytes(x.numel()), dtype=torch.uint8)
    TOPK.encode(x, out)
    return out


def there_and_back(x: Tensor) -> Tensor:
    return TOPK.decode(encoded(x), 0, x.numel())


def noise(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


# --- what is sent -----------------------------------------------------------------------------------


def test_wire_format() -> None:
    """Scale, codes, the low eight bits of their places, then the high two of four places to a byte."""
    x = torch.zeros(GROUP + 33)
    x[3], x[300], x[1023] = 127.0, -127.0, 64.0
    x[GROUP + 32], x[GROUP], x[GROUP + 1], x[GROUP + 2] = -254.0, 2.0, 127.0, 1.0
    data = encoded(x).numpy().tobytes()
    assert len(data) == ROW_BYTES + 4 + 3 + 3 + 1
    scale, codes = struct.unpack("<f", data[:4]), np.frombuffer(data[4 : 4 + KEPT], np.int8)
    lows, highs = data[4 + KEPT : 4 + 2 * KEPT], data[4 + 2 * KEPT : ROW_BYTES]
    places = [low + ((highs[i // 4] >> 2 * (i % 4) & 3) << 8) for i, low in enumerate(lows)]
    # Of equal magnitudes, here zeros, the first are taken.
    assert scale == (1.0,) and places == [*range(62), 300, 1023]
    assert dict(zip(places, codes.tolist(), strict=True)) == dict.fromkeys(range(62), 0) | {3: 127, 300: -127, 1023: 64}
    assert struct.unpack("<f3b4B", data[ROW_BYTES:]) == (2.0, 1, 64, -127, 0, 1, 32, 0)


@given(st.integers(1, 3000), st.integers(0, 1000))
def test_the_largest_sixteenth_comes_through_and_nothing_else(n: int, seed: int) -> None:
    x = noise(n, seed)
    y = there_and_back(x)
    for at in range(0, n, GROUP):
        x_group, y_group = x[at : at + GROUP], y[at : at + GROUP]
        count = -(-len(x_group) // 16)
        least = x_group.abs().sort(descending=True).values[count - 1]
        sent = x_group.abs() >= least
        assert int(sent.sum()) == count
        assert (y_group[~sent] == 0).all()
        assert (y_group - x_group)[sent].abs().max() <= x_group.abs().max() / 254 * 1.001


def test_of_equal_magnitudes_the_first_are_sent() -> None:
    y = there_and_back(torch.tensor([1.0, -1.0]).repeat(GROUP // 2))
    assert y.nonzero().flatten().tolist() == list(range(KEPT))


def test_contraction_is_reached_by_equal_magnitudes() -> None:
    """For equal magnitudes the error is sqrt(1 - k/n); int8's rounding of the k adds a thousandth of a percent."""
    x = torch.ones(GROUP)
    ratio = ((there_and_back(x) - x).norm() / x.norm()).item()
    assert ratio == pytest.approx(math.sqrt(1 - KEPT / GROUP), rel=1e-6)
    assert ratio <= TOPK.contraction <= 1.00005 * ratio


def test_bits_per_element() -> None:
    assert TOPK.bits_per_element == 8 * ROW_BYTES / GROUP == 1.15625


# --- what is not sent -------------------------------------------------------------------------------


def test_what_is_not_sent_stays_at_its_sender_to_the_bit() -> None:
    """x_half - x^ shrinks by exactly the sent numbers, so no separate error feedback is needed."""
    net = Net(TOPK, reference.metropolis(reference.full(2)), start(2, elements=3 * GROUP + 100))
    for _ in range(5):
        before = [x - public.x_hat for x, public in zip(net.x, net.public, strict=True)]
        net.send()
        for x, public, kept, frame in zip(net.x, net.public, before, net.updates[-1], strict=True):
            q = TOPK.decode(frame, 0, x.numel())
            assert 0 < int((q != 0).sum()) <= -(-x.numel() // 16)
            assert torch.equal((x - public.x_hat)[q == 0], kept[q == 0])
            torch.testing.assert_close((x - public.x_hat) + q, kept, rtol=0, atol=1e-7)


def test_every_element_has_its_turn() -> None:
    """If x does not change, x^ reaches it: after sixteen updates every element has int8's precision."""
    net = Net(TOPK, reference.metropolis(reference.full(2)), start(2, elements=2 * GROUP))
    distances = []
    for _ in range(24):
        net.send()
        distances.append((net.x[0] - net.public[0].x_hat).abs().max().item())
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < distances[0] / 100


def test_the_mean_over_nodes_is_unchanged_however_little_is_sent() -> None:
    net = Net(TOPK, np.array(matrix(graph("abcdefgh", RunSettings(topology="hypercube")))), start(8), gamma_c=0.125)
    before = net.x.clone()
    for _ in range(40):
        net.mix()
    assert mean_error(net, before) < 10
    assert (net.x - before).abs().max() > 1e-3


@pytest.mark.parametrize("edges", [(0, 1, 17, 1024, 1500, 2148), (0, 1030, 2148)])
def test_flows_apply_slice_by_slice_as_to_the_whole(edges: tuple[int, ...]) -> None:
    """A parameter may end in the middle of a group."""
    nets = [Net(TOPK, reference.metropolis(reference.full(2)), start(2, elements=2 * GROUP + 100)) for _ in range(2)]
    for net in nets:
        net.send()
    whole, sliced = (net.public[0] for net in nets)
    flows = [FlowBytes("1", nets[0].updates[0][1], nets[0].updates[0][0])]
    list(whole.advance(flows, 0, 2 * GROUP + 100))
    for first, last in itertools.pairwise(edges):
        list(sliced.advance(flows, first, last))
    assert torch.equal(whole.edges["1"].e, sliced.edges["1"].e)


# --- what is refused --------------------------------------------------------------------------------


def with_places(x: Tensor, places: dict[int, int], row: int = 0) -> Tensor:
    """Codes of x in which some places of one row are changed: ``places`` maps a place's number to its new value."""
    codes, count = encoded(x), KEPT if (row + 1) * GROUP <= x.numel() else -(-(x.numel() % GROUP) // 16)
    tail = codes[row * ROW_BYTES :][: 4 + count + sparse.nbytes(count)][4 + count :]
    found = sparse.unpack(tail[None], count)
    for number, place in places.items():
        found[0, number] = place
    sparse.pack(found, tail[None])
    return codes


@pytest.mark.parametrize(
    ("elements", "row", "places"),
    [
        (GROUP, 0, {0: 500, 1: 500}),
        (GROUP, 0, {5: 1000, 6: 3}),
        (2 * GROUP + 40, 1, {63: 0}),
        (2 * GROUP + 40, 2, {2: 40}),
        (2 * GROUP + 40, 2, {2: 1023}),
        (2 * GROUP + 40, 2, {0: 7, 1: 7}),
        (1, 0, {0: 1}),
    ],
)
def test_places_that_no_encoder_writes_are_refused_before_use(elements: int, row: int, places: dict[int, int]) -> None:
    """Refused are a duplicate place, a falling place, and a place beyond the end of a shorter group."""
    x = noise(elements)
    TOPK.largest(with_places(x, {}, row), elements)
    with pytest.raises(WireError, match=r"^beech sent topk codes with places .* not in rising order or not") as caught:
        TOPK.largest(with_places(x, places, row), elements, "beech")
    assert caught.value.reason == "bad-places"


def test_a_refused_update_moves_nothing() -> None:
    net = Net(TOPK, reference.metropolis(reference.full(2)), start(2, elements=GROUP))
    net.send()
    before = net.public[0].edges["1"].e.clone()
    with pytest.raises(WireError):
        net.public[0].check([FlowBytes("1", with_places(noise(GROUP), {0: 900}), net.updates[0][0])])
    assert torch.equal(net.public[0].edges["1"].e, before)


@given(data=st.binary(min_size=ROW_BYTES + 9, max_size=ROW_BYTES + 9))
def test_any_bytes_that_pass_the_check_decode_to_finite_numbers(data: bytes) -> None:
    elements, codes = GROUP + 20, torch.frombuffer(bytearray(data), dtype=torch.uint8)
    sparse.pack(torch.arange(0, GROUP, 16)[None], codes[4 + KEPT : ROW_BYTES][None])
    try:
        largest = TOPK.largest(codes, elements)
    except WireError:
        return
    y = TOPK.decode(codes, 0, elements)
    assert y.isfinite().all() and y.abs().max().item() <= largest


@given(st.integers(1, 64), st.integers(0, 1000))
def test_places_round_trip(count: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    places = torch.stack([torch.randperm(GROUP, generator=rng)[:count] for _ in range(3)]).sort(1).values
    packed = torch.empty(3, sparse.nbytes(count), dtype=torch.uint8)
    sparse.pack(places, packed)
    assert torch.equal(sparse.unpack(packed, count), places)
    assert sparse.rising(places, int(places.max()) + 1)
    assert not sparse.rising(places, int(places.max()))


# --- stability --------------------------------------------------------------------------------------


def left_after(mixes: int, gamma_c: float, topology: str = "full", nodes: int = 8, late: int = 0) -> float:
    """The share of a random disagreement that gossip leaves if every flow is ``late`` mixes late."""
    W = np.array(matrix(graph([f"{i:02d}" for i in range(nodes)], RunSettings(topology=topology))))
    net = Net(TOPK, W, start(nodes, elements=GROUP), gamma_c)
    first = reference.consensus_distance(net.x.numpy())
    for step in range(mixes):
        net.send()
        if step >= late:
            for i in net.nodes:
                flows = [FlowBytes(str(j), net.updates[step - late][j], net.updates[step - late][i]) for j in net.nodes]
                heard = [flow for flow in flows if flow.peer in net.public[i].edges]
                net.x[i], _ = deca.mix(net.x[i], net.public[i].advance(heard, 0, GROUP), gamma_c)
    return reference.consensus_distance(net.x.numpy()) / first


@pytest.mark.parametrize("late", [0, 1, 2])
def test_gossip_converges_at_the_largest_gamma_c_and_diverges_well_above(late: int) -> None:
    assert left_after(100, TOPK_FLOW_SHARE_MAX, late=late) < 0.01
    assert left_after(100, 4 * TOPK_FLOW_SHARE_MAX, late=late) > 10


@pytest.mark.parametrize(("topology", "nodes"), [("full", 2), ("full", 8), ("ring", 4), ("hypercube", 8)])
def test_the_mixes_of_the_flush_suffice(topology: str, nodes: int) -> None:
    """Elements that are not among the largest wait, on any graph, so the flush has more mixes than for dense codecs."""
    settings = RunSettings(topology=topology, codec="topk")
    mixes = flush_mixes(graph([f"{i:02d}" for i in range(nodes)], settings), settings)
    assert mixes >= math.log(1e-4) / math.log(TOPK_LEFT_PER_MIX)
    assert left_after(mixes, settings.flow_share, topology, nodes) < 1e-4


@pytest.mark.parametrize("exchange", ["lockstep", "overlap"])
def test_gamma_c_above_the_bound_is_refused_by_name(exchange: str) -> None:
    assert RunSettings(codec="topk", exchange=exchange).flow_share == 0.125 == 2 * KEPT / GROUP
    with pytest.raises(
        SettingsError, match=r"^codec = 'topk' needs gamma_c <= 0.125, got 0.25: elements that were not sent yet are"
    ):
        RunSettings(codec="topk", exchange=exchange, gamma_c=0.25)
