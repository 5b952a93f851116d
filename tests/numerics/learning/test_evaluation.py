"""Loss, perplexity and labels, each held against the model asked directly, one record at a time."""

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from deca_node.numerics.learning.evaluation import Question, evaluate_model, own_head
from deca_node.numerics.model.classifier import Head
from deca_node.numerics.model.load import LoadedModel, load_model
from deca_node.numerics.model.save import save_model
from deca_node.protocol.errors import DataError
from tests.numerics.learning.labelled_runs import LABELS, WORDS, bert, llama, write_model

CPU = torch.device("cpu")
TEXTS = [" ".join(WORDS[(k * j) % 25] for j in range(1, 9)) for k in range(1, 8)]
NAMES = ("w3", "w4 w5", "w6")
"""Labels that the tokenizer knows, one of them of two tokens."""


def write(path: Path, records: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def language_model(tmp_path: Path) -> LoadedModel:
    torch.manual_seed(0)
    model = llama()
    # Large enough weights that the model has opinions.
    for parameter in model.parameters():
        parameter.data.mul_(5.0)
    return load_model(str(write_model(model, tmp_path / "model")))


def question(data: Path, **more: object) -> Question:
    usual = {"length": 16, "batch_size": 2, "packing": "isolated", "truncation": "keep-end", "bad_records": "stop"}
    return Question(**({"data": str(data), "device": CPU} | usual | more))


def direct(loaded: LoadedModel, prompt: str, completion: str, end: bool = True) -> torch.Tensor:
    """The losses of a completion's tokens, from transformers alone."""
    tokenizer = AutoTokenizer.from_pretrained(loaded.folder)
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    after = tokenizer(completion, add_special_tokens=False)["input_ids"] + ([tokenizer.eos_token_id] if end else [])
    ids = torch.tensor([before + after])
    loaded.model.eval()
    with torch.no_grad():
        logs = loaded.model(ids).logits[0].float().log_softmax(dim=-1)
    first = max(len(before), 1)
    return torch.stack([-logs[at - 1, ids[0, at]] for at in range(first, ids.shape[1])])


def test_loss_and_perplexity_are_the_models_own(tmp_path: Path, language_model: LoadedModel) -> None:
    """Of prompts with completions, since they fill a sequence of their own only where there is one record."""
    data = write(tmp_path / "data.jsonl", [{"prompt": "w1 w2", "completion": "w3 w4 w5 w6"}])
    reports: list[tuple[int, int]] = []
    found = evaluate_model(language_model, question(data), lambda *done: reports.append(done))
    losses = direct(language_model, "w1 w2", "w3 w4 w5 w6")
    assert (found.kind, found.counted, found.records, reports) == ("language-model", 5, 1, [(1, 1)])
    assert found.loss == pytest.approx(float(losses.mean()), rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(found.loss))
    assert found.accuracy is None


def test_texts_are_packed_as_in_training(tmp_path: Path, language_model: LoadedModel) -> None:
    data = write(tmp_path / "data.jsonl", [{"text": text} for text in TEXTS])
    found = evaluate_model(language_model, question(data))
    alone = torch.cat([direct(language_model, "", text) for text in TEXTS])
    # Eight words and an end each, of which the first is not predicted.
    assert (found.records, found.counted) == (7, 7 * 8)
    assert found.loss == pytest.approx(float(alone.mean()), rel=1e-5)
    found = evaluate_model(language_model, question(data, packing="concatenated"))
    # 63 tokens, in three sequences of sixteen, of which fifteen tokens are predicted.
    assert (found.records, found.counted) == (7, 3 * 15)


def test_what_was_cut_or_left_out_is_counted(tmp_path: Path, language_model: LoadedModel) -> None:
    long = " ".join(WORDS[:20])
    records = [{"prompt": long, "completion": "w3"}, {"prompt": "w1", "completion": "w2"}]
    data = write(tmp_path / "data.jsonl", [dict(record) for record in records])
    found = evaluate_model(language_model, question(data))
    assert (found.records, found.cut, found.left_out, found.counted) == (2, 1, 0, 4)
    found = evaluate_model(language_model, question(data, truncation="drop", packing="none"))
    assert (found.records, found.cut, found.left_out, found.counted) == (1, 0, 1, 2)


@pytest.mark.parametrize("prompt", ["", "{text} w9 ", "w7 {text}\n{text_pair} w8"])
def test_the_likeliest_label_is_the_answer(tmp_path: Path, language_model: LoadedModel, prompt: str) -> None:
    records = [{"text": TEXTS[k], "label": NAMES[k % 3]} for k in range(7)]
    data = write(tmp_path / "data.jsonl", [dict(record) for record in records])
    found = evaluate_model(language_model, question(data, prompt=prompt))
    hits, said, total = 0, [], 0.0
    for record in records:
        text = (prompt or "{text}\n").replace("{text}", record["text"]).replace("{text_pair}", "")
        sums = torch.stack([direct(language_model, text, name).sum() for name in NAMES])
        said.append(NAMES[int(sums.argmin())])
        hits += said[-1] == record["label"]
        total -= float((-sums).log_softmax(dim=0)[NAMES.index(record["label"])])
    assert (found.kind, found.labels, found.counted, found.cut) == ("labels", NAMES, 7, 0)
    assert found.accuracy == pytest.approx(hits / 7)
    assert found.loss == pytest.approx(total / 7, rel=1e-4)
    assert len(set(said)) > 1, "a model that always says the same would prove little"


def test_what_is_too_long_loses_its_beginning(tmp_path: Path, language_model: LoadedModel) -> None:
    long = " ".join(WORDS)
    data = write(tmp_path / "data.jsonl", [{"text": long, "label": "w3"}, {"text": "w1", "label": "w6"}])
    found = evaluate_model(language_model, question(data, labels=NAMES))
    # Sixteen tokens: the label and the end are two of them.
    kept = " ".join(WORDS[-14:])
    sums = torch.stack([direct(language_model, " ".join(WORDS[-(15 - len(n.split())) :]), n).sum() for n in NAMES])
    short = torch.stack([direct(language_model, "w1", name).sum() for name in NAMES])
    expected = -(float((-sums).log_softmax(0)[0]) + float((-short).log_softmax(0)[2])) / 2
    assert found.cut == 1 and len(kept.split()) == 14
    assert found.loss == pytest.approx(expected, rel=1e-4)


def test_a_classifier_is_asked_for_its_own_labels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bare = write_model(bert(), tmp_path / "bare")
    made = load_model(str(bare), head=Head(LABELS, 3))
    save_model(made.model, made.tokenizer, tmp_path / "classifier")
    assert own_head(str(bare)) is None and own_head("org/name") is None
    loaded = load_model(str(tmp_path / "classifier"), head=own_head(str(tmp_path / "classifier")))
    records = [{"text": TEXTS[k], "label": LABELS[k % 3] if k % 2 else k % 3} for k in range(7)]
    data = write(tmp_path / "data.jsonl", [dict(record) for record in records])
    found = evaluate_model(loaded, question(data))
    loaded.model.eval()
    with torch.no_grad():
        answers = [int(loaded.model(**loaded.tokenizer(t, return_tensors="pt")).logits.argmax()) for t in TEXTS]
    assert (found.kind, found.labels, found.counted) == ("classifier", LABELS, 7)
    assert found.accuracy == pytest.approx(sum(answers[k] == k % 3 for k in range(7)) / 7)
    assert found.perplexity is None


@pytest.mark.parametrize(
    ("records", "labels", "says"),
    [
        ([{"text": "w1", "label": "w3"}], (), "there are 1 labels, and 2 to 100 can be told apart"),
        ([{"text": "w1", "label": "w3"}], ("w4", "w5"), "the label 'w3' is none of w4, w5"),
        ([{"text": "w1", "label": "w3"}, {"text": "w1"}], (), 'line 2: labelled records need "text" and "label"'),
        ([{"text": "w1", "label": 1.5}], (), '"label" must be a name or a whole number'),
        ([{"text": "w1", "label": True}], (), '"label" must be a name or a whole number'),
        ([{"text": "", "label": "w3"}], (), '"text" is empty'),
    ],
)
def test_bad_labels_are_named(
    tmp_path: Path, language_model: LoadedModel, records: list[dict[str, object]], labels: tuple[str, ...], says: str
) -> None:
    data = write(tmp_path / "data.jsonl", records)
    with pytest.raises(DataError, match=says):
        evaluate_model(language_model, question(data, labels=labels))


def test_bad_records_may_be_left_out(tmp_path: Path, language_model: LoadedModel) -> None:
    records = [{"text": "w1", "label": "w3"}, {"text": "w1"}, {"text": "w2", "label": "w6"}]
    data = write(tmp_path / "data.jsonl", [dict(record) for record in records])
    found = evaluate_model(language_model, question(data, bad_records="skip"))
    assert (found.records, found.skipped) == (2, 1)
