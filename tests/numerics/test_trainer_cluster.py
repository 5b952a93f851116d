"""Four production trainers in a cluster, step by step against the dense reference.

Everything but the network and the clock is real: nodes, trainers, engines, codecs, a small Llama. The reference takes
the trainers' own gradients, and its results are compared with theirs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.parts import trainer_options
from deca_node.lab.sim.cluster import Cluster
from deca_node.lab.sim.seats import FrameBook, seats
from deca_node.lab.sim.weather import Cut, Weather
from deca_node.numerics.codecs.formats import CODECS
from deca_node.numerics.data.dataset import DataSummary, PackedData
from deca_node.numerics.data.sequences import Sequences
from deca_node.numerics.exchange import signals
from deca_node.numerics.learning.tasks import Data
from deca_node.numerics.model.blocks import partition
from deca_node.numerics.model.load import LoadedModel
from deca_node.numerics.trainer import Trainer
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed import topology as topologies
from deca_node.protocol.agreed import weights
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Activation, Step
from deca_node.protocol.node.node import Node
from deca_node.protocol.visit.policy import Policy
from tests.defaults import default_policy
from tests.numerics import reference
from tests.numerics.reference import Array, Method

NAMES = ("a", "b", "c", "d")
W = reference.metropolis(reference.ring(len(NAMES)))
VOCABULARY, LENGTH = 32, 16

SETTINGS = RunSettings(
    rounds=2,
    inner_steps=4,
    flush_mixes=2,
    final_flush_mixes=3,
    sequence_length=LENGTH,
    batch_size=2,
    dtype="float32",
    learning_rate=2e-3,
    topology="ring",
    codec="fp32",
    discrepancy="precond",
    signal="none",
    signal_every=1,
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass
class Recorder:
    """A trainer, and what its active block held after each command; float64 [elements] each."""

    trainer: Trainer
    node: Node
    activations: list[Activation] = field(default_factory=list)
    tensors: dict[int, list[int]] = field(default_factory=dict)
    """Elements of each parameter of the block, by activation."""
    start: dict[int, Array] = field(default_factory=dict)
    gradients: dict[Step, Array] = field(default_factory=dict)
    x_half: dict[Step, Array] = field(default_factory=dict)
    x: dict[Step, Array] = field(default_factory=dict)
    clipped: list[float] = field(default_factory=list)
    """Shares of flows clipped, mix by mix."""
    m: dict[Step, Array] = field(default_factory=dict)
    v: dict[Step, Array] = field(default_factory=dict)

    def ready(self) -> e.TrainerReady:
        return self.trainer.ready()

    def obey(self, command: c.TrainerCommand) -> e.TrainerEvent:
        if isinstance(command, c.Save):
            return e.Saved(command.name)
        event = self.trainer.obey(command)
        match command:
            case c.Activate(activation):
                self.activations.append(activation)
                self.tensors[activation.index] = [span.stop - span.start for span in self.trainer.engine.flat.spans]
                self.start[activation.index] = self.master()
            case c.HalfStep(step, gradient):
                self.x_half[step] = self.master()
                if gradient:
                    self.gradients[step] = array(self.trainer.engine.flat.grad)
            case c.Mix(step, _, fold):
                self.x[step] = self.master()
                assert isinstance(event, e.Mixed)
                self.clipped += [v for name, v in event.scalars.items() if name == "clipped_share"]
                if fold:
                    assert self.trainer.engine.moments is not None
                    self.m[step], self.v[step] = map(array, self.trainer.engine.moments)
        return event

    def master(self) -> Array:
        return array(self.trainer.engine.flat.master)


def array(x: torch.Tensor | None) -> Array:
    assert x is not None
    return x.detach().numpy().astype(np.float64)


def small_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=LENGTH,
        )
    )


def private_data(name: str, sequences: int = 8) -> PackedData:
    """Data in which every node prefers other tokens."""
    rng = np.random.default_rng(ord(name))
    likes = rng.dirichlet(np.full(VOCABULARY, 0.2))
    ids = rng.choice(VOCABULARY, size=(sequences, LENGTH), p=likes).astype(np.int32)
    whole = Sequences.of_rows(ids, np.ones_like(ids, dtype=bool))
    counted = DataSummary(sequences, 0, (), ids.size, ids.size, ids.size, sequences, sequences)
    return PackedData(whole, whole, counted)


def language(name: str) -> tuple[LoadedModel, Data]:
    """The start model, which is equal on all nodes, and the data of one node."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE()))
    return LoadedModel(small_llama(), tokenizer, Path(), LENGTH), private_data(name)


def run_cluster(
    settings: RunSettings,
    folder: Path,
    weather: Weather | None = None,
    policy: Policy | None = None,
    seed: int = 1,
    part: Callable[[str], tuple[LoadedModel, Data]] = language,
) -> list[Recorder]:
    """Run a cluster to its end; returns the recorders in the order of ``NAMES``."""

    def recorder(node: Node, frames: FrameBook) -> Recorder:
        options = trainer_options(settings, NodeSettings(name=node.name, dir=str(folder / node.name)))
        return Recorder(Trainer(options, *part(node.name), frames.view), node)

    policy = policy or default_policy(eval_every="end")
    made = seats([Node(name, NAMES, settings, policy) for name in NAMES], recorder)
    cluster = Cluster(made, weather or Weather(), seed)
    ends = cluster.run()
    assert {end.exit_code for end in ends.values()} == {0}
    assert cluster.broken_rules == []
    assert all(len(seat.frames) == 0 for seat in made.values())
    return [seat.trainer for seat in made.values() if isinstance(seat.trainer, Recorder)]


def stacked(parts: Iterator[Array]) -> Array:
    return np.stack(list(parts))


# Not ``rms``: if a node has no gradient of its own and its neighbours' steps cancel, rms turns the rounding error of E
# into a full step, and float32 and float64 diverge.
@pytest.mark.parametrize(("discrepancy", "h_into"), [("none", "both"), ("precond", "m"), ("precond", "both")])
def test_a_run_follows_the_dense_reference(discrepancy: str, h_into: str, tmp_path: Path) -> None:
    """With fp32 updates in lockstep, four nodes are the equations: x, m and v after every step, and every flush mix."""
    method = Method(discrepancy=discrepancy, h_into=h_into)
    recorders = run_cluster(replace(SETTINGS, discrepancy=discrepancy, h_into=h_into), tmp_path)
    assert len(recorders[0].activations) == 9
    for activation in recorders[0].activations:
        compare(recorders, method, activation)


def test_a_run_with_decay_clipping_warmup_and_step_sizes_by_kind_follows_the_dense_reference(tmp_path: Path) -> None:
    """All settings of the step at once; norms are vectors, and the embedding does not decay."""
    settings = replace(
        SETTINGS, weight_decay=5.0, max_grad_norm=0.2, lr_warmup_steps=6, embedding_lr_scale=0.5, head_lr_scale=2.0
    )
    recorders = run_cluster(settings, tmp_path)
    method = Method(discrepancy="precond", h_into="m", weight_decay=5.0, max_grad_norm=0.2)
    norms = [float(np.linalg.norm(g)) for r in recorders for g in r.gradients.values()]
    assert max(norms) == pytest.approx(0.2, rel=1e-5) and min(norms) < 0.19, "some gradients are clipped"
    shapes = {name: tuple(p.shape) for name, p in small_llama().named_parameters()}
    blocks = partition(small_llama(), settings.block_layers)
    scales = {"embedding": 0.5, "head": 2.0}
    for activation in recorders[0].activations:
        block = blocks[activation.block]
        ordinals = [activation.index * settings.inner_steps + inner for inner in range(settings.inner_steps)]
        peak = settings.learning_rate * scales.get(block.name, 1.0)
        compare(
            recorders,
            method,
            activation,
            gammas=[peak * min(1.0, (ordinal + 1) / 6) for ordinal in ordinals],
            matrices=[len(shapes[name]) > 1 and "embed" not in name for name in block.parameters],
        )


@pytest.mark.parametrize("signal", ["v", "mv"])
def test_a_run_with_moment_signals_follows_the_dense_reference(
    signal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with signals at exchanges 0 and 2 of each visit. m is not quantized here: if float32 and float64 were
    rounded to two sides, its codes would differ by one."""
    monkeypatch.setattr(signals, "M_CODEC", CODECS["fp32"])
    recorders = run_cluster(replace(SETTINGS, signal=signal, signal_every=2), tmp_path)
    for activation in recorders[0].activations:
        compare(recorders, Method(discrepancy="precond", h_into="m"), activation, (signal, "none", signal))


@pytest.mark.parametrize("bits", [1, 2])
def test_a_run_whose_moments_have_a_cadence_of_their_own_follows_the_dense_reference(bits: int, tmp_path: Path) -> None:
    """Moments in few bits at every step, parameters at the second and at the close: x, m and v after every step."""
    settings = replace(SETTINGS, signal="mv", moments_every=1, moment_bits=bits, mix_every=2, v_every=2)
    recorders = run_cluster(settings, tmp_path)
    method, mixed = Method(discrepancy="precond", h_into="m"), (False, True, False, True)
    for activation in recorders[0].activations:
        compare(recorders, method, activation, ("mv", "m", "mv"), bits=bits, mixed=mixed)


@pytest.mark.parametrize("topology", ["pairs", "one-peer-exponential"])
def test_a_run_whose_partners_change_within_a_visit_follows_the_dense_reference(topology: str, tmp_path: Path) -> None:
    """Moments in one bit go to two partners in turn, parameters to the first alone: x, m and v after every step."""
    settings = replace(SETTINGS, signal="mv", moments_every=1, moment_bits=1, inner_steps=6, mix_every=4)
    settings = replace(settings, topology=topology, partners="step")
    recorders = run_cluster(settings, tmp_path)
    method, mixed = Method(discrepancy="precond", h_into="m"), (False, False, False, True, False, True)
    for activation in recorders[0].activations:
        if activation.inner_steps:
            graphs = topologies.turns(NAMES, settings, activation.index, blocks=3)
            first, second = (np.array(weights.matrix(graph)) for graph in graphs)
            assert not np.array_equal(first, second)
            turns = np.stack([first, second, first, first, first, first, first, first])
            carried = ("mv", "mv", "mv", "mv", "mv")
            compare(recorders, method, activation, carried, bits=1, mixed=mixed, turns=turns)


SEQUENCES = {"a": 8, "b": 2, "c": 12, "d": 60}


@pytest.mark.parametrize("topology", ["ring", "pairs"])
def test_a_run_whose_nodes_count_by_their_tokens_follows_the_dense_reference(
    topology: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes with 2 to 60 sequences: x, m and v after every step are those of the W with their shares."""
    monkeypatch.setattr(signals, "M_CODEC", CODECS["fp32"])
    settings = replace(SETTINGS, topology=topology, signal="mv", signal_every=2)
    settings = replace(settings, weights="tokens", weight_tokens=8 * (LENGTH - 1))
    recorders = run_cluster(
        settings, tmp_path, part=lambda name: (*language(name)[:1], private_data(name, SEQUENCES[name]))
    )
    shares = {"a": 1000, "b": 250, "c": 1500, "d": 4000}
    assert all(r.node.state.roster.shares == shares for r in recorders)
    pi = np.array(list(shares.values())) / sum(shares.values())
    method = Method(discrepancy="precond", h_into="m")
    for activation in recorders[0].activations:
        found = topologies.graph(NAMES, settings, activation.index, 3)
        turns = np.stack([np.array(weights.matrix(found, shares))] * activation.steps)
        compare(recorders, method, activation, ("mv", "none", "mv"), turns=turns)
    for step in recorders[0].x:
        before, after = stacked(r.x_half[step] for r in recorders), stacked(r.x[step] for r in recorders)
        close(pi @ after, pi @ before, atol=1e-7)


@pytest.mark.parametrize("exchange", ["lockstep", "overlap"])
def test_partners_that_change_in_bad_weather(exchange: str, tmp_path: Path) -> None:
    """With slow links, impatient nodes and a lost edge: the run ends, with late flows, and no number is wild."""
    settings = replace(SETTINGS, rounds=1, inner_steps=6, codec="int4", exchange=exchange, mix_every=6, signal="mv")
    settings = replace(settings, moments_every=1, moment_bits=1)
    settings = replace(settings, topology="one-peer-exponential", partners="step")
    policy = default_policy(step=0.5, open=2.0, eval_every="end")
    recorders = run_cluster(settings, tmp_path, STORM, policy)
    assert counted(recorders, "flows_applied") > 10
    assert all(np.isfinite(parameters(r.trainer.model)).all() for r in recorders)


@pytest.mark.parametrize("exchange", ["lockstep", "overlap"])
def test_moments_first_in_bad_weather(exchange: str, tmp_path: Path) -> None:
    """With slow links, impatient nodes and a lost edge: every frame has the right length, and moments stay as large as
    without signals."""
    settings = replace(SETTINGS, rounds=1, inner_steps=6, codec="int4", exchange=exchange, mix_every=6)
    first = replace(settings, signal="mv", moments_every=1, moment_bits=1)
    policy = default_policy(step=0.5, open=2.0, eval_every="end")
    plain, signalled = (
        run_cluster(each, tmp_path / name, STORM, policy) for name, each in (("plain", settings), ("first", first))
    )
    assert counted(signalled, "flows_late") > 10
    assert counted(signalled, "flows_applied") > 1.5 * counted(plain, "flows_applied")
    for name in ("m", "v"):
        usual, found = (
            max(np.abs(a).max() for r in run for a in getattr(r, name).values()) for run in (plain, signalled)
        )
        assert 0.2 * usual < found < 3.0 * usual
    assert all(np.isfinite(parameters(r.trainer.model)).all() for r in signalled)


def test_moments_of_their_own_cadence_leave_the_mean_of_the_parameters(tmp_path: Path) -> None:
    """Where moments travel alone no node's x moves, and where parameters travel their mean stays."""
    settings = replace(SETTINGS, codec="int4", signal="mv", moments_every=1, moment_bits=1, mix_every=3)
    recorders = run_cluster(settings, tmp_path)
    for step in recorders[0].x:
        before, after = stacked(r.x_half[step] for r in recorders), stacked(r.x[step] for r in recorders)
        close(after.mean(axis=0), before.mean(axis=0), atol=1e-7)
        if step.activation < 6 and step.inner in (0, 1):
            assert np.array_equal(after, before)


def compare(
    recorders: list[Recorder],
    method: Method,
    activation: Activation,
    carried: tuple[str, ...] = (),
    exact: float = 1e-5,
    gammas: Sequence[float] = (),
    matrices: Sequence[bool] = (),
    bits: int = 8,
    mixed: Sequence[bool] = (),
    turns: Array | None = None,
) -> None:
    """Compare one activation, from the nodes' state at its beginning. ``carried`` are the signals of its steps,
    ``exact`` is the allowed error of moments, as a share of the largest. ``gammas`` are
    the step sizes, if they are not the run's learning rate, and ``matrices`` says what decays. m travels in ``bits``,
    and the parameters at the steps that ``mixed`` names. ``turns`` are the matrices W of its steps, if each has
    another."""
    steps = [Step(activation.index, inner) for inner in range(activation.steps)]
    x = stacked(r.start[activation.index] for r in recorders)
    if activation.inner_steps:
        states = reference.simulate(
            method,
            W if turns is None else turns[: activation.inner_steps],
            x,
            lambda inner, _: stacked(r.gradients[steps[inner]] for r in recorders),
            gammas=gammas or [SETTINGS.learning_rate] * activation.inner_steps,
            tensors=recorders[0].tensors[activation.index],
            signals=carried,
            matrices=matrices,
            bits=bits,
            parameters=mixed,
        )
        for step, state in zip(steps, states, strict=False):
            close(stacked(r.x[step] for r in recorders), state.x, atol=1e-6)
            close(stacked(r.m[step] for r in recorders), state.m, atol=exact * float(np.abs(state.m).max()))
            close(stacked(r.v[step] for r in recorders), state.v, atol=exact * float(np.abs(state.v).max()))
        x = states[-1].x
    for step in steps[activation.inner_steps :]:
        x = (W if turns is None else turns[step.inner]) @ x
        close(stacked(r.x[step] for r in recorders), x, atol=1e-6)


def close(found: Array, expected: Array, atol: float) -> None:
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=atol)


@pytest.mark.parametrize("codec", ["int8", "int4"])
def test_every_mix_preserves_the_mean_however_coarse(codec: str, tmp_path: Path) -> None:
    """The mean over nodes is the same before and after each mix, while the nodes themselves move."""
    recorders = run_cluster(replace(SETTINGS, codec=codec), tmp_path)
    steps = list(recorders[0].x)
    assert len(steps) == 2 * 3 * 6 + 3 * 3
    for step in steps:
        before, after = stacked(r.x_half[step] for r in recorders), stacked(r.x[step] for r in recorders)
        close(after.mean(axis=0), before.mean(axis=0), atol=1e-7)
        if step.inner < SETTINGS.inner_steps and step.activation < 6:
            assert np.abs(after - before).max() > 1e-4


def test_the_flush_makes_all_copies_agree(tmp_path: Path) -> None:
    recorders = run_cluster(replace(SETTINGS, codec="int8", final_flush_mixes=0), tmp_path)
    first, *others = (parameters(r.trainer.model) for r in recorders)
    moved = np.abs(first - parameters(small_llama())).max()
    assert moved > 1e-3
    for other in others:
        assert np.abs(other - first).max() < 1e-2 * moved


STORM = Weather(delay=(0.0, 0.2), link_slowness=(1.0, 3.0), node_slowness=(1.0, 4.0), cuts=(Cut("a", "b", 3.0, 0.5),))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("exchange", ["lockstep", "overlap"])
def test_late_signals_do_no_harm(exchange: str, seed: int, tmp_path: Path) -> None:
    """With slow links, impatient nodes and a lost edge every frame has the right length, and the moments are as large
    as under the same conditions without signals."""
    settings = replace(SETTINGS, rounds=1, inner_steps=6, codec="int8", exchange=exchange, signal_every=seed + 1)
    policy = default_policy(step=0.5, open=2.0, eval_every="end")
    plain, signalled = (
        run_cluster(replace(settings, signal=signal), tmp_path / signal, STORM, policy, seed)
        for signal in ("none", "mv")
    )
    assert counted(signalled, "flows_late") > 10
    assert counted(signalled, "flows_applied") == counted(plain, "flows_applied")
    for name in ("m", "v"):
        usual, found = (
            max(np.abs(a).max() for r in run for a in getattr(r, name).values()) for run in (plain, signalled)
        )
        assert 0.2 * usual < found < 1.5 * usual


LOCKSTEP_AND_OVERLAP = [
    pytest.param("lockstep", "int4", 1, marks=pytest.mark.slow),
    ("overlap", "int8", 2),
]


@pytest.mark.parametrize(("exchange", "codec", "mix_every"), LOCKSTEP_AND_OVERLAP)
def test_clipping_works_in_bad_weather(exchange: str, codec: str, mix_every: int, tmp_path: Path) -> None:
    """With late flows, lost edges and flushes: a radius that no flow reaches changes no bit, and under a small radius
    every applied flow is clipped and training continues."""
    settings = replace(SETTINGS, rounds=1, codec=codec, exchange=exchange, mix_every=mix_every, topology="full")
    wide = replace(settings, robust="clip", robust_neighbours=0, clip_radius=1e30)
    tight = replace(settings, robust="clip", robust_neighbours=1, clip_radius=0.01)
    policy = default_policy(step=0.5, open=2.0, eval_every="end")
    plain, same, clipped = (
        run_cluster(each, tmp_path / name, STORM, policy)
        for name, each in (("plain", settings), ("wide", wide), ("tight", tight))
    )
    assert counted(plain, "flows_late") > 5
    for one, other in zip(plain, same, strict=True):
        assert np.array_equal(parameters(one.trainer.model), parameters(other.trainer.model))
    shares = [share for r in clipped for share in r.clipped]
    assert np.mean(shares) > 0.5
    moved = [np.abs(r.x[step] - r.x_half[step]) for r in clipped for step in r.x]
    assert max(m.max() for m in moved) > 0.0 and np.isfinite(moved[0]).all()


def counted(recorders: list[Recorder], name: str) -> int:
    return sum(r.node.state.counters[name] for r in recorders)


def parameters(model: torch.nn.Module) -> Array:
    return np.concatenate([array(p).reshape(-1) for p in model.parameters()])
