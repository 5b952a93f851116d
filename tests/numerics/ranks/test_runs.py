"""Runs in which a node's trainer has ranks end with the parameters of one without, whole or sharded."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.parts import trainer_options
from deca_node.daemon.trainer import messages
from deca_node.lab.sim.cluster import Cluster
from deca_node.lab.sim.seats import FrameBook, seats
from deca_node.lab.sim.weather import Weather
from deca_node.numerics.learning import chunked
from deca_node.numerics.learning.isolation import way_of
from deca_node.numerics.learning.prepared import load_for
from deca_node.numerics.ranks.group import open_store
from deca_node.numerics.ranks.leader import Leader
from deca_node.numerics.ranks.sharded import ShardedLeader
from deca_node.numerics.trainer import Trainer
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.node.node import Node
from deca_node.protocol.options import TrainerOptions
from tests.defaults import default_policy
from tests.e2e.testbed import make_tiny_model
from tests.numerics.saving.checkpoint_runs import POSITIONS, SCHEDULE, STEPS, no_frames, packed_data
from tests.numerics.saving.checkpoint_runs import SETTINGS as ALONE
from tests.numerics.test_trainer_cluster import NAMES, SETTINGS, private_data
from tests.patience import PATIENCE_SECONDS

CPU = torch.device("cpu")
RUN = replace(SETTINGS, rounds=1, inner_steps=3, flush_mixes=1, final_flush_mixes=2, batch_size=3)
MOVED = 3 * RUN.learning_rate


@dataclass
class Ranks:
    """A process that is rank 1 of one trainer after the other."""

    process: "subprocess.Popen[bytes]"

    def leader(self, options: TrainerOptions, *, sharded: bool) -> Leader:
        """Rank 0 of a trainer with two ranks."""
        store, folder = open_store(2)
        wanted = messages.RanksWanted(("cpu", "cpu"), folder, sharded)
        assert self.process.stdin is not None
        self.process.stdin.write(messages.encode(messages.FollowerSetup(options, 1, wanted)))
        self.process.stdin.flush()
        return (ShardedLeader if sharded else Leader)(store, folder, (CPU, CPU))


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    process = subprocess.Popen([sys.executable, "-m", "tests.numerics.ranks.one_rank"], stdin=subprocess.PIPE)
    try:
        yield Ranks(process)
        process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Four blocks: embedding, two layers, head."""
    folder = make_tiny_model(tmp_path / "model")  # for its tokenizer
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=16,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def start(trainer: Trainer, leader: Leader | None) -> Trainer:
    trainer.resume(lambda sentence, level="info": None)
    trainer._gradients.join(trainer._blocks)
    return trainer


def cluster(folder: Path, model: Path, ranks: Ranks | None, *, sharded: bool = False) -> list[Path]:
    """Four nodes, of which the first has two ranks; returns their tuned models."""

    def trainer(node: Node, frames: FrameBook) -> Trainer:
        options = trainer_options(RUN, NodeSettings(name=node.name, dir=str(folder / node.name), model=str(model)))
        leader = ranks.leader(options, sharded=sharded) if ranks and node.name == NAMES[0] else None
        loaded = load_for(options, CPU)
        return start(Trainer(options, loaded, private_data(node.name), frames.view, None, leader), leader)

    made = seats([Node(name, NAMES, RUN, default_policy(eval_every="round")) for name in NAMES], trainer)
    run = Cluster(made, Weather(), 1)
    assert {end.exit_code for end in run.run().values()} == {0}
    assert run.broken_rules == []
    for seat in made.values():
        assert isinstance(seat.trainer, Trainer)
        seat.trainer.end()
    return [folder / name / "final" for name in NAMES]


def distance(one: Path, other: Path) -> float:
    left, right = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max()) for name in left)


def test_four_nodes_end_with_one_model_however_one_of_them_shares_its_work(
    tmp_path: Path, model: Path, ranks: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other nodes of the last run take their loss in chunks. A sharded model does not, or its ranks would part."""
    plain = cluster(tmp_path / "plain", model, None)
    assert distance(model, plain[0]) > MOVED / 2
    for sharded in (False, True):
        if sharded:
            monkeypatch.setattr(chunked, "CHUNK_BYTES", 4 * 32 * 5)
        found = cluster(tmp_path / f"sharded {sharded}", model, ranks, sharded=sharded)
        for own, theirs in zip(plain, found, strict=True):
            assert distance(own, theirs) < MOVED / 1000
    kind = AutoModelForCausalLM.from_pretrained(found[0])
    assert type(kind).__name__ == "LlamaForCausalLM"


def alone(folder: Path, model: Path, steps: Sequence[Step], ranks: Ranks | None) -> list[float]:
    """Take some steps of a run without neighbours, from the newest checkpoint on, and write another; returns the losses
    of all steps, and of an evaluation between two visits."""
    options = trainer_options(ALONE, NodeSettings(name="a", dir=str(folder), model=str(model), micro_batch=1))
    leader = ranks.leader(options, sharded=True) if ranks else None
    loaded = load_for(options, CPU)
    way_of(loaded.model)  # as Trainer.load asks it, while the model is whole
    trainer = start(Trainer(options, loaded, packed_data(), no_frames, None, leader), leader)
    losses = [figures["loss"] for step in steps if (figures := do(trainer, step))]
    last = SCHEDULE[steps[-1].activation]
    done = steps[-1].inner == last.steps - 1
    if done:
        losses.append(trainer.obey(c.Evaluate("end")).loss)
    at = Step(last.index + 1, 0) if done else Step(last.index, steps[-1].inner + 1)
    assert isinstance(trainer.obey(c.Checkpoint(at)), e.Checkpointed)
    if at == POSITIONS[-1]:
        trainer.obey(c.Save("final"))
    trainer.end()
    return losses


def do(trainer: Trainer, step: Step) -> dict[str, float]:
    """One step of a node without neighbours; returns its figures, if it has a gradient."""
    activation = SCHEDULE[step.activation]
    gradient = step.inner < activation.inner_steps
    if step.inner == 0:
        trainer.obey(c.Activate(activation, None))
        trainer.obey(c.Connect(activation.index, (), None))
    half = trainer.obey(c.HalfStep(step, gradient, None))
    trainer.obey(c.Mix(step, (), gradient))
    if step.inner == activation.steps - 1:
        trainer.obey(c.Freeze(activation.index))
    return half.scalars if gradient else {}


def test_a_run_goes_on_from_its_checkpoints_with_another_number_of_ranks(
    tmp_path: Path, model: Path, ranks: Ranks
) -> None:
    """Sharded until the middle of a visit, then with one rank until the end of one, then sharded again."""
    stops = (6, 12, len(STEPS))
    plain = alone(tmp_path / "plain", model, STEPS, None)
    folder = tmp_path / "changed"
    first = alone(folder, model, STEPS[: stops[0]], ranks)
    second = alone(folder, model, STEPS[stops[0] : stops[1]], None)
    third = alone(folder, model, STEPS[stops[1] :], ranks)
    assert [*first, *second[:-1], *third] == pytest.approx(plain, rel=1e-5)
    assert distance(tmp_path / "plain" / "final", folder / "final") < 1e-5
    assert distance(model, folder / "final") > ALONE.learning_rate
