"""Whole runs of classifiers: the equations hold, copies end equal, and a restart changes nothing."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.parts import trainer_options
from deca_node.numerics.data.labelled import load_labelled
from deca_node.numerics.learning.tasks import Data
from deca_node.numerics.model.classifier import Head
from deca_node.numerics.model.facts import parameter_hash
from deca_node.numerics.model.load import LoadedModel, load_model
from deca_node.numerics.saving.export import export
from deca_node.numerics.trainer import Trainer
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.schedule import Step
from tests.numerics import test_trainer_cluster
from tests.numerics.learning.labelled_runs import (
    LABELS,
    LENGTH,
    bert,
    learnable_records,
    llama,
    write_model,
    write_records,
)
from tests.numerics.reference import Method
from tests.numerics.saving import checkpoint_runs
from tests.numerics.saving.checkpoint_runs import Notes, checkpoint, no_frames, parameters, run
from tests.numerics.test_trainer_cluster import compare, counted, run_cluster

TASK = {"task": "classification", "labels": ", ".join(LABELS), "sequence_length": LENGTH}
SETTINGS = replace(test_trainer_cluster.SETTINGS, **TASK, rounds=1, inner_steps=3, batch_size=4)
ALONE = replace(checkpoint_runs.SETTINGS, **TASK)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def seat(folder: Path, model: Path) -> Callable[[str], tuple[LoadedModel, Data]]:
    """What a node has: the model that all start from, and records most of which have the label it prefers."""

    def part(name: str) -> tuple[LoadedModel, Data]:
        loaded = load_model(str(model), head=Head.of(SETTINGS))
        liked = LABELS[ord(name) % len(LABELS)]
        records = [r for k, r in enumerate(learnable_records(40, ord(name))) if r["label"] == liked or k % 3 == 0]
        path = write_records(folder / f"{name}.jsonl", records)
        pad = loaded.model.config.pad_token_id
        return loaded, load_labelled(
            path, loaded.tokenizer, LABELS, sequence_length=LENGTH, pad=pad, holdout=0.1, bad_records="stop"
        )

    return part


@pytest.mark.parametrize("build", [bert, llama])
def test_a_run_follows_the_dense_reference(build: Callable[[], PreTrainedModel], tmp_path: Path) -> None:
    """With fp32 updates in lockstep, four nodes are the equations: x, m and v after every step, and every flush mix."""
    torch.manual_seed(0)
    part = seat(tmp_path, write_model(build(), tmp_path / "model"))
    recorders = run_cluster(SETTINGS, tmp_path, part=part)
    assert [a.block for a in recorders[0].activations] == [0, 1, 2, 3] * 2
    for activation in recorders[0].activations:
        # Scales of norms stand at 1, where float32 loses most of x - x+, which h is made of.
        compare(recorders, Method(discrepancy="precond", h_into="m"), activation, exact=1e-4)
    assert all(r.trainer.ready().model.labels == LABELS for r in recorders)
    assert counted(recorders, "flows_late") == 0


def make(folder: Path, model: Path, notes: Notes | None = None) -> Trainer:
    """A trainer as a node's own process loads it; it goes on from a checkpoint in the folder."""
    data = write_records(model.parent / "alone.jsonl", learnable_records(30))
    folder.mkdir(exist_ok=True)
    node = NodeSettings(name="a", dir=str(folder), model=str(model), data=str(data), device="cpu")
    options = trainer_options(ALONE, node)
    return Trainer.load(options, no_frames, notes or Notes())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return write_model(bert(), tmp_path_factory.mktemp("classifier") / "model")


@pytest.mark.parametrize("position", [Step(0, 2), Step(5, 0), Step(8, 1)], ids=str)
def test_a_run_goes_on_bit_for_bit(position: Step, model: Path, tmp_path: Path) -> None:
    """With dropout on, rows of unequal length, and a head that is drawn anew at every start."""
    whole = make(tmp_path / "whole", model)
    run(whole, checkpoint_runs.POSITIONS[-1])
    first = make(tmp_path / "node", model)
    run(first, position)
    checkpoint(first, position)
    torch.manual_seed(99)
    second = make(tmp_path / "node", model)
    assert second.ready().position == position
    run(second, checkpoint_runs.POSITIONS[-1])
    assert torch.equal(parameters(second), parameters(whole))


def test_the_held_out_records_are_judged(model: Path, tmp_path: Path) -> None:
    trainer = make(tmp_path, model)
    event = trainer.obey(c.Evaluate("start"))
    assert isinstance(event, e.Evaluated)
    assert event.tokens == 3
    assert event.loss == pytest.approx(np.log(3), abs=0.05)
    assert set(event.scalars) == {"accuracy", "macro_f1"}


def test_an_export_within_a_visit_is_a_classifier(model: Path, tmp_path: Path) -> None:
    trainer = make(tmp_path / "node", model)
    run(trainer, Step(2, 1))
    checkpoint(trainer, Step(2, 1))
    export(tmp_path / "node", str(model), tmp_path / "out", Notes())
    exported = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert parameter_hash(exported) == parameter_hash(trainer.model)
    assert tuple(exported.config.id2label.values()) == LABELS


def test_a_node_says_what_became_of_its_records(model: Path, tmp_path: Path) -> None:
    said: list[str] = []
    data = write_records(tmp_path / "d.jsonl", [*learnable_records(5), {"text": "w1 " * 30, "label": 2}, {"label": 0}])
    node = NodeSettings(name="a", dir=str(tmp_path), model=str(model), data=str(data), device="cpu", bad_records="skip")
    Trainer.load(trainer_options(ALONE, node), no_frames, lambda sentence, level="info": said.append(sentence))
    assert any("6 records with" in s and "5 to train on, 1 held out" in s for s in said)
    assert "1 records are longer than sequence_length = 16 tokens, and are cut" in said
    assert any("left out 1 bad records; the first:" in s and "line 7" in s for s in said)
