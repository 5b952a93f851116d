"""One cell, from the start model to its losses: all nodes in step, in one process, with the node's own numerics.

A run goes through the schedule as nodes do. The gradients of all nodes are computed as one batch
(:mod:`bench.convergence.stack`). All else, from the half step to the fold, is done by each node's own
:class:`BlockEngine`.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Self

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from bench.convergence import outer
from bench.convergence.adapters import (
    bottleneck_parts,
    first_values,
    low_rank_parts,
    mix_products,
    with_bottlenecks,
    with_low_rank,
)
from bench.convergence.cells import Cell, Outcome
from bench.convergence.edges import Edges, Vectors, state_bytes
from bench.convergence.stack import Shape, Weights, logits, losses
from bench.convergence.tasks import Task, dealt
from bench.convergence.weights import distance, expanded, with_block
from deca_node.numerics import deca
from deca_node.numerics.codecs.formats import CODECS
from deca_node.numerics.data.batches import Batch, Batches, make_batch
from deca_node.numerics.data.sequences import Sequences
from deca_node.numerics.engine import BlockEngine
from deca_node.numerics.learning.loss import shares
from deca_node.numerics.model.blocks import Block, partition, spans
from deca_node.numerics.model.facts import model_bytes
from deca_node.protocol.agreed.run import MATCHINGS, RunSettings
from deca_node.protocol.agreed.schedule import PARAMETERS, Schedule, Step
from deca_node.protocol.agreed.topology import Graph, graph, turns
from deca_node.protocol.agreed.weights import matrix, share_of
from deca_node.protocol.errors import TrainerError

ALPHA = 0.25
"""Alpha of the Dirichlet distribution, as in the paper."""

COMMON = {
    "rounds": 2,
    "inner_steps": 20,
    "block_layers": 1,
    "block_order": "forward",
    "batch_size": 4,
    "dtype": "float32",
    "lr_schedule": "constant",
    "discrepancy": "none",
    "h_into": "m",
    "h_part": "full",
    "bias_correction": "alpha",
    "beta1": 0.5,
    "beta2": 0.99,
    "signal": "none",
    "signal_every": 1,
    "topology": "erdos-renyi",
    "edge_probability": 0.5,
    "redraw_every": 0,  # one graph for the whole run, so that methods without activations have the same
    "codec": "int8",
    "exchange": "lockstep",
    "mix_every": 1,
    "flush_mixes": 2,
    "final_flush_mixes": 12,  # the graph asks for some 80, which would be most of the bytes of so short a run
    "robust": "none",
}
"""Settings of all cells, which arms may replace. All of them are listed here, so that lines of JSON stay valid when the
defaults of nodes change."""

OWN = ("rank", "width", "consensus_every", *outer.OWN)
"""Settings of the baselines, which are not settings of a run."""

CURVE_SEQUENCES = 32
EVALUATED_AT_ONCE = 32

Weighing = Callable[[Tensor], Weights]
"""Makes all weights from the trained vector, [n, elements]."""


class Run:
    """The state of one run: data, graph, models, and all records so far."""

    def __init__(
        self,
        method: str,
        settings: RunSettings,
        own: Mapping[str, int],
        held: Sequence[Sequences],
        start: PreTrainedModel,
    ) -> None:
        """``held`` are the nodes' sequences. ``own`` are the settings of the baselines."""
        self.method, self.settings, self.own, self.start = method, settings, own, start
        self.shape = Shape.of(start.config)
        self.central = method == "centralized"
        self.alone = self.central or method == "isolated"
        self.names = [f"node-{i}" for i in range(1 if self.central else len(held))]
        self.graph: Graph = dict.fromkeys(self.names, frozenset()) if self.alone else graph(self.names, settings)
        self._batches = [Batches(s, settings.batch_size, settings.seed * 1000 + i) for i, s in enumerate(held)]
        tokens = zip(self.names, held, strict=False)
        self.shares = {name: share_of(settings, sequences.predicted) for name, sequences in tokens}
        """Each node's share in the mean, by its tokens if the run says so."""
        self.watched: Sequences | None = None
        """The sequences whose loss the curve shows."""

        self.curve: list[tuple[int, float]] = []
        self.consensus: list[float] = []
        self.bytes_sent = 0
        self.bytes_of_steps = 0
        """The bytes without those of the final flush."""

        self.state_bytes = 0
        self.steps = 0

    @classmethod
    def of(cls, cell: Cell, task: Task, start: PreTrainedModel) -> Self:
        """The run of a cell."""
        own = {name: value for name, value in cell.settings if name in OWN}
        given = COMMON | {name: value for name, value in cell.settings if name not in OWN}
        length = task.test.tokens // len(task.test)
        held = dealt(task, cell.nodes, ALPHA, cell.seed)
        if given.get("weights") == "tokens":
            given["weight_tokens"] = sum(sequences.predicted for sequences in held) // len(held)
        settings = RunSettings(seed=cell.seed, learning_rate=cell.learning_rate, sequence_length=length, **given)
        made = cls(cell.method, settings, own, held, start)
        chosen = np.linspace(0, len(task.validation) - 1, CURVE_SEQUENCES).astype(int)
        made.watched = task.validation.take(chosen)
        return made

    def graphs_of(self, activation: int, blocks: int) -> tuple[Graph, ...]:
        """The graphs that take turns in one activation. It is one for the whole run, unless it is a matching."""
        matched = self.settings.topology in MATCHINGS and not self.alone
        return turns(self.names, self.settings, activation, blocks) if matched else (self.graph,)

    def batch(self) -> Batch:
        """The batches of one step, [n, b, L]. With one centralized node, the batches of all nodes together, [1, n b,
        L]."""
        drawn = [batches.next() for batches in self._batches]
        ids, labels = (torch.stack([getattr(b, part) for b in drawn]) for part in ("input_ids", "labels"))
        if self.central:
            ids, labels = (t.reshape(1, -1, t.shape[-1]) for t in (ids, labels))
        return Batch(ids, labels)

    def step(self, engines: Sequence[BlockEngine], weigh: Weighing, gamma: float) -> None:
        """The half step of every node: one pass for all gradients, of which each engine takes its own."""
        flat = torch.stack([engine.flat.master for engine in engines]).requires_grad_()
        batch = self.batch()
        found = losses(logits(self.shape, weigh(flat), batch.input_ids), batch.labels)
        found.sum().backward()
        for i, engine in enumerate(engines):
            engine.half_step(gamma, partial(self._deliver, engine, flat.grad[i], float(found[i].detach())))
        self.steps += 1

    def note(self, engines: Sequence[BlockEngine]) -> None:
        """Record the consensus distance and the size of the state, before the engines are freed."""
        x = torch.stack([engine.flat.master for engine in engines])
        self.consensus.append(float((x - x.mean(0)).pow(2).mean().sqrt()))
        self.state_bytes = max(self.state_bytes, *(state_bytes(engine) for engine in engines))

    def note_curve(self, weights: Weights) -> None:
        """Record a point of the curve."""
        if self.watched is not None:
            loss = evaluate(self.shape, weights, self.watched)[0].mean()
            self.curve.append((self.steps, float(loss)))

    @staticmethod
    def _deliver(engine: BlockEngine, gradient: Tensor, loss: float) -> float:
        assert engine.flat.grad is not None
        engine.flat.grad.copy_(gradient)
        return loss


def run(cell: Cell, task: Task, start: PreTrainedModel) -> Outcome:
    """Run one cell. If it diverges, its losses are infinite and it names the step."""
    began = time.process_time()
    state = Run.of(cell, task, start)
    try:
        weights, elements = METHODS[cell.method](state)
    except TrainerError as problem:
        lost = float("inf")
        return Outcome(validation=lost, test=lost, test_by_node=(), mean_model=lost, diverged=str(problem))
    found = outcome(state, task, weights, elements)
    return dataclasses.replace(found, cpu_seconds=round(time.process_time() - began, 2))


def outcome(run: Run, task: Task, weights: Weights, elements: float) -> Outcome:
    """All final measurements. ``elements`` is the mean number of elements per frame."""
    test, answers = evaluate(run.shape, weights, task.test, task.labels)
    mean = {name: w.mean(0, keepdim=True) for name, w in weights.items()}
    scores = [shares(counted) for counted in tables_of(task, answers)]
    directed = sum(map(len, run.graph.values())) or 1
    return Outcome(
        validation=float(evaluate(run.shape, weights, task.validation)[0].mean()),
        test=float(test.mean()),
        test_by_node=tuple(test.tolist()),
        mean_model=float(evaluate(run.shape, mean, task.test)[0]),
        accuracy=float(np.mean([score["accuracy"] for score in scores])) if scores else None,
        f1=float(np.mean([score["macro_f1"] for score in scores])) if scores else None,
        curve=tuple(run.curve),
        consensus=tuple(run.consensus),
        bytes_sent=run.bytes_sent,
        bytes_per_step=run.bytes_of_steps / directed / max(run.steps, 1),
        state_mib=(model_bytes(run.start) + run.state_bytes) / 2**20,
        extra={"frame_elements": elements, "degree": directed / len(run.names)},
    )


def tables_of(task: Task, answers: Tensor) -> list[Tensor]:
    """Each node's counts of test sequences, [true label, predicted label]. None if the task has no labels."""
    classes = len(task.labels)
    if not classes:
        return []
    last = task.test.gather(np.arange(len(task.test))).ids[:, -1]
    right = torch.tensor([task.labels.index(token) for token in last.tolist()])
    return [torch.bincount(right * classes + row, minlength=classes**2).view(classes, classes) for row in answers]


def evaluate(shape: Shape, weights: Weights, sequences: Sequences, labels: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
    """Each node's mean loss over the sequences, [n], and the most likely of ``labels`` as the last token of each,
    [n, N]."""
    n = len(next(iter(weights.values())))
    total, answers = torch.zeros(n), []
    for rows in np.array_split(np.arange(len(sequences)), -(-len(sequences) // EVALUATED_AT_ONCE)):
        batch = make_batch(sequences, rows)
        ids, targets = (t.expand(n, *t.shape) for t in (batch.input_ids, batch.labels))
        with torch.no_grad():
            found = logits(shape, weights, ids)
            total += losses(found, targets) * len(rows)
        answers.append(found[:, :, -2, list(labels)].argmax(-1) if labels else torch.empty(n, 0))
    return total / len(sequences), torch.cat(answers, dim=1)


# --- the methods ------------------------------------------------------------------------------------


def run_blocks(run: Run) -> tuple[Weights, float]:
    """DECA and all methods that differ from it in a setting or in the graph: block by block, then the final flush."""
    settings = run.settings
    blocks = partition(run.start, settings.block_layers)
    schedule = Schedule(settings, len(blocks), settings.final_flush_mixes)
    weights = expanded(run.start, len(run.names))
    run.note_curve(weights)
    for activation in map(schedule.__getitem__, range(len(schedule))):
        if run.alone and not activation.inner_steps:
            continue
        block = blocks[activation.block]
        nodes, engines = activated(run, block, weights)
        edges = Edges(run.names, engines, *run.graphs_of(activation.index, len(blocks)), shares=run.shares)
        weigh = partial(with_block, weights, spans(run.start, block))
        for inner in range(activation.steps):
            step, gradient = Step(activation.index, inner), inner < activation.inner_steps
            if gradient:
                gamma = deca.learning_rate(settings, schedule.gradient_ordinal(step), schedule.gradient_steps)
                run.step(engines, weigh, gamma)
            content = schedule.content(step) if schedule.mixes(step) else None
            edges.mix(fold=gradient, content=content, turn=schedule.turn(step))
            if inner == activation.inner_steps - 1:
                run.note(engines)
        for engine in engines:
            engine.freeze()
        weights = weigh(torch.stack([node.values() for node in nodes]))
        run.bytes_sent += edges.bytes_sent
        if activation.inner_steps:
            run.bytes_of_steps = run.bytes_sent
            run.note_curve(weights)
    run.consensus.append(distance(weights))
    return weights, sum(block.elements for block in blocks) / len(blocks)


def activated(run: Run, block: Block, weights: Weights) -> tuple[list[Vectors], list[BlockEngine]]:
    """Every node's part of the block, and an engine for it. Elements do not affect each other, so the block is one
    vector, which makes the engine five times faster. Only ``rms`` depends on the parameters' boundaries."""
    settings, hyper = run.settings, deca.Hyper.of(run.settings)
    if run.method == "decay-only":
        hyper = dataclasses.replace(hyper, discrepancy="decay-only")
    flat = torch.cat([weights[name].reshape(len(run.names), -1) for name in block.parameters], dim=1)
    sizes = [s.stop - s.start for s in spans(run.start, block)] if hyper.discrepancy == "rms" else [flat.shape[1]]
    nodes = [Vectors(row.split(sizes)) for row in flat]
    named = dict(run.start.named_parameters())
    x0 = torch.cat([named[name].detach().reshape(-1) for name in block.parameters])
    codec, share = CODECS[settings.codec], settings.flow_share
    return nodes, [
        BlockEngine(
            node,
            node.block,
            lambda a, b: x0[a:b],
            hyper=hyper,
            codec=codec,
            gamma_c=share,
            signal=settings.signal,
            bits=settings.moment_bits,
        )
        for node in nodes
    ]


def run_adapters(run: Run) -> tuple[Weights, float]:
    """Low-rank updates or bottlenecks: one vector, trained through the whole run and mixed at every step; and DeCAF."""
    settings, start = run.settings, run.start
    bottled = run.method == "adapter"
    parts = bottleneck_parts(start, run.own["width"]) if bottled else low_rank_parts(start, run.own["rank"])
    base = {name: p.detach()[None] for name, p in start.named_parameters()}
    weigh = partial(with_bottlenecks if bottled else with_low_rank, base, parts)
    x0 = first_values(parts, settings.seed)
    nodes = [Vectors([x0]) for _ in run.names]
    hyper, codec = deca.Hyper.of(settings), CODECS[settings.codec]
    engines = [
        BlockEngine(
            n, n.block, lambda a, b: x0[a:b], hyper=hyper, codec=codec, gamma_c=settings.flow_share, signal="none"
        )
        for n in nodes
    ]
    factored = run.method == "decaf"
    edges = Edges(run.names, engines, dict.fromkeys(run.names, frozenset()) if factored else run.graph)
    W = torch.tensor(matrix(run.graph))
    visits = settings.rounds * len(partition(start, settings.block_layers))
    total, final = visits * settings.inner_steps, settings.final_flush_mixes

    def masters() -> Tensor:
        return torch.stack([engine.flat.master for engine in engines])

    run.note_curve(weigh(masters()))
    for step in range(total + final):
        gradient = step < total
        if gradient:
            run.step(engines, weigh, deca.learning_rate(settings, step, total))
        due = not gradient or (step + 1) % (run.own.get("consensus_every") or settings.mix_every) == 0
        edges.mix(fold=gradient, content=PARAMETERS if due and not factored else None)
        if factored and due:
            _decaf(run, engines, mix_products(parts, masters(), W))
        if step + 1 == total:
            run.bytes_of_steps = run.bytes_sent + edges.bytes_sent
        if gradient and (step + 1) % settings.inner_steps == 0:
            run.note(engines)
            run.note_curve(weigh(masters()))
    run.bytes_sent += edges.bytes_sent
    run.consensus.append(float((masters() - masters().mean(0)).pow(2).mean().sqrt()))
    return weigh(masters()), float(len(x0))


def _decaf(run: Run, engines: Sequence[BlockEngine], mixed: Tensor) -> None:
    """Every node sends its factors in float32, and takes the averaged ones."""
    with torch.no_grad():
        for engine, vector in zip(engines, mixed, strict=True):
            engine.flat.master.copy_(vector)
    run.bytes_sent += sum(map(len, run.graph.values())) * 4 * mixed.shape[1]


def run_outer(run: Run) -> tuple[Weights, float]:
    """Whole-model Adam: every node takes ``every`` steps alone, then an outer step with others (NoLoCo, SparseLoCo).

    As the other methods end with a flush, which brings all copies to their mean and is not counted, the mean of the
    copies is judged here."""
    settings, start = run.settings, run.start
    names = tuple(sorted(name for name, _ in start.named_parameters()))
    layout = spans(start, Block("all", names, sum(p.numel() for p in start.parameters())))
    flat = torch.cat([dict(start.named_parameters())[span.name].detach().reshape(-1) for span in layout])
    weigh = partial(with_block, expanded(start, len(run.names)), layout)
    nodes = [Vectors([flat]) for _ in run.names]
    codec = CODECS[settings.codec]
    engines = [
        BlockEngine(
            n, n.block, lambda a, b: flat[a:b], hyper=deca.Hyper.of(settings), codec=codec, gamma_c=1.0, signal="none"
        )
        for n in nodes
    ]
    total = settings.rounds * len(partition(start, settings.block_layers)) * settings.inner_steps
    meet = outer.OUTER[run.method](engines, run.graph, run.own, settings.seed)
    for step in range(total):
        run.step(engines, weigh, deca.learning_rate(settings, step, total))
        for engine in engines:
            engine.connect([], torch.empty(0, dtype=torch.uint8)) if not step else None
            engine.mix([], fold=True)
        if (step + 1) % run.own["every"] == 0:
            run.note(engines)
            run.bytes_sent += meet((step + 1) // run.own["every"] - 1)
    run.bytes_of_steps = run.bytes_sent
    run.state_bytes += 4 * meet.vectors * len(flat)
    masters = torch.stack([engine.flat.master for engine in engines])
    return weigh(masters.mean(0).expand_as(masters)), float(len(flat))


METHODS: dict[str, Callable[[Run], tuple[Weights, float]]] = {
    **dict.fromkeys(("deca", "decay-only", "isolated", "centralized"), run_blocks),
    **dict.fromkeys(("lora", "adapter", "decaf"), run_adapters),
    **dict.fromkeys(tuple(outer.OUTER), run_outer),
}
