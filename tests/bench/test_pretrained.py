"""The bench of pretrained models: its baselines against their authors' formulas, its nodes against torch's Adam, its
texts, and what the page says."""

import copy
import math
import random
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from bench.convergence import outer
from bench.convergence.adapters import SCALE
from bench.convergence.cells import Book, Cell, Outcome
from bench.convergence.summary import Results
from bench.pretrained import compared, factors, methods, nodes, overview, packages, start, tables, tasks, texts
from bench.pretrained.__main__ import options, plan
from bench.pretrained.arms import ARMS, PAPER_RATE, scaled
from deca_node.numerics.data.batches import Batches
from deca_node.numerics.data.labelled import Examples
from deca_node.numerics.learning.loss import backward
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.weights import matrix

VOCABULARY = 40
LABELS = ("no", "yes")


def small_model(dropout: float = 0.0) -> BertForSequenceClassification:
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=16,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        num_labels=2,
        pad_token_id=0,
    )
    model: BertForSequenceClassification = BertForSequenceClassification(config)
    return model


def records(count: int, seed: int) -> tasks.Records:
    """Records of 4 to 7 tokens with even token numbers; strata are (label, domain) in turn."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, 8, count)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = (2 * rng.integers(1, VOCABULARY // 2, starts[-1])).astype(np.int32)
    strata = np.arange(count, dtype=np.int64) % 4
    labels = strata // 2
    return tasks.Records(Examples(ids, np.zeros(len(ids), np.int8), starts, labels, 0), strata)


def small_task(skew: str = "label") -> tasks.Task:
    splits = {
        split: records(count, k) for k, (split, count) in enumerate(zip(tasks.SPLITS, (12, 12, 24, 400), strict=True))
    }
    return tasks.Task(f"small-{skew}", LABELS, ((0, "a"), (0, "b"), (1, "a"), (1, "b")), skew, splits, "digest")


def small_start(dropout: float = 0.0) -> start.Start:
    return start.Start(small_model(dropout).requires_grad_(False), small_task(), "start")


def cell(method: str, seed: int = 0, rate: float = 1e-3, **settings: Any) -> Cell:
    given = {"inner_steps": 3, "block_layers": 1} | settings
    return Cell(
        task="small-label",
        digest="digest",
        start="start",
        method=method,
        seed=seed,
        learning_rate=rate,
        nodes=4,
        settings=tuple(sorted(given.items())),
    )


class Flat:
    """As much of an engine as the outer steps use."""

    def __init__(self, values: Tensor) -> None:
        self.flat = self
        self.master = values.clone()

    @property
    def elements(self) -> int:
        return len(self.master)


# --- NoLoCo, arXiv 2506.10911 -----------------------------------------------------------------------


def test_the_outer_step_of_noloco_is_that_of_its_authors() -> None:
    """Against the loop of the authors' repository (jkolehm/noloco, src/noloco/sparse_optimizer_c.py), in numpy and in
    its own form: m += (mu - 1) m + lr mean(theta - phi) + lr (mean(phi) - phi), phi += m, over a group of two."""
    rng = np.random.default_rng(0)
    phi, delta = rng.normal(size=(2, 5)), rng.normal(size=(2, 5))
    theta = phi + rng.normal(size=(2, 5))
    mu, lr = 0.5, 0.7
    theirs = delta.copy()
    mean, mean_g = phi.mean(0), (theta - phi).mean(0)
    for i in range(2):
        theirs[i] += (mu - 1.0) * theirs[i] + lr * mean_g + lr * (mean - phi[i])
    for i in range(2):
        ours = outer.noloco_step(*map(torch.tensor, (delta[i], phi[i], mean, mean_g)), mu, lr, lr)
        np.testing.assert_allclose(ours.numpy(), theirs[i])


def test_nodes_of_noloco_meet_in_pairs_and_keep_their_momentum() -> None:
    own = {"outer_momentum": 0.5, "outer_rate": 0.7, "outer_pull": 0.9}
    generator = torch.Generator().manual_seed(1)
    engines = [Flat(torch.randn(6, generator=generator)) for _ in range(4)]
    method = outer.NoLoCo(engines, {}, own, seed=7)  # type: ignore[arg-type]
    phi, delta = [e.master.clone() for e in engines], [torch.zeros(6) for _ in engines]
    for number in range(3):
        for engine in engines:
            engine.master += torch.randn(6, generator=generator)
        theta = [e.master.clone() for e in engines]
        sent = method(number)
        assert sent == 4 * 2 * 4 * 6
        for a, b in outer.pairs(4, 7, number):
            change, middle = (theta[a] - phi[a] + theta[b] - phi[b]) / 2, (phi[a] + phi[b]) / 2
            for i in (a, b):
                delta[i] = 0.5 * delta[i] + 0.7 * change - 0.9 * (phi[i] - middle)
            for i in (a, b):
                phi[i] = phi[i] + delta[i]
        for engine, expected in zip(engines, phi, strict=True):
            torch.testing.assert_close(engine.master, expected)


def test_pairs_are_drawn_anew_and_leave_nobody_out() -> None:
    drawn = [outer.pairs(8, 0, number) for number in range(20)]
    assert all(sorted(i for pair in one for i in pair) == list(range(8)) for one in drawn)
    assert len({tuple(map(tuple, map(sorted, one))) for one in drawn}) > 10
    assert [len(pair) for pair in outer.pairs(5, 0, 0)] == [2, 2, 1]


# --- SparseLoCo, arXiv 2508.15706 -------------------------------------------------------------------


def test_what_sparseloco_sends_are_the_largest_elements_with_two_sizes_per_chunk() -> None:
    error = torch.randn(2 * outer.CHUNK, generator=torch.Generator().manual_seed(0))
    q = outer.sparse(error, 1 / 64)
    for chunk, found in zip(error.split(outer.CHUNK), q.split(outer.CHUNK), strict=True):
        largest = set(sorted(range(outer.CHUNK), key=lambda k: -abs(float(chunk[k])))[:64])
        assert set(found.nonzero()[:, 0].tolist()) == largest
        assert all(found[k] * chunk[k] > 0 for k in largest)
        assert len(found.abs().unique()) == 3  # nothing, and two sizes
    assert outer.sparse_bytes(2 * outer.CHUNK, 1 / 64) == 2 * (8 + 64 * 14 // 8)
    short = outer.sparse(error[:100], 1 / 64)
    assert len(short) == 100 and int((short != 0).sum()) == 64


def test_error_feedback_of_sparseloco_loses_nothing() -> None:
    """With beta = 1 what was sent and what is kept are all pseudo-gradients; the outer step is the mean over W."""
    names = [f"n{i}" for i in range(3)]
    graph = {name: frozenset(names) - {name} for name in names}
    generator = torch.Generator().manual_seed(2)
    engines = [Flat(torch.zeros(outer.CHUNK)) for _ in names]
    own = {"outer_rate": 1.0, "outer_momentum": 1.0, "share": 1 / 64}
    method = outer.SparseLoCo(engines, graph, own, seed=0)  # type: ignore[arg-type]
    moved = torch.zeros(3, outer.CHUNK)
    for number in range(4):
        for i, engine in enumerate(engines):
            change = torch.randn(outer.CHUNK, generator=generator)
            engine.master += change
            moved[i] += change
        assert method(number) == 6 * outer.sparse_bytes(outer.CHUNK, 1 / 64)
    # W = 11^T/3 in a triangle, so all nodes are where the mean of what was sent leads.
    torch.testing.assert_close(
        torch.tensor(matrix(graph)), torch.full((3, 3), 1 / 3, dtype=torch.float64), check_dtype=False
    )
    kept = torch.stack(method._errors)
    for engine in engines:
        torch.testing.assert_close(engine.master, (moved + kept).mean(0), rtol=1e-4, atol=1e-5)


# --- Dec-LoRA and DeCAF -----------------------------------------------------------------------------


def test_a_low_rank_layer_is_w_plus_two_b_a() -> None:
    layer = factors.LowRank(nn.Linear(5, 7), 2, torch.Generator().manual_seed(0))
    x = torch.randn(3, 5)
    torch.testing.assert_close(layer(x), layer.inner(x), rtol=0.0, atol=0.0)
    layer.B.data.normal_()
    merged = layer.inner.weight + SCALE * layer.B @ layer.A
    torch.testing.assert_close(layer(x), x @ merged.T + layer.inner.bias)


def test_dec_lora_averages_factors_and_decaf_their_products() -> None:
    """In a triangle W = 11^T/3: the mean of B_j times the mean of A_j, against the best rank-r approximation of the
    mean of B_j A_j, which is computed here densely by an SVD (Eckart and Young)."""
    state = vector_run("decaf", {"rank": 2})
    block = methods.prepared(state)
    engines = state.engines(block)
    generator = torch.Generator().manual_seed(4)
    for engine in engines:
        engine.flat.master.add_(torch.randn(engine.elements, generator=generator))
    before = [engine.flat.master.clone() for engine in engines]
    W = torch.full((3, 3), 1 / 3)
    factors.mix(engines, W)
    shapes = factors.shapes_of(engines[0])
    spans = {span.name: span for span in engines[0].flat.spans}
    assert any(name.endswith(".A") for name in spans)
    for name, span in spans.items():
        found = engines[1].flat.master[span.start : span.stop]
        if name.endswith(".A"):
            other = spans[name.removesuffix("A") + "B"]
            a = [x[span.start : span.stop].view(shapes[name]) for x in before]
            b = [x[other.start : other.stop].view(shapes[other.name]) for x in before]
            products = torch.stack([q @ p for p, q in zip(a, b, strict=True)]).mean(0)
            u, s, vh = torch.linalg.svd(products)
            new_b = engines[1].flat.master[other.start : other.stop].view(shapes[other.name])
            torch.testing.assert_close(
                new_b @ found.view(shapes[name]), (u[:, :2] * s[:2]) @ vh[:2], rtol=1e-3, atol=1e-4
            )
            of_factors = torch.stack(b).mean(0) @ torch.stack(a).mean(0)
            assert not torch.allclose(of_factors, products, atol=1e-2)
        elif not name.endswith(".B"):
            torch.testing.assert_close(found, torch.stack([x[span.start : span.stop] for x in before]).mean(0))


def vector_run(method: str, own: dict[str, Any]) -> nodes.Run:
    settings = RunSettings(
        seed=1, learning_rate=1e-3, task="classification", **methods.COMMON | {"topology": "full", "inner_steps": 2}
    )
    return nodes.Run(method, settings, own, small_start(), 3)


def test_gossip_of_low_rank_factors_is_the_mean_of_factors() -> None:
    state = vector_run("lora", {"rank": 2})
    engines = state.engines(methods.prepared(state))
    generator = torch.Generator().manual_seed(5)
    for engine in engines:
        engine.flat.master.add_(torch.randn(engine.elements, generator=generator))
    means = torch.stack([engine.flat.master for engine in engines]).mean(0)
    edges = state.edges(engines)
    for _ in range(4):
        edges.mix(fold=False)
    for engine in engines:
        torch.testing.assert_close(engine.flat.master, means, rtol=0.0, atol=2e-3)


@pytest.mark.parametrize("method", ["lora", "adapter"])
def test_adapters_begin_as_the_start_model_and_train_nothing_else(method: str) -> None:
    fresh = vector_run(method, {"rank": 2, "width": 3})
    block = methods.prepared(fresh)
    batch = small_task().train.examples
    torch.testing.assert_close(start.logits_of(fresh.models[0], batch), start.logits_of(fresh.start.model, batch))
    state = vector_run(method, {"rank": 2, "width": 3})
    methods.run_vector(state)
    changed = {
        name for name, parameter in state.models[0].named_parameters() if not torch.equal(parameter, state.x0[name])
    }
    assert changed <= set(block.parameters) and any(name.startswith("classifier") for name in changed)
    ends = {"lora": (".A", ".B"), "adapter": (".D", ".U")}[method]
    assert {name.rsplit(".", 1)[1] for name in changed if name.endswith(ends)} == {end[1:] for end in ends}


# --- nodes ------------------------------------------------------------------------------------------


def test_a_lone_node_is_torchs_adam_block_by_block() -> None:
    made, settings = small_start(), cell("isolated", inner_steps=2)
    given = RunSettings(seed=0, learning_rate=1e-3, task="classification", **methods.COMMON | dict(settings.settings))
    state = nodes.Run("isolated", given, {}, made, 4)
    batches = Batches(state.held[0].examples, given.batch_size, 0)
    methods.run_blocks(state)
    model = copy.deepcopy(made.model)
    from deca_node.numerics.model.blocks import partition

    named = dict(model.named_parameters())
    for block in partition(model, 1):
        model.requires_grad_(False)
        mine = [named[name].requires_grad_(True) for name in block.parameters]
        solver = torch.optim.Adam(mine, lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
        for _ in range(2):
            solver.zero_grad()
            backward(model, batches.next(), 0, torch.device("cpu"))
            solver.step()
    for name, parameter in state.models[0].named_parameters():
        torch.testing.assert_close(parameter, named[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("settings", [{"signal": "mv"}, {"discrepancy": "paper", "h_into": "both"}])
def test_the_light_half_step_is_that_of_the_nodes(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for light in (True, False):
        monkeypatch.setattr(nodes, "light", lambda _, light=light: light)
        found.append(methods.run(cell("deca", rate=1e-2, **settings), small_start()))
    assert found[0].test == pytest.approx(found[1].test, abs=1e-5)
    assert found[0].consensus == pytest.approx(found[1].consensus, rel=1e-2)
    assert found[0].test != methods.run(cell("deca", rate=2e-2, **settings), small_start()).test


def test_a_node_that_meets_one_neighbour_after_another_sends_less() -> None:
    told = {"signal": "mv", "moments_every": 1, "moment_bits": 1, "codec": "int4"}
    turns = {"topology": "pairs", "degree": 2, "partners": "step", "mix_every": 3}
    all_near, one = (methods.run(cell("deca", **told, **more), small_start()) for more in ({}, turns))
    assert 0 < one.bytes_sent < all_near.bytes_sent / 2
    assert math.isfinite(one.test) and one.consensus != all_near.consensus


@pytest.mark.parametrize("method", ["deca", "centralized", "adamw", "noloco", "sparseloco", "decay-only"])
def test_every_method_runs_and_leaves_one_model(method: str) -> None:
    own = {
        "noloco": {"every": 3, "outer_momentum": 0.5, "outer_rate": 0.7, "outer_pull": 0.7},
        "sparseloco": {"every": 3, "outer_momentum": 0.95, "outer_rate": 1.0, "share": 1 / 8},
    }
    found = methods.run(cell(method, **own.get(method, {})), small_start(dropout=0.1))
    assert math.isfinite(found.test)
    assert len(set(found.test_by_node)) == 1 and len(found.test_by_node) == 4
    assert (found.bytes_sent == 0) == (method == "centralized")


def test_a_cell_gives_the_same_outcome_again() -> None:
    first, second = (methods.run(cell("deca"), small_start(dropout=0.1)) for _ in range(2))
    assert first.test_by_node == second.test_by_node and first.consensus == second.consensus


def test_polish_helps_the_own_text_and_costs_the_others() -> None:
    found = methods.run(cell("deca", rate=3e-2, polish="2 8"), small_start()).extra
    assert max(found["polished_2_own"], found["polished_8_own"]) < found["own"]
    assert found["polished_8_joint"] > found["polished_8_own"]
    assert tables.polishes([methods.run(cell("start", polish="8 2"), small_start())]) == [2, 8]


def test_carried_moments_change_the_second_visit_only() -> None:
    once = {carry: methods.run(cell("deca", rounds=1, carry=carry), small_start()).test for carry in ("own", "mean")}
    twice = {carry: methods.run(cell("deca", rounds=2, carry=carry), small_start()).test for carry in ("own", "mean")}
    plain = methods.run(cell("deca", rounds=2), small_start()).test
    assert once["own"] == once["mean"]
    assert len({plain, *twice.values()}) == 3


def test_own_text_is_weighed_as_the_node_holds_it() -> None:
    task = small_task()
    held = [task.train.take(np.flatnonzero(task.train.strata == k)) for k in (0, 3)]
    losses = np.array([1.0, 2.0, 3.0, 4.0])
    one = nodes.Judged(losses, losses / 4, 2.5, 0.5, 0.5)
    found = nodes.Final.of([one, one], task, held)
    assert found.own_loss == pytest.approx(2.5) and found.loss == pytest.approx(2.5)
    assert found.joint_loss == pytest.approx(2.5)
    assert nodes.Final.of([one], task, held[:1]).own_loss == pytest.approx(1.0)
    other = nodes.Judged(losses[::-1].copy(), losses / 4, 2.5, 0.5, 0.5)
    apart = nodes.Final.of([one, other], task, held)
    assert apart.own_loss == pytest.approx(1.0) and apart.joint_loss == pytest.approx(2.5)


# --- tasks and texts --------------------------------------------------------------------------------


def test_every_record_is_dealt_once() -> None:
    for skew in ("label", "domain"):
        task = small_task(skew)
        held = tasks.dealt(task, 8, seed=2)
        assert sum(map(len, held)) == len(task.train)
        assert sum(np.bincount(h.strata, minlength=4) for h in held).tolist() == [100] * 4
    domains = [{task.strata[s][1] for s in set(h.strata.tolist())} for h in held]
    assert domains == [{"a"}, {"b"}] * 4


def test_a_smaller_table_of_tokens_changes_no_answer() -> None:
    model, task = small_model(), small_task()
    before = start.logits_of(model, task.test.examples)
    cut = start.cut_vocabulary(model, task)
    assert model.get_input_embeddings().num_embeddings == len(range(2, VOCABULARY, 2)) + 1
    torch.testing.assert_close(start.logits_of(model, cut.test.examples), before, rtol=0.0, atol=1e-6)


def test_the_head_is_fitted_on_its_own_records() -> None:
    model, task = small_model(), small_task()
    labels = torch.from_numpy(task.head.examples.labels)

    def loss() -> float:
        return float(nn.functional.cross_entropy(start.logits_of(model, task.head.examples), labels))

    before = loss()
    start.fit_head(model, task.head)
    assert loss() < before


def test_texts_are_read_as_their_authors_wrote_them(tmp_path: Path) -> None:
    for file in texts.RATED.values():
        (tmp_path / f"{file}_GroundTruth.txt").write_text("1\t-0.6\tNot\tgood\r\n2\t0.5\tFine.\r\n", encoding="utf-8")
    found = list(texts.sentiment(tmp_path))
    assert found[:2] == [texts.Text("Not\tgood", 0, "tweets"), texts.Text("Fine.", 1, "tweets")]
    assert [texts.sentiment_of(x) for x in (-0.5, 0.5, 0.51)] == [1, 1, 2]
    line = '00001740 13 n 01 sago 0 000 | (cookery) a starch; "thicken with sago"  \n'
    (tmp_path / "data.noun").write_text("  1 licence\n" + line + line.replace(" 13 n", " 27 n"), encoding="utf-8")
    assert list(texts.topics(tmp_path)) == [texts.Text("a starch", list(texts.TOPICS).index("food"), "glosses")]


def test_another_file_than_was_measured_is_refused(tmp_path: Path) -> None:
    (tmp_path / packages.VADER.file).write_bytes(b"another")
    with pytest.raises(packages.MissingError, match=r"SHA-256 sum .* instead of b960c954"):
        packages.vader(tmp_path)


def test_a_package_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    with pytest.raises(packages.MissingError, match=r"needs wordnet-base .*put wordnet-base_1%3a3.0-37_all.deb into"):
        packages._fetched(replace(packages.WORDNET, command=("/no/such/program",)), tmp_path)


# --- cells, order and the page ----------------------------------------------------------------------


class Recorded:
    """A sweep that runs nothing; the best step size of every arm is its first."""

    arms = scaled("short")

    def rate(self, arm: Any) -> float:
        return self.arms[arm.like].rate if arm.like else arm.rate


def test_a_smaller_table_is_complete_first() -> None:
    steps = list(plan(Recorded(), options().parse_args([])))  # type: ignore[arg-type]
    first = [(arm.name, seed, rate) for arm, seed, rate in steps[:18]]
    assert {rate for _, _, rate in first} == {PAPER_RATE}
    assert len({name for name, _, _ in first}) == 6 and {seed for _, seed, _ in first} == {0, 1, 2}
    assert {arm.name for arm, _, _ in steps} == {arm.name for arm in ARMS}
    assert not any(arm.method == "lora" and rate == PAPER_RATE for arm, _, rate in steps)


def test_the_page_compares_at_each_choice_of_step_sizes(tmp_path: Path) -> None:
    book, arms = Book(tmp_path / "sentiment-label.jsonl"), scaled("short")
    rng = random.Random(0)

    def add(name: str, seed: int, rate: float, test: float, **more: float) -> None:
        arm = arms[name]
        made = Cell(
            task="sentiment-label",
            digest="d",
            start="s",
            method=arm.method,
            seed=seed,
            learning_rate=rate,
            settings=tuple(sorted(arm.settings.items())),
        )
        extra = {"own": test, "own_accuracy": 0.5, "sent_per_step": 1000.0, **more}
        book.add(
            made, Outcome(validation=test, test=test, test_by_node=(test,), mean_model=test, extra=extra), "2026-12-01"
        )

    for seed in range(3):
        noise = rng.random()
        add("none", seed, PAPER_RATE, 1.0 + noise)
        add("paper", seed, PAPER_RATE, 1.1 + noise + 0.001 * seed)
    said = "\n".join(tables.section("sentiment-label", book))
    assert "short runs, at the paper's step size" in said and "best for" not in said
    assert "`none` is better than `paper` by 0.1010" in said
    for rate, loss in ((2e-4, 1.2), (4e-4, 1.0), (8e-4, 1.3)):
        add("none", 100, rate, loss)
    tuned = compared.results(book, "sentiment-label", "short", "common")
    assert tuned is not None and tuned.rates["none"] == 4e-4
    add("none", 0, 4e-4, 1.0)
    add("isolated", 0, 4e-4, 1.2)
    for seed in range(2):
        add(
            "none, mv, every 4", seed, 4e-4, 0.9, polished_3_own=0.5, polished_3_joint=2.0, polished_3_own_accuracy=0.75
        )
    said = "\n".join(tables.section("sentiment-label", book))
    assert "all at the step size that is best for `none`" in said
    assert "3 steps per block alone (2 seeds): own loss 0.9000 before and 0.5000 after" in said
    assert "own accuracy 50.0 and 75.0 %" in said and "joint loss 0.9000 before and 2.0000 after" in said
    for name, first in (("none, mv, every 4", 4e-4), ("noloco", 2e-4)):
        for factor, loss in ((0.5, 1.2), (1.0, 1.0), (2.0, 1.3)):
            add(name, 100, factor * first, loss)
    for seed in range(2):
        add("noloco", seed, 2e-4, 1.1, sent_per_step=400.0)
    said = "\n".join(tables.section("sentiment-label", book))
    assert "`none, mv, every 4` sends 2.5 times the bytes of `noloco`." in said
    assert "the least validation losses are" in said and "`noloco` 1.0000 at 2e-04" in said
    beside = "\n".join(overview.beside({"sentiment-label": book}))
    assert "**+" in beside and "MiniLM, `sentiment-label`, short, paper" in beside


GIVEN = (
    "run_name",
    "seed",
    "epochs",
    "epoch_sequences",
    "task",
    "labels",
    "sequence_length",
    "truncation",
    "dtype",
    "edges",
)
"""Settings that say what is tuned on what; no measurement gives them a default."""


def test_every_default_names_its_table() -> None:
    page = tables.PAGE.read_text(encoding="utf-8")
    rows = page.split("| setting | default | tables | because |\n")[1].split("\n\n")[0].splitlines()[1:]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named | set(GIVEN) == {field.name for field in fields(RunSettings)}
    assert all("](#" in row.split("|")[3] or "no table" in row.split("|")[3] for row in rows)


def test_the_page_counts_each_comparison_once(tmp_path: Path) -> None:
    book = Book(tmp_path / "sentiment-label.jsonl")
    arms = scaled("short")
    for name, better in (("none", 1.0), ("none, mv, every 4", 0.9)):
        for rate, seeds in ((PAPER_RATE, range(3)), (4e-4, range(3)), *((4e-4 * k, (100,)) for k in (0.5, 1.0, 2.0))):
            for seed in seeds:
                arm = arms[name]
                loss = better + (seed == 100) * abs(rate - 4e-4)
                made = Cell(
                    task="sentiment-label",
                    digest="d",
                    start="s",
                    method=arm.method,
                    seed=seed,
                    learning_rate=rate,
                    settings=tuple(sorted(arm.settings.items())),
                )
                extra = {"joint": loss + 0.001 * seed * (name == "none"), "own": loss, "sent_per_step": 1.0}
                book.add(
                    made, Outcome(validation=loss, test=loss, test_by_node=(), mean_model=loss, extra=extra), "2026"
                )
    said = "\n".join(overview.answers({"sentiment-label": book}))
    assert "`sentiment-label`, short, own" in said and "`sentiment-label`, short, common" in said
    assert "rows with three seeds or more: better in 2, worse in 0" in said
    assert "\n".join(overview.rests_on({"sentiment-label": book})).count("`none, mv, every 4` less `none`") == 1


def test_rivals_are_compared_at_no_more_bytes(tmp_path: Path) -> None:
    sent = {"none, mv, every 4": 100.0, "home": 10.0, "noloco": 50.0, "sparseloco": 1.0}
    outcomes = {
        name: {
            seed: Outcome(
                validation=0.0, test=1.0, test_by_node=(), mean_model=1.0, extra={"joint": 1.0 + b, "sent_per_step": b}
            )
            for seed in range(3)
        }
        for name, b in sent.items()
    }
    said = list(overview.equal_bytes(Results("t", "d", dict.fromkeys(sent, 1e-3), outcomes, ("", ""), 0)))
    assert len(said) == 2
    assert said[0].startswith(
        "At equal bytes or fewer (`home`, with 0.2 times the bytes of `noloco`): `home` is better"
    )
    assert said[1].startswith("No arm here sends as little; the nearest is `home`, with 10 times the bytes")
