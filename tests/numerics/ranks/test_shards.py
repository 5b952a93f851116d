"""Sharded models: what FSDP2 cannot shard is refused in words, and other families than Llama train as with one rank."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaForCausalLM,
    PretrainedConfig,
)

from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.parts import trainer_options
from deca_node.numerics.learning.prepared import load_for
from deca_node.numerics.ranks.shards import check_shardable
from deca_node.numerics.trainer import Trainer
from deca_node.protocol import commands as c
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.errors import ModelError, SettingsError
from tests.e2e.testbed import make_tiny_model
from tests.numerics.ranks.test_runs import CPU, distance, sharded_over_two
from tests.numerics.saving.checkpoint_runs import LENGTH, SETTINGS, VOCABULARY, no_frames, tiny_data, tiny_model


def with_a_number(model: LlamaForCausalLM) -> None:
    model.scale = nn.Parameter(torch.tensor(1.0))


def with_shared_layers(model: LlamaForCausalLM) -> None:
    model.model.layers[1].mlp = model.model.layers[0].mlp


def with_two_dtypes(model: LlamaForCausalLM) -> None:
    model.lm_head.to(torch.bfloat16)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (with_a_number, "scale is a single number; set parallel = 'data'"),
        (with_shared_layers, "several of its layers share parameters; set parallel = 'data'"),
        (with_two_dtypes, "its parameters are of several dtypes; set dtype, or parallel = 'data'"),
    ],
)
def test_what_cannot_be_sharded_is_refused(change: Callable[[LlamaForCausalLM], None], sentence: str) -> None:
    model = tiny_model()
    check_shardable(model)
    change(model)
    with pytest.raises(ModelError, match=f"LlamaForCausalLM cannot be sharded: {sentence}"):
        check_shardable(model)


def test_private_gradients_are_not_sharded() -> None:
    with pytest.raises(SettingsError, match="parallel = 'shard' with dp_noise"):
        NodeSettings(parallel="shard", dp_noise=1.0)


COMMON = {"vocab_size": VOCABULARY, "max_position_embeddings": LENGTH, "bos_token_id": 0, "eos_token_id": 0}
LAYERS = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
GROUPED = COMMON | LAYERS | {"num_key_value_heads": 1}
NO_DROPOUT = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}  # with it, ranks draw numbers of their own
FAMILIES = {
    "gpt2": {**COMMON, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": LENGTH, **NO_DROPOUT},
    "gpt_neox": {**COMMON, **LAYERS},
    "qwen2": {**GROUPED, "tie_word_embeddings": True},
    "qwen3": {**GROUPED, "head_dim": 4},
    "gemma2": {**GROUPED, "head_dim": 4},
    "mistral": GROUPED,
    "phi3": {**GROUPED, "pad_token_id": 0},
    "mixtral": {**GROUPED, "num_local_experts": 3, "num_experts_per_tok": 2},
}


def visits(folder: Path, model: Path, *, sharded: bool) -> list[float]:
    """Visit every block once, with one step, and write the model; returns the losses."""
    options = trainer_options(SETTINGS, NodeSettings(name="a", dir=str(folder), model=str(model)))
    other, leader = sharded_over_two(options) if sharded else (None, None)
    trainer = Trainer(options, load_for(options, CPU), tiny_data(), no_frames, None, leader)
    trainer._gradients.join(trainer._blocks)
    losses = []
    for index in range(trainer._schedule.blocks):
        activation = trainer._schedule[index]
        trainer.obey(c.Activate(activation, None))
        trainer.obey(c.Connect(index, (), None))
        half = trainer.obey(c.HalfStep(Step(index, 0), True, None))
        losses.append(half.scalars["loss"])
        trainer.obey(c.Mix(Step(index, 0), (), True))
        trainer.obey(c.Freeze(index))
    trainer.obey(c.Save("final"))
    trainer.end()
    assert other is None or other.wait() == 0
    return losses


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_trains_sharded_as_with_one_rank(tmp_path: Path, family: str) -> None:
    model = make_tiny_model(tmp_path / "model")  # for its tokenizer
    torch.manual_seed(0)
    config: PretrainedConfig = AutoConfig.for_model(family, **FAMILIES[family])
    AutoModelForCausalLM.from_config(config).save_pretrained(model)
    plain, sharded = (visits(tmp_path / str(each), model, sharded=each) for each in (False, True))
    assert sharded == pytest.approx(plain, rel=1e-5)
    assert distance(model, tmp_path / "False" / "final") > SETTINGS.learning_rate / 2
    assert distance(tmp_path / "False" / "final", tmp_path / "True" / "final") < SETTINGS.learning_rate / 100
