"""The paper's equations and the facts that follow from them, in float64.

deca's four functions run here on n nodes with exact differences e_ij = x_half,j - x_half,i: no codec, no
edges, no engine. The equations are those of ``deca``'s docstring and of arXiv 2606.03209.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from deca_node.numerics import deca
from deca_node.numerics.deca import Counts, Hyper, Moments
from deca_node.protocol.agreed.run import RunSettings
from tests.numerics import reference
from tests.numerics.reference import Array, Method, State

NODES, TENSORS = 5, (3, 4, 1)
PARAMETERS = sum(TENSORS)
GAMMAS = (0.02, 0.02, 0.015, 0.01, 0.005, 0.01)

GRAPHS = {
    "ring": reference.ring(NODES),
    "full": reference.full(NODES),
    "erdos-renyi": reference.erdos_renyi(NODES, 0.5, np.random.default_rng(7)),
}

SIGNALS = ("paper", "descent", "precond", "rms", "trivial", "decay-only")
ARMS = [
    Method(discrepancy=name, h_into=into, h_part=part, bias_correction=correction)
    for name, into, part, correction in itertools.product(
        SIGNALS, ("both", "m", "v"), ("full", "consensus"), ("alpha", "exact")
    )
] + [Method(discrepancy="none", bias_correction=correction) for correction in ("alpha", "exact")]

MATRICES = (True, False, True)
REGULARIZED = [
    Method(discrepancy=name, h_part=part, weight_decay=decay, max_grad_norm=norm)
    for name in ("none", "descent", "precond", "rms", "trivial")
    for part in ("full", "consensus")
    for decay, norm in ((0.5, 0.0), (0.0, 1.5), (0.5, 1.5))
]

Gradient = Callable[[int, Array], Array]


def arm_name(method: Method) -> str:
    given = (method.discrepancy, method.h_into, method.h_part, method.bias_correction)
    return "-".join((*given, *(f"{x:g}" for x in (method.weight_decay, method.max_grad_norm) if x)))


def quadratics(nodes: int, seed: int = 0, noise: float = 0.3) -> Gradient:
    """Every node has its own bowl, with another curvature per parameter and noise per step: non-IID data."""
    rng = np.random.default_rng(seed)
    centre, curve = rng.normal(size=(nodes, PARAMETERS)), rng.uniform(0.2, 3.0, size=(nodes, PARAMETERS))
    noises = noise * rng.normal(size=(64, nodes, PARAMETERS))
    return lambda r, x: curve * (x - centre) + noises[r]


def start(nodes: int, seed: int = 1, spread: float = 0.05) -> Array:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(1, PARAMETERS)) + spread * rng.normal(size=(nodes, PARAMETERS))


def hyper_of(method: Method, gammas: Sequence[float] = GAMMAS) -> Hyper:
    return Hyper(gamma_peak=max(gammas), **asdict(method))


def run_deca(hyper: Hyper, W: Array, x0: Array, gradient: Gradient, gammas: Sequence[float]) -> list[State]:
    """Several nodes through deca's four functions, without the engine's flows and slices."""
    x = [torch.tensor(row) for row in x0]
    moments = [Moments(torch.zeros_like(row), torch.zeros_like(row)) for row in x]
    counts, states = Counts(), []
    decay = torch.tensor(np.repeat(hyper.weight_decay * np.array(MATRICES), TENSORS))
    for r, gamma in enumerate(gammas):
        g = torch.from_numpy(gradient(r, torch.stack(x).numpy()))
        g = torch.stack([row * deca.gradient_share(hyper, float(row.norm())) for row in g])
        counts = deca.half_counts(hyper, counts)
        halves = [
            deca.half_step(hyper, counts, x[i], moments[i], g[i], gamma=gamma, decay=decay) for i in range(len(x))
        ]
        x_half = [pair[0] for pair in halves]
        for i, (_, half) in enumerate(halves):
            edges = [(float(W[i, j]), x_half[j] - x_half[i]) for j in range(len(x)) if j != i and W[i, j] != 0]
            x[i], E = deca.mix(x_half[i], edges, 1.0)
            s = tensor_scales(hyper, counts, half)
            h = deca.discrepancy(hyper, counts, half, E, gamma=gamma, s=s)
            moments[i] = deca.fold(hyper, counts, half, h, g[i])
        counts = deca.folded_counts(hyper, counts)
        states.append(State(*(torch.stack(t).numpy() for t in (x, [p.m for p in moments], [p.v for p in moments]))))
    return states


def tensor_scales(hyper: Hyper, counts: Counts, half: Moments) -> Tensor:
    parts = deca.preconditioner(hyper, counts, half).split(list(TENSORS))
    return torch.cat([part.square().mean().sqrt().expand_as(part) for part in parts])


# --- against the dense reference --------------------------------------------------------------------


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("method", ARMS + REGULARIZED, ids=arm_name)
def test_every_arm_follows_the_equations(method: Method, graph: str) -> None:
    """All six equations of the algorithm, for every signal, target, part and bias correction."""
    W, x, gradient = reference.metropolis(GRAPHS[graph]), start(NODES), quadratics(NODES)
    expected = reference.simulate(method, W, x, gradient, gammas=GAMMAS, tensors=TENSORS, matrices=MATRICES)
    found = run_deca(hyper_of(method), W, x, gradient, GAMMAS)
    for ours, theirs in zip(found, expected, strict=True):
        for name in ("x", "m", "v"):
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-9, atol=1e-13)


# --- facts that any implementation must satisfy -----------------------------------------------------


@pytest.mark.parametrize("bias_correction", ["alpha", "exact"])
@pytest.mark.parametrize("discrepancy", ["none", "precond"])
def test_w_identity_and_beta_one_is_torch_adam(discrepancy: str, bias_correction: str) -> None:
    """W = I and beta = 1 equals torch's Adam on that block, reset at each activation (equations of m, v, x_half)."""
    method = Method(discrepancy=discrepancy, beta1=1.0, beta2=1.0, bias_correction=bias_correction)
    gradient, x = quadratics(1), start(1)
    for activation in range(2):
        found = run_deca(hyper_of(method), np.eye(1), x, gradient, GAMMAS)
        parameter = torch.nn.Parameter(torch.tensor(x[0]))
        adam = torch.optim.Adam([parameter], betas=(method.alpha1, method.alpha2), eps=method.epsilon)
        for r, gamma in enumerate(GAMMAS):
            adam.param_groups[0]["lr"] = gamma
            parameter.grad = torch.from_numpy(gradient(r, parameter.detach().numpy()[None])[0])
            adam.step()
            np.testing.assert_allclose(found[r].x[0], parameter.detach().numpy(), rtol=1e-12, err_msg=str(activation))
        x = found[-1].x


def test_w_identity_with_decay_and_clipping_is_torch_adamw() -> None:
    """The same with weight_decay and max_grad_norm: torch's AdamW, in which one group does not decay, behind torch's
    clipping by the norm of all gradients."""
    method = Method(discrepancy="none", weight_decay=0.5, max_grad_norm=1.5)
    gradient, x = quadratics(1), start(1)
    found = run_deca(hyper_of(method), np.eye(1), x, gradient, GAMMAS)
    parts = [torch.nn.Parameter(part.clone()) for part in torch.tensor(x[0]).split(list(TENSORS))]
    groups = [
        {"params": [part], "weight_decay": method.weight_decay * decays}
        for part, decays in zip(parts, MATRICES, strict=True)
    ]
    adam, clipped = torch.optim.AdamW(groups, betas=(method.alpha1, method.alpha2), eps=method.epsilon), []
    for r, gamma in enumerate(GAMMAS):
        whole = torch.cat([part.detach() for part in parts]).numpy()
        for group, part, g in zip(
            adam.param_groups, parts, torch.from_numpy(gradient(r, whole[None])[0]).split(list(TENSORS)), strict=True
        ):
            group["lr"], part.grad = gamma, g.clone()
        clipped.append(float(torch.nn.utils.clip_grad_norm_(parts, method.max_grad_norm)) > method.max_grad_norm)
        adam.step()
        # torch divides by the norm and 1e-6 more.
        np.testing.assert_allclose(found[r].x[0], torch.cat([p.detach() for p in parts]).numpy(), rtol=1e-7)
    assert any(clipped)


@pytest.mark.parametrize("discrepancy", SIGNALS)
def test_equal_data_seed_and_start_equal_one_node(discrepancy: str) -> None:
    """Equal data, seed and start on all nodes equals one node, for any row-stochastic W."""
    hyper = hyper_of(Method(discrepancy=discrepancy))
    W = np.random.default_rng(3).dirichlet(np.ones(NODES), size=NODES)
    one, x = quadratics(1), start(1)
    alone = run_deca(hyper, np.eye(1), x, one, GAMMAS)[-1]
    together = run_deca(hyper, W, x.repeat(NODES, axis=0), one, GAMMAS)[-1]
    for name in ("x", "m", "v"):
        np.testing.assert_allclose(getattr(together, name), getattr(alone, name).repeat(NODES, axis=0), rtol=1e-12)


def test_uniform_w_leaves_no_disagreement_after_a_mix() -> None:
    """W = 11'/n leaves no disagreement after a mix (x+ = sum_j w_ij x_half,j)."""
    W = np.full((NODES, NODES), 1 / NODES)
    for state in run_deca(hyper_of(Method(discrepancy="precond")), W, start(NODES), quadratics(NODES), GAMMAS):
        assert reference.consensus_distance(state.x) < 1e-14


@pytest.mark.parametrize("graph", GRAPHS)
def test_mixing_leaves_the_mean_over_nodes(graph: str) -> None:
    """The mean over nodes is unchanged by mixing: with gamma = 0 nothing else moves it."""
    x = start(NODES, spread=1.0)
    W = reference.metropolis(GRAPHS[graph])
    for state in run_deca(hyper_of(Method(discrepancy="none")), W, x, quadratics(NODES), (0.0,) * 5):
        np.testing.assert_allclose(state.x.mean(axis=0), x.mean(axis=0), rtol=1e-13)


@pytest.mark.parametrize("graph", GRAPHS)
def test_pure_gossip_contracts_by_the_second_eigenvalue(graph: str) -> None:
    """Pure gossip contracts by max(|lambda_2|, |lambda_n|) per mix: at most always, exactly on that eigenvector."""
    W, rng = reference.metropolis(GRAPHS[graph]), np.random.default_rng(2)
    rho = reference.contraction(W)
    values, vectors = np.linalg.eigh(W)
    slowest = vectors[:, [int(np.argmax(np.where(values < 1 - 1e-9, np.abs(values), 0)))]]
    cases = [(rng.normal(size=(NODES, PARAMETERS)), False), (slowest @ np.ones((1, PARAMETERS)), True)]
    for x, exact in cases:
        before = reference.consensus_distance(x)
        after = reference.consensus_distance(run_deca(pure_gossip(), W, x, zero, (0.0,))[0].x)
        assert after <= rho * before * (1 + 1e-12) + 1e-15
        assert not exact or after == pytest.approx(rho * before, rel=1e-9, abs=1e-15)


def pure_gossip() -> Hyper:
    return replace(Hyper.of(RunSettings()), gamma_peak=0.0, discrepancy="none")


def zero(_: int, x: Array) -> Array:
    return np.zeros_like(x)


@pytest.mark.parametrize("h_part", ["full", "consensus"])
@pytest.mark.parametrize("discrepancy", ["precond", "rms", "none"])
def test_scaling_the_loss_and_epsilon_leaves_the_trajectory(discrepancy: str, h_part: str) -> None:
    """Scaling the loss (and eps) by c leaves the trajectory of precond, rms and none unchanged."""
    method, c = Method(discrepancy=discrepancy, h_part=h_part, epsilon=1e-3), 1000.0
    W, x, gradient = reference.metropolis(GRAPHS["ring"]), start(NODES), quadratics(NODES)
    plain = run_deca(hyper_of(method), W, x, gradient, GAMMAS)[-1]
    scaled = run_deca(
        hyper_of(replace(method, epsilon=c * method.epsilon)), W, x, lambda r, at: c * gradient(r, at), GAMMAS
    )[-1]
    np.testing.assert_allclose(scaled.x, plain.x, rtol=1e-11)
    np.testing.assert_allclose(scaled.m, c * plain.m, rtol=1e-9, atol=1e-12)


def test_scaling_the_loss_changes_the_raw_signals() -> None:
    """The raw signals are parameter differences. They mix units, so none of them is the default."""
    method, x, gradient = Method(discrepancy="descent"), start(NODES), quadratics(NODES)
    W = reference.metropolis(GRAPHS["ring"])
    plain = run_deca(hyper_of(method), W, x, gradient, GAMMAS)[-1]
    scaled = run_deca(hyper_of(method), W, x, lambda r, at: 1000.0 * gradient(r, at), GAMMAS)[-1]
    assert np.abs(plain.x - scaled.x).max() > 1e-4


@pytest.mark.parametrize(
    ("discrepancy", "shrinks"), [("descent", True), ("precond", True), ("rms", True), ("paper", False)]
)
def test_a_descent_signal_shrinks_the_gap_of_two_nodes(discrepancy: str, shrinks: bool) -> None:
    """Two nodes, zero gradient: a descent h shrinks the gap at the next step, and the paper's sign widens it."""
    hyper, gamma = hyper_of(Method(discrepancy=discrepancy)), 1e-3
    x = np.stack([np.full(PARAMETERS, 1.0), np.full(PARAMETERS, -1.0)])
    W = np.array([[0.9, 0.1], [0.1, 0.9]])
    state = run_deca(hyper, W, x, zero, (gamma,))[0]
    gap = state.x[0] - state.x[1]
    counts = deca.half_counts(hyper, Counts(1))
    after = [
        deca.half_step(
            hyper,
            counts,
            torch.tensor(state.x[i]),
            Moments(torch.tensor(state.m[i]), torch.tensor(state.v[i])),
            torch.zeros(PARAMETERS, dtype=torch.float64),
            gamma=gamma,
        )[0].numpy()
        for i in (0, 1)
    ]
    next_gap = after[0] - after[1]
    assert (next_gap < gap).all() if shrinks else (next_gap > gap).all()
    assert (next_gap > 0).all(), "the step overshot"


# --- bias correction, gamma -> 0, one node ----------------------------------------------------------


@pytest.mark.parametrize("bias_correction", ["alpha", "exact"])
def test_with_one_node_precond_leaves_m_as_it_was(bias_correction: str) -> None:
    """With one node precond's h is m^. Its bias correction is undone if m expects that, so m+ = m_half."""
    method = Method(discrepancy="precond", h_into="m", bias_correction=bias_correction)
    gradient, x = quadratics(1), start(1)
    none = run_deca(hyper_of(Method(discrepancy="none")), np.eye(1), x, gradient, GAMMAS)
    found = run_deca(hyper_of(method), np.eye(1), x, gradient, GAMMAS)
    if bias_correction == "alpha":
        for ours, plain in zip(found, none, strict=True):
            np.testing.assert_allclose(ours.m, plain.m, rtol=1e-13)
            np.testing.assert_allclose(ours.x, plain.x, rtol=1e-13)
    hyper, half = hyper_of(method), Moments(torch.tensor([0.3, -2.0]), torch.tensor([0.1, 4.0]))
    counts = deca.half_counts(hyper, Counts())
    h = deca.discrepancy(hyper, counts, half, None, gamma=0.1)
    assert h is not None
    torch.testing.assert_close(h, half.m / counts.c1)


EXACT_ARMS = [
    arm
    for arm in ARMS
    if arm.bias_correction == "exact" and arm.discrepancy in ("precond", "trivial", "none", "decay-only")
]


@pytest.mark.parametrize("method", EXACT_ARMS, ids=arm_name)
def test_exact_bias_correction_sees_a_constant_gradient_as_it_is(method: Method) -> None:
    """bias_correction = exact counts beta: one node with a constant gradient has m^ = g and v^ = g*g at every step."""
    hyper, g = hyper_of(method), torch.tensor([0.3, -2.0, 1e-3], dtype=torch.float64)
    moments, counts = Moments(torch.zeros_like(g), torch.zeros_like(g)), Counts()
    for _ in range(8):
        counts = deca.half_counts(hyper, counts)
        _, half = deca.half_step(hyper, counts, torch.zeros_like(g), moments, g, gamma=0.1)
        torch.testing.assert_close(half.m / counts.c1, g, rtol=1e-9, atol=0.0)
        torch.testing.assert_close(half.v / counts.c2, g * g, rtol=1e-9, atol=0.0)
        moments = deca.fold(hyper, counts, half, deca.discrepancy(hyper, counts, half, None, gamma=0.1), g)
        counts = deca.folded_counts(hyper, counts)


def test_beta_decay_alone_makes_steps_larger() -> None:
    """Without a signal beta_2 = 0.99 shrinks v and so enlarges the step; hence the control arm decay-only."""
    gradient, x = (lambda r, x: np.ones_like(x)), np.zeros((1, PARAMETERS))
    steps = {}
    for name in ("none", "decay-only"):
        states = run_deca(hyper_of(Method(discrepancy=name, h_into="v")), np.eye(1), x, gradient, (0.01,) * 60)
        steps[name] = np.abs(states[-1].x - states[-2].x).mean()
    assert 1.1 * steps["none"] < steps["decay-only"] < 3.0 * steps["none"]


@pytest.mark.parametrize("method", ARMS, ids=arm_name)
def test_gamma_zero_divides_by_nothing(method: Method) -> None:
    """A step size of 0 must not divide by zero: neither in the middle of a run nor where the peak is zero."""
    W, x, gradient = reference.metropolis(GRAPHS["ring"]), start(NODES), quadratics(NODES)
    for peak in (0.02, 0.0):
        hyper = replace(hyper_of(method), gamma_peak=peak)
        for state in run_deca(hyper, W, x, gradient, (peak, 0.0, 0.0)):
            assert all(np.isfinite(t).all() for t in (state.x, state.m, state.v))


def test_consensus_part_is_divided_by_gamma_but_not_below_its_floor() -> None:
    """(x - x+) / gamma = u - E / max(gamma, 1 % of the peak), and without a peak E drops out."""
    half, E = Moments(torch.tensor([0.1]), torch.tensor([4.0])), torch.tensor([0.5])
    counts = Counts(1, 0.1, 1.0)

    def consensus_part(gamma: float, peak: float) -> float:
        hyper = hyper_of(Method(discrepancy="rms", h_into="both", h_part="consensus"), (peak,))
        h = deca.discrepancy(hyper, counts, half, E, gamma=gamma, s=1.0)
        assert h is not None
        return h.item()

    assert consensus_part(0.5, 1.0) == pytest.approx(-0.5 / 0.5)
    assert consensus_part(0.0, 1.0) == pytest.approx(-0.5 / 0.01)
    assert consensus_part(0.0, 0.0) == 0.0


@pytest.mark.parametrize("discrepancy", [*SIGNALS, "none"])
def test_one_node_works(discrepancy: str) -> None:
    """With n = 1 the ring, the full graph and the random graph of one node all mix nothing."""
    W = reference.metropolis(reference.full(1))
    states = run_deca(hyper_of(Method(discrepancy=discrepancy)), W, start(1), quadratics(1), GAMMAS)
    assert np.isfinite(states[-1].x).all()


# --- the learning rate ------------------------------------------------------------------------------


def settings(**changes: float | str) -> RunSettings:
    return RunSettings(learning_rate=2.0, **changes)  # type: ignore[arg-type]


def test_constant_learning_rate() -> None:
    assert [deca.learning_rate(settings(), s, 3) for s in range(3)] == [2.0, 2.0, 2.0]


def test_linear_learning_rate_falls_in_equal_stairs_and_stays_above_zero() -> None:
    rates = [deca.learning_rate(settings(lr_schedule="linear"), s, 4) for s in range(4)]
    assert rates == [2.0, 1.5, 1.0, 0.5]


def test_cosine_learning_rate_is_half_in_the_middle() -> None:
    rates = [deca.learning_rate(settings(lr_schedule="cosine"), s, 100) for s in range(100)]
    assert rates[0] == 2.0
    assert rates[50] == pytest.approx(1.0)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] > 0.0


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_warmup_climbs_to_the_peak_and_no_further(schedule: str) -> None:
    rates = [deca.learning_rate(settings(lr_schedule=schedule, lr_warmup=0.4), s, 10) for s in range(10)]
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert max(rates) == 2.0


def test_warmup_in_steps() -> None:
    rates = [deca.learning_rate(settings(lr_schedule="linear", lr_warmup_steps=4), s, 8) for s in range(8)]
    assert rates == [0.5, 1.0, 1.5, 2.0, 2.0, 1.5, 1.0, 0.5]
    cut_short = [deca.learning_rate(settings(lr_warmup_steps=4), s, 2) for s in range(2)]
    assert cut_short == [0.5, 1.0]


def test_a_kind_of_block_may_have_a_step_size_of_its_own() -> None:
    run = settings(embedding_lr_scale=0.5, head_lr_scale=3.0)
    peaks = {name: Hyper.of(deca.of_block(run, name)).gamma_peak for name in ("embedding", "layers.0", "head")}
    assert peaks == {"embedding": 1.0, "layers.0": 2.0, "head": 6.0}
    assert deca.of_block(run, "layers.0") is run


def test_hyper_takes_every_value_from_the_run() -> None:
    run = RunSettings(
        learning_rate=1e-3, alpha1=0.8, alpha2=0.95, epsilon=1e-6, discrepancy="descent", h_into="both",
        h_part="consensus", bias_correction="exact", beta1=0.7, beta2=0.9, weight_decay=0.1, max_grad_norm=2.0,
    )  # fmt: skip
    hyper = Hyper.of(run)
    assert hyper.gamma_peak == run.learning_rate
    assert hyper.steps_max == math.inf and Hyper.of(replace(run, robust="clip")).steps_max == run.clip_radius
    names = set(Hyper.__dataclass_fields__) - {"gamma_peak", "steps_max"}
    assert {name: getattr(hyper, name) for name in names} == {name: getattr(run, name) for name in names}
    assert math.isclose(hyper.beta2, 0.9)
