"""The demo: a toy model, private texts, each node alone, then all nodes together, and a comparison.

The demo uses the Python interface (:class:`deca_node.api.node.Node`), which starts ``deca-node start`` in child
processes. Each node first has a peers file with its own line only, and then one with all nodes. So a person can do the
same by hand in as many terminals, and the folder that the demo leaves has everything for it.
"""

import os
import platform
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase

from deca_node import __version__
from deca_node.api.node import Node
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.sources import changed_as_toml
from deca_node.lab.demo.texts import private_corpora, write_corpus
from deca_node.lab.demo.toy_model import EachStep, Recipe, ToyModel, make_toy_model
from deca_node.lab.report.result import DemoReport, NodeResult
from deca_node.lab.rigs.processes import write_peers
from deca_node.numerics.data.batches import heldout_batches
from deca_node.numerics.data.dataset import Layout, PackedData, load_dataset
from deca_node.numerics.learning.loss import evaluate
from deca_node.numerics.model.load import load_model
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.options import own_seed
from deca_node.storage.folder import METRICS

CORPUS_BYTES = 200_000
EVAL_SEQUENCES = 32
RUN_SECONDS_MAX = 900.0

RECIPE = Recipe()
RUN = RunSettings(
    run_name="demo",
    rounds=2,
    inner_steps=24,
    sequence_length=128,
    batch_size=4,
    learning_rate=2e-3,
    lr_schedule="cosine",
    topology="ring",
)
"""Found by trial, so that an effect shows within a minute on two cores. Every demo measures the effect again."""


@dataclass(frozen=True)
class DemoPlan:
    """The folder and the size of a demo."""

    directory: Path
    nodes: int = 4
    run: RunSettings = RUN
    recipe: Recipe = RECIPE

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the nodes, which are those of their private texts."""
        return tuple(corpus.name for corpus in private_corpora(self.nodes))


def prepare(plan: DemoPlan, progress: EachStep) -> ToyModel:
    """Make the model, the private texts, the run's settings and both kinds of peers files."""
    plan.directory.mkdir(parents=True, exist_ok=True)
    model = make_toy_model(plan.directory / "model", plan.recipe, progress)
    (plan.directory / "data").mkdir(exist_ok=True)
    for corpus in private_corpora(plan.nodes):
        write_corpus(corpus, _data(plan, corpus.name), limit_bytes=CORPUS_BYTES, seed=plan.run.seed)
    write_peers(plan.directory / "peers.txt", plan.names)
    for name in plan.names:
        write_peers(plan.directory / f"peers-{name}-alone.txt", [name])
    (plan.directory / "run.toml").write_text(changed_as_toml(plan.run), encoding="utf-8")
    return model


def directory_of(plan: DemoPlan, name: str, *, together: bool) -> Path:
    """The folder of one node's run."""
    return plan.directory / ("together" if together else "alone") / name


def parties(plan: DemoPlan, *, together: bool) -> list[Node]:
    """One node per party, with all others or alone. None of them runs yet."""
    return [party(plan, name, directory_of(plan, name, together=together), together=together) for name in plan.names]


def party(plan: DemoPlan, who: str, directory: Path, *, together: bool, **settings: Any) -> Node:
    """The node of one party, with its results in ``directory``. ``settings`` are further settings of the node."""
    return Node(
        plan.directory / "model",
        _data(plan, who),
        plan.directory / ("peers.txt" if together else f"peers-{who}-alone.txt"),
        run=plan.directory / "run.toml",
        name=who,
        dir=directory,
        insecure=True,
        threads=1,
        eval_sequences=EVAL_SEQUENCES,
        **settings,
    )


def by_hand(plan: DemoPlan) -> list[str]:
    """The commands that repeat the run, one per terminal."""
    folders = {name: plan.directory / "by-hand" / name for name in plan.names}
    return [shlex.join(party(plan, name, folder, together=True).command) for name, folder in folders.items()]


# --- what came of it ----------------------------------------------------------------------------------


def outcome(plan: DemoPlan, model: ToyModel, seconds: float, tick: Callable[[str], None]) -> DemoReport:
    """Measure the starting model, each node alone and each node after the common run, over all held-out texts.

    The held-out part of a text is the same in all runs, and its own node never trains on it. ``tick`` is called with
    the name of the model that is measured. ``seconds`` is the duration of the demo so far.
    """
    tokenizer = load_model(str(plan.directory / "model")).tokenizer
    heldout = [_heldout(plan, name, tokenizer) for name in plan.names]

    def losses(label: str, folder: Path) -> tuple[float, ...]:
        tick(label)
        tuned = load_model(str(folder)).model
        batches = (heldout_batches(data, plan.run.batch_size, EVAL_SEQUENCES) for data in heldout)
        return tuple(evaluate(tuned, each, torch.device("cpu"))[0] for each in batches)

    start = losses("the starting model", plan.directory / "model")
    nodes = []
    for name in plan.names:
        alone, together = (directory_of(plan, name, together=both) for both in (False, True))
        nodes.append(
            NodeResult(
                name=name,
                corpus=name,
                alone=losses(f"{name} alone", alone / "final"),
                together=losses(f"{name} together", together / "final"),
                metrics=together / METRICS,
            )
        )
    return DemoReport(
        title=f"{plan.nodes} nodes, one model",
        facts=_facts(plan, model, seconds),
        start=start,
        nodes=tuple(nodes),
        parameter_difference_max=largest_difference(plan),
    )


def largest_difference(plan: DemoPlan) -> float:
    """The largest difference in any parameter between the final models of any two nodes."""
    paths = [directory_of(plan, name, together=True) / "final" / "model.safetensors" for name in plan.names]
    copies = [load_file(path) for path in paths]
    spread = (torch.stack([copy[name] for copy in copies]).float() for name in copies[0])
    return max(float((each.amax(0) - each.amin(0)).max()) for each in spread)


def _facts(plan: DemoPlan, model: ToyModel, seconds: float) -> tuple[tuple[str, str], ...]:
    run = plan.run
    blocks = plan.recipe.layers + 1
    return (
        (
            "model",
            f"Llama architecture, {model.parameters:,} parameters in {blocks} blocks, first trained on neutral text",
        ),
        ("private texts", f"one package of the standard library each: {', '.join(plan.names)}"),
        ("gradient steps", f"{run.rounds * blocks * run.inner_steps} on every node, alone and together"),
        ("rounds, inner steps", f"{run.rounds}, {run.inner_steps}"),
        ("batch", f"{run.batch_size} sequences of {run.sequence_length} tokens"),
        ("step size", f"{run.learning_rate:g}, {run.lr_schedule}"),
        ("discrepancy signal", f"{run.discrepancy} into {run.h_into}, beta1 = {run.beta1:g}"),
        ("graph, codec", f"{run.topology}, {run.codec}, {run.exchange}"),
        ("time", f"{seconds:.0f} s on {os.cpu_count()} cores, model and data included"),
        ("versions", f"deca-node {__version__}, torch {torch.__version__}, Python {platform.python_version()}"),
    )


def _heldout(plan: DemoPlan, name: str, tokenizer: PreTrainedTokenizerBase) -> PackedData:
    node = NodeSettings()
    return load_dataset(
        _data(plan, name),
        tokenizer,
        Layout.of(plan.run),
        holdout=node.holdout,
        seed=own_seed(plan.run, name),
        bad_records=node.bad_records,
    )


def _data(plan: DemoPlan, name: str) -> Path:
    return plan.directory / "data" / f"{name}.jsonl"
