"""Records in one row do not see each other, in any architecture: losses and gradients are those of records alone."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from torch import nn

from deca_node.numerics.data.batches import IGNORED, Batch, make_batch
from deca_node.numerics.data.packing import isolated
from deca_node.numerics.data.sequences import Sequences, Tokens, pieces_of
from deca_node.numerics.learning.isolation import Way, apart, way_of
from deca_node.numerics.learning.loss import backward, evaluate, nll_sum

CPU = torch.device("cpu")
LENGTH, VOCABULARY = 24, 64
LENGTHS = [20, 9, 13, 4, 7, 11, 2, 15]
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}
GROUPED: dict[str, Any] = {**SIZES, "num_key_value_heads": 2}
WINDOW = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 4, "head_dim": 8}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}
SINKS = {"num_local_experts": 4, "num_experts_per_tok": 2}
GPT = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32, "n_ctx": 32}
MAMBA = {"mamba_d_state": 8, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1, "attn_layer_indices": [1]}
OPT = {"ffn_dim": 48, "word_embed_proj_dim": 32}
MPT = {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 32, "vocab_size": VOCABULARY}

MODELS: dict[str, tuple[Callable[[], Any], Way]] = {
    "llama": (lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**GROUPED)), Way.POSITIONS),
    "qwen2": (lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**GROUPED)), Way.POSITIONS),
    "qwen3": (lambda: tf.Qwen3ForCausalLM(tf.Qwen3Config(**GROUPED, head_dim=8)), Way.POSITIONS),
    "mistral": (lambda: tf.MistralForCausalLM(tf.MistralConfig(**GROUPED, sliding_window=4)), Way.POSITIONS),
    "gemma2": (lambda: tf.Gemma2ForCausalLM(tf.Gemma2Config(**GROUPED, **WINDOW)), Way.POSITIONS),
    "gemma3": (lambda: tf.Gemma3ForCausalLM(tf.Gemma3TextConfig(**GROUPED, **WINDOW)), Way.POSITIONS),
    "phi3": (lambda: tf.Phi3ForCausalLM(tf.Phi3Config(**GROUPED)), Way.POSITIONS),
    "gpt2": (lambda: tf.GPT2LMHeadModel(tf.GPT2Config(**GPT)), Way.POSITIONS),
    "gpt-neox": (lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**SIZES)), Way.POSITIONS),
    "olmo2": (lambda: tf.Olmo2ForCausalLM(tf.Olmo2Config(**GROUPED)), Way.POSITIONS),
    "mixtral": (lambda: tf.MixtralForCausalLM(tf.MixtralConfig(**GROUPED, num_local_experts=4)), Way.POSITIONS),
    "qwen2-moe": (lambda: tf.Qwen2MoeForCausalLM(tf.Qwen2MoeConfig(**GROUPED, **MOE)), Way.POSITIONS),
    "gpt-oss": (lambda: tf.GptOssForCausalLM(tf.GptOssConfig(**GROUPED, **WINDOW, **SINKS)), Way.MASK),
    "opt": (lambda: tf.OPTForCausalLM(tf.OPTConfig(**SIZES, **OPT)), Way.MASK),
    "mpt": (lambda: tf.MptForCausalLM(tf.MptConfig(**MPT)), Way.MASK),
    "bloom": (lambda: tf.BloomForCausalLM(tf.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_head=4)), Way.ROWS),
    "bamba": (lambda: tf.BambaForCausalLM(tf.BambaConfig(**GROUPED, **MAMBA)), Way.ROWS),
    "rwkv": (lambda: tf.RwkvForCausalLM(tf.RwkvConfig(**SIZES, attention_hidden_size=32)), Way.ROWS),
}


def make(name: str) -> Any:
    """The model without dropout, with weights large enough that what a token sees matters."""
    torch.manual_seed(0)
    model = MODELS[name][0]()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.15)
    return model.eval()


def packed() -> Sequences:
    """Records of random tokens, most of which are learnt, in few sequences."""
    rng = np.random.default_rng(1)
    total = sum(LENGTHS)
    line = Tokens(rng.integers(3, VOCABULARY, total).astype(np.int32), rng.random(total) < 0.8)
    stops = np.cumsum(LENGTHS)
    return isolated(line, pieces_of(line.trained, stops - LENGTHS, stops), LENGTH, pad=0, seed=0)


def whole_batch() -> Batch:
    data = packed()
    batch = make_batch(data, np.arange(len(data)))
    assert isinstance(batch, Batch) and batch.positions is not None
    assert len(data) < len(LENGTHS), "several records to a sequence"
    return batch


def alone() -> list[Batch]:
    """Every record as a batch of its own."""
    data = packed()
    found = []
    for start, stop, _, _ in data.pieces.tolist():
        ids = torch.from_numpy(data.line.ids[start:stop].astype(np.int64))[None]
        learnt = torch.from_numpy(data.line.trained[start:stop])[None]
        found.append(Batch(ids, torch.where(learnt, ids, IGNORED)))
    return found


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("micro_batch", [0, 2])
@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradient_of_a_pack_are_those_of_its_records(name: str, micro_batch: int) -> None:
    model = make(name)
    assert way_of(model) is MODELS[name][1]
    loss = backward(model, whole_batch(), micro_batch, CPU)
    found = gradients(model)
    learnt = sum(record.predicted for record in alone())
    assert whole_batch().predicted == learnt
    expected = 0.0
    for record in alone():
        part = nll_sum(model, record, CPU) / learnt
        part.backward()  # type: ignore[no-untyped-call]
        expected += float(part.detach())
    assert loss == pytest.approx(expected, rel=2e-6)
    for parameter, right in gradients(model).items():
        torch.testing.assert_close(found[parameter], right, rtol=1e-4, atol=1e-6 * max(1.0, float(right.abs().max())))
    judged, counted = evaluate(model, [whole_batch()], CPU)
    assert (judged, counted) == (pytest.approx(expected, rel=1e-5), learnt)


@pytest.mark.parametrize("name", MODELS)
def test_a_record_changes_the_loss_of_no_other(name: str) -> None:
    model = make(name)
    batch = whole_batch()
    assert batch.positions is not None
    record = (batch.positions == 0).cumsum(dim=1)
    changed = torch.where(record == 1, (batch.input_ids * 3 + 5) % VOCABULARY, batch.input_ids)
    others = torch.where(record == 1, IGNORED, batch.labels)
    losses = [evaluate(model, [Batch(ids, others, batch.positions)], CPU) for ids in (batch.input_ids, changed)]
    assert losses[0][1] > 10
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_without_isolation_records_would_see_each_other() -> None:
    """What the tests above would show if they showed nothing."""
    model = make("llama")
    batch = whole_batch()
    mixed = Batch(batch.input_ids, batch.labels)
    right, wrong = (evaluate(model, [b], CPU)[0] for b in (batch, mixed))
    assert abs(right - wrong) > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama", "mixtral", "gpt2", "gpt-oss", "opt", "bamba"])
def test_the_way_is_found_in_sixteen_bits(name: str, dtype: torch.dtype) -> None:
    assert way_of(make(name).to(dtype)) is MODELS[name][1]


def test_looking_for_the_way_leaves_no_trace() -> None:
    model = make("llama").train()
    before = torch.get_rng_state()
    way_of(model)
    assert torch.equal(torch.get_rng_state(), before) and model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_rows_apart_hold_every_learnt_token_in_parts_no_larger_than_the_batch() -> None:
    batch = whole_batch()
    parts = list(apart(batch))
    assert sum(part.predicted for part in parts) == batch.predicted
    assert all(part.input_ids.numel() <= batch.input_ids.numel() for part in parts)
    assert sum(len(part.input_ids) for part in parts) == sum(record.predicted > 0 for record in alone())
    assert math.prod(parts[0].input_ids.shape) > 0
