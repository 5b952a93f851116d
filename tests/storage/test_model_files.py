"""Headers of weight files, read without torch: they match what the library wrote, and damage is found."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from deca_node.numerics.forecast import fitting
from deca_node.numerics.model.stored import Fit, fit
from deca_node.protocol.errors import ModelError
from deca_node.storage.model_files import INDEX, StoredTensor, read_header, read_headers

LLAMA = LlamaConfig(
    vocab_size=32,
    hidden_size=8,
    intermediate_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    LlamaForCausalLM(LLAMA).to(torch.bfloat16).save_pretrained(tmp_path, max_shard_size="2KB")
    assert (tmp_path / INDEX).is_file()
    return tmp_path


def test_headers_are_what_was_written(folder: Path) -> None:
    model = LlamaForCausalLM(LLAMA)
    stored = read_headers(folder)
    assert {name: t.shape for name, t in stored.items()} == {n: tuple(p.shape) for n, p in model.named_parameters()}
    assert {tensor.dtype for tensor in stored.values()} == {"BF16"}
    assert sum(tensor.nbytes for tensor in stored.values()) == 2 * sum(p.numel() for p in model.parameters())
    assert fit(model, stored) == Fit((), ())


def test_no_torch_is_needed() -> None:
    modules = "deca_node.storage.model_files, deca_node.numerics.forecast.data_check"
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=True).returncode == 0


@pytest.mark.parametrize("damage", ["short", "long", "header", "length", "shape", "missing"])
def test_damage_is_found(folder: Path, damage: str) -> None:
    path = next(folder.glob("*.safetensors"))
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    next(entry for name, entry in header.items() if name != "__metadata__")["shape"] = [3]
    changed = json.dumps(header).encode()
    texts = {
        "short": data[:-1],
        "long": data + b"x",
        "header": data[:8] + b"x" + data[9:],
        "length": b"\xff" * 8 + data[8:],
        "shape": len(changed).to_bytes(8, "little") + changed + data[8 + length :],
    }
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(texts[damage])
    with pytest.raises(ModelError, match="is missing" if damage == "missing" else "damaged or cut short"):
        read_headers(folder)


def test_other_shapes_and_missing_weights_are_named(folder: Path) -> None:
    stored = read_headers(folder)
    name = "model.layers.0.mlp.up_proj.weight"
    stored[name] = StoredTensor("BF16", (16, 9), folder)
    del stored["model.norm.weight"]
    found = fit(LlamaForCausalLM(LLAMA), stored)
    assert found.wrong == (f"{name} is [16, 9] where config.json makes it [16, 8]",)
    assert found.missing == ("model.norm.weight",)
    assert fitting.named(["a", "b", "c", "d", "e"]) == "a; b; c and 2 more"


def test_names_without_the_inner_models_are_found(tmp_path: Path) -> None:
    """The first published GPT-2 has such names."""
    model = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_embd=8, n_layer=1, n_head=2, n_positions=8))
    bare = {name.removeprefix("transformer."): p.detach().clone() for name, p in model.named_parameters()}
    save_file(bare, tmp_path / "model.safetensors")
    assert fit(model, read_header(tmp_path / "model.safetensors")) == Fit((), ())


def test_free_memory_within_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "CGROUP", tmp_path)
    device, outside = fitting.free_memory("cpu", "")
    assert device == "cpu" and outside is not None and outside > 0
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 400\ninactive_file 100\n")
    assert fitting.free_memory("cpu", "") == ("cpu", 400)
    (tmp_path / "memory.max").write_text("max\n")
    assert fitting.free_memory("cpu", "")[1] != 400
