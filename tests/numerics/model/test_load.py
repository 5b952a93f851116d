"""Loading, hashing and saving models: what is accepted is exact, what is refused gets one sentence."""

import hashlib
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertLMHeadModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTModel,
)

from deca_node.numerics.model import load as subject
from deca_node.numerics.model.load import (
    LoadedModel,
    check_sequence_length,
    count_parameters,
    load_model,
    model_bytes,
    parameter_hash,
    save_model,
)
from deca_node.protocol.errors import ModelError, StorageError

VOCABULARY = 48
TOKENS = 40  # fewer than the model has rows, as in most checkpoints
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def llama() -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**SIZES))


def qwen2() -> PreTrainedModel:
    """Input and output embeddings are tied."""
    return Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=True))


def gpt2() -> PreTrainedModel:
    """Tied as well, with biases, learned positions and dropout."""
    sizes = {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=1))


def small_tokenizer(tokens: int = TOKENS) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(tokens)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0")


def folder_of(model: PreTrainedModel, folder: Path, **how: Any) -> Path:
    """A checkpoint with a tokenizer, written by transformers alone."""
    model.save_pretrained(folder, **how)
    small_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return folder_of(llama(), tmp_path / "llama")


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


def test_sequences_longer_than_the_positions_are_refused(folder: Path) -> None:
    loaded = load_model(str(folder))
    check_sequence_length(loaded, 32)
    with pytest.raises(ModelError, match="sequence_length = 33 is more than the 32 positions"):
        check_sequence_length(loaded, 33)


def test_without_a_limit_any_length_passes(folder: Path) -> None:
    loaded = load_model(str(folder))
    check_sequence_length(LoadedModel(loaded.model, loaded.tokenizer, folder, None), 10**9)


# --- refusals ---------------------------------------------------------------------------------------


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "there is no folder" in refusal(tmp_path / "nowhere")
    assert "there is no folder" in refusal("")


def test_a_file_is_refused(folder: Path) -> None:
    assert "is a file; name the folder" in refusal(folder / "config.json")


def test_a_hub_id_that_cannot_be_had_is_refused() -> None:
    """The suite runs with HF_HUB_OFFLINE=1."""
    assert "'deca-node/no-such-model' is no folder here" in refusal("deca-node/no-such-model")
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
    """Left alone, transformers would draw it at random, differently on every node."""
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
    assert "holds no tokenizer that can be read" in refusal(folder)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(folder: Path) -> None:
    small_tokenizer(VOCABULARY + 1).save_pretrained(folder)
    assert "the tokenizer knows 49 tokens, the model only 48" in refusal(folder)


# --- identity ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("build", [llama, qwen2, gpt2])
def test_sharding_does_not_change_the_hash(
    build: Callable[[], PreTrainedModel], dtype: torch.dtype, tmp_path: Path
) -> None:
    written = build().to(dtype)
    whole = folder_of(written, tmp_path / "whole")
    shards = folder_of(written, tmp_path / "shards", max_shard_size="4KB")
    assert len(list(shards.glob("model-*.safetensors"))) > 2
    assert parameter_hash(load_model(str(whole)).model) == parameter_hash(load_model(str(shards)).model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_flipped_bit_changes_the_hash(dtype: torch.dtype) -> None:
    model = llama().to(dtype)
    before = parameter_hash(model)
    last = list(model.parameters())[-1].detach().view(torch.uint8).view(-1)
    last[-1] ^= 1
    assert parameter_hash(model) != before
    last[-1] ^= 1
    assert parameter_hash(model) == before


def test_the_hash_covers_names_shapes_and_dtypes() -> None:
    """Zeros, whose bytes are the same whatever they are called."""

    def hashed(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> str:
        module = torch.nn.Module()
        module.register_parameter(name, torch.nn.Parameter(torch.zeros(shape, dtype=dtype)))
        return parameter_hash(module)

    base = hashed("a", (2, 4), torch.bfloat16)
    assert base == hashed("a", (2, 4), torch.bfloat16)
    others = [("b", (2, 4), torch.bfloat16), ("a", (4, 2), torch.bfloat16), ("a", (2, 4), torch.float16)]
    assert len({base, *(hashed(*other) for other in others)}) == 4


def test_the_hash_does_not_depend_on_layout_or_buffers() -> None:
    """A scalar, an empty and a transposed parameter hash as their values do."""
    one, two = torch.nn.Module(), torch.nn.Module()
    for module, matrix in (
        (one, torch.arange(6.0).view(2, 3)),
        (two, torch.arange(6.0).view(2, 3).t().contiguous().t()),
    ):
        module.matrix = torch.nn.Parameter(matrix)
        module.scalar = torch.nn.Parameter(torch.tensor(1.5))
        module.empty = torch.nn.Parameter(torch.zeros(0, 3))
    two.register_buffer("extra", torch.ones(3))
    assert parameter_hash(one) == parameter_hash(two)


def test_the_hash_of_known_values_never_changes() -> None:
    """Nodes of two versions must agree, so the recipe is frozen: SHA-256 of the header, a newline and the bytes."""
    module = torch.nn.Linear(2, 1)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1.0, -2.0]]))
        module.bias.fill_(0.5)
    header = b'[["bias",[1],"float32"],["weight",[1,2],"float32"]]'
    expected = hashlib.sha256(header + b"\n" + struct.pack("<3f", 0.5, 1.0, -2.0)).hexdigest()
    assert parameter_hash(module) == expected


@pytest.mark.parametrize(("build", "tied"), [(llama, 0), (qwen2, VOCABULARY * 16)])
def test_tied_parameters_count_once(build: Callable[[], PreTrainedModel], tied: int) -> None:
    model = build().to(torch.bfloat16)
    every = sum(p.numel() for _, p in model.named_parameters(remove_duplicate=False))
    assert count_parameters(model) == every - tied
    assert model_bytes(model) == 2 * (every - tied)


# --- saving -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("build", [llama, qwen2, gpt2])
def test_a_saved_model_is_an_ordinary_checkpoint(
    build: Callable[[], PreTrainedModel], dtype: torch.dtype, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = build().to(dtype)
    model.generation_config.max_new_tokens = 7
    folder = save_model(model, small_tokenizer(), tmp_path / "deep" / "final")
    assert "".join(capfd.readouterr()) == ""
    again = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert parameter_hash(again) == parameter_hash(model)
    assert again.generation_config.max_new_tokens == 7
    assert AutoTokenizer.from_pretrained(folder).get_vocab().items() >= small_tokenizer().get_vocab().items()
    assert [path.name for path in folder.parent.iterdir()] == ["final"]


def test_a_generation_config_is_kept_even_if_transformers_calls_it_invalid(folder: Path, tmp_path: Path) -> None:
    """Llama 2 was published with a temperature and without sampling; a run must not fail over that at its end."""
    odd = {"temperature": 0.9, "top_p": 0.6, "eos_token_id": 1}
    (folder / "generation_config.json").write_text(json.dumps(odd))
    loaded = load_model(str(folder))
    saved = save_model(loaded.model, loaded.tokenizer, tmp_path / "final")
    assert odd.items() <= json.loads((saved / "generation_config.json").read_text()).items()


def test_parameters_that_share_one_buffer_are_saved_each(tmp_path: Path) -> None:
    """The active block's parameters may be views of one flat tensor."""
    model = llama()
    layer = list(model.model.layers[0].parameters())
    flat = torch.cat([parameter.detach().view(-1) for parameter in layer])
    for parameter, part in zip(layer, flat.split([p.numel() for p in layer]), strict=True):
        parameter.data = part.view_as(parameter)
    folder = save_model(model, small_tokenizer(), tmp_path / "final")
    assert parameter_hash(load_model(str(folder)).model) == parameter_hash(model)


def test_an_earlier_checkpoint_is_replaced_whole(folder: Path) -> None:
    (folder / "left-over.txt").write_text("of the former save")
    model = llama()
    save_model(model, small_tokenizer(), folder)
    assert parameter_hash(load_model(str(folder)).model) == parameter_hash(model)
    assert not (folder / "left-over.txt").exists()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_other_peoples_folders_and_files_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(StorageError, match="holds other things than a model"):
        save_model(llama(), small_tokenizer(), tmp_path / "photos")
    with pytest.raises(StorageError, match="a file of that name is in the way"):
        save_model(llama(), small_tokenizer(), tmp_path / "photos" / "cat.jpg")
    assert (tmp_path / "photos" / "cat.jpg").read_bytes() == b"cat"


def test_a_full_disk_is_noticed_before_anything_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(subject.shutil, "disk_usage", lambda _: usage._replace(free=3 * 2**20))
    before = parameter_hash(load_model(str(folder)).model)
    with pytest.raises(StorageError, match=r"the disk is too full .* 64 MiB are needed and 3 MiB are free in"):
        save_model(llama(), small_tokenizer(), folder)
    assert parameter_hash(load_model(str(folder)).model) == before


@pytest.mark.parametrize("fails_at", ["save", "rename"])
def test_a_failure_midway_leaves_the_former_checkpoint(
    fails_at: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, before = llama(), parameter_hash(load_model(str(folder)).model)
    original = Path.rename

    def fail(path: Path, *to: Any, **_: Any) -> Any:
        if fails_at == "save" or path.name.endswith(".partial"):
            raise OSError(5, "Input/output error")
        return original(path, *to)

    if fails_at == "save":
        monkeypatch.setattr(model, "save_pretrained", fail)
    else:
        monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(StorageError, match=r"cannot be written to .*Input/output error"):
        save_model(model, small_tokenizer(), folder)
    assert parameter_hash(load_model(str(folder)).model) == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_disk_that_fills_up_while_writing_is_told_in_the_same_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Rust side of safetensors reports the system's error as text."""
    model = llama()

    def fail(*_: Any) -> None:
        raise subject.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(model, "save_pretrained", fail)
    with pytest.raises(StorageError, match="the disk is too full to write the model"):
        save_model(model, small_tokenizer(), tmp_path / "final")
