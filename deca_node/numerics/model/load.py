"""Reads a model and its tokenizer from a Hugging Face folder, or from a hub id.

A checkpoint is data: only safetensors weights and built-in architectures are read, and nothing in a checkpoint is ever
executed (no pickle, no remote code). A fault of a folder is found before the weights are read wherever that is
possible, and is reported in one sentence.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from huggingface_hub import is_offline_mode, snapshot_download
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from deca_node.numerics.model.attention import DEFAULT, attention_arguments, check_precision
from deca_node.numerics.model.beside import Beside, only_the_model
from deca_node.numerics.model.classifier import (
    CLASSIFIER,
    Head,
    auto_class,
    can_classify,
    fresh_head,
    labels_of,
    settle_labels,
    settle_padding,
)
from deca_node.numerics.model.facts import model_bytes, positions_max
from deca_node.numerics.model.limits import check_parts, check_size, described_model
from deca_node.numerics.model.quiet import quiet
from deca_node.protocol.agreed.run import DTYPES, RunSettings
from deca_node.protocol.errors import ModelError
from deca_node.storage.model_files import ADAPTER, INDEX, brief, read_json, weight_files

CPU = torch.device("cpu")
WEIGHTS = "*.safetensors"
HUB_FILES = [WEIGHTS, "*.json", "*.model", "*.txt", "*.jinja"]
"""Files fetched from a hub repository: weights, configuration and tokenizer. None of them is executable."""
HUB_IGNORED = ["*/*", "consolidated*"]
"""Files left out: everything in subfolders, and second copies of the weights."""


GENERATION = "generation_config.json"
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt"),
    *("tekken.json", "tiktoken.model"),
)
"""Most tokenizers are in one of these files."""


@dataclass(frozen=True)
class LoadedModel:
    """A model in training mode, with the dropout of its config, and its tokenizer.

    ``folder`` is the folder that both were read from. ``positions_max`` is the longest sequence in tokens that the
    model can take, or None if its architecture sets no limit. ``labels`` are a classifier's labels, in the order of
    their numbers; a language model has none. ``beside`` is what the folder holds beside the model and goes into every
    folder that is made of it.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    folder: Path
    positions_max: int | None
    labels: tuple[str, ...] = ()
    beside: Beside = field(default_factory=Beside)


def load_model(
    source: str,
    *,
    dtype: str = RunSettings.dtype,
    device: str | torch.device = CPU,
    head: Head | None = None,
    attention: str = DEFAULT,
) -> LoadedModel:
    """Load the model and tokenizer of a local folder or of a hub id: a causal language model, or with ``head`` a
    classifier. Weights are read from safetensors files only.

    ``dtype`` is one of DTYPES; "auto" keeps the checkpoint's dtype. ``attention`` names one of the implementations of
    transformers; "auto" leaves the choice to it. A hub id is fetched once into the Hugging Face
    cache, or never with HF_HUB_OFFLINE=1. Raises ModelError with one sentence.
    """
    if dtype not in DTYPES:
        raise ModelError(f"dtype = {dtype!r} is not one of {', '.join(DTYPES)}")
    folder = _locate(source)
    with quiet():
        config = read_config(folder, head)
        check_size(check_weights(folder), config, folder, head)
        beside = Beside.of(folder, described_model(config, folder, head), classifies=head is not None)
        check_generation(folder, head)
        tokenizer = _settled_tokenizer(folder, config, head)
        chosen = attention_arguments(attention, config, folder, head, torch.device(device))
        model = _read_model(folder, config, dtype, head, chosen)
    check_precision(model, attention)
    _check_vocabulary(model, tokenizer, folder)
    _check_finite(model, folder)
    _move(model, torch.device(device))
    model.train()
    labels = labels_of(config) if head else ()
    return LoadedModel(model, tokenizer, folder, positions_max(config), labels, beside)


def load_tokenizer(source: str) -> tuple[PreTrainedTokenizerBase, int | None]:
    """The tokenizer of a local folder or of a hub id, and the longest sequence that its model can take; no weights are
    read or fetched. Raises ModelError."""
    folder = _locate(source, [pattern for pattern in HUB_FILES if pattern != WEIGHTS])
    with quiet():
        architectures = read_json(folder / "config.json", _no_config(folder)).get("architectures") or ()
        classifies = any(str(name).endswith(CLASSIFIER) for name in architectures)
        config = read_config(folder, Head((), 0) if classifies else None)
        return _settled_tokenizer(folder, config, None), positions_max(config)


# --- reading ----------------------------------------------------------------------------------------


def _locate(source: str, files: Sequence[str] = HUB_FILES) -> Path:
    """The folder that ``source`` names: a local folder, or the snapshot of a hub id in the local cache, with these
    files in it."""
    path = Path(source).expanduser()
    if source and path.is_dir():
        return path
    if path.is_file():
        raise ModelError(f"{source} is a file; name the folder that holds config.json and the weights")
    if source.startswith((".", "/", "~")) or source.count("/") > 1 or not source:  # no hub id looks like this
        raise ModelError(f"there is no folder {source!r} to read a model from")
    try:
        return Path(snapshot_download(source, allow_patterns=list(files), ignore_patterns=HUB_IGNORED))
    except (OSError, ValueError) as error:  # offline, not found, gated, or no valid id
        reason = "HF_HUB_OFFLINE is set and it is not in the cache" if is_offline_mode() else brief(error)
        raise ModelError(f"{source!r} is not a folder here, and the Hugging Face hub gave none: {reason}") from error


def read_config(folder: Path, head: Head | None) -> PreTrainedConfig:
    """Read config.json and check that this software can tune such a model; with ``head``, settle the labels.

    Raises ModelError.
    """
    raw = read_json(folder / "config.json", _no_config(folder))
    model_type = raw.get("model_type")
    if not model_type or not isinstance(model_type, str):
        raise ModelError(f"{folder}/config.json names no model_type")
    if model_type not in CONFIG_MAPPING:
        own_code = ", and code that comes with a model is never run" if "auto_map" in raw else ""
        raise ModelError(f"{folder}: transformers has no architecture {brief(repr(model_type))}{own_code}")
    check_parts(raw, folder)
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # transformers validates configs with many kinds of exceptions
        raise ModelError(f"{folder}/config.json does not describe a {model_type} model: {brief(error)}") from error
    _check_architecture(config, folder, head)
    if head:
        settle_labels(config, raw, head.labels, folder)
    return config


def _no_config(folder: Path) -> str:
    if (folder / ADAPTER).is_file():
        return (
            f"{folder} holds an adapter and no model: merge it first, with merge_and_unload() of peft, and save the "
            "merged model with its tokenizer"
        )
    return f"{folder} holds no config.json, so it is not a Hugging Face model"


def _check_architecture(config: PreTrainedConfig, folder: Path, head: Head | None) -> None:
    kind = config.model_type
    if getattr(config, "quantization_config", None):
        raise ModelError(f"{folder}: the weights are quantized, and full-parameter tuning needs them unquantized")
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{folder}: {kind} is an encoder-decoder; only a single stack of layers can be tuned")
    if head:
        if not can_classify(config):
            raise ModelError(f"{folder}: {kind} has no classifier in transformers")
        return
    # BERT-like architectures have a class for causal use, but it attends both ways unless is_decoder is set.
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False):
        raise ModelError(f"{folder}: {kind} is an encoder; it can be tuned under task = 'classification' only")
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(f"{folder}: {kind} has no causal language model in transformers")


def check_weights(folder: Path) -> int:
    """Check the weight files before any weight is read; returns how many elements they hold in all.

    Raises ModelError if weights are missing, pickled or damaged.
    """
    held = 0
    for path in weight_files(folder):
        if not path.is_file():
            raise ModelError(f"{folder}: {INDEX} lists {path.name}, which is missing")
        try:
            with safe_open(path, framework="pt") as file:
                held += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path} is damaged or cut short: {brief(error)}") from error
    return held


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Read the tokenizer beside a model's weights. Raises ModelError."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # each tokenizer class fails in its own way
        there = any((folder / name).is_file() for name in TOKENIZER_FILES)
        why = brief(error) if there else f"it has none of the files {', '.join(TOKENIZER_FILES)}"
        raise ModelError(
            f"{folder} holds no tokenizer that can be read: {why}; copy the tokenizer's files from where the model is "
            "from"
        ) from error
    # transformers keeps how a tokenizer was read among its settings, and would save that with it.
    tokenizer.init_kwargs.pop("local_files_only", None)
    return tokenizer


def tokenizer_of(folder: Path, model: PreTrainedModel, head: Head | None) -> LoadedModel:
    """The tokenizer for a model on the meta device, read and checked as :func:`load_model` does. Raises ModelError."""
    config = model.config
    with quiet():
        tokenizer = _settled_tokenizer(folder, config, head)
    _check_vocabulary(model, tokenizer, folder)
    return LoadedModel(model, tokenizer, folder, positions_max(config), labels_of(config) if head else ())


def _settled_tokenizer(folder: Path, config: PreTrainedConfig, head: Head | None) -> PreTrainedTokenizerBase:
    tokenizer = read_tokenizer(folder)
    settle_end(config, tokenizer)
    if head:
        settle_padding(config, tokenizer, folder)
    return tokenizer


def settle_end(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a tokenizer that does not say what ends a text the token that config.json names, the first if several."""
    named = getattr(config.get_text_config(), "eos_token_id", None)
    found = named[0] if isinstance(named, list | tuple) and named else named
    if tokenizer.eos_token_id is None and isinstance(found, int):
        token = tokenizer.convert_ids_to_tokens(found)
        if token is not None:
            tokenizer.eos_token = str(token)


def check_generation(folder: Path, head: Head | None) -> None:
    """Check the settings for generation, which transformers reads and writes with a language model. Raises
    ModelError."""
    path = folder / GENERATION
    if head or not path.is_file():
        return
    try:
        GenerationConfig.from_dict(read_json(path, ""))
    except ModelError:
        raise
    except Exception as error:  # a setting of the wrong type fails in its own way
        raise ModelError(f"{path} cannot be used: {brief(error)}; correct it, or remove the file") from error


def _read_model(
    folder: Path, config: PreTrainedConfig, dtype: str, head: Head | None, chosen: Mapping[str, str]
) -> PreTrainedModel:
    try:
        with only_the_model(folder) as source:
            model, found = auto_class(config, head).from_pretrained(
                source,
                config=config,
                dtype="auto" if dtype == "auto" else getattr(torch, dtype),
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                **chosen,
            )
    except MemoryError as error:
        raise ModelError(f"{folder}: there is not enough memory to hold the model") from error
    except Exception as error:  # e.g. RuntimeError where shapes differ, ValueError from a model's own checks
        raise ModelError(f"{folder}: the weights do not fit config.json: {brief(error)}") from error
    # transformers would fill missing weights with random numbers, which differ from node to node.
    missing = sorted(found["missing_keys"])
    if head:
        missing = fresh_head(model, missing, head.seed)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(f"{folder}: the weights lack {missing[0]}{more}")
    return model


def _check_finite(model: PreTrainedModel, folder: Path) -> None:
    """Raise ModelError if a weight is NaN or infinite: one of them makes every loss NaN."""
    bad = [name for name, parameter in model.named_parameters() if not _finite(parameter.detach())]
    if bad:
        more = f" and {len(bad) - 1} more tensors" if len(bad) > 1 else ""
        raise ModelError(
            f"{folder}: the weights hold NaN or infinity in {bad[0]}{more}; fetch the checkpoint again, or "
            "convert it again to bfloat16 or float32"
        )


def _finite(tensor: torch.Tensor) -> bool:
    return tensor.numel() == 0 or all(map(math.isfinite, torch.stack(tensor.aminmax()).tolist()))


def _check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Raise ModelError if the tokenizer can turn text into a token that has no embedding.

    Added tokens that no text produces, such as a padding token, may lie beyond the embeddings: many published
    checkpoints have one.
    """
    try:
        rows = model.get_input_embeddings().weight.shape[0]
    except (NotImplementedError, AttributeError):  # CANINE computes embeddings of any number
        return
    tokens = max(tokenizer.vocab_size, (tokenizer.eos_token_id or 0) + 1)
    if tokens > rows:
        raise ModelError(f"{folder}: the tokenizer knows {tokens} tokens, the model only {rows}")


def _move(model: PreTrainedModel, device: torch.device) -> None:
    try:
        model.to(device)
    except torch.OutOfMemoryError as error:
        gib = model_bytes(model) / 2**30
        raise ModelError(f"the model takes {gib:.1f} GiB, more than {device} has free") from error
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(f"the model cannot be put on device {str(device)!r}: {brief(error)}") from error
