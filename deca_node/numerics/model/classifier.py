"""What a classifier needs beside the weights of a language model: names of labels, a head, and a padding token.

A checkpoint of a classifier keeps its labels and its head. Any other checkpoint has no head yet. Then every node makes
the same head for itself, from the run's seed: the head is part of the model that the run starts from, and of its hash.
Its numbers come from Python's own generator, without a logarithm or a cosine, whose last bits differ between
processors.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
)
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.errors import ModelError

CLASSIFIER = "ForSequenceClassification"
"""The end of the name of every classifier class in transformers."""

USUAL_SPREAD = 0.02
"""Standard deviation of fresh weights if the config names none."""


@dataclass(frozen=True)
class Head:
    """The head that a run asks for. Without ``labels`` the checkpoint's own labels are used. A fresh head is drawn from
    ``seed``."""

    labels: tuple[str, ...]
    seed: int

    @classmethod
    def of(cls, settings: RunSettings) -> "Head | None":
        """The head under a run's settings; None if the task has no labels."""
        return cls(settings.label_names, settings.seed) if settings.task == "classification" else None

    @classmethod
    def agreed(cls, fields: Mapping[str, str]) -> "Head | None":
        """The same from the agreed fields of a run."""
        settings = RunSettings(task=fields["task"], labels=fields.get("labels", ""), seed=int(fields["seed"]))
        return cls.of(settings)


def auto_class(config: PreTrainedConfig, head: Head | None) -> Any:
    """The class of transformers that builds the model.

    Some configs are those of two classes: of the whole model that also sees or hears, and of its text part. Files that
    were saved as the whole model are read as the whole model, so that no tensor is lost.
    """
    if head:
        return AutoModelForSequenceClassification
    whole = MODEL_FOR_MULTIMODAL_LM_MAPPING.get(type(config), None)
    return AutoModelForMultimodalLM if whole and whole.__name__ in _architectures(config) else AutoModelForCausalLM


def _architectures(config: PreTrainedConfig) -> list[str]:
    return list(getattr(config, "architectures", None) or ())


def can_classify(config: PreTrainedConfig) -> bool:
    """Whether transformers has a classifier of this architecture."""
    return type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING


def settle_labels(config: PreTrainedConfig, raw: Mapping[str, Any], wanted: Sequence[str], folder: Path) -> None:
    """Give the config the run's labels, or make sure that it has labels of its own.

    ``raw`` is config.json as it was read, because transformers invents two labels for a config without labels. Raises
    ModelError if there are no labels, or if the checkpoint is a classifier with other labels than ``wanted``.
    """
    classifies = any(str(name).endswith(CLASSIFIER) for name in raw.get("architectures") or ())
    own = _own_labels(config, folder) if classifies or ("id2label" in raw and not wanted) else ()
    if wanted and own and tuple(wanted) != own and not _unnamed(own, len(wanted)):
        raise ModelError(
            f"{folder}: the model sorts into {', '.join(own)}, and the run's labels are {', '.join(wanted)}; leave "
            "labels out, or start from a checkpoint without a head"
        )
    names = tuple(wanted) or own
    if not names:
        raise ModelError(
            f"{folder}: neither the run nor config.json (id2label) names labels; name them as in labels = 'neg, pos'"
        )
    config.id2label = dict(enumerate(names))
    config.label2id = {name: number for number, name in enumerate(names)}
    config.problem_type = "single_label_classification"


def labels_of(config: PreTrainedConfig) -> tuple[str, ...]:
    """The labels of a config that :func:`settle_labels` has settled, in the order of their numbers."""
    names: Mapping[int, str] = config.id2label or {}
    return tuple(names[number] for number in range(len(names)))


def _own_labels(config: PreTrainedConfig, folder: Path) -> tuple[str, ...]:
    if config.problem_type not in (None, "single_label_classification"):
        raise ModelError(
            f"{folder}: the model was made for {config.problem_type}, and a run tunes for one label per text"
        )
    names: Mapping[int, str] = config.id2label or {}
    if sorted(names) != list(range(len(names))) or len(names) < 2 or len(set(names.values())) < len(names):
        raise ModelError(f"{folder}/config.json: id2label must name two labels or more, each once, numbered from 0")
    return labels_of(config)


def _unnamed(own: Sequence[str], count: int) -> bool:
    """Whether a checkpoint has as many labels as wanted, and only transformers' default names for them."""
    return list(own) == [f"LABEL_{number}" for number in range(count)]


def settle_padding(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Make sure that model and tokenizer have a padding token; the token that ends a text will do.

    A model that reads in one direction judges a text at its last token before the padding. Raises ModelError if the
    tokenizer has neither token.
    """
    text = config.get_text_config()
    found = (getattr(text, "pad_token_id", None), tokenizer.pad_token_id, tokenizer.eos_token_id)
    tokens = getattr(text, "vocab_size", math.inf)  # where any number is a token, as in CANINE
    usable = [token for token in found if token is not None and 0 <= token < tokens]
    if not usable:
        raise ModelError(
            f"{folder}: the tokenizer has neither a padding token nor one that ends a text; add one of them"
        )
    text.pad_token_id = usable[0]
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = str(tokenizer.convert_ids_to_tokens(usable[0]))


def of_head(model: PreTrainedModel, name: str) -> bool:
    """Whether a parameter belongs to the head: it lies outside of the base model, or in its pooler."""
    return not name.startswith(f"{model.base_model_prefix}.") or ".pooler." in name


@torch.no_grad()
def fresh_head(model: PreTrainedModel, missing: Sequence[str], seed: int) -> list[str]:
    """Fill those parameters of the head that a checkpoint lacks; returns the other ``missing`` names.

    Matrices are uniform with the config's standard deviation, biases are zero, scales are one.
    """
    spread = getattr(model.config.get_text_config(), "initializer_range", None) or USUAL_SPREAD
    parameters: Mapping[str, nn.Parameter] = dict(model.named_parameters())
    others = []
    for name in missing:
        if name not in parameters or not of_head(model, name):
            others.append(name)
        elif parameters[name].dim() > 1:
            parameters[name].copy_(_drawn(parameters[name], spread, f"{seed}:head:{name}"))
        else:
            parameters[name].fill_(0.0 if name.endswith("bias") else 1.0)
    return others


def _drawn(like: Tensor, spread: float, name: str) -> Tensor:
    """Uniform float32 numbers with the shape of ``like`` and standard deviation ``spread``, equal on every machine."""
    words = np.frombuffer(random.Random(name).randbytes(4 * like.numel()), dtype="<u4")
    unit = (words + 0.5) / 2.0**31 - 1.0
    return torch.from_numpy((unit * (math.sqrt(3.0) * spread)).astype(np.float32)).view(like.shape)
