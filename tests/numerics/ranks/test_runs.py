"""Runs in which a node's trainer has ranks end with the parameters of one without, whole or sharded."""

import json
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.parts import trainer_options
from deca_node.daemon.trainer import messages
from deca_node.lab.sim.cluster import Cluster
from deca_node.lab.sim.seats import FrameBook, Seat, seats
from deca_node.lab.sim.weather import Crash, Weather
from deca_node.numerics.learning import chunked
from deca_node.numerics.learning.isolation import way_of
from deca_node.numerics.learning.prepared import load_for
from deca_node.numerics.model import save
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
from tests.e2e.testbed import WORDS, make_tiny_model
from tests.numerics.ranks.forked import Forked, fork_follower, fork_ranks
from tests.numerics.ranks.linked import Life, LinkedTrainer
from tests.numerics.saving.checkpoint_runs import POSITIONS, SCHEDULE, STEPS, no_frames, packed_data
from tests.numerics.saving.checkpoint_runs import SETTINGS as ALONE
from tests.numerics.test_trainer_cluster import NAMES, SETTINGS

CPU = torch.device("cpu")
RUN = replace(SETTINGS, inner_steps=3, flush_mixes=1, final_flush_mixes=2, batch_size=3)
MOVED = 6 * RUN.learning_rate
FIRST, LATE = NAMES[0], NAMES[2]


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


@dataclass
class Found:
    """What a run of four nodes has come to: their tuned models, and what the first node's trainer saw."""

    finals: list[Path]
    deaths: list[str]
    devices: list[tuple[str, ...]]


def four_nodes(
    folder: Path,
    model: Path,
    started: list[Forked],
    ways: Sequence[Mapping[str, str]],
    victims: tuple[int, int],
    lent: int = 0,
) -> Found:
    """A run of four nodes. The trainer of the first dies twice in the middle of a step, since one of its ranks is
    killed, and each of its three lives has its own way of sharing the work; ``lent`` ranks are on another server. The
    third node loses its disk, comes back late, and takes the first one's model."""

    def options(name: str, **chosen: Any) -> TrainerOptions:
        node = NodeSettings(name=name, dir=str(folder / name), model=str(model), data=str(records(folder, name)))
        return trainer_options(RUN, replace(node, threads=1, **chosen))

    def trainer(node: Node, frames: FrameBook) -> LinkedTrainer | Trainer:
        if node.name != FIRST:
            return Trainer.load(options(node.name), frames.view, lambda sentence, level="info": None)
        given = zip(ways, (*victims, 0), (5, 6, 0), strict=True)
        lives = [Life(options(FIRST, **way), victim, at) for way, victim, at in given]
        return LinkedTrainer(lives, frames, started, lent)

    def seat(name: str) -> Seat:
        return seats([Node(name, NAMES, RUN, default_policy(eval_every="round", checkpoint_every=2))], trainer)[name]

    def revive(name: str, empty: bool) -> Seat:
        assert empty
        shutil.rmtree(folder / name)
        return seat(name)

    folder.mkdir()
    weather = Weather(crashes=(Crash(LATE, event=20, back=2.0, empty=True),))
    run = Cluster({name: seat(name) for name in NAMES}, weather, 1, revive=revive)
    first = run.seats[FIRST].trainer
    assert isinstance(first, LinkedTrainer)
    try:
        assert {end.exit_code for end in run.run().values()} == {0}
    finally:
        first.close()
    assert run.broken_rules == []
    late = run.seats[LATE].node.state.counters
    assert late["activations_skipped"] > 0, "it has taken what a donor gave"
    return Found([folder / name / "final" for name in NAMES], first.deaths, first.devices)


def records(folder: Path, name: str) -> Path:
    """Private text: each node prefers other words."""
    path, rng = folder / f"{name}.jsonl", random.Random(name)
    likes = rng.sample(WORDS, 6)
    lines = [json.dumps({"text": " ".join(rng.choices(likes, k=24))}) for _ in range(12)]
    path.write_text("\n".join(lines))
    return path


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a model's folder, in however many files."""
    return {name: each for file in folder.glob("*.safetensors") for name, each in load_file(file).items()}


def distance(one: Path, other: Path) -> float:
    left, right = map(tensors, (one, other))
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max()) for name in left)


WHOLE, SHARDED = ({"parallel": which} for which in ("data", "shard"))
TWO, THREE = ({"devices": f"cpu*{ranks}"} for ranks in (2, 3))
KILLED = "the trainer process was killed by signal 9 (out of memory?)"


def test_four_nodes_end_with_one_model_however_one_of_them_shares_its_work(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With whole models at two ranks, one of which another server lends, and with one sharded over two ranks here.

    Through the death of either rank, a start with another number of them, and a newcomer whose donor has ranks. The
    other nodes of the last run take their loss in chunks. A sharded model does not, or its ranks would part."""
    started = fork_ranks(monkeypatch)
    plain = four_nodes(tmp_path / "plain", model, started, [{}] * 3, (0, 0))
    assert plain.devices == [()] * 3, "one rank"
    assert distance(model, plain.finals[0]) > MOVED / 2
    whole = four_nodes(tmp_path / "whole", model, started, [WHOLE, WHOLE, WHOLE | TWO], (1, 0), lent=1)
    assert whole.deaths == [f"rank 1 (cpu@far): {KILLED}", f"rank 0 (cpu): {KILLED}"]
    assert whole.devices == [("cpu", "cpu@far")] * 2 + [("cpu", "cpu", "cpu@far")]
    monkeypatch.setattr(chunked, "CHUNK_BYTES", 4 * 32 * 5)
    ways = [SHARDED | TWO, SHARDED | TWO, SHARDED | THREE]
    shards = four_nodes(tmp_path / "sharded", model, started, ways, (1, 0))
    assert shards.deaths == [f"rank 1 (cpu): {KILLED}", f"rank 0 (cpu): {KILLED}"]
    assert [len(each) for each in shards.devices] == [2, 2, 3]
    for found in (whole, shards):
        for own, theirs in zip(plain.finals, found.finals, strict=True):
            assert distance(own, theirs) < MOVED / 5000
    kind = AutoModelForCausalLM.from_pretrained(shards.finals[0])
    assert type(kind).__name__ == "LlamaForCausalLM"


def alone(folder: Path, model: Path, steps: Sequence[Step], *, sharded: bool = False) -> list[float]:
    """Take some steps of a run without neighbours, from the newest checkpoint on, and write another; returns the losses
    of all steps, and of an evaluation between two visits."""
    options = trainer_options(ALONE, NodeSettings(name="a", dir=str(folder), model=str(model), micro_batch=1))
    other, leader = sharded_over_two(options) if sharded else (None, None)
    loaded = load_for(options, CPU)
    way_of(loaded.model)  # as Trainer.load asks it, while the model is whole
    trainer = Trainer(options, loaded, packed_data(), no_frames, None, leader)
    trainer.resume(lambda sentence, level="info": None)
    trainer._gradients.join(trainer._blocks)
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
    assert other is None or other.wait() == 0
    return losses


def sharded_over_two(options: TrainerOptions) -> tuple[Forked, Leader]:
    """Rank 1's process, and rank 0's part in this one."""
    store, folder = open_store(2)
    wanted = messages.RanksWanted(("cpu", "cpu"), folder, sharded=True)
    return fork_follower(messages.FollowerSetup(options, 1, wanted)), ShardedLeader(store, folder, (CPU, CPU))


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
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sharded until the middle of a visit, then with one rank until the end of one, then sharded again: the losses of
    all steps, with records that are kept apart, are those of one rank. The tuned model is in several files."""
    stops = (6, 12, len(STEPS))
    plain = alone(tmp_path / "plain", model, STEPS)
    folder = tmp_path / "changed"
    monkeypatch.setattr(save, "PART_BYTES", 3000)
    first = alone(folder, model, STEPS[: stops[0]], sharded=True)
    second = alone(folder, model, STEPS[stops[0] : stops[1]])
    third = alone(folder, model, STEPS[stops[1] :], sharded=True)
    assert [*first, *second[:-1], *third] == pytest.approx(plain, rel=1e-5)
    assert distance(tmp_path / "plain" / "final", folder / "final") < 1e-5
    assert distance(model, folder / "final") > ALONE.learning_rate
    places = json.loads((folder / "final" / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(places.values())) == 3, "embedding with the first layer, the second layer, and the rest"
    assert places.keys() == tensors(folder / "final").keys()
    again = AutoModelForCausalLM.from_pretrained(folder / "final").state_dict()
    assert all(torch.equal(again[name], each) for name, each in tensors(folder / "final").items())
