"""A run's start model, loaded and made ready to be trained, the same at every rank of a trainer."""

import torch

from deca_node.numerics.learning.dropout import set_dropout
from deca_node.numerics.learning.noise import add_noise
from deca_node.numerics.model.classifier import Head
from deca_node.numerics.model.load import LoadedModel, load_model
from deca_node.protocol.errors import ModelError
from deca_node.protocol.options import TrainerOptions


def load_for(options: TrainerOptions, device: torch.device) -> LoadedModel:
    """Load the run's start model on a device. Raises ModelError."""
    settings = options.settings
    head, attention = Head.of(settings), options.attention
    loaded = load_model(options.model, dtype=settings.dtype, device=device, head=head, attention=attention)
    set_dropout(loaded.model, settings.dropout)  # here already, so that a refusal comes before the data are read
    return loaded


def prepare(loaded: LoadedModel, options: TrainerOptions) -> None:
    """Make a model ready to be trained as the options say. Raises ModelError if it cannot be."""
    add_noise(loaded.model, options.settings.neftune_alpha)
    set_dropout(loaded.model, options.settings.dropout)
    if not options.gradient_checkpointing:
        return
    try:
        loaded.model.gradient_checkpointing_enable({"use_reentrant": False})
    except ValueError:
        kind = loaded.model.config.model_type
        raise ModelError(
            f"{loaded.folder}: {kind} has no gradient checkpointing in transformers; turn it off"
        ) from None
