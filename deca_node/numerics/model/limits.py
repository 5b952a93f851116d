"""What a config.json may say before anybody believes it: it may come from a donor, and takes one line to lie.

transformers builds what a config describes, and takes memory for it, before it finds that the weights hold less. So
the counts are looked at first, and then the model as it would be, in shapes only.
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
"""No model has nearly as many layers, or experts in one; a billion would be built for hours."""

MISSING_MAX = 1 << 24
"""Elements that a config may describe beyond twice those of the weights: so much memory may be taken in vain."""

_PARTS = re.compile(r"(layers?|experts?)$")


def check_parts(raw: dict[str, Any], folder: Path) -> None:
    """Refuse counts of layers and experts that nobody means, before transformers makes a list of them."""
    waiting = list(raw.items())
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.items()
        elif isinstance(value, int | float) and abs(value) > PARTS_MAX and _PARTS.search(name.lower()):
            raise ModelError(f"{folder}/config.json: {name} is above {PARTS_MAX:,}, and no model has so many")


def meta_model(config: PreTrainedConfig, folder: Path, head: Head | None) -> PreTrainedModel:
    """The model that a config describes, with ``head`` a classifier: on torch's meta device, where tensors have shapes
    and no storage."""
    try:
        with torch.device("meta"):
            model: PreTrainedModel = auto_class(head).from_config(config, trust_remote_code=False)
    except Exception as error:  # each architecture checks its own config, with exceptions of its own
        raise ModelError(f"{folder}/config.json does not make a model: {brief(error)}") from error
    return model


def check_size(held: int, config: PreTrainedConfig, folder: Path, head: Head | None = None) -> None:
    """Refuse a config that describes far more than the ``held`` elements of the weights: transformers would take
    memory for all of it before it says what is missing."""
    described = sum(parameter.numel() for parameter in meta_model(config, folder, head).parameters())
    if described > 2 * held + MISSING_MAX:
        raise ModelError(f"{folder}: config.json describes {described:,} parameters, and the weights hold {held:,}")
