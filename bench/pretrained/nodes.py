"""All nodes of a run in one process, each with a model of its own, and how well their models do in the end.

A gradient is the model's own: forward and backward passes as a node makes them, with dropout. The nodes take their
turns. What follows a gradient (half step, codec, edges, mix, h, fold, signals) is done by each node's
:class:`BlockEngine`.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from bench.convergence.edges import Edges, state_bytes
from bench.pretrained.light import LightEngine, light
from bench.pretrained.start import Start, logits_of
from bench.pretrained.tasks import Records, Task, dealt, shares_of
from deca_node.numerics.data.batches import AnyBatch, Batches, LabelledBatch
from deca_node.numerics.deca import Hyper
from deca_node.numerics.engine import BlockEngine
from deca_node.numerics.learning.loss import backward, shares
from deca_node.numerics.model.blocks import Block, spans
from deca_node.protocol.agreed.run import MATCHINGS, RunSettings
from deca_node.protocol.agreed.topology import Graph, graph, turns

SAMPLED = 16
"""The consensus distance is that of every 16th element."""


class Run:
    """The nodes of one run: data, graph, models, and what was recorded."""

    def __init__(self, method: str, settings: RunSettings, own: Mapping[str, Any], start: Start, nodes: int) -> None:
        """``own`` are the settings of the method that are no settings of a run."""
        self.method, self.settings, self.own, self.start = method, settings, own, start
        self.held = dealt(start.task, nodes, settings.seed)
        self.central = method == "centralized"
        self.alone = self.central or method == "isolated"
        self.names = [f"node-{i}" for i in range(1 if self.central else nodes)]
        self.graph: Graph = dict.fromkeys(self.names, frozenset()) if self.alone else graph(self.names, settings)
        self._batches = [
            Batches(h.examples, settings.batch_size, settings.seed * 1000 + i) for i, h in enumerate(self.held)
        ]
        self.models: list[PreTrainedModel] = [copy.deepcopy(start.model) for _ in self.names]
        self.x0: dict[str, Tensor] = {n: p.detach() for n, p in start.model.named_parameters()}
        self.consensus: list[float] = []
        self.bytes_sent = 0
        self.state_bytes = 0
        self.steps = 0

    def engines(self, block: Block) -> list[BlockEngine]:
        """An engine of the block for every node."""
        x0 = torch.cat([self.x0[span.name].reshape(-1) for span in spans(self.models[0], block)])
        kind = LightEngine if light(Hyper.of(self.settings)) else BlockEngine
        return [kind.of(model, block, self.settings, lambda a, b: x0[a:b]) for model in self.models]

    def edges(self, engines: Sequence[BlockEngine], *graphs: Graph) -> Edges:
        """The edges between engines, opened: those of the run's graph, or of others that take turns."""
        return Edges(self.names, engines, *(graphs or [self.graph]))

    def graphs_of(self, activation: int, blocks: int) -> tuple[Graph, ...]:
        """The graphs that take turns in one activation. It is one for the whole run, unless it is a matching."""
        matched = self.settings.topology in MATCHINGS and not self.alone
        return turns(self.names, self.settings, activation, blocks) if matched else (self.graph,)

    def step(self, engines: Sequence[BlockEngine], gamma: float) -> None:
        """The half step of every node, one node after the other."""
        batches = [batches.next() for batches in self._batches]
        for engine, model, batch in zip(
            engines, self.models, [joined(batches)] if self.central else batches, strict=True
        ):
            engine.half_step(gamma, lambda m=model, b=batch: backward(m, b, 0, torch.device("cpu")))
        self.steps += 1

    def note(self, engines: Sequence[BlockEngine]) -> None:
        """Record the consensus distance and the size of the state."""
        x = torch.stack([engine.flat.master[::SAMPLED] for engine in engines])
        self.consensus.append(float((x - x.mean(0)).pow(2).mean().sqrt()))
        self.state_bytes = max(self.state_bytes, *(state_bytes(engine) for engine in engines))


def joined(batches: Sequence[AnyBatch]) -> LabelledBatch:
    """All records of several batches as one."""
    parts = [batch for batch in batches if isinstance(batch, LabelledBatch)]
    width = max(part.input_ids.shape[1] for part in parts)

    def rows(name: str) -> Tensor:
        columns = [getattr(part, name) for part in parts]
        return torch.cat([nn.functional.pad(c, (0, width - c.shape[1])) for c in columns])

    # A padded place has no attention, so any token will do there.
    labels = torch.cat([part.labels for part in parts])
    return LabelledBatch(rows("input_ids"), rows("attention_mask"), rows("token_type_ids"), labels)


class Judged(NamedTuple):
    """One model on the test text: loss and accuracy of each stratum, float64 [strata]; and over all records."""

    losses: NDArray[np.float64]
    hits: NDArray[np.float64]
    loss: float
    accuracy: float
    f1: float


def judge(model: PreTrainedModel, task: Task, records: Records) -> Judged:
    """Losses, accuracy and macro-F1 of a model."""
    logits, labels = logits_of(model, records.examples), torch.from_numpy(records.examples.labels)
    losses = nn.functional.cross_entropy(logits, labels, reduction="none").double().numpy()
    count = len(task.labels)
    answers = logits[:, :count].argmax(1)  # A language model has other tokens behind those of the labels.
    table = torch.bincount(labels * count + answers, minlength=count**2).view(count, count)
    scores = shares(table)
    each = np.maximum(np.bincount(records.strata, minlength=len(task.strata)), 1)
    by_stratum = (
        np.bincount(records.strata, v, len(task.strata)) / each for v in (losses, (answers == labels).numpy())
    )
    return Judged(*by_stratum, float(losses.mean()), scores["accuracy"], scores["macro_f1"])


class Final(NamedTuple):
    """What the models of all nodes come to; each figure a mean over nodes.

    ``loss``, ``accuracy`` and ``f1`` are on text with all labels and domains in equal parts. ``own_loss`` is on text
    that is mixed of them as the node's own text is, ``joint_loss`` on text that is mixed as the text of all nodes is,
    where every node counts alike: the loss that joint tuning lowers.
    """

    loss: float
    by_node: tuple[float, ...]
    accuracy: float
    f1: float
    own_loss: float
    own_accuracy: float
    joint_loss: float
    joint_accuracy: float

    @classmethod
    def of(cls, judged: Sequence[Judged], task: Task, held: Sequence[Records]) -> "Final":
        """From one judgement for each node."""
        own = [shares_of(task, mine) for mine in held]
        pairs, everybody = list(zip(judged, own, strict=True)), np.mean(own, axis=0)
        by_node = tuple(j.loss for j in judged)
        means = (np.mean([getattr(j, name) for j in judged]) for name in ("accuracy", "f1"))
        return cls(
            float(np.mean(by_node)),
            by_node,
            *map(float, means),
            float(np.mean([s @ j.losses for j, s in pairs])),
            float(np.mean([s @ j.hits for j, s in pairs])),
            float(np.mean([everybody @ j.losses for j in judged])),
            float(np.mean([everybody @ j.hits for j in judged])),
        )


@torch.no_grad()
def mean_model(models: Sequence[PreTrainedModel]) -> PreTrainedModel:
    """A model whose parameters are the means of all."""
    mean = copy.deepcopy(models[0])
    columns = zip(mean.parameters(), *(model.parameters() for model in models), strict=True)
    for target, *values in columns:
        target.copy_(torch.stack([value.float() for value in values]).mean(0))
    return mean
