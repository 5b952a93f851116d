"""Limits on what a config.json may describe, checked before transformers builds anything from it.

A config.json may come from a donor. transformers builds the model that it describes, and takes memory for it, before it
finds that the weight files hold less. So the counts of layers and experts are checked first, and then the size of the
model that the config describes, in shapes without storage.
"""

import re
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from deca_node.numerics.model.classifier import Head, auto_class
from deca_node.protocol.errors import ModelError
from deca_node.storage.model_files import brief

PARTS_MAX = 10_000
"""No model has nearly as many layers, or experts in a layer. Building a billion of them would take hours."""

MISSING_MAX = 1 << 24
"""Elements that a config may describe beyond twice the elements of the weights."""

_PARTS = re.compile(r"(layers?|experts?)$")


def check_parts(raw: dict[str, Any], folder: Path) -> None:
    """Raise ModelError if config.json (``raw``) names more than PARTS_MAX layers or experts."""
    waiting = list(raw.items())
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.items()
        elif isinstance(value, int | float) and abs(value) > PARTS_MAX and _PARTS.search(name.lower()):
            raise ModelError(f"{folder}/config.json: {name} is above {PARTS_MAX:,}, and no model has so many")


def described_model(config: PreTrainedConfig, folder: Path, head: Head | None) -> PreTrainedModel:
    """The model that a config describes, with ``head`` a classifier, on torch's meta device: its tensors have shapes
    and no storage. Raises ModelError."""
    try:
        with torch.device("meta"):
            model: PreTrainedModel = auto_class(config, head).from_config(config, trust_remote_code=False)
    except Exception as error:  # each architecture checks its own config, with exceptions of its own
        raise ModelError(f"{folder}/config.json does not make a model: {brief(error)}") from error
    return model


def check_size(held: int, config: PreTrainedConfig, folder: Path, head: Head | None = None) -> None:
    """Raise ModelError if a config describes far more parameters than the ``held`` elements of the weight files.

    transformers would take memory for all of them before it says which weights are missing.
    """
    described = sum(parameter.numel() for parameter in described_model(config, folder, head).parameters())
    if described > 2 * held + MISSING_MAX:
        raise ModelError(f"{folder}: config.json describes {described:,} parameters, and the weights hold {held:,}")
