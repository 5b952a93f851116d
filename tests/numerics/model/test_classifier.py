"""Checkpoints as classifiers: the same fresh head on every node, labels that fit, and a padding token."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTModel,
)

from deca_node.numerics.data.batches import LabelledBatch, make_batch
from deca_node.numerics.data.labelled import load_labelled
from deca_node.numerics.forecast.shapes import meta_model, model_shape
from deca_node.numerics.learning.loss import backward, class_logits, classify, shares
from deca_node.numerics.model.blocks import partition
from deca_node.numerics.model.classifier import Head
from deca_node.numerics.model.facts import check_sequence_length, parameter_hash
from deca_node.numerics.model.load import LoadedModel, load_model
from deca_node.numerics.model.save import save_model
from deca_node.protocol.errors import ModelError
from tests.numerics.learning.labelled_runs import (
    LABELS,
    LENGTH,
    bert,
    gpt2,
    learnable_records,
    llama,
    roberta,
    word_tokenizer,
    write_model,
    write_records,
)

CPU = torch.device("cpu")
HEAD = Head(LABELS, seed=0)
MODELS = [bert, roberta, llama, gpt2]


def loaded_from(build: Callable[[], PreTrainedModel], folder: Path, head: Head = HEAD) -> LoadedModel:
    torch.manual_seed(0)
    return load_model(str(write_model(build(), folder)), head=head)


def refusal(folder: Path, head: Head = HEAD) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(str(folder), head=head)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# --- heads ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", MODELS)
def test_a_fresh_head_is_the_seed_s_and_nothing_else_s(build: Callable[[], PreTrainedModel], tmp_path: Path) -> None:
    """transformers first draws these parameters from torch's generator; all of them must be replaced."""
    first = loaded_from(build, tmp_path / "m")
    torch.manual_seed(7)
    assert parameter_hash(load_model(str(tmp_path / "m"), head=HEAD).model) == parameter_hash(first.model)
    other = load_model(str(tmp_path / "m"), head=Head(LABELS, seed=1)).model
    mine, theirs = dict(first.model.named_parameters()), dict(other.named_parameters())
    differ = {name for name in mine if not torch.equal(mine[name], theirs[name])}
    assert differ and all(name.startswith(("classifier", "score")) or ".pooler." in name for name in differ)
    for name in differ:
        spread = 0.02 * 3**0.5
        assert 0.3 * spread < float(mine[name].detach().abs().max()) <= spread


def test_the_numbers_of_a_fresh_head_are_these(tmp_path: Path) -> None:
    """Every release, Python and processor must draw the same numbers, or its nodes would be refused."""
    score = loaded_from(llama, tmp_path / "m").model.score.weight
    expected = [-0.031428828835487366, 0.00922516081482172, -0.017066355794668198]
    torch.testing.assert_close(score[0, :3].detach(), torch.tensor(expected), rtol=0, atol=0)


def test_what_a_head_rests_on_must_be_there(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = write_model(bert(), tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.bias"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert "the weights lack bert.encoder.layer.1.output.dense.bias" in refusal(folder)


@pytest.mark.parametrize("build", MODELS)
def test_blocks_are_those_of_the_plan_and_the_head_is_one(build: Callable[[], PreTrainedModel], tmp_path: Path) -> None:
    loaded = loaded_from(build, tmp_path / "m")
    blocks = partition(loaded.model, 1)
    shape = model_shape(meta_model(str(tmp_path / "m"), LENGTH, HEAD), 1)
    assert [(b.name, b.elements) for b in shape.blocks] == [(b.name, b.elements) for b in blocks]
    assert [b.name for b in blocks] == ["embedding", "layers.0", "layers.1", "head"]
    assert shape.vocabulary == len(LABELS)
    head = blocks[-1].parameters
    assert any(name.startswith(("classifier", "score")) for name in head)
    assert not any(name.startswith(("classifier", "score")) for b in blocks[:-1] for name in b.parameters)


@pytest.mark.parametrize("build", MODELS)
def test_what_is_saved_is_an_ordinary_classifier(build: Callable[[], PreTrainedModel], tmp_path: Path) -> None:
    loaded = loaded_from(build, tmp_path / "m")
    save_model(loaded.model, loaded.tokenizer, tmp_path / "out")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    assert again.config.id2label == dict(enumerate(LABELS))
    assert parameter_hash(again) == parameter_hash(loaded.model)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    inputs = tokenizer(["w1 w2", "w3 w4 w5 w6"], padding=True, return_tensors="pt")
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    assert again(**inputs).logits.shape == (2, 3)


def test_a_classifier_keeps_its_head_and_its_labels(tmp_path: Path) -> None:
    first = loaded_from(bert, tmp_path / "m")
    save_model(first.model, first.tokenizer, tmp_path / "out")
    again = load_model(str(tmp_path / "out"), head=Head((), seed=99))
    assert again.labels == LABELS
    assert parameter_hash(again.model) == parameter_hash(first.model)
    said = refusal(tmp_path / "out", Head(("pos", "mid", "neg"), 0))
    assert "the model sorts into neg, mid, pos, and the run's labels are pos, mid, neg" in said


def test_labels_that_are_only_numbered_may_be_named(tmp_path: Path) -> None:
    config = bert().config
    config.num_labels = 3
    folder = write_model(BertForSequenceClassification(config), tmp_path / "m", word_tokenizer())
    assert load_model(str(folder), head=HEAD).labels == LABELS
    assert load_model(str(folder), head=Head((), 0)).labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert "sorts into LABEL_0, LABEL_1, LABEL_2" in refusal(folder, Head(("neg", "pos"), 0))


def test_a_model_without_a_head_may_name_labels_in_its_config(tmp_path: Path) -> None:
    folder = write_model(bert(), tmp_path / "m")
    assert "neither the run nor config.json (id2label) names labels" in refusal(folder, Head((), 0))
    edit_config(folder, id2label={"0": "no", "1": "yes"}, label2id={"no": 0, "yes": 1})
    assert load_model(str(folder), head=Head((), 0)).labels == ("no", "yes")
    assert load_model(str(folder), head=HEAD).labels == LABELS
    edit_config(folder, id2label={"0": "no", "2": "yes"}, label2id={"no": 0, "yes": 2})
    assert "numbered from 0" in refusal(folder, Head((), 0))
    edit_config(folder, id2label={"0": "no", "1": "yes"}, problem_type="multi_label_classification")
    assert "one label per text" in refusal(folder, Head((), 0))


def test_models_that_cannot_be_classifiers(tmp_path: Path) -> None:
    vit = ViTConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=32)
    assert "vit has no classifier" in refusal(write_model(ViTModel(vit), tmp_path / "vit"))
    t5 = T5Config(vocab_size=30, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    said = refusal(write_model(T5ForConditionalGeneration(t5), tmp_path / "t5", word_tokenizer()))
    assert "only a single stack of layers" in said
    albert = AlbertConfig(vocab_size=30, hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2)
    model = load_model(str(write_model(AlbertModel(albert), tmp_path / "albert", word_tokenizer())), head=HEAD).model
    with pytest.raises(ModelError, match="has no layers that could be trained in blocks"):
        partition(model, 1)


# --- rows -------------------------------------------------------------------------------------------


def batch_of(loaded: LoadedModel, path: Path, rows: list[int]) -> LabelledBatch:
    write_records(path, learnable_records(12))
    pad = loaded.model.config.pad_token_id
    data = load_labelled(path, loaded.tokenizer, LABELS, sequence_length=LENGTH, pad=pad, holdout=0, bad_records="stop")
    batch = make_batch(data.train, np.array(rows))
    assert isinstance(batch, LabelledBatch)
    return batch


@pytest.mark.parametrize("build", MODELS)
def test_padding_does_not_count(build: Callable[[], PreTrainedModel], tmp_path: Path) -> None:
    loaded = loaded_from(build, tmp_path / "m")
    loaded.model.eval()
    together = class_logits(loaded.model, batch_of(loaded, tmp_path / "d.jsonl", [0, 1, 2, 3]), CPU)
    for row in range(4):
        alone = class_logits(loaded.model, batch_of(loaded, tmp_path / "d.jsonl", [row]), CPU)
        torch.testing.assert_close(together[row], alone[0], rtol=0, atol=1e-6)


def test_the_texts_of_a_pair_are_told_apart(tmp_path: Path) -> None:
    loaded = loaded_from(bert, tmp_path / "m")
    loaded.model.eval()
    batch = batch_of(loaded, tmp_path / "d.jsonl", [0])
    assert batch.token_type_ids.unique().tolist() == [0, 1]
    untold = LabelledBatch(batch.input_ids, batch.attention_mask, torch.zeros_like(batch.token_type_ids), batch.labels)
    assert not torch.allclose(class_logits(loaded.model, batch, CPU), class_logits(loaded.model, untold, CPU))


@pytest.mark.parametrize("build", MODELS)
def test_every_record_weighs_the_same_however_a_batch_is_cut(
    build: Callable[[], PreTrainedModel], tmp_path: Path
) -> None:
    """The loss is transformers' mean cross-entropy."""
    loaded = loaded_from(build, tmp_path / "m")
    loaded.model.eval()
    batch = batch_of(loaded, tmp_path / "d.jsonl", [0, 1, 2, 3, 4])
    gradients = []
    for micro_batch in (0, 2):
        loaded.model.zero_grad()
        loss = backward(loaded.model, batch, micro_batch, CPU)
        gradients.append(torch.cat([p.grad.reshape(-1) for p in loaded.model.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-6)
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": batch.labels}
    if build is bert:
        inputs["token_type_ids"] = batch.token_type_ids
    assert loss == pytest.approx(loaded.model(**inputs).loss.item(), abs=1e-6)


def test_accuracy_and_macro_f1_are_those_of_a_table_counted_by_hand() -> None:
    """Label 3 never occurs and is never predicted; label 2 occurs and is never predicted."""
    table = torch.tensor([[3, 1, 0, 0], [1, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    found = shares(table)
    assert found["accuracy"] == pytest.approx(5 / 8)
    assert found["macro_f1"] == pytest.approx((2 * 3 / (4 + 5) + 2 * 2 / (3 + 3) + 0) / 3)


def test_scores_are_of_the_labels_that_the_model_says(tmp_path: Path) -> None:
    loaded = loaded_from(bert, tmp_path / "m")
    batch = batch_of(loaded, tmp_path / "d.jsonl", list(range(12)))
    scores = classify(loaded.model, batch.split(5), CPU, len(LABELS))
    loaded.model.eval()
    logits = class_logits(loaded.model, batch, CPU)
    assert scores.count == 12
    assert scores.loss == pytest.approx(torch.nn.functional.cross_entropy(logits, batch.labels).item(), abs=1e-6)
    assert scores.scalars["accuracy"] == pytest.approx(float((logits.argmax(1) == batch.labels).float().mean()))
    assert classify(loaded.model, iter(()), CPU, len(LABELS)).scalars == {}


def test_positions_after_the_padding_token_s_number_are_left(tmp_path: Path) -> None:
    loaded = loaded_from(roberta, tmp_path / "m")
    assert loaded.positions_max == LENGTH
    check_sequence_length(LENGTH, loaded.positions_max, loaded.folder)
    long = [{"text": "w1 " * 40, "label": 0}]
    path = write_records(tmp_path / "d.jsonl", long)
    data = load_labelled(path, loaded.tokenizer, LABELS, sequence_length=LENGTH, holdout=0, bad_records="stop")
    batch = make_batch(data.train, np.array([0]))
    assert isinstance(batch, LabelledBatch) and batch.input_ids.shape == (1, LENGTH)
    assert class_logits(loaded.model, batch, CPU).isfinite().all()


def test_a_model_that_cannot_be_padded_is_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    bare = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    model = llama()
    said = refusal(write_model(model, tmp_path / "m", bare))
    assert "the tokenizer has neither a padding token nor one that ends a text" in said
