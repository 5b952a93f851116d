"""``deca-node eval``: which model is asked what, and how the answer is told."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deca_node.numerics.model.load import load_model
from deca_node.protocol.agreed.agreement import settings_fields
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.errors import StorageError

Deca = Callable[..., Any]


@pytest.fixture
def place(deca: Deca, tiny: Path) -> Path:
    Path("model").symlink_to(tiny)
    Path("texts.jsonl").write_text("".join(json.dumps({"text": f"the node was {n}"}) + "\n" for n in range(30)))
    rows = [{"text": "the node", "label": ("data", "loss")[n % 2]} for n in range(4)]
    Path("labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Path.cwd()


@pytest.mark.usefixtures("place")
def test_a_checkpoint_for_people_and_for_programs(deca: Deca) -> None:
    outcome = deca("eval", "texts.jsonl", "--model", "model", "--sequence-length", "16")
    lines = dict(line.split(maxsplit=1) for line in outcome.out.splitlines())
    assert (outcome.code, outcome.err, list(lines)) == (0, "", ["model", "loss", "perplexity", "records"])
    found = json.loads(deca("eval", "texts.jsonl", "--model", "model", "--sequence-length", "16", "--json").out)
    assert lines["loss"] == f"{found['loss']:.4f} nats per token, over {found['counted']} tokens"
    assert (found["kind"], found["records"], found["model"], found["data"]) == (
        "language-model",
        30,
        "model",
        "texts.jsonl",
    )
    assert found["perplexity"] > 1


@pytest.mark.usefixtures("place")
def test_a_table_is_judged_as_its_twin(deca: Deca) -> None:
    flags = ("--model", "model", "--sequence-length", "16", "--json")
    Path("texts.dat").write_text("body,id\n" + "".join(f"the node was {n},{n}\n" for n in range(30)))
    found = json.loads(deca("eval", "texts.dat", "--format", "csv", "--columns", "text=body", *flags).out)
    assert found | {"data": ""} == json.loads(deca("eval", "texts.jsonl", *flags).out) | {"data": ""}


@pytest.mark.usefixtures("place")
def test_data_is_what_the_setting_may_be(deca: Deca, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several sources, one with a weight, and a data set of the hub. The tokens lie in a folder that is gone then."""
    Path("scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(Path("scratch").absolute()))
    flags = ("--model", "model", "--sequence-length", "16", "--json")
    one = json.loads(deca("eval", "texts.jsonl", *flags).out)
    Path("more.jsonl").write_text(Path("texts.jsonl").read_text().replace("was", "is"))
    both = json.loads(deca("eval", "texts.jsonl, more.jsonl", *flags).out)
    assert (both["records"], both["counted"]) == (60, 2 * one["counted"])
    twice = json.loads(deca("eval", "texts.jsonl, more.jsonl*2", *flags).out)
    assert twice["counted"] == 3 * one["counted"]
    assert list(Path("scratch").iterdir()) == []
    outcome = deca("eval", "hf://owner/absent", "--model", "model")
    assert outcome.code == 6
    assert "hf://owner/absent: the data set cannot be had" in outcome.err


@pytest.mark.usefixtures("place")
def test_labelled_records_of_several_sources(deca: Deca) -> None:
    Path("more.jsonl").write_text(Path("labelled.jsonl").read_text())
    found = json.loads(deca("eval", "labelled.jsonl, more.jsonl", "--model", "model", "--json").out)
    assert (found["kind"], found["records"]) == ("labels", 8)
    outcome = deca("eval", "labelled.jsonl, more.jsonl*2", "--model", "model")
    assert (outcome.code, "more.jsonl has a weight in data" in outcome.err) == (6, True)


@pytest.mark.usefixtures("place")
def test_labels(deca: Deca) -> None:
    outcome = deca("eval", "labelled.jsonl", "--model", "model", "--prompt", "{text} of\\n", "--batch-size", "1")
    assert outcome.code == 0
    assert "accuracy    0.5000\n" in outcome.out
    assert "macro-F1    0.3333 over the labels data, loss\n" in outcome.out
    found = json.loads(deca("eval", "labelled.jsonl", "--model", "model", "--labels", "data, loss, card", "--json").out)
    assert found["labels"] == ["data", "loss", "card"]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("packing", "counted"),
    # Four words and an end each: the first of each is not predicted. Concatenated they are 150 tokens, in 18 sequences
    # of eight, of which seven tokens are predicted.
    [("isolated", 30 * 4), ("concatenated", 18 * 7)],
)
def test_a_nodes_own_model(deca: Deca, tiny: Path, monkeypatch: pytest.MonkeyPatch, packing: str, counted: int) -> None:
    """Of its checkpoint while the run goes on, and the tuned one after it; with the run's own sequence length."""
    folder = Path("deca-data/north")
    folder.mkdir(parents=True)
    (folder / "lock").touch()
    fields = settings_fields(RunSettings(sequence_length=8, packing=packing))
    (folder / "run.json").write_text(json.dumps({"agreement": fields, "start_model": str(tiny)}))
    asked = []

    def restore(directory: Path, start_model: str, note: Any) -> Any:
        asked.append((directory, start_model))
        made = SimpleNamespace(position=Step(3, 2), agreement=SimpleNamespace(fields=fields))
        return load_model(start_model), made

    monkeypatch.setattr("deca_node.numerics.saving.export.restore", restore)
    found = json.loads(deca("eval", "texts.jsonl", "--json").out)
    assert asked == [(folder, str(tiny))]
    assert found["model"] == "deca-data/north as of activation 3 step 2"
    assert found["counted"] == counted
    other = json.loads(deca("eval", "texts.jsonl", "--packing", "concatenated", "--json").out)
    assert other["counted"] == 18 * 7
    asked.pop()
    (folder / "final").symlink_to(tiny)
    final = json.loads(deca("eval", "texts.jsonl", "--dir", str(folder), "--json").out)
    assert final["model"] == "the tuned model in deca-data/north/final"
    assert final["loss"] == found["loss"]
    assert len(asked) == 1


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("none.jsonl --model model", 6, "none.jsonl: there is no such file or folder"),
        ("texts.jsonl --model ./none", 5, "there is no folder './none'"),
        ("texts.jsonl --model model --sequence-length 65", 5, "more than the 64 positions of the model; lower it"),
        ("texts.jsonl --model model --device cuda:9", 11, "torch sees 0 CUDA devices"),
        ("texts.jsonl --model model --prompt text", 2, "--prompt needs {text} in it"),
        ("texts.jsonl --dir nowhere", 10, "there is no folder nowhere"),
        ("texts.jsonl", 3, "there is no node's folder below ./deca-data"),
    ],
)
def test_what_is_wrong_is_said(deca: Deca, words: str, code: int, says: str) -> None:
    outcome = deca("eval", *words.split())
    assert (outcome.code, outcome.out) == (code, "")
    assert says in outcome.err


@pytest.mark.usefixtures("place")
def test_a_node_that_has_nothing_yet(deca: Deca, tiny: Path) -> None:
    folder = Path("deca-data/north")
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"agreement": {}, "start_model": str(tiny)}))
    outcome = deca("eval", "texts.jsonl", "--dir", str(folder))
    assert (outcome.code, "no sound checkpoint" in outcome.err) == (StorageError.exit_code, True)
