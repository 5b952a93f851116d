"""Facts about a model that is in memory: its size, its identity in a run, and the longest sequence it can take."""

import hashlib
import json
from operator import itemgetter
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedConfig

from deca_node.protocol.errors import ModelError

POSITIONS_AFTER_PADDING = {
    *("camembert", "data2vec-text", "ibert", "lilt", "longformer", "luke", "markuplm", "mpnet", "roberta"),
    *("roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
}
"""Architectures that number positions from the padding token's number plus one."""


def positions_max(config: PreTrainedConfig) -> int | None:
    """The longest sequence in tokens, from ``max_position_embeddings``; None if the architecture has no limit."""
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    taken = (config.pad_token_id or 0) + 1 if config.model_type in POSITIONS_AFTER_PADDING else 0
    return int(limit) - taken if limit and limit > 0 else None


def check_sequence_length(sequence_length: int, limit: int | None, folder: Path) -> None:
    """Raise ModelError if ``sequence_length`` tokens are more than ``limit``, the model's number of positions.

    ``limit`` is what :func:`positions_max` returned; ``folder`` is named in the error.
    """
    if limit is not None and sequence_length > limit:
        raise ModelError(
            f"sequence_length = {sequence_length} is more than the {limit} positions of the model in {folder}; "
            f"set it to {limit} or less"
        )


def count_parameters(model: nn.Module) -> int:
    """The number of parameter elements; tied parameters count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def model_bytes(model: nn.Module) -> int:
    """Bytes of all parameters in their own dtypes; tied parameters count once."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def parameter_hash(model: nn.Module) -> str:
    """SHA-256 over names, shapes, dtypes and bytes of all parameters, in hex: the model's identity in a run.

    Parameters are hashed in the order of their names. Tied parameters count once and buffers are left out, so the
    hash does not depend on how the files are sharded. At most one tensor at a time is copied, and only if it is not
    already contiguous on the CPU.
    """
    named = sorted(model.named_parameters(), key=itemgetter(0))
    header = [[name, list(p.shape), str(p.dtype).removeprefix("torch.")] for name, p in named]
    digest = hashlib.sha256(json.dumps(header, separators=(",", ":"), ensure_ascii=True).encode() + b"\n")
    for _, parameter in named:
        flat = parameter.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
