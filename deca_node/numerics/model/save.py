"""Writes a model and its tokenizer as an ordinary Hugging Face folder.

The new folder is written aside, made durable and renamed. So after a crash or on a full disk the earlier folder is
still there, and never half a model in its place.
"""

import errno
import json
import os
import shutil
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from deca_node.numerics.model.beside import Beside
from deca_node.numerics.model.blocks import gathered_units
from deca_node.numerics.model.facts import model_bytes
from deca_node.numerics.model.quiet import quiet
from deca_node.numerics.model.values import Values, values_of
from deca_node.protocol.errors import StorageError
from deca_node.storage.durable import make_folder, repair_folder, replace_folder
from deca_node.storage.folder import write_origin
from deca_node.storage.model_files import brief

PART_BYTES = 1 << 30
"""A file of a sharded model begins another one when it has so many bytes."""
SAVE_MARGIN_BYTES = 64 * 2**20
"""Room for configuration and tokenizer beside the weights; the largest tokenizers in use take about 35 MB."""


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    directory: str | Path,
    alone: str = "",
    beside: Beside | None = None,
) -> Path:
    """Write an ordinary Hugging Face checkpoint into ``directory``, whole or not at all; returns the folder.

    ``alone`` is noted in the folder where the model is one node's own. ``beside`` is what goes along with the model.
    A checkpoint that is already there is replaced, at the very end; a folder that holds anything else is refused.
    Raises StorageError, also if the disk is full or may not be written.
    """
    directory = Path(directory).absolute()
    beside = beside or Beside()
    needed = model_bytes(model) + beside.nbytes + SAVE_MARGIN_BYTES
    try:
        repair_folder(directory)
        _check_target(directory)
        make_folder(directory.parent)
        _check_space(directory, needed)
        with replace_folder(directory) as aside, quiet():
            _write_model(model, aside)
            tokenizer.save_pretrained(aside)
            beside.write(aside)
            _same_modes(aside)
            if alone:
                write_origin(aside, alone)
    except (OSError, SafetensorError) as error:
        raise StorageError(_write_failure(error, directory, needed)) from error
    return directory


def _write_model(model: PreTrainedModel, folder: Path) -> None:
    """Write the model's files; of a sharded model a few layers at a time, so that it is never whole in one place."""
    values = values_of(model)
    if not values.sharded:
        model.save_pretrained(folder)
        return
    model.config.dtype = str(model.dtype).removeprefix("torch.")
    model.config.architectures = [type(model).__name__.removeprefix("FSDP")]
    model.config.save_pretrained(folder)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)
    parts = _parts(model, values)
    places: dict[str, str] = {}
    for number, names in enumerate(parts, start=1):
        file = "model.safetensors" if len(parts) == 1 else f"model-{number:05}-of-{len(parts):05}.safetensors"
        tensors = {name: values[name].cpu().contiguous() for name in names}
        if number == 1:
            tensors |= _buffers(model)
        tensors = revert_weight_conversion(model, tensors)
        save_file(tensors, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(tensors, file)
    if len(parts) > 1:
        index = {"metadata": {"total_size": model_bytes(model)}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def _parts(model: PreTrainedModel, values: Values) -> list[list[str]]:
    """The names of the parameters in the files of a sharded model: whole layers together, until they are a file."""
    named = dict(model.named_parameters())
    unit_of = {id(p): number for number, unit in enumerate(gathered_units(model)) for p in unit.parameters()}
    units: dict[int, list[str]] = {}
    for name in values:
        units.setdefault(unit_of.get(id(named[name]), -1), []).append(name)
    parts: list[list[str]] = []
    size = PART_BYTES
    for names in units.values():
        if size >= PART_BYTES:
            parts.append([])
            size = 0
        parts[-1].extend(names)
        size += sum(named[name].numel() * named[name].element_size() for name in names)
    return parts


def _buffers(model: PreTrainedModel) -> dict[str, Tensor]:
    """What belongs to the files beside parameters; tied parameters have one name only."""
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return {name: t.cpu().contiguous() for name, t in model.state_dict().items() if name not in names}


def _same_modes(folder: Path) -> None:
    """Give every file the mode of config.json: safetensors makes its files for their owner alone."""
    mode = (folder / "config.json").stat().st_mode & 0o777
    for path in folder.iterdir():
        if path.is_file():
            path.chmod(mode)


def _check_target(directory: Path) -> None:
    """Raise StorageError unless there is nothing in the way, an empty folder, or an earlier checkpoint."""
    if directory.exists() and not directory.is_dir():
        raise StorageError(f"the model cannot be written to {directory}: a file of that name is in the way")
    if directory.is_dir() and any(directory.iterdir()) and not (directory / "config.json").is_file():
        raise StorageError(f"the model is not written to {directory}: the folder holds other things than a model")


def _check_space(directory: Path, needed: int) -> None:
    if shutil.disk_usage(directory.parent).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory.parent))


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
