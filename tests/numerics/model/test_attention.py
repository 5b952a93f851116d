"""The setting ``attention``: what transformers is told, and what is refused before the weights are read."""

from pathlib import Path

import pytest
import torch
import transformers as tf

from deca_node.numerics.learning.isolation import Way, way_of
from deca_node.numerics.model import attention as attention_module
from deca_node.numerics.model.attention import FLASH, check_precision
from deca_node.numerics.model.load import load_model
from deca_node.numerics.model.save import save_model
from deca_node.protocol.errors import ModelError
from tests.numerics.model.small_models import SIZES, folder_of, llama


def bloom() -> tf.PreTrainedModel:
    return tf.BloomForCausalLM(tf.BloomConfig(vocab_size=48, hidden_size=16, n_layer=2, n_head=2))


def gpt_oss() -> tf.PreTrainedModel:
    return tf.GptOssForCausalLM(tf.GptOssConfig(**SIZES, head_dim=8, num_local_experts=2))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_model_is_loaded_with_the_attention_that_is_asked_for(attention: str, tmp_path: Path) -> None:
    folder = folder_of(llama(), tmp_path / "m")
    loaded = load_model(str(folder), attention=attention)
    assert loaded.model.config._attn_implementation == attention
    assert way_of(loaded.model) is Way.POSITIONS
    ids = torch.arange(16).view(2, 8)
    plain = load_model(str(folder)).model(input_ids=ids).logits
    torch.testing.assert_close(loaded.model(input_ids=ids).logits, plain, rtol=1e-5, atol=1e-6)


def test_the_tuned_model_does_not_remember_it(tmp_path: Path) -> None:
    folder = folder_of(llama(), tmp_path / "m")
    for attention in ("auto", "eager"):
        loaded = load_model(str(folder), attention=attention)
        save_model(loaded.model, loaded.tokenizer, tmp_path / attention)
    one, other = ((tmp_path / name / "config.json").read_text() for name in ("auto", "eager"))
    assert one == other


def test_an_attention_that_the_architecture_lacks_is_refused(tmp_path: Path) -> None:
    folder = folder_of(bloom(), tmp_path / "m")
    with pytest.raises(ModelError, match="bloom has no attention = 'sdpa'"):
        load_model(str(folder), attention="sdpa")
    assert load_model(str(folder), attention="eager").model.config._attn_implementation == "eager"


def test_flash_attention_needs_a_gpu(tmp_path: Path) -> None:
    folder = folder_of(llama(), tmp_path / "m")
    with pytest.raises(ModelError, match="needs a GPU and the package flash-attn, and this node has the device cpu"):
        load_model(str(folder), attention=FLASH, device="cpu")


def test_kernels_from_a_hub_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers would fetch them and run them."""
    folder = folder_of(gpt_oss(), tmp_path / "m")
    monkeypatch.setattr(attention_module, "is_flash_attn_2_available", lambda: True)
    with pytest.raises(ModelError, match="gpt_oss has no attention = 'flash_attention_2', only kernels from a hub"):
        load_model(str(folder), attention=FLASH, device="cuda")


def test_flash_attention_without_its_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(llama(), tmp_path / "m")
    monkeypatch.setattr(attention_module, "is_flash_attn_2_available", lambda: False)
    with pytest.raises(ModelError, match="and this node has no such package; use attention = 'sdpa'"):
        load_model(str(folder), attention=FLASH, device="cuda")


def test_flash_attention_is_for_16_bits() -> None:
    with pytest.raises(ModelError, match="computes in 16 bits only, and this model has float32"):
        check_precision(llama(), FLASH)
    check_precision(llama().to(torch.bfloat16), FLASH)
    check_precision(llama(), "sdpa")
