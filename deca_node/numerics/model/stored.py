"""Compares a model's files with the model that config.json describes, before a weight is read.

Names in the files are not always names of the model: transformers renames tensors, and joins those of experts, while it
loads. So it is transformers that loads here as well, from tensors with shapes and without storage.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
from transformers.modeling_utils import LoadStateDictConfig

from deca_node.numerics.model.quiet import quiet
from deca_node.storage.model_files import StoredTensor

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_CONSTANTS = ("inv_freq", "position_ids", "masked_bias", ".attn.bias", ".attention.bias", "embed_positions.weights")
"""Ends of names of tensors that old checkpoints hold and that follow from the config: nothing is lost with them."""


@dataclass(frozen=True)
class Fit:
    """What the files lack: ``missing`` are names of the model, ``wrong`` sentences about shapes that differ."""

    missing: tuple[str, ...]
    wrong: tuple[str, ...]


def fit(model: PreTrainedModel, stored: Mapping[str, StoredTensor]) -> Fit:
    """Compare. ``model`` is on torch's meta device, and cannot be used for anything else afterwards."""
    tied = dict(model.all_tied_weights_keys)
    shapes = {name: parameter.shape for name, parameter in model.state_dict().items()}
    empty = {
        name: torch.empty(tensor.shape, dtype=_DTYPES.get(tensor.dtype, torch.float32), device="meta")
        for name, tensor in stored.items()
    }
    how = LoadStateDictConfig(
        device_map={"": torch.device("meta")},
        dtype=next(model.parameters()).dtype,
        ignore_mismatched_sizes=True,
        weight_mapping=get_model_conversion_mapping(model, None, None),
    )
    with quiet():
        found, _ = model._load_pretrained_model(model, empty, None, how)
    model._adjust_missing_and_unexpected_keys(found)
    wrong = [
        f"{name} is {list(there)} where config.json makes it {list(shapes[name])}"
        for name, there, _ in sorted(found.mismatched_keys)
    ]
    wrong += [f"{name}: {problem}" for name, problem in sorted(found.conversion_errors.items())]
    lacking = set(found.missing_keys)
    # Of tied parameters one is enough.
    groups = ({target, source} for target, source in tied.items())
    there = {name for group in groups if group - lacking for name in group}
    return Fit(tuple(sorted(lacking - there)), tuple(wrong))


def own_names(model: PreTrainedModel, stored: Mapping[str, StoredTensor]) -> dict[str, str | None]:
    """The model's name for each tensor of the files: None where it has no place in the model."""
    mapping = get_model_conversion_mapping(model, None, None)
    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
    known = model.state_dict()
    found: dict[str, str | None] = {}
    for name in stored:
        own, _ = rename_source_key(name, renamings, converters, model.base_model_prefix, known)
        if own not in known and name in known:
            own = name
        found[name] = own if own in known else None
    return found


def unknown_tensors(model: PreTrainedModel, stored: Mapping[str, StoredTensor]) -> list[str]:
    """The tensors of the files that have no place in the model, by their names in the files."""
    named = own_names(model, stored).items()
    return [name for name, own in named if own is None and not name.endswith(_CONSTANTS)]


def untie_stored_apart(model: PreTrainedModel, stored: Mapping[str, StoredTensor]) -> None:
    """Untie parameters of a model on the meta device that the config ties, and that the files hold twice with different
    values: transformers does so when it loads them."""
    if not model.all_tied_weights_keys:
        return
    file_names = {own: name for name, own in own_names(model, stored).items() if own}
    for target, source in model.all_tied_weights_keys.items():
        pair = [stored[file_names[name]] for name in (target, source) if name in file_names]
        names = [file_names[name] for name in (target, source) if name in file_names]
        if len(pair) == 2 and not _equal(pair[0].file, names[0], pair[1].file, names[1]):
            parent, _, leaf = target.rpartition(".")
            owner = model.get_submodule(parent)
            setattr(owner, leaf, nn.Parameter(torch.empty_like(getattr(owner, leaf))))


def _equal(first_file: Path, first: str, second_file: Path, second: str) -> bool:
    with safe_open(first_file, framework="pt") as one, safe_open(second_file, framework="pt") as other:
        return torch.equal(one.get_tensor(first), other.get_tensor(second))
