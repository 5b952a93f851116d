"""A model comes in as a Hugging Face folder, is known by one hash, and goes out as a Hugging Face folder.

Only safetensors and built-in architectures are read: a checkpoint is data, and nothing in it is ever
executed (no pickle, no remote code). Whatever is wrong with a folder is found before the weights are read,
as far as that is possible, and said in one sentence. On the way out the new folder is written aside, made
durable and renamed, so that a crash or a full disk never leaves half a model where a whole one stood.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import torch
from huggingface_hub import is_offline_mode, snapshot_download
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers import logging as transformers_logging
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from deca_node.numerics.model.classifier import (
    Head,
    auto_class,
    can_classify,
    fresh_head,
    labels_of,
    settle_labels,
    settle_padding,
)
from deca_node.numerics.model.limits import check_parts, check_size
from deca_node.protocol.errors import ModelError, StorageError
from deca_node.storage.model_files import INDEX, brief, read_json, weight_files

DTYPES = ("auto", "float32", "bfloat16", "float16")
# What is fetched of a hub repository: weights, configuration and tokenizer at its top, nothing executable.
HUB_FILES = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]
HUB_IGNORED = ["*/*", "consolidated*"]
# Models whose first position is the one after the padding token's number.
POSITIONS_AFTER_PADDING = {
    *("camembert", "data2vec-text", "ibert", "lilt", "longformer", "luke", "markuplm", "mpnet", "roberta"),
    *("roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
}
# Room for configuration and tokenizer beside the weights; the largest tokenizers in use take about 35 MB.
SAVE_MARGIN_BYTES = 64 * 2**20


@dataclass(frozen=True)
class LoadedModel:
    """A model in training mode (its dropout is what its config says), and its tokenizer.

    ``folder`` is where both were read from; ``positions_max`` the longest sequence in tokens that the
    model can take, or None where its architecture sets no limit. A classifier has ``labels``, by their numbers.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    folder: Path
    positions_max: int | None
    labels: tuple[str, ...] = ()


def load_model(
    source: str, *, dtype: str = "auto", device: str | torch.device = "cpu", head: Head | None = None
) -> LoadedModel:
    """Load the model and tokenizer of a local folder or of a hub id, with safetensors weights only: a causal language
    model, or with ``head`` a classifier.

    ``dtype`` is one of DTYPES; "auto" keeps the checkpoint's own. A hub id is fetched once into the
    Hugging Face cache (never, with HF_HUB_OFFLINE=1). Raises ModelError with one sentence.
    """
    if dtype not in DTYPES:
        raise ModelError(f"dtype = {dtype!r} is not one of {', '.join(DTYPES)}")
    folder = _locate(source)
    with _quiet():
        config = _read_config(folder, head)
        check_size(_check_weights(folder), config, folder, head)
        tokenizer = _read_tokenizer(folder)
        if head:
            settle_padding(config, tokenizer, folder)
        model = _read_model(folder, config, dtype, head)
    _check_vocabulary(model, tokenizer, folder)
    _move(model, torch.device(device))
    model.train()
    return LoadedModel(model, tokenizer, folder, positions_max(config), labels_of(config) if head else ())


def positions_max(config: PreTrainedConfig) -> int | None:
    """The longest sequence in tokens, ``max_position_embeddings``; None where the architecture names no limit."""
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    taken = (config.pad_token_id or 0) + 1 if config.model_type in POSITIONS_AFTER_PADDING else 0
    return int(limit) - taken if limit and limit > 0 else None


def check_sequence_length(loaded: LoadedModel, sequence_length: int) -> None:
    """Raise ModelError where ``sequence_length`` tokens are more than the model has positions for."""
    limit = loaded.positions_max
    if limit is not None and sequence_length > limit:
        raise ModelError(
            f"sequence_length = {sequence_length} is more than the {limit} positions of the model in {loaded.folder}; "
            f"set it to {limit} or less"
        )


def count_parameters(model: nn.Module) -> int:
    """Number of parameters; tied ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def model_bytes(model: nn.Module) -> int:
    """Bytes that the parameters take in their own dtypes; tied ones count once."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def parameter_hash(model: nn.Module) -> str:
    """SHA-256 over names, shapes, dtypes and bytes of all parameters, in hex: the model's identity in a run.

    Parameters are taken in the order of their names, tied ones once, buffers not at all, so neither the
    files nor their sharding matter. Only one tensor at a time is copied, and only if it is not already
    contiguous on the CPU.
    """
    named = sorted(model.named_parameters(), key=itemgetter(0))
    header = [[name, list(p.shape), str(p.dtype).removeprefix("torch.")] for name, p in named]
    digest = hashlib.sha256(json.dumps(header, separators=(",", ":"), ensure_ascii=True).encode() + b"\n")
    for _, parameter in named:
        flat = parameter.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directory: str | Path) -> Path:
    """Write an ordinary Hugging Face checkpoint into ``directory``, whole or not at all; returns the folder.

    A checkpoint that stands there already is replaced, at the very end; a folder that holds anything else
    is refused. Raises StorageError in words where the disk is full or may not be written.
    """
    directory = Path(directory).absolute()
    partial = directory.with_name(f".{directory.name}.partial")
    needed = model_bytes(model) + SAVE_MARGIN_BYTES
    try:
        _check_target(directory)
        directory.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        _check_space(directory, needed)
        with _quiet():
            model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
        _sync_tree(partial)
        _swap_in(partial, directory)
    except (OSError, SafetensorError) as error:
        raise StorageError(_write_failure(error, directory, needed)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return directory


# --- reading ----------------------------------------------------------------------------------------


def _locate(source: str) -> Path:
    """The folder that ``source`` names: itself, or the snapshot of a hub id in the local cache."""
    path = Path(source).expanduser()
    if source and path.is_dir():
        return path
    if path.is_file():
        raise ModelError(f"{source} is a file; name the folder that holds config.json and the weights")
    if source.startswith((".", "/", "~")) or source.count("/") > 1 or not source:  # no hub id looks like this
        raise ModelError(f"there is no folder {source!r} to read a model from")
    try:
        return Path(snapshot_download(source, allow_patterns=HUB_FILES, ignore_patterns=HUB_IGNORED))
    except (OSError, ValueError) as error:  # offline, not found, gated, or no valid id
        reason = "HF_HUB_OFFLINE is set and it is not in the cache" if is_offline_mode() else brief(error)
        raise ModelError(f"{source!r} is no folder here, and the Hugging Face hub gave none: {reason}") from error


def _read_config(folder: Path, head: Head | None) -> PreTrainedConfig:
    raw = read_json(folder / "config.json", f"{folder} holds no config.json, so it is not a Hugging Face model")
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
    # BERT and its kin have a class for causal use, which attends both ways unless the config says otherwise.
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False):
        raise ModelError(f"{folder}: {kind} is an encoder; it can be tuned under task = 'classification' only")
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(f"{folder}: {kind} has no causal language model in transformers")


def _check_weights(folder: Path) -> int:
    """Refuse missing, pickled or damaged weights before any of them is read; returns how many elements they have."""
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


def _read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # each tokenizer class fails in its own way
        raise ModelError(f"{folder} holds no tokenizer that can be read: {brief(error)}") from error
    return tokenizer


def _read_model(folder: Path, config: PreTrainedConfig, dtype: str, head: Head | None) -> PreTrainedModel:
    try:
        model, found = auto_class(head).from_pretrained(
            folder,
            config=config,
            dtype="auto" if dtype == "auto" else getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except MemoryError as error:
        raise ModelError(f"{folder}: there is not enough memory to hold the model") from error
    except Exception as error:  # e.g. RuntimeError where shapes differ, ValueError from a model's own checks
        raise ModelError(f"{folder}: the weights do not fit config.json: {brief(error)}") from error
    # transformers would fill these with random numbers, different ones on every node.
    missing = sorted(found["missing_keys"])
    if head:
        missing = fresh_head(model, missing, head.seed)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(f"{folder}: the weights lack {missing[0]}{more}")
    return model


def _check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Text must not become tokens without an embedding. Added tokens that nothing writes, such as a padding
    token, may lie beyond: many published checkpoints have one."""
    rows = model.get_input_embeddings().weight.shape[0]
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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' own bars and reports off the terminal: what matters is said by us."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


# --- writing ----------------------------------------------------------------------------------------


def _check_target(directory: Path) -> None:
    """Only nothing, an empty folder, or an earlier checkpoint may be replaced."""
    if directory.exists() and not directory.is_dir():
        raise StorageError(f"the model cannot be written to {directory}: a file of that name is in the way")
    if directory.is_dir() and any(directory.iterdir()) and not (directory / "config.json").is_file():
        raise StorageError(f"the model is not written to {directory}: the folder holds other things than a model")


def _check_space(directory: Path, needed: int) -> None:
    if shutil.disk_usage(directory.parent).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory.parent))


def _sync_tree(directory: Path) -> None:
    """Make every file and the names in the folder durable; the folder is flat."""
    for path in sorted(directory.iterdir()):
        _sync(path)
    _sync(directory)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _swap_in(partial: Path, directory: Path) -> None:
    """Put the finished folder in place. A checkpoint that was there is moved aside first, and comes back if
    the rename fails; after a power cut between the two renames it is found as ``.NAME.old``."""
    old = directory.with_name(f".{directory.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    replaces = directory.is_dir()
    if replaces:
        directory.rename(old)
    try:
        partial.rename(directory)
    except OSError:
        if replaces:
            old.rename(directory)
        raise
    _sync(directory.parent)
    shutil.rmtree(old, ignore_errors=True)


def _write_failure(error: Exception, directory: Path, needed: int) -> str:
    # safetensors writes in Rust and passes the system's error on as text.
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT) or f"os error {errno.ENOSPC}" in str(error):
        free = shutil.disk_usage(next(folder for folder in directory.parents if folder.is_dir())).free
        return (
            f"the disk is too full to write the model to {directory}: {needed / 2**20:,.0f} MiB are needed and "
            f"{free / 2**20:,.0f} MiB are free in {directory.parent}"
        )
    return f"the model cannot be written to {directory}: {brief(error)}"
