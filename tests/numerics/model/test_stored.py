"""Headers of weight files against the model: what is missing, and what is there under another name."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MixtralConfig, MixtralForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from deca_node.numerics.forecast.shapes import meta_model
from deca_node.numerics.model.blocks import partition
from deca_node.numerics.model.facts import parameter_hash
from deca_node.numerics.model.load import load_model
from deca_node.numerics.model.save import save_model
from deca_node.numerics.model.stored import Fit, fit
from deca_node.storage.model_files import read_headers
from tests.numerics.model.small_models import SIZES, folder_of, gpt2, llama, qwen2


def mixtral() -> MixtralForCausalLM:
    return MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=2))


def qwen3_moe() -> Qwen3MoeForCausalLM:
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**SIZES, num_experts=2, moe_intermediate_size=8, head_dim=8))


@pytest.mark.parametrize("build", [llama, qwen2, gpt2, mixtral, qwen3_moe])
def test_a_folder_fits_its_own_config(build: type, tmp_path: Path) -> None:
    """Also where the files hold every expert alone, and the model all of them in one tensor."""
    folder = folder_of(build(), tmp_path / "m")
    assert fit(meta_model(str(folder), 8), read_headers(folder)) == Fit((), ())


def test_an_expert_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = folder_of(mixtral(), tmp_path / "m")
    stored = read_headers(folder)
    lacking = {name: tensor for name, tensor in stored.items() if ".experts." not in name}
    assert len(lacking) < len(stored)
    missing = fit(meta_model(str(folder), 8), lacking).missing
    assert missing and all(".experts." in name for name in missing)


@pytest.mark.parametrize("apart", [True, False])
def test_tied_weights_that_are_stored_apart_are_two(apart: bool, tmp_path: Path) -> None:
    """As transformers loads them. The plan then has the blocks of the run."""
    folder = folder_of(qwen2(), tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"] + int(apart)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"]
    planned = partition(meta_model(str(folder), 8), 1)
    loaded = load_model(str(folder))
    assert [(b.name, b.elements) for b in planned] == [(b.name, b.elements) for b in partition(loaded.model, 1)]
    assert len(planned) == 3 + apart
    assert fit(meta_model(str(folder), 8), read_headers(folder)) == Fit((), ())
    assert torch.equal(loaded.model.lm_head.weight, weights["lm_head.weight"])
    out = save_model(loaded.model, loaded.tokenizer, tmp_path / "out", beside=loaded.beside)
    assert parameter_hash(load_model(str(out)).model) == parameter_hash(loaded.model)
