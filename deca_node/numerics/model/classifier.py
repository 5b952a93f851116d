"""What a model needs beside its weights to sort texts into labels: their names, a head, something to pad with.

A checkpoint that is a classifier already keeps its labels and its head. Any other has no head yet, and every node
makes the same one for itself, out of the run's seed: the head is part of the model that the run starts from, and of
its hash. The numbers are drawn in Python's own generator and without a logarithm or a cosine, whose last bits differ
from one processor to the next.
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
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.errors import ModelError

CLASSIFIER = "ForSequenceClassification"
"""How transformers ends the name of every class of classifiers."""

USUAL_SPREAD = 0.02
"""Standard deviation of fresh weights where the config names none."""


@dataclass(frozen=True)
class Head:
    """The head that a run asks for. Without ``labels`` the checkpoint's own are taken; ``seed`` draws a fresh one."""

    labels: tuple[str, ...]
    seed: int

    @classmethod
    def of(cls, settings: RunSettings) -> "Head | None":
        """None where the task needs no labels."""
        return cls(settings.label_names, settings.seed) if settings.task == "classification" else None

    @classmethod
    def agreed(cls, fields: Mapping[str, str]) -> "Head | None":
        """The same of what the nodes of a run agreed on."""
        settings = RunSettings(task=fields["task"], labels=fields.get("labels", ""), seed=int(fields["seed"]))
        return cls.of(settings)


def auto_class(head: Head | None) -> Any:
    """What transformers builds the model with."""
    return AutoModelForSequenceClassification if head else AutoModelForCausalLM


def can_classify(config: PreTrainedConfig) -> bool:
    """Whether transformers has a classifier of this architecture."""
    return type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING


def settle_labels(config: PreTrainedConfig, raw: Mapping[str, Any], wanted: Sequence[str], folder: Path) -> None:
    """Give the config the run's labels, or make sure that it has labels of its own.

    ``raw`` is config.json as it was read: transformers makes up two labels where a config has none. Raises ModelError
    where there are none, or where a classifier has learnt others than ``wanted``.
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
    """The labels of a config that :func:`settle_labels` has settled, by their numbers."""
    names: Mapping[int, str] = config.id2label or {}
    return tuple(names[number] for number in range(len(names)))


def _own_labels(config: PreTrainedConfig, folder: Path) -> tuple[str, ...]:
    if config.problem_type not in (None, "single_label_classification"):
        raise ModelError(f"{folder}: the model was made for {config.problem_type}, and a run tunes for one label each")
    names: Mapping[int, str] = config.id2label or {}
    if sorted(names) != list(range(len(names))) or len(names) < 2 or len(set(names.values())) < len(names):
        raise ModelError(f"{folder}/config.json: id2label must name two labels or more, each once, numbered from 0")
    return labels_of(config)


def _unnamed(own: Sequence[str], count: int) -> bool:
    """Whether a checkpoint's labels are as many as wanted, and no more than numbers."""
    return list(own) == [f"LABEL_{number}" for number in range(count)]


def settle_padding(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Make sure that model and tokenizer know a token to fill rows up with; what tells a text ends will do.

    A model of one direction looks for the last token that is no padding, so it must know. Raises ModelError where
    there is neither.
    """
    text = config.get_text_config()
    found = (getattr(text, "pad_token_id", None), tokenizer.pad_token_id, tokenizer.eos_token_id)
    usable = [token for token in found if token is not None and 0 <= token < text.vocab_size]
    if not usable:
        raise ModelError(f"{folder}: the tokenizer has no padding token and none that ends a text; add one of them")
    text.pad_token_id = usable[0]
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = str(tokenizer.convert_ids_to_tokens(usable[0]))


def of_head(model: PreTrainedModel, name: str) -> bool:
    """Whether a parameter may be made afresh: it lies outside of the base model, or in its pooler."""
    return not name.startswith(f"{model.base_model_prefix}.") or ".pooler." in name


@torch.no_grad()
def fresh_head(model: PreTrainedModel, missing: Sequence[str], seed: int) -> list[str]:
    """Fill the head's parameters of those that a checkpoint lacks; returns the names of the others.

    Matrices are uniform with the config's spread, biases nought, scales one.
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
    """Uniform float32 numbers with standard deviation ``spread``, the same on every machine."""
    words = np.frombuffer(random.Random(name).randbytes(4 * like.numel()), dtype="<u4")
    unit = (words + 0.5) / 2.0**31 - 1.0
    return torch.from_numpy((unit * (math.sqrt(3.0) * spread)).astype(np.float32)).view(like.shape)
