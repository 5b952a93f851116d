"""One run of eight nodes, some of them hostile, and the loss of every node on every node's text.

Nodes, trainers, engines and codecs are those of production, on one thread with a fake network. They write only x0 to
the disk.
"""

import math
import shutil
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from bench.hostile.attacks import HostileTrainer
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.parts import policy_of, trainer_options
from deca_node.lab.demo.inputs import make_inputs
from deca_node.lab.demo.texts import private_corpora
from deca_node.lab.demo.toy_model import Recipe
from deca_node.lab.sim.cluster import Cluster
from deca_node.lab.sim.seats import FrameBook, seats
from deca_node.numerics.data.batches import heldout_batches
from deca_node.numerics.data.dataset import Layout, PackedData, load_dataset
from deca_node.numerics.learning.loss import evaluate
from deca_node.numerics.model.load import LoadedModel, load_model
from deca_node.numerics.trainer import Trainer
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.node.node import Node
from deca_node.protocol.options import own_seed

NODES = 8
EVAL_SEQUENCES = 16

RECIPE = Recipe(vocabulary=512, hidden=64, layers=1, steps=300, sequence_length=64, batch_size=8, threads=1)
RUN = RunSettings(
    rounds=2,
    inner_steps=16,
    sequence_length=64,
    batch_size=4,
    learning_rate=5e-3,
    lr_schedule="linear",
    topology="random-regular",
    degree=5,
    # The defaults at the time of the measurement.
    discrepancy="precond",
    signal="none",
    signal_every=1,
    packing="concatenated",
    truncation="keep-end",
)

Loss = float | None
"""Nats per token, or None if the loss is not finite or the node did not finish."""


@dataclass(frozen=True)
class Cell:
    """One cell: the attack (``none``), the number of hostile nodes, the settings that differ from :data:`RUN`, and the
    seed."""

    attack: str
    hostile: int
    settings: tuple[tuple[str, Any], ...]
    seed: int

    @property
    def run(self) -> RunSettings:
        """The settings of the run."""
        return replace(RUN, seed=self.seed, **dict(self.settings))

    @property
    def key(self) -> str:
        """The whole cell as text."""
        chosen = " ".join(f"{name}={value}" for name, value in self.settings)
        return f"{self.attack} {self.hostile} [{chosen}] {self.seed}"


def names(hostile: int = 0) -> tuple[str, ...]:
    """Names of all nodes but the last ``hostile``, which are hostile."""
    return tuple(corpus.name for corpus in private_corpora(NODES))[: NODES - hostile]


def prepare(folder: Path) -> Path:
    """Make the start model and every node's text, once."""
    make_inputs(folder, names(), RECIPE)
    return folder


class Seated:
    """A trainer that writes no checkpoints and no models."""

    def __init__(self, trainer: Trainer, texts: dict[str, PackedData]) -> None:
        self.trainer = trainer
        self._texts = texts
        self.losses: list[Loss] = []
        self.clipped: list[float] = []

    def ready(self) -> e.TrainerReady:
        """As the trainer."""
        return self.trainer.ready()

    def obey(self, command: c.TrainerCommand) -> e.TrainerEvent:
        """Perform a command as the trainer does, but without checkpoints. The losses are measured at the end."""
        if isinstance(command, c.Checkpoint):
            return e.Checkpointed(command.position, "", {})
        if isinstance(command, c.Evaluate):
            return e.Evaluated(command.when, 0.0, 0)
        if isinstance(command, c.Save):
            self.losses = [self._loss(own) for own in self._texts.values()]
            return e.Saved(command.name)
        event = self.trainer.obey(command)
        if isinstance(event, e.Mixed) and "clipped_share" in event.scalars:
            self.clipped.append(event.scalars["clipped_share"])
        return event

    def _loss(self, own: PackedData) -> Loss:
        model, device = self.trainer.model, next(self.trainer.model.parameters()).device
        loss, _ = evaluate(model, heldout_batches(own, EVAL_SEQUENCES, EVAL_SEQUENCES), device)
        return loss if math.isfinite(loss) else None


def run(cell: Cell, folder: Path, **chosen: float) -> dict[str, Any]:
    """Run one cell. ``losses`` has each node's loss (rows, honest and hostile) on each node's text. The other figure is
    the mean share of flows that honest nodes clipped. ``chosen`` are further options of every node."""
    settings, everybody, honest = cell.run, names(), names(cell.hostile)
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    private = "dp_noise" in chosen
    texts = {name: text(folder, name, settings, single_records=private) for name in everybody}

    def seat(node: Node, frames: FrameBook) -> Seated:
        loaded = _model(folder)
        own = NodeSettings(name=node.name, dir=str(work / node.name), **chosen)
        options = trainer_options(settings, own)
        arguments = (options, loaded, texts[node.name], frames.view)
        hostile = node.name not in honest
        return Seated(HostileTrainer(cell.attack, *arguments) if hostile else Trainer(*arguments), texts)

    policy = policy_of(NodeSettings(eval_every="never"))
    made = seats([Node(name, everybody, settings, policy) for name in everybody], seat)
    Cluster(made, seed=cell.seed).run()
    seated = [one.trainer for one in made.values() if isinstance(one.trainer, Seated)]
    clipped = [share for one in seated[: len(honest)] for share in one.clipped]
    counters = [made[name].node.state.counters for name in honest]
    shutil.rmtree(work, ignore_errors=True)
    return {
        "losses": [one.losses or [None] * NODES for one in seated],
        "clipped_share": sum(clipped) / len(clipped) if clipped else None,
        "edges_refused": sum(counter["edges_refused"] for counter in counters),
    }


def start_losses(folder: Path, seed: int) -> list[Loss]:
    """Losses of the start model on each node's text."""
    settings = replace(RUN, seed=seed)
    model = _model(folder).model
    device = next(model.parameters()).device
    texts = (text(folder, name, settings) for name in names())
    return [evaluate(model, heldout_batches(own, EVAL_SEQUENCES, EVAL_SEQUENCES), device)[0] for own in texts]


def _model(folder: Path) -> LoadedModel:
    return load_model(str(folder / "model"), dtype="float32", device="cpu")


@cache
def text(folder: Path, name: str, settings: RunSettings, *, single_records: bool = False) -> PackedData:
    """A node's own text, packed, or with one record per sequence."""
    tokenizer = _model(folder).tokenizer
    node = NodeSettings()
    return load_dataset(
        folder / "data" / f"{name}.jsonl",
        tokenizer,
        Layout.of(settings, private=single_records),
        holdout=node.holdout,
        seed=own_seed(settings, name),
        bad_records=node.bad_records,
    )
