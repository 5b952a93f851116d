"""One cell: a packing, a step size and a seed; the run of one node, and the loss on held-out chats afterwards.

Node, trainer and engine are those of production, on one thread. Each held-out chat is a row of its own, for either
packing, so that both are asked as a user asks.
"""

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bench.packing import chats
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.parts import policy_of, trainer_options
from deca_node.lab.sim.cluster import Cluster
from deca_node.lab.sim.seats import FrameBook, seats
from deca_node.numerics.data.batches import Batches, ordered_batches
from deca_node.numerics.data.dataset import Layout, PackedData, load_dataset
from deca_node.numerics.learning.loss import evaluate
from deca_node.numerics.model.load import LoadedModel, load_model
from deca_node.numerics.trainer import Trainer
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.node.node import Node
from deca_node.protocol.options import own_seed

CHATS = 240
CHOSEN: dict[str, Any] = {
    "rounds": 1,
    "inner_steps": 4,
    "block_layers": 6,
    "block_order": "forward",
    "sequence_length": 256,
    "batch_size": 4,
    "dtype": "bfloat16",
    "lr_schedule": "linear",
    "discrepancy": "none",
    "signal": "none",
    "truncation": "keep-end",
}
RUN = RunSettings(**CHOSEN)
NAME = "only"
ALONE_LENGTH = 512
"""Tokens of the longest held-out chat at most; none is cut."""


@dataclass(frozen=True)
class Cell:
    """One cell."""

    packing: str
    learning_rate: float
    seed: int

    @property
    def run(self) -> RunSettings:
        """The settings of the run."""
        return replace(RUN, packing=self.packing, learning_rate=self.learning_rate, seed=self.seed)

    @property
    def key(self) -> str:
        """The whole cell as text."""
        return f"{self.packing} learning_rate={self.learning_rate:g} seed={self.seed}"


class Bench:
    """The chats and the model of all cells. ``folder`` is for their files."""

    def __init__(self, model: Path, folder: Path, pool: list[chats.Chat], count: int = CHATS) -> None:
        self._model, self._folder, self._pool, self._count = model, folder, pool, count

    def start(self) -> dict[str, float]:
        """The start model's loss on the held-out chats, by packing."""
        _, held = chats.parts(self._pool, self._count, 0)
        loaded = self._load()
        ways = {"none": ALONE_LENGTH, "isolated": RUN.sequence_length, "concatenated": RUN.sequence_length}
        return {packing: self._loss(loaded, held, packing, length) for packing, length in ways.items()}

    def run(self, cell: Cell) -> dict[str, Any]:
        """Tune the model, and measure it."""
        began = time.process_time()
        mine, held = chats.parts(self._pool, self._count, cell.seed)
        loaded = self._load()
        data = self._data(
            loaded, chats.write(self._folder / "train.jsonl", mine), cell.packing, cell.run.sequence_length
        )
        work = self._folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        options = trainer_options(cell.run, NodeSettings(name=NAME, dir=str(work)))

        def seat(node: Node, frames: FrameBook) -> Tuned:
            return Tuned(Trainer(options, loaded, data, frames.view))

        made = seats([Node(NAME, (NAME,), cell.run, policy_of(NodeSettings(eval_every="never")))], seat)
        Cluster(made, seed=cell.seed).run()
        tuned = made[NAME].trainer
        assert isinstance(tuned, Tuned)
        shutil.rmtree(work, ignore_errors=True)
        return {
            "packing": cell.packing,
            "learning_rate": cell.learning_rate,
            "seed": cell.seed,
            "loss": self._loss(loaded, held, "none", ALONE_LENGTH),
            "steps": tuned.steps,
            "learnt_tokens": learnt(data, cell.run, tuned.steps),
            "sequences": len(data.train),
            "tokens_per_sequence": data.train.tokens / len(data.train),
            "cpu_seconds": round(time.process_time() - began, 1),
        }

    def _load(self) -> LoadedModel:
        return load_model(str(self._model), dtype=RUN.dtype, device="cpu")

    def _loss(self, loaded: LoadedModel, held: list[chats.Chat], packing: str, length: int) -> float:
        data = self._data(loaded, chats.write(self._folder / "held.jsonl", held), packing, length)
        loss, _ = evaluate(loaded.model, ordered_batches(data.train, 1), torch.device("cpu"))
        return loss

    def _data(self, loaded: LoadedModel, path: Path, packing: str, length: int) -> PackedData:
        layout = Layout(length=length, packing=packing, truncation="keep-end", private=False)
        data = load_dataset(path, loaded.tokenizer, layout, holdout=0.0, bad_records="stop")
        lengths = data.summary.lengths
        assert lengths is None or not lengths.cut + lengths.dropped + lengths.unlearnt, "chats are short enough"
        return data


class Tuned:
    """A trainer that writes no checkpoints and no models, and counts its steps."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self.steps = 0

    def ready(self) -> e.TrainerReady:
        """As the trainer."""
        return self._trainer.ready()

    def obey(self, command: c.TrainerCommand) -> e.TrainerEvent:
        """Perform a command as the trainer does, but write nothing and judge nothing."""
        match command:
            case c.Checkpoint():
                return e.Checkpointed(command.position, "", {})
            case c.Evaluate():
                return e.Evaluated(command.when, 0.0, 0)
            case c.Save():
                return e.Saved(command.name)
        self.steps += isinstance(command, c.HalfStep) and command.gradient
        return self._trainer.obey(command)


def learnt(data: PackedData, run: RunSettings, steps: int) -> int:
    """How many tokens a run of so many steps learnt from."""
    batches = Batches(data.train, run.batch_size, own_seed(run, NAME))
    return sum(batches.next().predicted for _ in range(steps))
