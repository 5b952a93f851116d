"""Which parameters decay: matrices of many architectures, and nothing that is a norm, a bias or an embedding."""

from collections.abc import Callable

import pytest
import transformers as tf
from transformers import PreTrainedModel

from deca_node.numerics.learning.decay import decays
from deca_node.numerics.model.blocks import partition, spans
from tests.numerics.model.small_models import SIZES, gpt2, llama, qwen2


def mamba() -> PreTrainedModel:
    return tf.MambaForCausalLM(tf.MambaConfig(vocab_size=48, hidden_size=16, num_hidden_layers=2, time_step_rank=2))


def gpt_oss() -> PreTrainedModel:
    """The biases of its experts are matrices: one row for each expert."""
    return tf.GptOssForCausalLM(tf.GptOssConfig(**SIZES, head_dim=8, num_local_experts=2))


def bert() -> PreTrainedModel:
    sizes = {name: size for name, size in SIZES.items() if name != "num_key_value_heads"}
    return tf.BertForSequenceClassification(tf.BertConfig(**sizes))


def decaying(model: PreTrainedModel) -> set[str]:
    found = set()
    for block in partition(model, 1):
        layout = spans(model, block)
        found |= {span.name for span, decay in zip(layout, decays(model, layout, 0.1), strict=True) if decay == 0.1}
    return found


def named(model: PreTrainedModel, *ends: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.endswith(ends)}


@pytest.mark.parametrize(
    ("build", "ends"),
    [
        (llama, ("proj.weight", "lm_head.weight")),
        (qwen2, ("proj.weight",)),
        (gpt2, ("c_attn.weight", "c_proj.weight", "c_fc.weight")),
        (mamba, ("proj.weight", "conv1d.weight", "x_proj.weight")),
        (gpt_oss, ("_proj", "proj.weight", "router.weight", "lm_head.weight")),
        (bert, ("query.weight", "key.weight", "value.weight", "dense.weight", "classifier.weight")),
    ],
    ids=["llama", "qwen2, tied", "gpt2, tied", "mamba", "gpt-oss", "bert"],
)
def test_matrices_decay_and_nothing_else(build: Callable[[], PreTrainedModel], ends: tuple[str, ...]) -> None:
    model = build()
    assert decaying(model) == named(model, *ends)


def test_without_weight_decay_nothing_decays() -> None:
    model = llama()
    layout = spans(model, partition(model, 1)[1])
    assert decays(model, layout, 0.0) == (0.0,) * len(layout)
