"""n engines in one process against the dense reference, and the state after an activation.

The engine is float32, so it is compared with the float64 reference at float32's precision.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from deca_node.numerics import deca, engine
from deca_node.numerics.codecs.base import slice_elements
from deca_node.numerics.codecs.formats import CODECS, KEYFRAME_CODEC
from deca_node.numerics.engine import BlockEngine, EngineFigures, NewEdge
from deca_node.numerics.exchange.flows import FlowBytes
from deca_node.numerics.exchange.slices import cut
from deca_node.numerics.model.blocks import Block, partition
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Content, Schedule, Step
from deca_node.protocol.errors import TrainerError, WireError
from tests.numerics import reference
from tests.numerics.reference import Array, Method

SHAPES = {"a": (5, 30), "b": (3,), "c": (7, 11)}
TENSORS = tuple(math.prod(shape) for shape in SHAPES.values())
MATRICES = tuple(len(shape) > 1 for shape in SHAPES.values())
ELEMENTS = sum(TENSORS)
BLOCK = Block("toy", tuple(SHAPES), ELEMENTS)
GAMMAS = (0.02, 0.01, 0.02, 0.015)

GRAPHS = {
    "ring": reference.ring(5),
    "full": reference.full(3),
    "erdos-renyi": reference.erdos_renyi(6, 0.5, np.random.default_rng(3)),
}

ARMS = [
    Method(discrepancy=name, h_into=into, h_part=part, bias_correction=correction)
    for name, into in [("paper", "both"), ("descent", "both"), ("precond", "m"), ("precond", "both"), ("rms", "both"),
                       ("rms", "v"), ("trivial", "both"), ("trivial", "m"), ("decay-only", "both"), ("none", "both")]
    for part, correction in itertools.product(("full", "consensus"), ("alpha", "exact"))
] + [
    Method(discrepancy=name, weight_decay=0.5, max_grad_norm=norm)
    for name in ("none", "precond", "rms") for norm in (0.0, 10.0)
]  # fmt: skip


class Toy(nn.Module):
    """A bowl: loss = sum of curve (x - centre)^2 / 2, where the parameters are one row of a matrix."""

    def __init__(self, row: Array, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        parts = torch.tensor(row, dtype=dtype).split(list(TENSORS))
        for (name, shape), part in zip(SHAPES.items(), parts, strict=True):
            self.register_parameter(name, nn.Parameter(part.view(shape).clone()))

    def vector(self) -> Tensor:
        return torch.cat([self.get_parameter(name).reshape(-1) for name in SHAPES])

    def backward(self, centre: Array, curve: Array) -> float:
        x = self.vector()
        loss = (torch.tensor(curve, dtype=x.dtype) * (x - torch.tensor(centre, dtype=x.dtype)).square()).sum() / 2
        loss.backward()
        return loss.item()


class Cluster:
    """Several nodes in lockstep, driven as the protocol drives them."""

    def __init__(
        self,
        hyper: deca.Hyper,
        W: Array,
        x: Array,
        *,
        codec: str = "fp32",
        dtype: torch.dtype = torch.float32,
        signal: str = "none",
        bits: int = 8,
    ) -> None:
        self.W, self.nodes = W, range(len(x))
        self.models = [Toy(row, dtype) for row in x]
        self.engines = [
            BlockEngine(model, BLOCK, zeros, hyper=hyper, codec=CODECS[codec], gamma_c=1.0, signal=signal, bits=bits)
            for model in self.models
        ]
        keyframes = [frame(e.keyframe, KEYFRAME_CODEC.nbytes(ELEMENTS)) for e in self.engines]
        for i, one in enumerate(self.engines):
            one.connect([NewEdge(str(j), float(W[i, j]), keyframes[j]) for j in self.others(i)], keyframes[i])

    def others(self, i: int) -> list[int]:
        return [j for j in self.nodes if j != i and self.W[i, j] > 0]

    def step(self, gamma: float, gradients: Sequence[Callable[[], float]], signal: bool = False) -> list[EngineFigures]:
        self.half_step(gamma, gradients)
        return self.mix(fold=True, signal=signal)

    def half_step(self, gamma: float, gradients: Sequence[Callable[[], float]]) -> None:
        for one, gradient in zip(self.engines, gradients, strict=True):
            one.half_step(gamma, gradient)

    def mix(self, fold: bool = False, signal: bool = False, content: Content | None = None) -> list[EngineFigures]:
        updates = self.updates(signal, content)
        return [one.mix(self.flows(i, updates, content), fold) for i, one in enumerate(self.engines)]

    def updates(self, signal: bool = False, content: Content | None = None) -> list[Tensor]:
        """Every node's update frame; an empty one where there are no neighbours."""
        contents = [content or e.layout.content(signal) for e in self.engines]
        return [
            frame(partial(e.encode_update, content=c), e.layout.nbytes(c)) if e.public else torch.empty(0)
            for e, c in zip(self.engines, contents, strict=True)
        ]

    def flows(self, i: int, updates: Sequence[Tensor], content: Content | None = None) -> list[FlowBytes]:
        return [FlowBytes(str(j), updates[j], updates[i], content) for j in self.others(i)]

    def moments(self, name: str) -> Array:
        """m or v of all nodes."""
        return np.stack([getattr(e.moments, name).double().numpy() for e in self.engines])

    @property
    def x(self) -> Array:
        return np.stack([model.vector().detach().double().numpy() for model in self.models])


def test_a_restart_needs_nothing_of_what_signals_left_over() -> None:
    """After a restart a visit has no edges, so it sends no more signals: from the same tensors it goes on bit for bit,
    with or without the feedback that the engine had."""
    hyper, W = hyper_of(Method(discrepancy="none")), reference.metropolis(reference.full(2))
    (centre, curve), content = bowls(2), Content(False, True, True)
    first, again = (Cluster(hyper, W, start(2), signal="mv", bits=1) for _ in range(2))
    for gamma in GAMMAS:
        first.half_step(gamma, backward_of(first, centre, curve))
        first.mix(fold=True, content=content)
    for old, new in zip(first.engines, again.engines, strict=True):
        assert old.feedback is not None and old.feedback.abs().max() > 0 and new.feedback is None
        new.restore(((name, t.clone()) for name, t in old.tensors().items()), old.counts)
    for cluster in (first, again):
        cluster.half_step(GAMMAS[0], backward_of(cluster, centre, curve))
        for each in cluster.engines:
            each.mix([], fold=True)
    assert np.array_equal(first.x, again.x)
    first.engines[0].freeze()
    assert first.engines[0].feedback is None, "the next visit begins with none"


def zeros(start: int, stop: int) -> Tensor:
    return torch.zeros(stop - start)


def frame(write: Callable[[Tensor], int], nbytes: int, spare: int = 9) -> Tensor:
    """The bytes that ``write`` puts into a frame; the buffer is larger than needed."""
    out = torch.full((nbytes + spare,), 77, dtype=torch.uint8)
    assert write(out) == nbytes
    assert (out[nbytes:] == 77).all()
    return out[:nbytes]


def bowls(nodes: int, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(nodes, ELEMENTS)), rng.uniform(0.2, 3.0, size=(nodes, ELEMENTS))


def start(nodes: int) -> Array:
    rng = np.random.default_rng(1)
    return rng.normal(size=(1, ELEMENTS)) + 0.05 * rng.normal(size=(nodes, ELEMENTS))


def hyper_of(method: Method, gammas: Sequence[float] = GAMMAS) -> deca.Hyper:
    return deca.Hyper(gamma_peak=max(gammas), **asdict(method))


def backward_of(cluster: Cluster, centre: Array, curve: Array) -> list[Callable[[], float]]:
    return [lambda i=i, model=model: model.backward(centre[i], curve[i]) for i, model in enumerate(cluster.models)]


def arm_name(method: Method) -> str:
    given = (method.discrepancy, method.h_into, method.h_part, method.bias_correction)
    return "-".join((*given, *(f"{x:g}" for x in (method.weight_decay, method.max_grad_norm) if x)))


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of 64 elements, so that every parameter and every codec group is cut somewhere."""
    monkeypatch.setattr(engine, "slice_elements", lambda device: 64)


# --- against the dense reference --------------------------------------------------------------------


@pytest.mark.usefixtures("small_slices")
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("method", ARMS, ids=arm_name)
def test_engines_follow_the_dense_simulation(method: Method, graph: str) -> None:
    """Keyframes, updates, flows, slices and folds together are the equations, for every arm and graph."""
    W = reference.metropolis(GRAPHS[graph])
    x, (centre, curve) = start(len(W)), bowls(len(W))
    expected = reference.simulate(
        method, W, x, lambda _, at: curve * (at - centre), gammas=GAMMAS, tensors=TENSORS, matrices=MATRICES
    )
    cluster = Cluster(hyper_of(method), W, x)
    # In units of the step. trivial subtracts g * g from v again, and little of float32's precision is left.
    share = 2e-3 if method.discrepancy == "trivial" else 2e-4
    for gamma, theirs in zip(GAMMAS, expected, strict=True):
        cluster.step(gamma, backward_of(cluster, centre, curve))
        np.testing.assert_allclose(cluster.x, theirs.x, rtol=0, atol=share * max(GAMMAS))
        for name in ("m", "v"):
            wanted = getattr(theirs, name)
            np.testing.assert_allclose(cluster.moments(name), wanted, rtol=0, atol=2e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("codec", ["bf16", "int8", "int4"])
def test_compressed_engines_stay_near_the_dense_simulation(codec: str) -> None:
    """Rounding errors travel with the next difference: the mean stays within a hundredth of the distance moved."""
    W = reference.metropolis(GRAPHS["erdos-renyi"])
    x, (centre, curve), method, gammas = start(len(W)), bowls(len(W)), Method(discrepancy="none"), (0.01,) * 12
    expected = reference.simulate(method, W, x, lambda _, at: curve * (at - centre), gammas=gammas, tensors=TENSORS)[-1]
    cluster = Cluster(hyper_of(method), W, x, codec=codec)
    for gamma in gammas:
        cluster.step(gamma, backward_of(cluster, centre, curve))
    moved = np.abs(expected.x.mean(axis=0) - x.mean(axis=0)).mean()
    assert np.abs(cluster.x.mean(axis=0) - expected.x.mean(axis=0)).mean() < 1e-2 * moved
    distance = reference.consensus_distance
    assert distance(cluster.x) == pytest.approx(distance(expected.x), rel=0.05)


# --- one node ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_slices")
def test_an_isolated_engine_is_torch_adam_reset_at_each_activation() -> None:
    """W = I and beta = 1 equals torch's Adam on that block, reset at each activation."""
    model, twin = Toy(start(1)[0]), Toy(start(1)[0])
    (centre,), (curve,) = bowls(1)
    for _ in range(3):
        hyper = hyper_of(Method(discrepancy="precond", beta1=1.0, beta2=1.0))
        one = BlockEngine(model, BLOCK, zeros, hyper=hyper, codec=CODECS["int8"], gamma_c=1.0, signal="none")
        one.connect([], frame(one.keyframe, KEYFRAME_CODEC.nbytes(ELEMENTS)))
        adam = torch.optim.Adam(twin.parameters(), betas=(0.9, 0.999), eps=1e-8)
        for gamma in GAMMAS:
            one.half_step(gamma, lambda: model.backward(centre, curve))
            one.mix([], fold=True)
            adam.param_groups[0]["lr"] = gamma
            adam.zero_grad()
            twin.backward(centre, curve)
            adam.step()
        one.freeze()
        torch.testing.assert_close(model.vector(), twin.vector(), rtol=0, atol=1e-6)


def test_a_node_without_neighbours_has_no_public_copy() -> None:
    cluster = Cluster(hyper_of(Method(discrepancy="precond")), np.eye(1), start(1))
    cluster.step(0.01, backward_of(cluster, *bowls(1)))
    assert cluster.engines[0].public is None


def test_equal_data_seed_and_start_equal_one_node_bit_for_bit() -> None:
    """Equal data, seed and start on all nodes equals one node: every e_ij is exactly zero."""
    (centre, curve), hyper = bowls(1), hyper_of(Method(discrepancy="precond"))
    alone = Cluster(hyper, np.eye(1), start(1))
    together = Cluster(hyper, reference.metropolis(reference.ring(4)), start(1).repeat(4, axis=0), codec="int8")
    for gamma in GAMMAS:
        for cluster, n in ((alone, 1), (together, 4)):
            cluster.step(gamma, backward_of(cluster, centre.repeat(n, axis=0), curve.repeat(n, axis=0)))
    assert np.array_equal(together.x, alone.x.repeat(4, axis=0))


def test_exactly_r_steps_per_activation_the_first_included() -> None:
    """R inner steps are R gradients, the first with m^ = g: its step is gamma in every coordinate."""
    settings = RunSettings(rounds=1, inner_steps=3, flush_mixes=2, beta1=1.0, beta2=1.0, learning_rate=0.1)
    schedule, model = Schedule(settings, 1, 0), Toy(start(1)[0])
    (centre,), (curve,) = bowls(1)
    one, calls, before = BlockEngine.of(model, BLOCK, settings, zeros), 0, model.vector().detach().clone()
    for inner in range(schedule[0].steps):
        fold = inner < schedule[0].inner_steps
        if fold:
            gamma = deca.learning_rate(settings, schedule.gradient_ordinal(Step(0, inner)), schedule.gradient_steps)
            one.half_step(gamma, lambda: model.backward(centre, curve))
            calls += 1
        one.mix([], fold)
        if inner == 0:
            torch.testing.assert_close((model.vector() - before).abs(), torch.full_like(before, 0.1), rtol=1e-4, atol=0)
    assert calls == one.counts.gradients == settings.inner_steps


# --- mixing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [name for name in CODECS if name != "topk"])
def test_flush_mixes_leave_the_mean_and_bring_nodes_together(codec: str) -> None:
    """The mean over nodes is unchanged by compressed mixing; a flush has neither gradient nor moments."""
    cluster = Cluster(
        hyper_of(Method(discrepancy="precond")), reference.metropolis(GRAPHS["ring"]), start(5), codec=codec
    )
    before = cluster.x
    for _ in range(30):
        cluster.mix()
    np.testing.assert_allclose(cluster.x.mean(axis=0), before.mean(axis=0), rtol=0, atol=1e-6)
    assert reference.consensus_distance(cluster.x) < 1e-5
    assert all(e.moments is None and e.flat.grad is None for e in cluster.engines)


def test_a_uniform_w_leaves_no_disagreement_after_a_mix() -> None:
    """W = 11'/n leaves no disagreement after a mix; the figures say so one exchange later."""
    cluster = Cluster(hyper_of(Method(discrepancy="precond")), np.full((4, 4), 0.25), start(4))
    centre, curve = bowls(4)
    for gamma in GAMMAS:
        cluster.step(gamma, backward_of(cluster, centre, curve))
        assert reference.consensus_distance(cluster.x) < 1e-6
    assert all(figures["disagreement_rms"] < 1e-6 for figures in cluster.mix())


@pytest.mark.parametrize("discrepancy", ["precond", "decay-only", "none"])
def test_figures_are_what_they_are_called(discrepancy: str) -> None:
    x, hyper = start(3), hyper_of(Method(discrepancy=discrepancy))
    cluster, (centre, curve) = Cluster(hyper, np.full((3, 3), 1 / 3), x), bowls(3)
    gradients = backward_of(cluster, centre, curve)
    half = cluster.engines[0].half_step(0.01, gradients[0])
    assert half["loss"] == pytest.approx((curve[0] * (x[0] - centre[0]) ** 2).sum() / 2, rel=1e-5)
    assert half["grad_norm"] == pytest.approx(np.linalg.norm(curve[0] * (x[0] - centre[0])), rel=1e-5)
    assert half["x_step_rms"] == pytest.approx(0.01, rel=1e-4)
    for i in (1, 2):
        cluster.engines[i].half_step(0.01, gradients[i])
    x_half, figures = cluster.x, cluster.mix(fold=True)
    for i in range(3):
        others = [x_half[j] - x_half[i] for j in range(3) if j != i]
        assert figures[i]["disagreement_rms"] == pytest.approx(np.sqrt(np.mean(np.square(others))), rel=1e-3)
        assert figures[i]["consensus_distance"] == pytest.approx(rms(x_half.mean(axis=0) - x_half[i]), rel=1e-3)
        assert figures[i]["flow_rms"] == pytest.approx(rms(cluster.x[i] - x_half[i]), rel=1e-3)
        moments = cluster.engines[i].moments
        assert moments is not None
        assert figures[i]["m_rms"] == pytest.approx(rms(moments.m.numpy()), rel=1e-5)
        assert figures[i]["sqrt_v_rms"] == pytest.approx(rms(moments.v.sqrt().numpy()), rel=1e-5)
        assert ("h_rms" in figures[i]) == (discrepancy == "precond")


def rms(x: Array) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def test_a_dropped_neighbour_flows_no_more() -> None:
    cluster = Cluster(hyper_of(Method(discrepancy="none")), reference.metropolis(reference.full(2)), start(2))
    cluster.engines[0].drop("1")
    before = cluster.x
    assert cluster.engines[0].mix([], fold=False) == {}
    assert np.array_equal(cluster.x, before)


# --- the model around the block ---------------------------------------------------------------------


def tiny_llama(dtype: torch.dtype = torch.float32, tied: bool = False) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=16, tie_word_embeddings=tied,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(dtype)


def language_gradient(model: LlamaForCausalLM) -> float:
    tokens = torch.arange(24).view(3, 8) % 7
    loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    return loss.item()


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_training_moves_the_active_block_and_nothing_else(dtype: torch.dtype, tied: bool) -> None:
    """Inactive blocks stay bit-identical, hold no gradient and no state; every block lowers the loss."""
    model = tiny_llama(dtype, tied)
    settings = RunSettings(learning_rate=5e-3)
    first = last = math.inf
    for block in partition(model, 1):
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        one = BlockEngine.of(model, block, settings, lambda start, stop: torch.zeros(stop - start))
        for _ in range(4):
            last = one.half_step(5e-3, lambda: language_gradient(model))["loss"]
            first = min(first, last) if first == math.inf else first
            one.mix([], fold=True)
        one.freeze()
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, before[name]) == (name not in block.parameters), name
            assert parameter.grad is None and not parameter.requires_grad
        assert one.moments is None and one.public is None and one.flat.grad is None and one.flat.master.numel() == 0
    assert last < first - 0.3


def test_bfloat16_models_are_trained_on_float32_masters() -> None:
    """Steps below bfloat16's resolution add up in the master until they show in the model."""
    model = Toy(np.ones(ELEMENTS), torch.bfloat16)
    hyper = hyper_of(Method(discrepancy="none"), (1e-4,))
    one = BlockEngine(model, BLOCK, zeros, hyper=hyper, codec=CODECS["int8"], gamma_c=1.0, signal="none")
    for _ in range(80):
        one.half_step(1e-4, lambda: model.backward(np.full(ELEMENTS, -1.0), np.ones(ELEMENTS)))
        one.mix([], fold=True)
    assert model.vector().dtype == torch.bfloat16
    torch.testing.assert_close(one.flat.master, torch.full((ELEMENTS,), 1 - 80e-4), rtol=1e-4, atol=0)
    assert torch.equal(model.vector(), one.flat.master.bfloat16())


def test_memory_between_steps_is_four_bytes_per_element_and_buffer() -> None:
    """These are gradient, m, v, x^ and one e_ij per neighbour; a float32 model is its own master."""
    cluster = Cluster(hyper_of(Method(discrepancy="precond")), reference.metropolis(reference.full(3)), start(3))
    cluster.step(0.01, backward_of(cluster, *bowls(3)))
    one, model = cluster.engines[0], cluster.models[0]
    assert one.public is not None and one.moments is not None
    held = [one.flat.grad, *one.moments, one.public.x_hat, *(edge.e for edge in one.public.edges.values())]
    assert len(held) == 6
    assert all(t is not None and t.untyped_storage().nbytes() == 4 * ELEMENTS for t in held)
    assert model.a.untyped_storage().data_ptr() == one.flat.master.untyped_storage().data_ptr()


# --- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("loss", "grad", "words"), [
    (math.nan, 1.0, "the loss of block toy at inner step 1 is nan"),
    (1.0, math.inf, "the gradient norm of block toy at inner step 1 is inf"),
    (1.0, math.nan, "the gradient norm of block toy at inner step 1 is nan"),
])  # fmt: skip
def test_non_finite_numbers_are_refused_by_figure_and_step(loss: float, grad: float, words: str) -> None:
    cluster = Cluster(hyper_of(Method(discrepancy="precond")), np.eye(1), start(1))
    cluster.step(0.01, backward_of(cluster, *bowls(1)))
    one, model, before = cluster.engines[0], cluster.models[0], cluster.x

    def diverged() -> float:
        (model.a.sum() * grad).backward()
        return loss

    with pytest.raises(TrainerError, match=words):
        one.half_step(0.01, diverged)
    assert np.array_equal(cluster.x, before)


def test_malformed_codes_leave_the_block_unchanged() -> None:
    cluster = Cluster(hyper_of(Method(discrepancy="precond")), reference.metropolis(reference.full(2)), start(2))
    updates = [frame(e.encode_update, e.layout.nbytes(e.layout.content(False))) for e in cluster.engines]
    before = cluster.x
    with pytest.raises(WireError, match=r"^1 sent"):
        cluster.engines[0].mix([FlowBytes("1", updates[1][:-4], updates[0])], fold=False)
    assert np.array_equal(cluster.x, before)


def test_half_steps_and_folds_alternate() -> None:
    """A gradient that is never folded, or a fold without a gradient, is a bug of the caller."""
    cluster = Cluster(hyper_of(Method(discrepancy="precond")), np.eye(1), start(1))
    (one,), (gradient,) = cluster.engines, backward_of(cluster, *bowls(1))
    with pytest.raises(AssertionError, match="h is folded once"):
        one.mix([], fold=True)
    one.half_step(0.01, gradient)
    with pytest.raises(AssertionError, match="followed by a mix"):
        one.half_step(0.01, gradient)


def test_slices_do_not_straddle_parameters() -> None:
    one = BlockEngine.of(Toy(start(1)[0]), BLOCK, RunSettings(), zeros)
    pieces = cut(one.flat.spans, 64)
    assert [(p.start, p.stop, p.tensor) for p in pieces] == [
        (0, 64, 0), (64, 128, 0), (128, 150, 0), (150, 153, 1), (153, 217, 2), (217, 230, 2),
    ]  # fmt: skip
    assert len(cut(one.flat.spans, slice_elements(torch.device("cpu")))) == len(SHAPES)
