"""Which implementation of attention a model is loaded with.

By default transformers chooses, and the model is loaded as if there were no setting. A named implementation is checked
before the weights are read. For flash_attention_2 transformers would also fetch kernels from a hub where the package is
missing, and run them; that is refused here.
"""

from pathlib import Path

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import is_flash_attn_2_available

from deca_node.numerics.model.classifier import Head, auto_class
from deca_node.numerics.model.limits import described_model
from deca_node.protocol.errors import ModelError
from deca_node.storage.model_files import brief

DEFAULT = "auto"
FLASH = "flash_attention_2"


def attention_arguments(
    attention: str, config: PreTrainedConfig, folder: Path, head: Head | None, device: torch.device
) -> dict[str, str]:
    """What transformers is told when it loads the model; nothing under "auto". Raises ModelError if the machine or the
    model does not have this implementation."""
    if attention == DEFAULT:
        return {}
    if attention == FLASH:
        _check_flash(config, folder, head, device)
    try:
        with torch.device("meta"):
            auto_class(config, head).from_config(config, trust_remote_code=False, attn_implementation=attention)
    except (ValueError, ImportError) as error:
        raise ModelError(f"{folder}: {config.model_type} has no attention = {attention!r}: {brief(error)}") from error
    return {"attn_implementation": attention}


def check_precision(model: PreTrainedModel, attention: str) -> None:
    """Raise ModelError if this implementation does not compute in the model's precision."""
    if attention == FLASH and model.dtype not in (torch.bfloat16, torch.float16):
        raise ModelError(
            f"attention = {FLASH!r} computes in 16 bits only, and this model has {str(model.dtype)[6:]}; use "
            "dtype = 'bfloat16' on all nodes, or another attention"
        )


def _check_flash(config: PreTrainedConfig, folder: Path, head: Head | None, device: torch.device) -> None:
    if device.type != "cuda" or not is_flash_attn_2_available():
        raise ModelError(
            f"attention = {FLASH!r} needs a GPU and the package flash-attn, and this node has {_lacks(device)}; use "
            "attention = 'sdpa'"
        )
    others = getattr(described_model(config, folder, head), "_compatible_flash_implementations", None)
    if others and FLASH not in others:
        raise ModelError(f"{folder}: {config.model_type} has no attention = {FLASH!r}, only kernels from a hub")


def _lacks(device: torch.device) -> str:
    return f"the device {device}" if device.type != "cuda" else "no such package"
