"""Moment-discrepancy signals: the codec of v, the bounds, the frame's tail, and engines against the reference.

Tests with engines use groups of 64 elements, so that their toy block has three and a half groups.
"""

import dataclasses
import itertools
import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from deca_node.numerics import engine
from deca_node.numerics.codecs.base import NotFiniteError
from deca_node.numerics.codecs.formats import CODECS
from deca_node.numerics.deca import Counts, Moments
from deca_node.numerics.exchange import signals
from deca_node.numerics.exchange.frames import FrameLayout, SenderState
from deca_node.numerics.exchange.signals import (
    Correction,
    Moved,
    bounded,
    check_v,
    decode_v,
    encode_v,
    group_means,
    v_nbytes,
)
from deca_node.protocol.agreed.schedule import Content
from deca_node.protocol.errors import WireError
from tests.numerics import reference
from tests.numerics.reference import Array, Method
from tests.numerics.test_engine import (
    ELEMENTS,
    GAMMAS,
    GRAPHS,
    TENSORS,
    Cluster,
    FlowBytes,
    backward_of,
    bowls,
    hyper_of,
    start,
)

CPU = torch.device("cpu")
GROUP = 64
NO_SIGNALS = Counts(1, 0.1, 0.001)


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices that begin and end within groups."""
    monkeypatch.setattr(engine, "slice_elements", lambda device: 48)


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "V_GROUP", GROUP)


@pytest.fixture
def exact_m(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the m-signal unquantized: if float32 and float64 are rounded to two sides, codes differ by one."""
    monkeypatch.setattr(signals, "M_CODEC", CODECS["fp32"])


def coded(v: Tensor) -> Tensor:
    out = torch.full((v_nbytes(v.numel()),), 77, dtype=torch.uint8)
    encode_v(v, out)
    check_v(out, v.numel(), "b")
    return out


def spread_out(means: Sequence[float]) -> Tensor:
    """A v whose groups have these means; the last group is one element."""
    whole = torch.tensor(means[:-1], dtype=torch.float32).repeat_interleave(signals.V_GROUP)
    return torch.cat((whole, torch.tensor(means[-1:], dtype=torch.float32)))


# --- the codec of v ---------------------------------------------------------------------------------


@given(tops=st.floats(-100, 110), below=st.lists(st.floats(0, 39.9), min_size=1, max_size=12))
def test_means_come_back_within_half_a_code(tops: float, below: list[float]) -> None:
    means = [2.0**tops, *(2.0 ** (tops - octaves) for octaves in below)]
    decoded = decode_v(coded(spread_out(means)), CPU)
    expected = spread_out(means).double()[:: signals.V_GROUP].log2()
    assert len(decoded) == len(means)
    assert (decoded.double() - expected).abs().max() <= signals.CODE_OCTAVES / 2 + 1e-4
    assert decoded[0] == pytest.approx(tops, abs=1e-4), "the largest is exact"


def test_what_is_zero_or_out_of_range_counts_as_zero() -> None:
    decoded = decode_v(coded(spread_out([1.0, 0.0, 2.0**-39, 2.0**-41, 1e-45, 0.5])), CPU)
    assert (decoded == -math.inf).tolist() == [False, True, False, True, True, False]
    assert decode_v(coded(torch.zeros(1000)), CPU).tolist() == [-math.inf] * 4
    assert decode_v(coded(torch.full((300,), 1e-45)), CPU).tolist() == [-149.0] * 2, "denormals are numbers"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_moment_that_is_not_finite_is_refused_at_home(value: float) -> None:
    v = torch.ones(1000)
    v[600] = value
    with pytest.raises(NotFiniteError, match="the v-signal codec refuses element 512") as refusal:
        coded(v)
    assert refusal.value.index == 512, "the group's first"


@pytest.mark.parametrize("top", [math.nan, math.inf, -math.inf, 128.5, -151.0])
def test_a_wild_header_is_refused(top: float) -> None:
    codes = coded(torch.ones(1000))
    codes[:4] = torch.tensor(list(struct.pack("<f", top)), dtype=torch.uint8)
    with pytest.raises(WireError, match=r"^b sent a v-signal whose largest mean is no finite number") as refusal:
        check_v(codes, 1000, "b")
    assert refusal.value.reason == "not-finite"


def test_a_wrong_length_is_refused() -> None:
    with pytest.raises(WireError, match="b sent 8 bytes of v-signal for 1025 elements, which take 9"):
        check_v(coded(torch.ones(1000)), 1025, "b")


def test_v_takes_less_than_a_hundredth_of_the_update() -> None:
    """The signal takes a byte per group, where int8 takes 260 and int4 144."""
    for codec, share in (("int8", 0.004), ("int4", 0.007)):
        assert v_nbytes(10**6) < share * CODECS[codec].nbytes(10**6)


# --- the bounds -------------------------------------------------------------------------------------

MEANS = st.one_of(st.just(0.0), st.floats(2.0**-60, 2.0**60))


@given(a=MEANS.filter(bool), b=MEANS.filter(bool))
def test_what_one_end_gains_the_other_loses(a: float, b: float) -> None:
    """a b(b/a) = -b b(a/b), at most three times the poorer of the two; and v_j - v_i up to a ratio of 4."""
    gained, lost = (x * float(bounded(torch.tensor(y / x, dtype=torch.float64))) for x, y in ((a, b), (b, a)))
    assert gained == pytest.approx(-lost, rel=1e-9)
    assert abs(gained) <= 3 * min(a, b) * (1 + 1e-9)
    if 0.25 <= a / b <= 4:
        assert gained == pytest.approx(b - a, rel=1e-9, abs=1e-9 * a)


@given(
    means=st.lists(st.tuples(MEANS, MEANS), min_size=1, max_size=6), weight=st.floats(0.0, 1.0), edges=st.integers(1, 4)
)
def test_v_never_changes_by_more_than_a_factor_of_four(
    means: list[tuple[float, float]], weight: float, edges: int
) -> None:
    """Factors are finite for any signal, within [1/4, 4], and 1 if our own mean is zero."""
    ours, theirs = (coded(spread_out(column)) for column in zip(*means, strict=True))
    moved = [Moved(weight / edges, theirs, ours, None, None)] * edges
    factors = Correction(moved, 1.0, NO_SIGNALS, CPU, 0.0).factors
    assert factors is not None
    assert ((factors > 0.2499) & (factors < 4.0001)).all()
    dead = decode_v(ours, CPU) == -math.inf
    assert (factors[dead] == 1.0).all()


# --- engines against the reference ------------------------------------------------------------------

ARMS = [
    Method(discrepancy="none"),
    Method(discrepancy="precond", h_into="m"),
    Method(discrepancy="precond", h_into="both", bias_correction="exact"),
    Method(discrepancy="trivial"),
]


def different_data(nodes: int) -> tuple[Array, Array]:
    """Bowls whose curvature differs by orders of magnitude between groups and between nodes, and so their v."""
    centre, curve = bowls(nodes)
    rng = np.random.default_rng(5)
    groups = 10.0 ** rng.uniform(-3, 1, size=(nodes, -(-ELEMENTS // GROUP)))
    return centre, curve * np.repeat(groups, GROUP, axis=1)[:, :ELEMENTS]


@pytest.mark.usefixtures("small_slices", "small_groups", "exact_m")
@pytest.mark.parametrize("graph", ["ring", "erdos-renyi"])
@pytest.mark.parametrize("signal", ["v", "mv"])
@pytest.mark.parametrize("method", ARMS, ids=lambda method: f"{method.discrepancy}-{method.h_into}")
def test_engines_follow_the_dense_simulation(method: Method, signal: str, graph: str) -> None:
    """Codes, bounds, slices that straddle groups, and exchanges with and without a signal are the equations."""
    W = reference.metropolis(GRAPHS[graph])
    x, (centre, curve) = start(len(W)), different_data(len(W))
    carried = (signal, "none", signal, signal)
    expected = reference.simulate(
        method, W, x, lambda _, at: curve * (at - centre), gammas=GAMMAS, tensors=TENSORS, signals=carried, group=GROUP
    )
    plain = reference.simulate(method, W, x, lambda _, at: curve * (at - centre), gammas=GAMMAS, tensors=TENSORS)
    assert np.abs(expected[-1].x - plain[-1].x).max() > 0.1 * max(GAMMAS), "signals make a difference"
    cluster = Cluster(hyper_of(method), W, x, signal=signal)
    for gamma, theirs, here in zip(GAMMAS, expected, carried, strict=True):
        cluster.step(gamma, backward_of(cluster, centre, curve), signal=here != "none")
        share = 2e-3 if method.discrepancy == "trivial" else 2e-4
        np.testing.assert_allclose(cluster.x, theirs.x, rtol=0, atol=share * max(GAMMAS))
        for name in ("m", "v"):
            wanted = getattr(theirs, name)
            np.testing.assert_allclose(cluster.moments(name), wanted, rtol=0, atol=2e-4 * np.abs(wanted).max())


STEPS = ((True, True, True), (False, False, True), (False, True, True), (True, False, True), (True, False, False))
"""What five steps carry: the parameters, v and m."""


@pytest.mark.usefixtures("small_slices", "small_groups")
@pytest.mark.parametrize("graph", ["ring", "erdos-renyi"])
@pytest.mark.parametrize("bits", [1, 2])
def test_moments_of_their_own_cadence_follow_the_dense_simulation(bits: int, graph: str) -> None:
    """Steps with parameters, with moments and with both; m in few bits with error feedback; a signal without v."""
    W, method = reference.metropolis(GRAPHS[graph]), Method(discrepancy="precond", h_into="m")
    x, (centre, curve) = start(len(W)), different_data(len(W))
    gammas = [*GAMMAS, *GAMMAS][: len(STEPS)]
    carried = ["v" * v + "m" * m or "none" for _, v, m in STEPS]
    expected = reference.simulate(
        method,
        W,
        x,
        lambda _, at: curve * (at - centre),
        gammas=gammas,
        tensors=TENSORS,
        signals=carried,
        group=GROUP,
        bits=bits,
        parameters=[x for x, _, _ in STEPS],
    )
    cluster = Cluster(hyper_of(method), W, x, signal="mv", bits=bits)
    for gamma, theirs, step in zip(gammas, expected, STEPS, strict=True):
        cluster.half_step(gamma, backward_of(cluster, centre, curve))
        before = cluster.x
        cluster.mix(fold=True, content=Content(*step))
        assert step[0] != np.array_equal(cluster.x, before), "x moves where the parameters travel, and only there"
        np.testing.assert_allclose(cluster.x, theirs.x, rtol=0, atol=2e-4 * max(GAMMAS))
        for name in ("m", "v"):
            wanted = getattr(theirs, name)
            np.testing.assert_allclose(cluster.moments(name), wanted, rtol=0, atol=2e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_however_few_bits_the_mean_of_m_stays(bits: int) -> None:
    """One end of an edge gains what the other loses, whatever the codes stand for."""
    W, content = reference.metropolis(GRAPHS["ring"]), Content(False, True, True)
    one, other = (Cluster(hyper_of(Method(discrepancy="none")), W, start(5), signal="mv", bits=bits) for _ in range(2))
    for cluster, mixed in ((one, True), (other, False)):
        for gamma in GAMMAS:
            cluster.half_step(gamma, [slope(cluster, i, centre) for i, centre in enumerate(bowls(5)[0])])
            if mixed:
                cluster.mix(fold=True, content=content)
            else:
                for each in cluster.engines:
                    each.mix([], fold=True)
    mixed, plain = one.moments("m"), other.moments("m")
    np.testing.assert_allclose(mixed.mean(axis=0), plain.mean(axis=0), rtol=0, atol=1e-5 * np.abs(plain).max())
    assert np.abs(mixed - plain).max() > 0.1 * np.abs(plain).max()
    assert np.array_equal(one.moments("v").shape, other.moments("v").shape)


@pytest.mark.usefixtures("small_groups")
def test_with_error_feedback_each_late_signal_counts_once() -> None:
    """Node 0 receives two exchanges at once: with 1 bit m takes both differences, and v the newer ratio."""
    hyper, W, codes = hyper_of(Method(discrepancy="none")), reference.metropolis(reference.full(2)), []
    cluster = Cluster(hyper, W, start(2), signal="mv", bits=1)
    content = Content(False, True, True)
    for gamma in GAMMAS[:2]:
        cluster.half_step(gamma, backward_of(cluster, *bowls(2)))
        codes.append(cluster.updates(content=content))
        if len(codes) == 1:
            for each in cluster.engines:
                each.mix([], fold=True)
    before = cluster.moments("m")
    flows = [flow for sent in codes for flow in cluster.flows(0, sent, content)]
    cluster.engines[0].mix(flows, fold=True)
    told = [[signals.FEW_BITS[1].decode(frame[-nbytes_of_m() :], 0, ELEMENTS).numpy() for frame in s] for s in codes]
    expected = before[0] + sum(0.5 * (theirs - ours) for ours, theirs in told)
    np.testing.assert_allclose(cluster.moments("m")[0], expected, rtol=0, atol=1e-6 * np.abs(before).max())


def nbytes_of_m() -> int:
    return signals.FEW_BITS[1].nbytes(ELEMENTS)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=6), st.booleans())
def test_what_counts_of_an_edges_signals(carried: list[tuple[bool, bool]], every_m: bool) -> None:
    """The newest v; and the newest m, or each one."""
    marks = [torch.tensor([number]) for number in range(len(carried))]
    heard = [
        Moved(0.5, *(t if has_v else None for t in (mark, mark)), *(t if has_m else None for t in (mark, mark)))
        for mark, (has_v, has_m) in zip(marks, carried, strict=True)
    ]
    kept = signals.counting(heard, every_m=every_m)
    of_v = [int(one.v_ours) for one in kept if one.v_ours is not None]
    of_m = [int(one.m_ours) for one in kept if one.m_ours is not None]
    assert of_v == [number for number, (has_v, _) in enumerate(carried) if has_v][-1:]
    assert of_m == [number for number, (_, has_m) in enumerate(carried) if has_m][0 if every_m else -1 :]


def run(
    cluster: Cluster, centre: Array, curve: Array, gammas: Sequence[float] = GAMMAS, *, signal: bool = True
) -> None:
    for gamma in gammas:
        cluster.step(gamma, backward_of(cluster, centre, curve), signal)


@pytest.mark.usefixtures("small_groups")
def test_equal_data_seed_and_start_equal_one_node_bit_for_bit() -> None:
    """Equal moments have no discrepancy, and with W = I there is no neighbour."""
    (centre, curve), hyper = bowls(1), hyper_of(Method(discrepancy="precond"))
    alone, with_signal = (Cluster(hyper, np.eye(1), start(1), signal=signal) for signal in ("none", "mv"))
    ring = reference.metropolis(reference.ring(4))
    together = Cluster(hyper, ring, start(1).repeat(4, axis=0), codec="int8", signal="mv")
    run(alone, centre, curve, signal=False)
    run(with_signal, centre, curve)
    run(together, centre.repeat(4, axis=0), curve.repeat(4, axis=0))
    assert np.array_equal(with_signal.x, alone.x)
    assert np.array_equal(together.x, alone.x.repeat(4, axis=0))


@pytest.mark.usefixtures("small_groups")
def test_mixing_moments_leaves_their_means_over_nodes() -> None:
    """The mean of m over nodes is unchanged, however coarse its codes; the mean of v's groups up to eight bits.

    The curvature differs by far more than a factor of four, so the bounds are in use; m spreads too little to lift v.
    """
    W = reference.metropolis(GRAPHS["ring"])
    clusters = [Cluster(hyper_of(Method(discrepancy="none")), W, start(5), signal=s) for s in ("none", "v", "mv")]
    for cluster in clusters:
        run(cluster, *different_data(5), GAMMAS[:1])
    plain, with_v, with_mv = clusters
    before, after = plain.moments("m"), with_mv.moments("m")
    np.testing.assert_allclose(after.mean(axis=0), before.mean(axis=0), rtol=0, atol=1e-6 * np.abs(before).max())
    assert np.abs(after - before).max() > 0.1 * np.abs(before).max()
    before, after = (
        np.stack([group_means(e.moments.v).numpy() for e in c.engines if e.moments]) for c in (plain, with_v)
    )
    np.testing.assert_allclose(after.mean(axis=0), before.mean(axis=0), rtol=2**signals.CODE_OCTAVES - 1)
    assert np.abs(after / before - 1).max() > 0.5


@pytest.mark.usefixtures("small_groups")
def test_gossip_of_moments_brings_them_together() -> None:
    """After many exchanges without new gradients, the group means of v are within one code of each other."""
    means = [[1.0, 1e-3, 0.0, 5.0], [100.0, 1e-3, 0.0, 1e-9]]
    v = [spread_out(each) for each in means]
    for _ in range(40):
        codes = [coded(each) for each in v]
        v = [
            Correction([Moved(0.5, codes[1 - i], codes[i], None, None)], 1.0, NO_SIGNALS, CPU, 0.0)
            .apply(Moments(torch.zeros_like(v[i]), v[i]), 0, len(v[i]))
            .v
            for i in (0, 1)
        ]
    one, other = (group_means(each).tolist() for each in v)
    assert one == pytest.approx(other, rel=2**signals.CODE_OCTAVES - 1)
    assert one == pytest.approx([50.5, 1e-3, 0.0, 2.5], rel=0.15)


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("discrepancy", ["none", "precond"])
@pytest.mark.parametrize("scale", [2.0**14, 2.0**-14])
def test_scaling_the_loss_leaves_the_trajectory(discrepancy: str, scale: float) -> None:
    """Ratios of v, the range below the largest mean, and m over sqrt(v) do not depend on the unit of the loss."""
    W, method = reference.metropolis(GRAPHS["ring"]), Method(discrepancy=discrepancy, h_into="m")
    scaled = dataclasses.replace(method, epsilon=scale * method.epsilon)
    centre, curve = different_data(5)
    one, other = (Cluster(hyper_of(each), W, start(5), signal="mv") for each in (method, scaled))
    run(one, centre, curve)
    run(other, centre, scale * curve)
    np.testing.assert_allclose(other.x, one.x, rtol=0, atol=1e-5 * max(GAMMAS))


# --- traps ------------------------------------------------------------------------------------------


def noisy_steps(cluster: Cluster, strength: Array, steps: int = 24) -> Array:
    """Steps with noise as gradients, of a given strength per node and element; returns the RMS of every node's last
    step in the first group, in units of gamma."""
    rng = np.random.default_rng(0)
    for _ in range(steps):
        before = cluster.x
        cluster.half_step(0.01, [slope(cluster, i, strength[i] * rng.normal(size=ELEMENTS)) for i in cluster.nodes])
        moved = cluster.x - before
        cluster.mix(fold=True, signal=True)
    return np.sqrt((moved[:, :GROUP] ** 2).mean(axis=1)) / 0.01


def slope(cluster: Cluster, i: int, g: Array) -> Callable[[], float]:
    def gradient() -> float:
        (cluster.models[i].vector() * torch.tensor(g, dtype=torch.float32)).sum().backward()
        return 1.0

    return gradient


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("poor", [0.0, 1e-5])
def test_a_poor_group_on_one_side_does_not_blow_up_steps_on_the_other(
    poor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group that (nearly) never gets a gradient on node 1 takes v from node 0 at every exchange and does not grow by
    it, because its own v is a factor times (nearly) zero. Without bounds node 0's steps become several times larger."""
    strength = np.ones((2, ELEMENTS))
    strength[1, :GROUP] = poor
    hyper, W = hyper_of(Method(discrepancy="none")), reference.metropolis(reference.full(2))
    without, with_signal = (noisy_steps(Cluster(hyper, W, start(2), signal=s), strength)[0] for s in ("none", "v"))
    assert with_signal == pytest.approx(without, rel=0.05)
    # A bound of [1/4, 4] on the factor as a whole would not help: losing a half each time is within it.
    monkeypatch.setattr(signals, "bounded", lambda r: (r - 1.0).clamp(-0.75, 3.0))
    assert noisy_steps(Cluster(hyper, W, start(2), signal="v"), strength)[0] > 2 * without


@pytest.mark.usefixtures("small_groups")
def test_a_late_ratio_meets_a_group_that_woke_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Node 1's group is at 1e-8 when the exchange is made, and has a gradient of 1 when it is applied."""
    theirs, ours = coded(spread_out([1e-3, 1.0])), coded(spread_out([1e-11, 1.0]))
    awake = Moments(torch.zeros(GROUP + 1), spread_out([1e-3, 1.0]))

    def applied() -> float:
        moved = [Moved(0.5, theirs, ours, None, None)]
        return float(Correction(moved, 1.0, NO_SIGNALS, CPU, 0.0).apply(awake, 0, GROUP + 1).v[0])

    assert applied() == pytest.approx(2.5e-3, rel=1e-3)
    monkeypatch.setattr(signals, "bounded", lambda r: r - 1.0)
    assert applied() > 1e4, "and with it a step that is 1e-4 of what it should be"


class Unlifted(Correction):
    """A correction without the last equation, the floor of v."""

    def __init__(self, *parts: Any, **more: Any) -> None:
        super().__init__(*parts, **more)
        self._unit = 0.0


@pytest.mark.usefixtures("small_groups")
def test_m_from_elsewhere_is_not_divided_by_a_v_of_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a group never gets a gradient on node 1, like the embedding of a token that its data lacks: m arrives, v = 0
    stays zero under any factor, and m / eps would be a step of a million gammas."""
    strength = np.ones((2, ELEMENTS))
    strength[1, :GROUP:2] = 0.0
    hyper, W = hyper_of(Method(discrepancy="none")), reference.metropolis(reference.full(2))
    assert noisy_steps(Cluster(hyper, W, start(2), signal="mv"), strength).max() < 1.0
    monkeypatch.setattr(engine, "Correction", Unlifted)
    assert noisy_steps(Cluster(hyper, W, start(2), signal="mv"), strength, steps=2).max() > 1e5


# --- lateness ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_groups")
def test_of_several_late_signals_of_an_edge_the_newest_counts() -> None:
    """Node 0 receives two exchanges at once: x takes both flows, the moments only the second signal."""
    hyper, W, codes = hyper_of(Method(discrepancy="none")), reference.metropolis(reference.full(2)), []
    late, fresh = (Cluster(hyper, W, start(2), signal="mv") for _ in range(2))
    for cluster, heard in ((late, (0, 1)), (fresh, (1,))):
        codes.clear()
        for r, gamma in enumerate(GAMMAS[:2]):
            cluster.half_step(gamma, backward_of(cluster, *bowls(2)))
            codes.append(cluster.updates(signal=True))
            if r == 0:
                cluster.engines[0].mix([], fold=True)
                cluster.engines[1].mix([], fold=True)
        cluster.engines[0].mix([flow for r in heard for flow in cluster.flows(0, codes[r])], fold=True)
    for name in ("m", "v"):
        assert np.array_equal(late.moments(name)[0], fresh.moments(name)[0])
    assert not np.array_equal(late.x[0], fresh.x[0])


@pytest.mark.usefixtures("small_groups")
def test_signals_that_come_after_the_last_fold_are_of_no_use() -> None:
    cluster = Cluster(
        hyper_of(Method(discrepancy="none")), reference.metropolis(reference.full(2)), start(2), signal="v"
    )
    cluster.half_step(GAMMAS[0], backward_of(cluster, *bowls(2)))
    updates = cluster.updates(signal=True)
    cluster.engines[0].mix([], fold=True)
    before = cluster.moments("v")[0]
    cluster.engines[0].mix(cluster.flows(0, updates), fold=False)
    assert np.array_equal(cluster.moments("v")[0], before)


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_gamma_c_keeps_late_moments_from_swinging_up(share: float) -> None:
    """On a ring of four every signal is one exchange late, as under overlap: with gamma_c = 0.5 the disagreement of m
    vanishes, and with 1 it grows. The bound is the same as for x."""
    W = reference.metropolis(reference.ring(4))
    m = [torch.full((GROUP,), (-1.0) ** i) for i in range(4)]
    ones, codes = torch.ones(GROUP), torch.zeros(signals.M_CODEC.nbytes(GROUP), dtype=torch.uint8)
    v_codes, before = coded(ones), None
    for _ in range(60):
        now = []
        for each in m:
            signals.M_CODEC.encode(each, codes)
            now.append(codes.clone())
        before = before or now
        for i in range(4):
            near = [j for j in range(4) if j != i and W[i, j]]
            moved = [Moved(float(W[i, j]), v_codes, v_codes, before[j], before[i]) for j in near]
            m[i] = 0.9 * Correction(moved, share, NO_SIGNALS, CPU, 0.0).apply(Moments(m[i], ones), 0, GROUP).m
        before = now
    largest = max(float(each.abs().max()) for each in m)
    assert largest < 1e-3 if share == 0.5 else largest > 10


# --- the frame --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("codec", "signal"), list(itertools.product(CODECS, ("none", "v", "mv"))))
def test_parts_fill_a_frame_without_a_gap(codec: str, signal: str) -> None:
    layout = FrameLayout(CODECS[codec], 1000, signal)
    for with_signal in (False, True):
        frame = torch.arange(layout.nbytes(layout.content(with_signal))).to(torch.uint8)
        parts = layout.split(frame, "b")
        present = [part for part in parts if part is not None]
        assert torch.equal(torch.cat(present), frame)
        assert len(present) == 2 + (("none", "v", "mv").index(signal) if with_signal else 0)
    assert layout.nbytes(layout.content(False)) == CODECS[codec].nbytes(1000) + 20
    with pytest.raises(WireError, match="b sent an update of 7 bytes for 1000 elements"):
        layout.split(frame[:7], "b")


def test_states_arrive_as_figures() -> None:
    """Every update holds its sender's state after the step before; the first update holds none yet."""
    cluster = Cluster(hyper_of(Method(discrepancy="precond")), np.full((3, 3), 1 / 3), start(3))
    centre, curve = bowls(3)
    first = cluster.step(GAMMAS[0], backward_of(cluster, centre, curve))
    second = cluster.step(GAMMAS[1], backward_of(cluster, centre, curve))
    for i, j in itertools.permutations(range(3), 2):
        for name in SenderState._fields[:-1]:
            assert first[i][f"peer.{j}.{name}"] == 0.0
            assert second[i][f"peer.{j}.{name}"] == pytest.approx(first[j][name], rel=1e-6) and first[j][name] > 0
    out = torch.zeros(cluster.engines[0].layout.nbytes(cluster.engines[0].layout.content(False)), dtype=torch.uint8)
    cluster.half_step(GAMMAS[2], backward_of(cluster, centre, curve))
    cluster.engines[0].encode_update(out, step_seconds=0.25)
    assert cluster.engines[1].mix([FlowBytes("0", out, out)], fold=True)["peer.0.step_seconds"] == 0.25


def test_states_fit_into_float32() -> None:
    out = torch.zeros(20, dtype=torch.uint8)
    SenderState(1e300, math.inf, 1e-50, 0.5, 3.0).write(out)
    largest = torch.finfo(torch.float32).max
    assert SenderState.read(out, "b") == SenderState(largest, largest, 0.0, 0.5, 3.0)


TAILS = {
    "the state": (
        lambda layout: layout.update_nbytes - 20,
        math.nan,
        "b sent a state with figures that are not finite",
    ),
    "a negative figure": (lambda layout: layout.update_nbytes - 4, -1.0, "b sent a state with figures"),
    "the v-signal": (lambda layout: layout.update_nbytes, math.inf, "b sent a v-signal whose largest mean"),
    "the m-signal": (lambda layout: layout.update_nbytes + v_nbytes(ELEMENTS), math.nan, "b sent int8 codes"),
}


@pytest.mark.parametrize("part", TAILS)
def test_a_malformed_part_leaves_the_block_unchanged(part: str) -> None:
    where, value, words = TAILS[part]
    hyper, W = hyper_of(Method(discrepancy="none")), reference.metropolis(reference.full(2))
    cluster = Cluster(hyper, W, start(2), signal="mv")
    cluster.half_step(GAMMAS[0], backward_of(cluster, *bowls(2)))
    updates = cluster.updates(signal=True)
    at = where(cluster.engines[1].layout)
    updates[1][at : at + 4] = torch.tensor(list(struct.pack("<f", value)), dtype=torch.uint8)
    one = cluster.engines[0]
    assert one.public is not None
    one.public.edges["b"] = one.public.edges["1"]
    before, moments = cluster.x, cluster.moments("m")
    with pytest.raises(WireError, match=words):
        one.mix([FlowBytes("b", updates[1], updates[0])], fold=True)
    assert np.array_equal(cluster.x, before)
    assert np.array_equal(cluster.moments("m"), moments)


def test_both_ends_must_have_signalled() -> None:
    cluster = Cluster(
        hyper_of(Method(discrepancy="none")), reference.metropolis(reference.full(2)), start(2), signal="v"
    )
    cluster.half_step(GAMMAS[0], backward_of(cluster, *bowls(2)))
    ours = torch.zeros(cluster.engines[0].layout.nbytes(cluster.engines[0].layout.content(False)), dtype=torch.uint8)
    cluster.engines[0].encode_update(ours)
    theirs = torch.zeros(cluster.engines[1].layout.nbytes(cluster.engines[1].layout.content(True)), dtype=torch.uint8)
    cluster.engines[1].encode_update(theirs, content=cluster.engines[1].layout.content(True))
    with pytest.raises(WireError, match="1 sent an update with a moment signal"):
        cluster.engines[0].mix([FlowBytes("1", theirs, ours)], fold=True)
