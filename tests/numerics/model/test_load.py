"""Loading models: a model is loaded exactly as it was saved, and each refused folder gets one sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BertConfig,
    BertLMHeadModel,
    CanineConfig,
    CanineForSequenceClassification,
    LongcatFlashConfig,
    LongcatFlashForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTModel,
)

from deca_node.numerics.model.blocks import partition
from deca_node.numerics.model.classifier import Head
from deca_node.numerics.model.facts import parameter_hash
from deca_node.numerics.model.load import load_model
from deca_node.protocol.errors import ModelError
from tests.numerics.model.small_models import (
    SIZES,
    VOCABULARY,
    folder_of,
    gpt2,
    llama,
    qwen2,
    small_tokenizer,
)


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(folder: Path | str) -> str:
    """The sentence with which a model is refused."""
    with pytest.raises(ModelError) as caught:
        load_model(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- loading ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [llama, qwen2, gpt2])
def test_a_model_is_loaded_as_it_was_saved(build: Callable[[], PreTrainedModel], tmp_path: Path) -> None:
    written = build()
    loaded = load_model(str(folder_of(written, tmp_path / "m")))
    assert parameter_hash(loaded.model) == parameter_hash(written)
    assert loaded.positions_max == 32
    assert loaded.model.training


def test_the_tokenizer_comes_along(folder: Path) -> None:
    assert load_model(str(folder)).tokenizer("w3 w4")["input_ids"] == [3, 4]


@pytest.mark.parametrize(
    ("named", "token"), [(1, "w1"), ([2, 1], "w2"), (None, None), (VOCABULARY - 1, None), ([], None)]
)
def test_what_ends_a_text_may_stand_in_the_configuration_alone(folder: Path, named: Any, token: str | None) -> None:
    """As where tokenizer.json comes without a tokenizer_config.json. The tuned model then says it in both places."""
    edit_config(folder, eos_token_id=named)
    loaded = load_model(str(folder))
    assert loaded.tokenizer.eos_token == token
    assert loaded.tokenizer("w3 w4")["input_ids"] == [3, 4]


def test_the_tokenizers_own_end_of_text_comes_first(folder: Path) -> None:
    tokenizer = small_tokenizer()
    tokenizer.eos_token = "w5"
    tokenizer.save_pretrained(folder)
    edit_config(folder, eos_token_id=1)
    assert load_model(str(folder)).tokenizer.eos_token == "w5"


def test_loading_says_nothing_of_its_own(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_model(str(folder))
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("auto", torch.bfloat16), ("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)],
)
def test_dtype_is_the_checkpoints_own_or_the_one_asked_for(dtype: str, expected: torch.dtype, tmp_path: Path) -> None:
    folder = folder_of(llama().to(torch.bfloat16), tmp_path / "m")
    model = load_model(str(folder), dtype=dtype).model
    assert {parameter.dtype for parameter in model.parameters()} == {expected}


def test_an_unknown_dtype_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="'int8' is not one of auto, float32"):
        load_model(str(folder), dtype="int8")


def test_a_device_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="cannot be put on device 'mps:7'"):
        load_model(str(folder), device="mps:7")


# --- refusals ---------------------------------------------------------------------------------------


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "there is no folder" in refusal(tmp_path / "nowhere")
    assert "there is no folder" in refusal("")


def test_a_file_is_refused(folder: Path) -> None:
    assert "is a file; name the folder" in refusal(folder / "config.json")


def test_a_hub_id_that_cannot_be_had_is_refused() -> None:
    """The suite runs with HF_HUB_OFFLINE=1."""
    assert "'deca-node/no-such-model' is not a folder here" in refusal("deca-node/no-such-model")
    assert "HF_HUB_OFFLINE is set" in refusal("no-such-model")


def test_a_folder_without_configuration_is_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert "holds no config.json" in refusal(folder)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not readable JSON"),
        ("[]", "is not a JSON object"),
        ("{}", "names no model_type"),
        ('{"model_type": "zzz"}', "transformers has no architecture 'zzz'"),
        ('{"model_type": "zzz", "auto_map": {}}', "code that comes with a model is never run"),
        ('{"model_type": "llama", "hidden_size": "wide"}', "does not describe a llama model"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(text: str, sentence: str, folder: Path) -> None:
    (folder / "config.json").write_text(text)
    assert sentence in refusal(folder)


def test_code_that_comes_with_a_model_is_not_run(folder: Path) -> None:
    (folder / "evil.py").write_text("raise SystemExit('ran')\n")
    edit_config(folder, model_type="evil", auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"})
    assert "never run" in refusal(folder)


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "holds no weights" in refusal(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt"])
def test_pickled_weights_are_refused_unread(name: str, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / name)
    assert "pickled weights (.bin, .pt), which can run code and are not read; convert" in refusal(folder)


def test_pickled_weights_beside_safetensors_do_no_harm(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    load_model(str(folder))


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_weights_cut_short_are_refused(keep: int, folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert "model.safetensors is damaged or cut short" in refusal(folder)


def test_a_missing_shard_is_named(folder: Path, tmp_path: Path) -> None:
    sharded = folder_of(llama(), tmp_path / "sharded", max_shard_size="8KB")
    victim = sorted(sharded.glob("model-*.safetensors"))[1]
    victim.unlink()
    assert f"lists {victim.name}, which is missing" in refusal(sharded)


def test_an_index_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    assert "lists no weights" in refusal(folder)


def test_a_missing_tensor_is_not_made_up(folder: Path) -> None:
    """transformers would draw a missing tensor at random, differently on every node."""
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "the weights lack model.layers.0.mlp.up_proj.weight" in refusal(folder)


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    edit_config(folder, intermediate_size=28)
    assert "the weights do not fit config.json" in refusal(folder)


def test_encoder_decoders_are_refused(tmp_path: Path) -> None:
    config = T5Config(vocab_size=VOCABULARY, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    assert "t5 is an encoder-decoder" in refusal(folder_of(T5ForConditionalGeneration(config), tmp_path / "t5"))


def bert(**changes: Any) -> PreTrainedModel:
    sizes = {
        name: SIZES[name] for name in ("vocab_size", "hidden_size", "intermediate_size", "max_position_embeddings")
    }
    return BertLMHeadModel(BertConfig(**sizes, num_hidden_layers=1, num_attention_heads=2, is_decoder=True, **changes))


def test_encoders_are_refused(tmp_path: Path) -> None:
    folder = folder_of(bert(), tmp_path / "bert")
    edit_config(folder, is_decoder=False)
    assert "bert is an encoder;" in refusal(folder)


def test_a_bert_that_was_made_a_decoder_is_one(tmp_path: Path) -> None:
    load_model(str(folder_of(bert(), tmp_path / "bert")))


def test_models_without_language_are_refused(tmp_path: Path) -> None:
    config = ViTConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=32)
    assert "vit has no causal language model" in refusal(folder_of(ViTModel(config), tmp_path / "vit"))


def test_quantized_weights_are_refused(folder: Path) -> None:
    edit_config(folder, quantization_config={"quant_method": "gptq", "bits": 4})
    assert "the weights are quantized" in refusal(folder)


def test_a_missing_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    said = refusal(folder)
    assert "holds no tokenizer that can be read: it has none of the files tokenizer.json, tokenizer.model" in said
    assert said.endswith("; copy the tokenizer's files from where the model is from")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_are_no_numbers_are_named(number: float, dtype: torch.dtype, tmp_path: Path) -> None:
    """One of them makes every loss NaN, and then the learning rate would be blamed."""
    model = llama().to(dtype)
    model.model.layers[1].mlp.up_proj.weight.data[3, 2] = number
    said = refusal(folder_of(model, tmp_path / "m"))
    assert "the weights hold NaN or infinity in model.layers.1.mlp.up_proj.weight; fetch the checkpoint again" in said


def test_settings_for_generation_that_transformers_refuses_are_named(folder: Path) -> None:
    """They are not called weights that do not fit."""
    path = folder / "generation_config.json"
    path.write_text('{"num_return_sequences": 4}')
    said = refusal(folder)
    assert said.startswith(f"{path} cannot be used: ") and "`num_return_sequences`" in said
    assert said.endswith("; correct it, or remove the file")
    path.write_text("{")
    assert f"{path} is not readable JSON" in refusal(folder)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(folder: Path) -> None:
    small_tokenizer(VOCABULARY + 1).save_pretrained(folder)
    assert "the tokenizer knows 49 tokens, the model only 48" in refusal(folder)


# --- rare architectures -----------------------------------------------------------------------------


def test_a_model_without_a_table_of_tokens_is_loaded(tmp_path: Path) -> None:
    """CANINE computes its embeddings from any number."""
    sizes = {"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    special = {"num_hash_buckets": 16, "num_hash_functions": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    model = CanineForSequenceClassification(CanineConfig(**sizes, **special, max_position_embeddings=64))
    loaded = load_model(str(folder_of(model, tmp_path / "m")), head=Head(("no", "yes"), 0))
    assert [block.name for block in partition(loaded.model, 1)][:2] == ["embedding", "layers.0"]


def test_layers_that_attend_twice_are_one_layer_each(tmp_path: Path) -> None:
    """LongCat Flash counts them twice in num_hidden_layers, and once in num_layers."""
    config = LongcatFlashConfig(
        **{name: SIZES[name] for name in ("vocab_size", "hidden_size", "max_position_embeddings")},
        num_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        ffn_hidden_size=24,
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        head_dim=8,
        v_head_dim=8,
        moe_topk=2,
        n_routed_experts=4,
        zero_expert_num=2,
        expert_ffn_hidden_size=8,
    )
    loaded = load_model(str(folder_of(LongcatFlashForCausalLM(config), tmp_path / "m")))
    assert [block.name for block in partition(loaded.model, 1)] == ["embedding", "layers.0", "layers.1", "head"]


def test_layers_that_share_their_weights_are_refused_in_words(tmp_path: Path) -> None:
    config = AlbertConfig(vocab_size=VOCABULARY, embedding_size=8, hidden_size=16, intermediate_size=16)
    config.num_hidden_layers, config.num_attention_heads = 3, 2
    folder = folder_of(AlbertForSequenceClassification(config), tmp_path / "m")
    model = load_model(str(folder), head=Head(("no", "yes"), 0)).model
    with pytest.raises(ModelError, match=r"the weights of 1 layer\(s\) are those of all 3 layers"):
        partition(model, 1)
