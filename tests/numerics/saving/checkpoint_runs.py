"""Whole runs of one small trainer without a node: all commands in turn, with or without restarts in between."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.parts import trainer_options
from deca_node.numerics.data.dataset import DataSummary, PackedData
from deca_node.numerics.data.packing import isolated
from deca_node.numerics.data.sequences import Sequences, Tokens, pieces_of
from deca_node.numerics.model.load import LoadedModel
from deca_node.numerics.trainer import Trainer
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.frames import FrameId
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Schedule, Step

VOCABULARY, LENGTH, BLOCKS = 32, 8, 4
FINAL_FLUSH = 2

SETTINGS = RunSettings(
    rounds=2,
    inner_steps=3,
    flush_mixes=1,
    sequence_length=LENGTH,
    batch_size=2,
    learning_rate=2e-3,
    lr_schedule="cosine",
    block_order="shuffled",
    discrepancy="precond",
    bias_correction="exact",
    signal="none",
    signal_every=1,
)
SCHEDULE = Schedule(SETTINGS, BLOCKS, FINAL_FLUSH)
STEPS = [Step(a, inner) for a in range(len(SCHEDULE)) for inner in range(SCHEDULE[a].steps)]
POSITIONS = [*STEPS, Step(len(SCHEDULE), 0)]
"""Everything that can be the next step to be done."""


@dataclass
class Notes:
    """Collects the warnings of a trainer while it loads."""

    warnings: list[str] = field(default_factory=list)

    def __call__(self, sentence: str, level: str = "info") -> None:
        if level == "warning":
            self.warnings.append(sentence)


def tiny_model(dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    """Four blocks: embedding, two layers, head. Dropout is on, so every gradient draws random numbers."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=LENGTH,
        attention_dropout=0.2,
    )
    return LlamaForCausalLM(config).to(dtype).train()


def tiny_data(sequences: int = 7) -> PackedData:
    ids = np.random.default_rng(1).integers(VOCABULARY, size=(sequences, LENGTH)).astype(np.int32)
    whole = Sequences.of_rows(ids, np.ones_like(ids, dtype=bool))
    return PackedData(whole, whole, DataSummary(sequences, 0, (), ids.size, ids.size, ids.size, sequences, sequences))


def packed_data() -> PackedData:
    """Records of two to seven tokens, several of which share a sequence."""
    rng = np.random.default_rng(2)
    lengths = rng.integers(2, 8, size=24)
    stops = np.cumsum(lengths)
    total = int(stops[-1])
    line = Tokens(rng.integers(VOCABULARY, size=total).astype(np.int32), np.ones(total, np.bool_))
    whole = isolated(line, pieces_of(line.trained, stops - lengths, stops), LENGTH, 0, seed=0)
    return PackedData(whole, whole, DataSummary(24, 0, (), total, total, total, len(whole), len(whole)))


def no_frames(frame: FrameId) -> memoryview:
    raise AssertionError(f"a node alone has no frame {frame}")


def make(
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    settings: RunSettings = SETTINGS,
    frames: Callable[[FrameId], memoryview] = no_frames,
    data: PackedData | None = None,
    notes: Notes | None = None,
    **chosen: Any,
) -> Trainer:
    """A trainer with the start model that goes on from a checkpoint in the folder, if there is one. ``chosen`` are
    further options."""
    folder.mkdir(exist_ok=True)
    loaded = LoadedModel(tiny_model(dtype), PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE())), folder, LENGTH)
    options = trainer_options(settings, NodeSettings(name="a", dir=str(folder), **chosen))
    trainer = Trainer(options, loaded, data or tiny_data(), frames)
    trainer.resume(notes or Notes())
    return trainer


def do(trainer: Trainer, step: Step) -> None:
    """One step of a node without neighbours, with the commands that open and close an activation."""
    activation = SCHEDULE[step.activation]
    if step.inner == 0:
        trainer.obey(c.Activate(activation, None))
        trainer.obey(c.Connect(activation.index, (), None))
    gradient = step.inner < activation.inner_steps
    trainer.obey(c.HalfStep(step, gradient, None))
    trainer.obey(c.Mix(step, (), gradient))
    if step.inner == activation.steps - 1:
        trainer.obey(c.Freeze(activation.index))


def run(trainer: Trainer, until: Step) -> None:
    """Run all steps from the trainer's position to ``until``, which is not done."""
    for step in STEPS:
        if trainer.ready().position <= step < until:
            do(trainer, step)


def checkpoint(trainer: Trainer, position: Step) -> Path:
    event = trainer.obey(c.Checkpoint(position))
    assert isinstance(event, e.Checkpointed), event
    assert event.position == position
    assert event.scalars["checkpoint_bytes"] >= 0
    return Path(event.path)


def parameters(trainer: Trainer) -> Tensor:
    """All parameters as bytes, so that equal means equal bit for bit."""
    flat = [p.detach().clone().reshape(-1).view(torch.uint8) for p in trainer.model.parameters()]
    return torch.cat(flat)
