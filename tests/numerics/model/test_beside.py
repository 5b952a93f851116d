"""What lies beside a model in its folder: it is kept, left out, or refused, and never without a word."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from deca_node.numerics.model.facts import parameter_hash
from deca_node.numerics.model.load import load_model
from deca_node.numerics.model.save import save_model
from deca_node.protocol.errors import ModelError, StorageError
from deca_node.storage.model_files import read_headers
from tests.numerics.model.small_models import SIZES, folder_of

ADAPTER = {"peft_type": "LORA", "base_model_name_or_path": "somewhere/else", "task_type": "CAUSAL_LM"}


def with_more_layers(folder: Path, shard: str) -> Path:
    """A folder whose files hold three layers, and whose config.json knows two."""
    torch.manual_seed(0)
    folder_of(LlamaForCausalLM(LlamaConfig(**{**SIZES, "num_hidden_layers": 3})), folder, max_shard_size=shard)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    return folder


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: load_file(stored.file)[name] for name, stored in read_headers(folder).items()}


# --- tensors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shard", ["1GB", "8KB"])
def test_tensors_without_a_place_in_the_model_are_told_and_kept(tmp_path: Path, shard: str) -> None:
    folder = with_more_layers(tmp_path / "m", shard)
    loaded = load_model(str(folder))
    (said,) = loaded.beside.told()
    assert "has no place for 9 tensors of the files, which are not trained and go into final/ unchanged" in said
    assert "model.layers.2.input_layernorm.weight" in said and said.endswith("and 6 more")
    out = save_model(loaded.model, loaded.tokenizer, tmp_path / "out", beside=loaded.beside)
    before, after = tensors_of(folder), tensors_of(out)
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {(out / "config.json").stat().st_mode & 0o777}
    again = load_model(str(out))
    assert parameter_hash(again.model) == parameter_hash(loaded.model)
    assert len(again.beside.unknown) == 9, "and from there on"


def test_heads_that_predict_several_tokens_ahead_are_kept(folder: Path, tmp_path: Path) -> None:
    """transformers drops them in silence where it knows of them."""
    weights = load_file(folder / "model.safetensors")
    weights["mtp.layers.0.proj.weight"] = torch.ones(2, 2)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    loaded = load_model(str(folder))
    out = save_model(loaded.model, loaded.tokenizer, tmp_path / "out", beside=loaded.beside)
    assert torch.equal(tensors_of(out)["mtp.layers.0.proj.weight"], torch.ones(2, 2))


def test_constants_of_old_checkpoints_are_no_loss(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert not list(load_model(str(folder)).beside.told())


def test_a_start_model_that_is_gone_is_named(tmp_path: Path) -> None:
    loaded = load_model(str(with_more_layers(tmp_path / "m", "1GB")))
    (tmp_path / "m" / "model.safetensors").unlink()
    with pytest.raises(StorageError, match="where the run started from, cannot be read any more"):
        save_model(loaded.model, loaded.tokenizer, tmp_path / "out", beside=loaded.beside)


# --- adapters ---------------------------------------------------------------------------------------


def test_an_adapter_beside_the_weights_changes_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where peft is installed transformers would put it into the model, and save the adapter alone."""
    before = parameter_hash(load_model(str(folder)).model)
    (folder / "adapter_config.json").write_text(json.dumps(ADAPTER))
    save_file({"base_model.model.lora_A.weight": torch.ones(1)}, folder / "adapter_model.safetensors")
    for module in ("integrations.peft", "models.auto.auto_factory"):
        monkeypatch.setattr(f"transformers.{module}.is_peft_available", lambda: True)
    loaded = load_model(str(folder))
    assert parameter_hash(loaded.model) == before
    assert list(loaded.beside.told()) == [
        f"{folder}: the adapter beside the weights is left out; merge it first if it should count"
    ]
    out = save_model(loaded.model, loaded.tokenizer, tmp_path / "out", beside=loaded.beside)
    assert parameter_hash(load_model(str(out)).model) == before
    assert not list(out.glob("adapter*"))


def test_a_folder_with_an_adapter_alone_is_told_so(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps(ADAPTER))
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        ModelError, match=r"holds no weights: .*; it holds an adapter, which is no model: merge it first"
    ):
        load_model(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match="holds an adapter and no model: merge it first, with merge_and_unload"):
        load_model(str(folder))


def test_a_whole_model_alone_has_nothing_beside(folder: Path) -> None:
    loaded = load_model(str(folder))
    assert not loaded.beside.unknown and not loaded.beside.files and not list(loaded.beside.told())
