"""Clipped gossip: the effect of any neighbour is bounded, at a small cost for honest neighbours.

The claims are those of ``clipping``'s docstring (He, Karimireddy and Jaggi, arXiv 2202.01545) and of
docs/ALGORITHM.md, "Hostile neighbours".
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deca_node.numerics import deca, engine
from deca_node.numerics.codecs.formats import CODECS
from deca_node.numerics.deca import Counts, Moments
from deca_node.numerics.exchange import clipping, signals
from deca_node.numerics.exchange.clipping import Clip
from deca_node.numerics.exchange.flows import FlowBytes
from deca_node.numerics.exchange.frames import SenderState
from deca_node.numerics.exchange.signals import Correction, Moved
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.errors import SettingsError
from tests.numerics import reference
from tests.numerics.exchange.test_signals import CPU, coded, spread_out
from tests.numerics.reference import Array, Method
from tests.numerics.test_engine import ELEMENTS, GAMMAS, TENSORS, Cluster, backward_of, bowls, hyper_of, start

GAMMA = max(GAMMAS)
CLIP = Clip(1, 2.0, GAMMA)
FULL = reference.metropolis(reference.full(4))
EDGES = np.cumsum((0, *TENSORS))


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "slice_elements", lambda device: 48)


def clipped_cluster(W: Array, x: Array, clip: Clip | None, *, codec: str = "fp32", signal: str = "none") -> Cluster:
    hyper = hyper_of(Method(discrepancy="precond", h_into="both"))
    bound = clip.radius if clip else math.inf
    cluster = Cluster(replace(hyper, steps_max=bound), W, x, codec=codec, signal=signal)
    for one in cluster.engines:
        one.clip = clip
    return cluster


def by_tensor(x: Array) -> list[Array]:
    return [x[..., a:b] for a, b in itertools.pairwise(EDGES)]


def norms(x: Array) -> Array:
    return np.array([np.linalg.norm(part) for part in by_tensor(x)])


# --- the bound --------------------------------------------------------------------------------------

WILD = st.one_of(st.just(0.0), st.floats(2.0**-100, 2.0**120), st.floats(1e-4, 1.0))


def lies(cluster: Cluster, seed: int, scale: float) -> Tensor:
    """An update frame with arbitrary finite numbers."""
    layout, rng = cluster.engines[3].layout, np.random.default_rng(seed)
    numbers = torch.tensor(rng.normal(size=ELEMENTS) * 10.0 ** rng.uniform(-8, 8, size=ELEMENTS), dtype=torch.float64)
    frame = torch.zeros(layout.nbytes(layout.content(False)), dtype=torch.uint8)
    parts = layout.split(frame, "a test")
    assert parts.codes is not None
    layout.codec.encode((numbers * scale).clamp(-3e38, 3e38).float(), parts.codes)
    SenderState().write(parts.state)
    return frame


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), scales=st.lists(WILD, min_size=1, max_size=3), late=st.booleans(),
       codec=st.sampled_from(["fp32", "int8", "int4"]))  # fmt: skip
def test_one_neighbour_moves_a_tensor_by_w_tau_per_flow_whatever_it_sends(
    seed: int, scales: list[float], late: bool, codec: str
) -> None:
    """x+ follows the formulas, and with f = 1 of three neighbours tau is at most the largest honest distance."""
    cluster = clipped_cluster(FULL, start(4), CLIP, codec=codec)
    (centre, curve), weight, victim = bowls(4), FULL[0, 3], cluster.engines[0]
    waiting: list[FlowBytes] = []
    for step, scale in enumerate(scales):
        cluster.half_step(GAMMA, backward_of(cluster, centre, curve))
        updates = [*cluster.updates()[:3], lies(cluster, seed + step, scale)]
        flows = cluster.flows(0, updates)
        if late and step < len(scales) - 1:
            waiting, flows = [*waiting, flows[2]], flows[:2]
        else:
            flows = [*waiting, *flows]
        before = victim.flat.master.double().numpy().copy()
        assert victim.public is not None
        e = {peer: edge.e.clone() for peer, edge in victim.public.edges.items()}
        victim.mix(flows, fold=True)
        moved = victim.flat.master.double().numpy() - before
        expected, tau, hostile = dumb_mix(e, flows, CODECS[codec], weight)
        np.testing.assert_allclose(moved, expected, rtol=0, atol=1e-5 * (1 + np.abs(expected).max()))
        honest = norms_of({peer: e[peer] for peer in ("1", "2")})
        assert (tau <= honest.max(axis=0) * (1 + 1e-6) + 1e-12).all()
        assert (tau <= 2.0 * GAMMA * np.sqrt(TENSORS) * (1 + 1e-9)).all()
        for alone in hostile:
            assert (norms(alone) <= weight * tau * (1 + 1e-4)).all()
        assert victim.moments is not None
        assert all(t.isfinite().all() for t in (victim.flat.master, *victim.moments))
        for other in cluster.engines[1:]:
            other.mix([], fold=True)


def dumb_mix(
    e: dict[str, Tensor], flows: Sequence[FlowBytes], codec: object, weight: float
) -> tuple[Array, Array, list[Array]]:
    """The formulas in float64, with e in float32 as in the engine: the sum that x takes, tau by tensor, and the part of
    each of neighbour 3's flows. Changes ``e``."""
    seen = []
    for flow in flows:
        q_j, q_i = (codec.decode(codes[:-20], 0, ELEMENTS) for codes in (flow.theirs, flow.ours))  # type: ignore[attr-defined]
        e[flow.peer] = e[flow.peer] + (q_j - q_i)
        seen.append((flow.peer, e[flow.peer].double().numpy().copy()))
    distances = norms_of(e)
    tau = np.minimum(np.sort(distances, axis=0)[-2], CLIP.radius * CLIP.gamma_peak * np.sqrt(TENSORS))
    total, hostile = np.zeros(ELEMENTS), []
    for peer, difference in seen:
        far = norms_of({peer: torch.tensor(difference)})[0]
        share = np.where(np.isfinite(far), np.minimum(1.0, tau / np.maximum(far, 1e-300)), 0.0)
        each = [
            s * part if s > 0 else np.zeros_like(part) for s, part in zip(share, by_tensor(difference), strict=True)
        ]
        moved = weight * np.concatenate(each)
        total += moved
        hostile += [moved] if peer == "3" else []
    return total, tau, hostile


def norms_of(e: dict[str, Tensor]) -> Array:
    """|e| by neighbour and tensor; infinite if float32 cannot hold its square, as in the engine."""
    found = np.array(
        [[float(torch.dot(p.float(), p.float()).sqrt()) for p in x.split(list(TENSORS))] for x in e.values()]
    )
    return np.nan_to_num(found, nan=math.inf, posinf=math.inf)


def test_numbers_beyond_float32_leave_nothing_but_their_own_flow_out() -> None:
    """A neighbour whose differences add up to infinity, and later to NaN, does not count."""
    cluster = clipped_cluster(FULL, start(4), CLIP)
    layout, signs = cluster.engines[3].layout, (1.0, 1.0, -1.0, -1.0, -1.0)
    for sign in signs:
        frame = torch.zeros(layout.nbytes(layout.content(False)), dtype=torch.uint8)
        codes = layout.split(frame, "a test").codes
        assert codes is not None
        layout.codec.encode(torch.full((ELEMENTS,), sign * 3e38), codes)
        figures = cluster.engines[0].mix(cluster.flows(0, [*cluster.updates()[:3], frame]), fold=False)
        assert cluster.engines[0].flat.master.abs().max() < 10
        assert figures["peer.3.clipped_share"] == 1.0
    assert cluster.engines[0].public is not None
    assert not cluster.engines[0].public.edges["3"].e.isfinite().all()


# --- the price --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_slices")
@pytest.mark.parametrize(("codec", "signal"), [("fp32", "none"), ("int8", "mv"), ("int4", "v"), ("topk", "none")])
def test_a_radius_that_nothing_reaches_changes_no_bit(codec: str, signal: str) -> None:
    W = reference.metropolis(reference.erdos_renyi(6, 0.5, np.random.default_rng(3)))
    plain, wide = (
        clipped_cluster(W, start(6), clip, codec=codec, signal=signal) for clip in (None, Clip(0, 1e30, GAMMA))
    )
    for gamma in GAMMAS:
        for cluster in (plain, wide):
            figures = cluster.step(gamma, backward_of(cluster, *bowls(6)), signal != "none")
    assert np.array_equal(wide.x, plain.x)
    for name in ("m", "v"):
        assert np.array_equal(wide.moments(name), plain.moments(name))
    assert figures[0]["clipped_share"] == 0.0


@pytest.mark.parametrize("codec", ["fp32", "int8"])
def test_while_nothing_is_clipped_gossip_contracts_and_the_mean_stays(codec: str) -> None:
    W, x = reference.metropolis(reference.full(5)), start(5)
    cluster = clipped_cluster(W, x, Clip(0, 100.0, GAMMA), codec=codec)
    for _ in range(4):
        cluster.mix()
    np.testing.assert_allclose(cluster.x.mean(axis=0), x.mean(axis=0), rtol=0, atol=1e-6)
    assert reference.consensus_distance(cluster.x) < 1e-3 * reference.consensus_distance(x)


def test_where_one_end_clips_and_the_other_does_not_the_mean_moves() -> None:
    """The cost of clipping: node 2 is far from all others. They clip it and it does not clip them, so the mean
    moves."""
    x = start(5) * np.array([[1.0], [1.0], [1.1], [1.0], [1.0]])
    cluster = clipped_cluster(reference.metropolis(reference.full(5)), x, Clip(1, 1e6, GAMMA))
    cluster.mix()
    assert np.abs(cluster.x.mean(axis=0) - x.mean(axis=0)).max() > 1e-2
    near = [0, 1, 3, 4]
    assert np.abs(cluster.x[2] - cluster.x[near].mean(axis=0)).max() < np.abs(x[2] - x[near].mean(axis=0)).max()


def test_the_honest_agree_in_spite_of_two_liars() -> None:
    """Of seven nodes two send other lies at every mix. With f = 2 the other five agree, near their start; without
    clipping they follow the lies."""
    W, x, rng = reference.metropolis(reference.full(7)), start(7), np.random.default_rng(0)
    ends = {}
    for clip in (None, Clip(2, 100.0, GAMMA)):
        cluster = clipped_cluster(W, x, clip, codec="int8")
        for _ in range(12):
            for liar in (5, 6):
                cluster.engines[liar].flat.master.copy_(torch.tensor(5.0 * rng.normal(size=ELEMENTS)))
            cluster.mix()
        ends[clip] = cluster.x[:5]
    apart = reference.consensus_distance(x[:5])
    plain, robust = ends.values()
    assert reference.consensus_distance(robust) < 0.05 * apart
    went = [float(np.sqrt(np.mean((end.mean(axis=0) - x[:5].mean(axis=0)) ** 2))) for end in (robust, plain)]
    assert went[0] < apart < 0.05 * went[1]


# --- the radius -------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.floats(0.0, 1e30), min_size=3, max_size=3), min_size=1, max_size=7), st.integers(0, 3))
def test_the_radius_is_the_smaller_of_its_two_bounds(distances: list[list[float]], f: int) -> None:
    clip = Clip(f, 3.0, 0.1)
    found = clip.radii([torch.tensor(row, dtype=torch.float64) for row in distances], (4, 9, 100)).tau.tolist()
    assert found == pytest.approx(
        [
            min(0.3 * root, sorted(column)[-1 - f] if f and len(distances) >= 2 * f + 1 else math.inf)
            for root, column in zip((2.0, 3.0, 10.0), zip(*distances, strict=True), strict=True)
        ]
    )


def test_an_edge_that_is_silent_still_says_how_far_it_was() -> None:
    """Node 0 hears only a liar: the radius comes from the last known distances of the others, not from the liar."""
    cluster = clipped_cluster(FULL, start(4), Clip(1, 1e9, GAMMA))
    before, honest = cluster.x[0], cluster.engines[0].public
    assert honest is not None
    known = norms_of({peer: edge.e for peer, edge in honest.edges.items() if peer != "3"})
    cluster.engines[3].flat.master.mul_(1e6)
    cluster.engines[0].mix(cluster.flows(0, cluster.updates())[2:], fold=False)
    assert (norms(cluster.x[0] - before) <= FULL[0, 3] * known.max(axis=0) * (1 + 1e-5)).all()


def test_who_is_out_of_reach_counts_for_nothing_but_finds_its_own_way_back() -> None:
    """Node 2 is ten times as far out as the others are apart: they ignore it, and it follows them."""
    x = start(5)
    x[2] += 1.0
    cluster = clipped_cluster(reference.metropolis(reference.full(5)), x, Clip(1, 1e6, GAMMA, 3.0))
    cluster.mix()
    others = [0, 1, 3, 4]
    spread = np.abs(x[others] - x[others].mean(axis=0)).max()
    assert np.abs(cluster.x[others] - x[others].mean(axis=0)).max() <= spread
    assert np.abs(cluster.x[2] - x[others].mean(axis=0)).mean() < 0.5


@pytest.mark.parametrize(("reach", "left"), [(0.0, [1.0, 0.5, 0.05, 0.0]), (3.0, [1.0, 0.5, 0.0, 0.0])])
def test_shares_of_near_far_and_out_of_reach(reach: float, left: list[float]) -> None:
    distances = torch.tensor([[1.0], [2.0], [20.0], [math.inf]], dtype=torch.float64)
    radii = Clip(3, 100.0, 1.0, reach).radii([torch.ones(1, dtype=torch.float64)] * 7, (1,))
    assert radii.shares(distances)[:, 0].tolist() == left


def test_a_share_is_told_of_every_peer_and_of_all() -> None:
    left = torch.tensor([[1.0, 1.0], [0.5, 1.0], [0.0, 0.9]], dtype=torch.float64)
    assert clipping.figures(["b", "c", "c"], left) == {
        "clipped_share": 0.5,
        "peer.b.clipped_share": 0.0,
        "peer.c.clipped_share": 0.75,
    }


# --- h and the moments ------------------------------------------------------------------------------

FINITE = st.floats(-(2.0**100), 2.0**100, width=32)


@given(E=st.lists(FINITE, min_size=5, max_size=5), gamma=st.floats(0.0, 1.0))
@pytest.mark.parametrize("discrepancy", ["precond", "rms", "trivial"])
def test_h_counts_no_more_steps_than_allowed_and_v_grows_by_a_bounded_factor(
    discrepancy: str, E: list[float], gamma: float
) -> None:
    """|h - its own part| <= K D for any E, so m moves by (1-b1) c1 K D and v+ <= v (b2 + (1-b2) (|u| + K)^2)."""
    K, counts = 4.0, Counts(3, 0.2, 0.003)
    half = Moments(torch.tensor([0.1, -0.3, 0.0, 1e-4, 2.0]), torch.tensor([0.01, 1.0, 1e-9, 0.5, 3.0]))
    hyper = replace(hyper_of(Method(discrepancy=discrepancy, h_into="both"), (1.0,)), steps_max=K)
    D, g = deca.preconditioner(hyper, counts, half), torch.tensor([0.1, -0.1, 0.0, 0.2, 1.0])
    u = deca.direction(hyper, counts, half)
    scale = D if discrepancy != "rms" else torch.full_like(D, 0.7)
    own, h = (
        deca.discrepancy(hyper, counts, half, flow, gamma=gamma, s=0.7) for flow in (None, torch.tensor(E))
    )  # fmt: skip
    assert own is not None and h is not None
    assert ((h - own).abs() <= K * scale * (1 + 1e-5)).all()
    if discrepancy == "precond":
        folded = deca.fold(hyper, counts, half, h, g)
        assert (folded.v <= half.v * (0.99 + 0.01 * (u.abs() + K).square()) * (1 + 1e-4) + 1e-12).all()
        without = deca.fold(hyper, counts, half, own, g)
        assert ((folded.m - without.m).abs() <= 0.5 * counts.c1 * K * D * (1 + 1e-4)).all()


ROBUST = Clip(1, 3.0, 1.0)
HALF_COUNTS = Counts(5, 0.4, 0.005)


@given(st.lists(st.floats(2.0**-60, 2.0**60), min_size=3, max_size=6), st.floats(2.0**-60, 2.0**60))
def test_a_neighbours_v_counts_no_further_than_an_honest_ones(honest: list[float], wild: float) -> None:
    """With f = 1 the factor lies between those that the extremes of the honest neighbours alone give."""
    ours = coded(spread_out([1.0, 1.0]))
    told = [*honest, wild]
    weight = 1 / (1 + len(told))
    moved = [Moved(weight, coded(spread_out([v, v])), ours, None, None) for v in told]
    factors = Correction(moved, 1.0, HALF_COUNTS, CPU, 1e-8, ROBUST).factors
    assert factors is not None
    b = signals.bounded(torch.tensor(honest))
    share = weight * len(told)
    assert 1 + share * float(b.min()) - 1e-3 <= factors[0] <= 1 + share * float(b.max()) + 1e-3


@pytest.mark.parametrize("robust", [True, False])
def test_who_claims_a_millionfold_v_again_and_again_changes_little(robust: bool) -> None:
    """Without trimming each exchange may triple the edge's share of v: fifty exchanges make 10^6 of it."""
    v = torch.ones(300)
    for _ in range(50):
        ours, same, wild = coded(v), coded(torch.ones(300)), coded(v * 1e6)
        moved = [Moved(0.25, theirs, ours, None, None) for theirs in (same, same, wild)]
        correction = Correction(moved, 1.0, HALF_COUNTS, CPU, 1e-8, ROBUST if robust else None)
        v = correction.apply(Moments(torch.zeros_like(v), v), 0, 300).v
    assert (v < 1.3).all() if robust else (v > 1e6).all()


def test_too_few_signals_correct_nothing() -> None:
    """One of two neighbours may lie, and it is not known which."""
    moved = [Moved(0.3, coded(torch.full((300,), 9.0)), coded(torch.ones(300)), None, None)] * 2
    assert Correction(moved, 1.0, HALF_COUNTS, CPU, 1e-8, ROBUST).factors is None
    assert Correction(moved, 1.0, HALF_COUNTS, CPU, 1e-8, replace(ROBUST, neighbours=0)).factors is not None


@given(st.floats(-1e30, 1e30), st.floats(1e-12, 1e3))
def test_a_neighbours_m_counts_within_so_many_steps(wild: float, v: float) -> None:
    """m moves by gamma_c w K c1 (sqrt(v / c2) + eps) at most, and v is lifted to no more than w (K D)^2 c2."""
    n, K, epsilon, weight = 300, ROBUST.radius, 1e-8, 0.25
    half, codes = (
        Moments(torch.zeros(n), torch.full((n,), v)),
        torch.zeros(signals.M_CODEC.nbytes(n), dtype=torch.uint8),
    )
    signals.M_CODEC.encode(torch.full((n,), wild, dtype=torch.float32), codes)
    ours_v, ours_m = coded(half.v), torch.zeros_like(codes)
    signals.M_CODEC.encode(half.m, ours_m)
    moved = [Moved(weight, ours_v, ours_v, theirs, ours_m) for theirs in (ours_m, ours_m, codes)]
    found = Correction(moved, 1.0, HALF_COUNTS, CPU, epsilon, ROBUST).apply(half, 0, n)
    D = math.sqrt(v / HALF_COUNTS.c2) + epsilon
    assert (found.m.abs() <= weight * K * HALF_COUNTS.c1 * D * (1 + 1e-4)).all()
    assert (found.v <= max(v, weight * (K * D) ** 2 * HALF_COUNTS.c2) * (1 + 1e-3)).all()


# --- settings ---------------------------------------------------------------------------------------


def test_settings_reach_the_engine() -> None:
    run = RunSettings(robust="clip", robust_neighbours=2, clip_radius=7.0, learning_rate=1e-3, clip_reach=4.0)
    assert Clip.of(run) == Clip(2, 7.0, 1e-3, 4.0) and Clip.of(replace(run, robust="none")) is None


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"learning_rate": 0.0}, r"robust = 'clip' needs a learning_rate above 0"),
        ({"topology": "ring"}, r"robust_neighbours = 1 needs 3 neighbours.*topology = 'ring'.* robust_neighbours = 0$"),
        ({"topology": "torus", "robust_neighbours": 2}, r"robust_neighbours = 2 needs 5 .* has at most 4"),
        ({"topology": "random-regular", "degree": 4, "robust_neighbours": 2}, r"robust_neighbours = 1$"),
        ({"clip_reach": 0.5}, r"clip_reach = 0.5 would ignore neighbours within the radius"),
        ({"clip_radius": 0.0}, r"clip_radius = 0.0 is below"),
    ],
)
def test_what_cannot_be_robust_is_refused_by_name(chosen: dict[str, object], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        RunSettings(robust="clip", **chosen)  # type: ignore[arg-type]
