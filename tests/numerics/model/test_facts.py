"""Facts about models: their identity, their size, and the longest sequence they take."""

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    PreTrainedModel,
)

from deca_node.numerics.model.facts import check_sequence_length, count_parameters, model_bytes, parameter_hash
from deca_node.numerics.model.load import load_model
from deca_node.protocol.errors import ModelError
from tests.numerics.model.small_models import (
    VOCABULARY,
    folder_of,
    gpt2,
    llama,
    qwen2,
)


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
    """All parameters are zeros, so only names, shapes and dtypes differ."""

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


def test_sequences_longer_than_the_positions_are_refused(folder: Path) -> None:
    loaded = load_model(str(folder))
    check_sequence_length(32, loaded.positions_max, folder)
    with pytest.raises(ModelError, match="sequence_length = 33 is more than the 32 positions"):
        check_sequence_length(33, loaded.positions_max, folder)


def test_without_a_limit_any_length_passes(folder: Path) -> None:
    check_sequence_length(10**9, None, folder)
