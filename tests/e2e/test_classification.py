"""Sequence classification with real processes: nodes that know one label each learn all of them together."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from deca_node.lab.report.run_report import read_node, write_run_report
from deca_node.lab.rigs.processes import NodeProcess
from tests.e2e.testbed import Testbed, largest_difference, look, metrics, until
from tests.numerics.learning.labelled_runs import (
    LABELS,
    bert,
    learnable_records,
    word_tokenizer,
    write_model,
    write_records,
)

NAMES = ("a", "b", "c")
FLAGS = {"task": "classification", "labels": ", ".join(LABELS), "sequence_length": 16}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return write_model(bert(), tmp_path_factory.mktemp("encoder") / "model", word_tokenizer())


def start(testbed: Testbed, encoder: Path, name: str, records: int = 240, **flags: object) -> NodeProcess:
    """Nine in ten of a node's records have the label it prefers."""
    liked = LABELS[NAMES.index(name)]
    every = learnable_records(4 * records, seed=NAMES.index(name))
    kept = [r for k, r in enumerate(every) if r["label"] == liked or k % 10 == 0][:records]
    data = write_records(testbed.folder / f"{name}-labelled.jsonl", kept)
    return testbed.start(name, model=encoder, data=data, **(FLAGS | flags))


def accuracy(folder: Path) -> float:
    """On fresh records of all labels, through transformers alone."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    records = learnable_records(200, seed=99)
    right = 0
    for record in records:
        inputs = tokenizer(record["text"], record.get("text_pair"), return_tensors="pt")
        said = model.config.id2label[int(model(**inputs).logits.argmax())]
        right += said == record["label"]
    return right / len(records)


@pytest.mark.slow
def test_three_nodes_learn_each_other_s_labels(testbed: Testbed, encoder: Path) -> None:
    testbed.peers(*NAMES)
    flags = {"rounds": 3, "inner_steps": 30, "batch_size": 16, "learning_rate": 5e-3}
    nodes = [start(testbed, encoder, name, **flags) for name in NAMES]
    testbed.wait()
    assert largest_difference(nodes) < 2e-2
    for node in nodes:
        found = metrics(node, "eval")
        assert [record["when"] for record in found] == ["start", "round 1", "round 2", "round 3", "end"]
        assert found[-1]["accuracy"] > 0.9 and found[-1]["loss"] < 0.5 < found[0]["loss"]
        assert "accuracy" in node.log_text()
    assert accuracy(nodes[0].directory / "final") > 0.9
    config = json.loads((nodes[0].directory / "final" / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert list(config["id2label"].values()) == list(LABELS)
    write_run_report(testbed.folder / "report.html", [read_node(node.directory) for node in nodes])
    assert "last held-out accuracy" in (testbed.folder / "report.html").read_text()


@pytest.mark.slow
def test_a_newcomer_draws_the_same_head_from_the_run_it_joins(testbed: Testbed, encoder: Path) -> None:
    testbed.peers("a", "b")
    first = [start(testbed, encoder, name, rounds=3, inner_steps=20, batch_size=4) for name in ("a", "b")]
    look(first[0], lambda status: status.heldout_accuracy is not None, "the first evaluation")
    seed = testbed.folder.joinpath("peers.txt").read_text().split()[0].partition("@")[2]
    data = write_records(testbed.folder / "c-labelled.jsonl", learnable_records(60, seed=2))
    late = testbed.join("c", seed, data=data)
    testbed.wait()
    assert "Traceback" not in late.log_text()
    assert largest_difference([*first, late]) < 2e-2


def test_a_label_that_the_run_does_not_have_is_named(testbed: Testbed, encoder: Path) -> None:
    testbed.peers("a")
    data = write_records(
        testbed.folder / "bad.jsonl", [{"text": "w1", "label": "neg"}, {"text": "w2", "label": "negg"}]
    )
    node = testbed.start("a", model=encoder, data=data, **FLAGS)
    testbed_exit = until(lambda: node.process.poll() is not None, "its end")
    assert testbed_exit and node.process.returncode == 6
    text = node.log_text()
    assert f"{data} line 2: \"label\" is none of the run's labels (neg, mid, pos); did you mean 'neg'?" in text
    assert "Traceback" not in text
