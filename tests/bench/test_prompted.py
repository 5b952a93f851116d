"""A language model that is asked for a label is the model itself, at the last token of each prompt."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bench.pretrained import prompted, start, tasks, texts
from bench.pretrained.nodes import judge
from deca_node.numerics.data.batches import ordered_batches
from deca_node.numerics.data.labelled import Examples
from deca_node.numerics.learning.loss import backward
from deca_node.numerics.model.blocks import partition

LABEL_TOKENS = (30, 7)


def language_model() -> LlamaForCausalLM:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        tie_word_embeddings=True,
        pad_token_id=0,
    )
    made: LlamaForCausalLM = prompted.Prompted(config)
    return made


def records(count: int, seed: int) -> tasks.Records:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 9, count)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = rng.choice(np.array([3, 7, 12, 20, 33], np.int32), starts[-1])
    labels = np.arange(count, dtype=np.int64) % 2
    return tasks.Records(Examples(ids, np.zeros(len(ids), np.int8), starts, labels, 0), labels)


def small_task() -> tasks.Task:
    splits = {split: records(12, k) for k, split in enumerate(tasks.SPLITS)}
    return tasks.Task("small", ("no", "yes"), ((0, "a"), (1, "a")), "label", splits, "digest")


def test_only_the_token_after_the_prompt_is_in_the_loss() -> None:
    model, examples = language_model(), records(3, 5).examples
    batch = next(iter(ordered_batches(examples, 3)))
    labels = torch.tensor(examples.labels)
    model.requires_grad_(True)
    loss = backward(model, batch, 0, torch.device("cpu"))
    plain = LlamaForCausalLM(model.config)
    plain.load_state_dict(model.state_dict())
    expected = []
    for row in range(3):
        ids = torch.tensor(examples.ids[examples.starts[row] : examples.starts[row + 1]].astype(np.int64))[None]
        expected.append(plain(input_ids=ids).logits[0, -1].log_softmax(-1)[labels[row]])
    assert loss == pytest.approx(-float(torch.stack(expected).mean().detach()), rel=1e-5)


def test_the_labels_tokens_come_first_in_the_cut_table() -> None:
    model, task = language_model(), small_task()
    before = start.logits_of(model, task.test.examples)
    kept = [*LABEL_TOKENS, 0, 3, 12, 20, 33]
    cut = start.cut_vocabulary(model, task, LABEL_TOKENS)
    after = start.logits_of(model, cut.test.examples)
    torch.testing.assert_close(after, before[:, kept], rtol=0.0, atol=1e-5)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert [block.name for block in partition(model, 1)] == ["embedding", "layers.0", "layers.1"]
    found = judge(model, cut, cut.test)
    assert found.accuracy == pytest.approx(
        float((after[:, :2].argmax(1).numpy() == cut.test.examples.labels).mean())
    ), "another word than a label is no answer"


def test_a_prompt_ends_with_the_question() -> None:
    (asked,) = prompted.prompts("topics", [texts.Text("a small fruit", 4, "glosses")])
    assert asked.text.startswith("a small fruit\n") and asked.text.endswith("It is") and asked.label == 4
    assert all(label in prompted.QUESTIONS["topics"] for label in texts.TOPICS)
    assert all(label in prompted.QUESTIONS["sentiment"] for label in texts.SENTIMENTS)
