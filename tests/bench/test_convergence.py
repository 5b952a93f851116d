"""bench/convergence computes what nodes compute, and its baselines follow their equations."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from bench.convergence import adapters, runs, stack, tables, tasks
from bench.convergence.arms import BY_NAME
from bench.convergence.cells import Book, Cell, Outcome
from bench.convergence.corpora import Domain, pieces
from bench.convergence.curves import svg
from bench.convergence.start import RECIPE, start_model
from bench.convergence.summary import Results, summarize
from bench.convergence.sweep import OutOfTimeError, Sweep, best_on_grid
from bench.convergence.verdicts import verdicts
from deca_node.numerics.data.batches import IGNORED, Batch, Batches
from deca_node.numerics.data.sequences import Sequences
from deca_node.numerics.deca import Hyper
from deca_node.numerics.learning.loss import nll_sum
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.weights import matrix
from deca_node.protocol.options import own_seed
from tests.numerics.test_trainer_cluster import (
    LENGTH,
    NAMES,
    SETTINGS,
    VOCABULARY,
    private_data,
    run_cluster,
    small_llama,
)


def bench_run(method: str, settings: RunSettings, own: dict[str, int] | None = None) -> runs.Run:
    """A run with the data of the trainers of ``run_cluster``, and with batches drawn as they draw them."""
    held = [private_data(name).train for name in NAMES]
    run = runs.Run(method, settings, own or {}, held, small_llama())
    seeds = [own_seed(settings, name) for name in NAMES]
    run._batches = [Batches(h, settings.batch_size, seed) for h, seed in zip(held, seeds, strict=True)]
    return run


@pytest.mark.parametrize(
    "change",
    [
        {"discrepancy": "none", "codec": "fp32", "block_order": "shuffled"},
        {"discrepancy": "precond", "codec": "fp32", "signal": "mv"},
        {"discrepancy": "precond", "codec": "int8", "signal": "v"},
        {"discrepancy": "descent", "h_into": "both", "beta1": 0.9, "codec": "int4", "mix_every": 2},
        {"discrepancy": "rms", "h_into": "both", "codec": "fp32", "inner_steps": 2},
    ],
    ids=lambda change: f"{change['discrepancy']}-{change['codec']}",
)
def test_a_cell_is_what_trainers_compute(change: dict[str, object], tmp_path: Path) -> None:
    """Four production trainers in a cluster with real nodes end with the same parameters. A coarse codec may round one
    element to another code if the last bit of a gradient differs. All else is equal."""
    settings = replace(SETTINGS, rounds=1, **change)
    weights, _ = runs.METHODS["deca"](bench_run("deca", settings))
    start = dict(small_llama().named_parameters())
    for i, recorder in enumerate(run_cluster(settings, tmp_path)):
        for name, parameter in recorder.trainer.model.named_parameters():
            error = (weights[name][i] - parameter).detach().abs()
            moved = (parameter - start[name]).detach().abs().mean()
            assert moved > 1e-4
            assert error.mean() < 1e-3 * moved
            assert settings.codec != "fp32" or error.max() < 1e-2 * moved


def test_a_stack_of_models_is_each_of_them() -> None:
    """Logits, losses and gradients of two different models at once, compared with transformers' own."""
    models = [small_llama(), small_llama()]
    with torch.no_grad():
        for parameter in models[1].parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(VOCABULARY, (2, 3, LENGTH), generator=generator)
    labels = torch.where(torch.rand(ids.shape, generator=generator) < 0.5, ids, IGNORED)
    names = [name for name, _ in models[0].named_parameters()]
    leaves = {n: torch.stack([dict(m.named_parameters())[n].detach() for m in models]).requires_grad_() for n in names}
    found = stack.losses(stack.logits(stack.Shape.of(models[0].config), leaves, ids), labels)
    found.sum().backward()
    for i, model in enumerate(models):
        loss = nll_sum(model, Batch(ids[i], labels[i]), torch.device("cpu")) / (labels[i][:, 1:] != IGNORED).sum()
        loss.backward()
        torch.testing.assert_close(found[i], loss)
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(leaves[name].grad[i], parameter.grad, rtol=1e-4, atol=1e-6)


# --- the baselines ----------------------------------------------------------------------------------


def test_low_rank_updates_begin_at_the_start_model_and_add_two_b_a() -> None:
    model = small_llama()
    parts = adapters.low_rank_parts(model, rank=2)
    assert {part.name.split(".")[-2] for part in parts} == set(stack.ADAPTED)
    base = {name: p.detach()[None] for name, p in model.named_parameters()}
    flat = adapters.first_values(parts, seed=0)[None].repeat(2, 1)
    for name, weight in adapters.with_low_rank(base, parts, flat).items():
        torch.testing.assert_close(weight, base[name].expand_as(weight), rtol=0.0, atol=0.0)
    flat = flat + torch.randn(flat.shape, generator=torch.Generator().manual_seed(0))
    a, b = parts[:2]
    expected = base["model.layers.0.self_attn.q_proj.weight"][0] + 2.0 * b.view(flat)[1] @ a.view(flat)[1]
    found = adapters.with_low_rank(base, parts, flat)["model.layers.0.self_attn.q_proj.weight"][1]
    torch.testing.assert_close(found, expected)


def test_bottlenecks_begin_as_nothing_and_then_answer() -> None:
    model = small_llama()
    shape, parts = stack.Shape.of(model.config), adapters.bottleneck_parts(model, width=3)
    base = {name: p.detach()[None] for name, p in model.named_parameters()}
    flat = adapters.first_values(parts, seed=0)[None]
    ids = torch.arange(LENGTH)[None, None] % VOCABULARY
    plain = stack.logits(shape, base, ids)
    torch.testing.assert_close(stack.logits(shape, adapters.with_bottlenecks(base, parts, flat), ids), plain)
    weights = adapters.with_bottlenecks(base, parts, flat + 0.1)
    assert not torch.allclose(stack.logits(shape, weights, ids), plain)
    y = torch.randn(1, 1, 4, model.config.hidden_size)
    down, up = (weights[f"model.layers.0.mlp.adapter_{part}"][0] for part in ("down", "up"))
    expected = y + torch.relu(y @ down.T) @ up.T
    torch.testing.assert_close(stack._adapted(weights, "model.layers.0.mlp", y), expected)


def test_factors_are_cut_back_to_the_best_of_their_rank() -> None:
    """QR of the stacked factors gives what an SVD of the whole sum gives (Eckart and Young)."""
    generator = torch.Generator().manual_seed(0)
    left = [torch.randn(9, 2, generator=generator) for _ in range(3)]
    right = [torch.randn(2, 7, generator=generator) for _ in range(3)]
    B, A = adapters.truncated(left, right, rank=2)
    whole = sum((b @ a for b, a in zip(left, right, strict=True)), torch.zeros(9, 7))
    u, s, vh = torch.linalg.svd(whole)
    torch.testing.assert_close(B @ A, (u[:, :2] * s[:2]) @ vh[:2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(B.T @ B, A @ A.T, rtol=1e-4, atol=1e-5)


def test_decaf_mixes_products_not_factors() -> None:
    """If the mean of the products has rank r, nothing is lost. The factors themselves may differ."""
    model = small_llama()
    parts = adapters.low_rank_parts(model, rank=2)
    one = torch.randn(parts[-1].stop, generator=torch.Generator().manual_seed(0))
    turned = one.clone()
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    for a, b in zip(parts[::2], parts[1::2], strict=True):
        turned[a.start : a.stop] = (turn.T @ a.view(one[None])[0]).reshape(-1)
        turned[b.start : b.stop] = (b.view(one[None])[0] @ turn).reshape(-1)
    flat = torch.stack([one, turned])
    W = torch.tensor(matrix({"a": frozenset("b"), "b": frozenset("a")}))
    mixed = adapters.mix_products(parts, flat, W)
    base = {name: p.detach()[None] for name, p in model.named_parameters()}
    for name, weight in adapters.with_low_rank(base, parts, mixed).items():
        expected = adapters.with_low_rank(base, parts, flat)[name]
        torch.testing.assert_close(weight, expected, rtol=1e-4, atol=1e-4)
    averaged = adapters.with_low_rank(base, parts, flat.mean(0, keepdim=True))
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.allclose(averaged[name], adapters.with_low_rank(base, parts, flat)[name][:1], atol=0.1)


@pytest.mark.parametrize("method", ["lora", "adapter"])
def test_vectors_are_averaged_as_blocks_are(method: str) -> None:
    """With equal data on all nodes gossip changes nothing, so n nodes end like one node."""
    settings = replace(SETTINGS, discrepancy="none", codec="fp32", rounds=1)
    many = bench_run(method, settings, {"rank": 2, "width": 3})
    many._batches = [Batches(private_data("a").train, 2, 0) for _ in NAMES]
    weights, _ = runs.METHODS[method](many)
    lone = bench_run(method, settings, {"rank": 2, "width": 3})
    lone.names, lone.graph, lone._batches = (
        ["node-0"],
        {"node-0": frozenset()},
        [Batches(private_data("a").train, 2, 0)],
    )
    alone, _ = runs.METHODS[method](lone)
    for name, weight in weights.items():
        torch.testing.assert_close(weight, alone[name].expand_as(weight), rtol=0.0, atol=1e-5)


def test_decaf_sends_float32_factors_when_it_is_due() -> None:
    settings = replace(SETTINGS, discrepancy="none", rounds=1, inner_steps=4, final_flush_mixes=2)
    run = bench_run("decaf", settings, {"rank": 2, "consensus_every": 4})
    _, elements = runs.METHODS["decaf"](run)
    edges, blocks = 8, 3
    assert run.bytes_sent == edges * 4 * elements * (blocks + 2)


def test_the_decay_alone_is_a_setting_of_its_own() -> None:
    """decay-only takes the run's betas and no signal, so its result differs from those of none and descent."""
    settings = replace(SETTINGS, discrepancy="descent", h_into="both", beta1=0.9, rounds=1)
    ends = {}
    for method, changed in (
        ("decay-only", settings),
        ("deca", settings),
        ("none", replace(settings, discrepancy="none")),
    ):
        weights, _ = runs.METHODS["deca" if method == "none" else method](bench_run(method, changed))
        ends[method] = weights["model.norm.weight"]
    assert len({tuple(end.flatten().tolist()) for end in ends.values()}) == 3
    assert Hyper.of(settings).discrepancy == "descent"


def test_centralized_is_one_node_with_everybodys_batches() -> None:
    run = bench_run("centralized", SETTINGS)
    drawn = [batches.next() for batches in bench_run("centralized", SETTINGS)._batches]
    batch = run.batch()
    assert batch.input_ids.tolist() == [torch.cat([b.input_ids for b in drawn]).tolist()]
    runs.METHODS["centralized"](run)
    assert run.bytes_sent == 0 and len(run.names) == 1


# --- tasks ------------------------------------------------------------------------------------------


def plain_task(sequences: int, domains: int = 4) -> tasks.Task:
    ids = [np.full((sequences, 8), k, np.int32) for k in range(domains)]
    parts = tuple(Sequences.of_rows(i, np.ones_like(i, np.bool_)) for i in ids)
    return tasks.Task("plain", tuple("abcd"[:domains]), parts, parts[0], parts[0], (), "digest")


def ids_of(sequences: Sequences) -> Any:
    return sequences.gather(np.arange(len(sequences))).ids


def test_every_sequence_is_dealt_once_and_hands_are_uneven() -> None:
    held = tasks.dealt(plain_task(100), nodes=8, alpha=0.25, seed=3)
    counts = np.array([[int((ids_of(h)[:, 0] == k).sum()) for k in range(4)] for h in held])
    assert counts.sum(0).tolist() == [100] * 4
    assert counts.sum(1).min() >= tasks.SEQUENCES_MIN
    shares = counts / counts.sum(1, keepdims=True)
    assert shares.max(1).mean() > 0.6  # with equal shares it would be 0.25
    again = tasks.dealt(plain_task(100), nodes=8, alpha=0.25, seed=3)
    assert all(np.array_equal(ids_of(a), ids_of(b)) for a, b in zip(held, again, strict=True))
    with pytest.raises(ValueError, match="too few sequences"):
        tasks.dealt(plain_task(4), nodes=8, alpha=0.25, seed=3)


def test_splits_share_no_file() -> None:
    found = pieces(Domain("algebra", "sympy", "sets/**/*.py"), {"train": 30_000, "validation": 9_000, "test": 9_000})
    assert all(sum(len(p.encode()) for p in found[split]) >= 9_000 for split in found)
    texts = [set(found[split]) for split in found]
    assert not texts[0] & texts[1] and not texts[0] & texts[2] and not texts[1] & texts[2]


# --- cells ------------------------------------------------------------------------------------------


def cell(seed: int = 0, settings: Sequence[tuple[str, object]] = ()) -> Cell:
    return Cell(task="t", digest="d", start="s", method="deca", seed=seed, learning_rate=1e-3, settings=tuple(settings))


def test_a_book_remembers_across_processes(tmp_path: Path) -> None:
    path = tmp_path / "book.jsonl"
    asked, came = (
        cell(settings=[("beta1", 0.5)]),
        Outcome(
            validation=1.0, test=float("inf"), test_by_node=(1.0,), mean_model=1.0, curve=((0, 2.0),), consensus=(0.1,)
        ),
    )
    Book(path).add(asked, came, "2026-01-01")
    assert Book(path).get(cell(settings=[("beta1", 0.5)])) == came
    assert Book(path).get(cell(seed=1, settings=[("beta1", 0.5)])) is None
    assert len(path.read_text().splitlines()) == 1
    assert json.loads(path.read_text())["cell"]["settings"] == [["beta1", 0.5]]


@pytest.mark.parametrize("best", [1e-3, 8e-3, 1.6e-2, 6.25e-5])
def test_the_grid_is_walked_until_both_neighbours_are_worse(best: float) -> None:
    asked: list[float] = []

    def loss(rate: float) -> float:
        asked.append(rate)
        return abs(float(np.log2(rate / best)))

    assert best_on_grid(1e-3, loss) == pytest.approx(best)
    assert any(rate == pytest.approx(2 * best) for rate in asked)
    assert any(rate == pytest.approx(best / 2) for rate in asked)
    assert len(asked) == len(set(asked))


# --- what the page says -----------------------------------------------------------------------------


def results_of(losses: dict[str, list[float]]) -> Results:
    """Results with these test losses, by arm and seed."""
    by_arm = {
        name: {seed: Outcome(validation=x, test=x, test_by_node=(x,), mean_model=x) for seed, x in enumerate(values)}
        for name, values in losses.items()
    }
    return Results("plain", "digest", dict.fromkeys(by_arm, 1e-3), by_arm, ("2026-01-01", "2026-01-02"), 9)


def test_differences_are_taken_seed_by_seed() -> None:
    results = results_of({"a": [1.0, 2.0, 3.0], "b": [1.1, 2.2, 3.1], "c": [1.5, 1.9, 3.1]})
    close = results.difference("a", "b")
    assert close.by_seed == pytest.approx((-0.1, -0.2, -0.1))
    assert close.clear and close.share == pytest.approx(-0.4 / 6.4)
    assert not results.difference("a", "c").clear  # one seed contradicts
    assert not results_of({"a": [1.0, 2.0], "b": [1.1, 2.1]}).difference("a", "b").clear  # two seeds are too few


def test_verdicts_say_who_is_better_or_that_nobody_is() -> None:
    losses = {
        "isolated": [3.0, 3.1, 3.2],
        "none": [2.0, 2.1, 2.2],
        "none, mv, every 4": [1.8, 1.9, 2.1],
        "lora": [1.9, 1.9, 2.3],
    }
    said = "\n".join(verdicts(results_of(losses)))
    assert "Joint tuning against tuning alone: `none, mv, every 4` is better than `isolated`" in said
    assert "`none, mv, every 4` and `lora` do not differ beyond the spread" in said
    assert "centralized" not in said  # no sentence about an arm without runs


def test_the_step_size_is_the_tuning_seeds_best_not_the_test_seeds() -> None:
    """An arm whose tuning is not finished has no row. Lines about other text than most are left out."""
    arm = BY_NAME["none"]
    book = Book(Path("/nonexistent/book.jsonl"))

    def note(seed: int, rate: float, validation: float, test: float, digest: str = "d") -> None:
        settings = tuple(sorted(arm.settings.items()))
        asked = Cell(
            task="t", digest=digest, start="s", method="deca", seed=seed, learning_rate=rate, settings=settings
        )
        came = Outcome(validation=validation, test=test, test_by_node=(test,), mean_model=test)
        book._outcomes[asked.key] = (asked, came, "2026-01-01T00:00:00")

    note(100, arm.rate, 2.0, 9.0)
    note(100, 2 * arm.rate, 3.0, 1.0)
    assert not summarize("t", book).by_arm
    note(100, arm.rate / 2, 2.5, 1.0)
    note(0, arm.rate, 2.0, 2.2)
    note(0, 2 * arm.rate, 1.0, 1.0)
    note(1, arm.rate, 2.0, 7.0, digest="other")
    results = summarize("t", book)
    assert {seed: o.test for seed, o in results.by_arm["none"].items()} == {0: 2.2}


def test_curves_are_drawn_within_their_frame() -> None:
    drawn = svg({"one": [(0, 3.0), (10, 2.0)], "two": [(0, 3.0), (10, 50.0)]}, "steps", "loss", y_max=3.5)
    points = [p.split(",") for line in re.findall(r'points="([^"]*)"', drawn) for p in line.split()]
    assert len(points) == 4
    assert all(0 <= float(x) <= 640 and 0 <= float(y) <= 340 for x, y in points)
    assert ElementTree.fromstring(drawn).tag.endswith("svg")


@pytest.mark.slow
def test_a_sweep_goes_on_where_it_was_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two arms on a tiny start model: the sweep is stopped, continues, and repeats nothing."""
    tiny = replace(RECIPE, vocabulary=300, hidden=16, layers=1, heads=2, key_value_heads=1, steps=2)
    start = start_model(tmp_path / "start", tiny)
    small = tasks.Sizes(length=16, train=30, validation=4, test=4)
    task = tasks.load("sources", start.tokenizer, small)
    monkeypatch.setattr(runs, "COMMON", runs.COMMON | {"rounds": 1, "inner_steps": 2})
    said: list[str] = []
    book = Book(tmp_path / "sources.jsonl")
    sweep = Sweep(task, start.model, start.sha256, book, said.append)
    sweep.finish(["none"], [0])
    with pytest.raises(OutOfTimeError):
        replace(sweep, deadline=-1.0).finish(["none", "lora"], [0])
    done = len(said)
    again = Sweep(task, start.model, start.sha256, Book(tmp_path / "sources.jsonl"), said.append)
    again.finish(["none"], [0])
    assert len(said) == done
    again.finish(["none", "lora"], [0])
    assert len(said) > done
    results = summarize("sources", Book(tmp_path / "sources.jsonl"))
    lines = list(tables.section(results))
    assert any(line.startswith("| `lora` |") for line in lines)
    assert tables.figure(results).startswith("<svg")
