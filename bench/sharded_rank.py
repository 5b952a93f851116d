"""One rank of ``bench.sharding``: a trainer's own ranks, on a model of random weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.harness import MIB, Row
from bench.trial import SIZES, block_at
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.parts import trainer_options
from deca_node.numerics.data.dataset import DataSummary, PackedData
from deca_node.numerics.data.sequences import Sequences
from deca_node.numerics.forecast.shapes import model_shape, planned_model
from deca_node.numerics.forecast.tracing import trace, with_activations
from deca_node.numerics.learning.prepared import load_for
from deca_node.numerics.model.blocks import partition
from deca_node.numerics.ranks.follower import follow
from deca_node.numerics.ranks.group import find_store
from deca_node.numerics.ranks.sharded import ShardedLeader
from deca_node.numerics.trainer import Trainer
from deca_node.protocol import commands as c
from deca_node.protocol.agreed.frames import FrameId
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.options import TrainerOptions
from deca_node.protocol.planning.case import Case, Machine
from deca_node.protocol.planning.memory import Memory, block_memory

Peaks = Callable[[], Any]


def options_of(job: Row) -> TrainerOptions:
    """The options of this rank's trainer."""
    settings = RunSettings(
        sequence_length=job["length"], batch_size=job["batch"] * job["ranks"], inner_steps=job["steps"], flush_mixes=0
    )
    folder = Path(job["store"]) / "node"
    return trainer_options(
        settings, NodeSettings(name="a", dir=str(folder), model=job["model"], threads=job["threads"])
    )


def lead(job: Row, peak_of: Peaks) -> Row:
    """Be rank 0: visit one block, from thaw to freeze."""
    options, ranks = options_of(job), job["ranks"]
    planned = plan(job, options)
    peak = peak_of()
    leader = (
        ShardedLeader(find_store(job["store"], ranks), job["store"], [torch.device("cpu")] * ranks)
        if ranks > 1
        else None
    )
    loaded = load_for(options, torch.device("cpu"))
    trainer = Trainer(options, loaded, data_of(job), no_frames, None, leader)
    trainer._gradients.join(trainer._blocks)
    number = [block.name for block in trainer._blocks].index(planned.block)
    visit(trainer, number, job["steps"])
    peak.end()
    trainer.end()
    return row_of(job, planned.block, peak, 0, planned)


def take_part(job: Row, peak_of: Peaks) -> Row:
    """Be another rank."""
    options = options_of(job)
    planned = plan(job, options)
    peak = peak_of()
    follow(options, job["rank"], ["cpu"] * job["ranks"], job["store"], True, lambda: None)
    peak.end()
    return row_of(job, planned.block, peak, job["rank"], planned)


def visit(trainer: Trainer, number: int, steps: int) -> None:
    """One visit without neighbours."""
    schedule = trainer._schedule
    activation = next(each for each in map(schedule.__getitem__, range(len(schedule))) if each.block == number)
    trainer.obey(c.Activate(activation, None))
    trainer.obey(c.Connect(activation.index, (), None))
    for inner in range(steps):
        step = Step(activation.index, inner)
        trainer.obey(c.HalfStep(step, True, None))
        trainer.obey(c.Mix(step, (), True))
    trainer.obey(c.Freeze(activation.index))


def plan(job: Row, options: TrainerOptions) -> Memory:
    """The plan for the block that is visited."""
    model = planned_model(options.model, options.settings)
    block = block_at(partition(model, options.settings.block_layers), job["position"])
    shape = with_activations(
        model_shape(model, options.settings.block_layers),
        trace(model, options.settings, attention=options.attention, device="cpu"),
    )
    machine = Machine(micro_batch=0, gradient_checkpointing=False, ranks=job["ranks"], sharded=job["ranks"] > 1)
    case = Case.of(options.settings, shape, ("a",), machine)
    return block_memory(case, next(each for each in shape.blocks if each.name == block.name))


def row_of(job: Row, block: str, peak: Any, rank: int, planned: Memory) -> Row:
    """The measured peak, and that of the plan."""
    anon, expected = peak.anon - peak.before[0], planned.follower_bytes if rank else planned.total_bytes
    return {
        "ranks": job["ranks"],
        "rank": rank,
        "block": block,
        "measured_mib": round(anon / MIB, 1),
        "plan_mib": round(expected / MIB, 1),
        "measured_to_plan": round(anon / expected, 3),
        "file_mib": round((peak.file - peak.before[1]) / MIB, 1),
    }


def data_of(job: Row) -> PackedData:
    """Random tokens."""
    rows = job["batch"] * job["ranks"]
    ids = np.random.default_rng(job["seed"]).integers(SIZES[job["size"]]["vocab_size"], size=(rows, job["length"]))
    whole = Sequences.of_rows(ids.astype(np.int32), np.ones_like(ids, dtype=bool))
    return PackedData(whole, whole, DataSummary(rows, 0, (), ids.size, ids.size, ids.size, rows, rows))


def no_frames(frame: FrameId) -> memoryview:
    """A node without neighbours has none."""
    raise AssertionError(frame)
