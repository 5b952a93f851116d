"""Writes a model and its tokenizer as an ordinary Hugging Face folder.

The new folder is written aside, made durable and renamed. So after a crash or on a full disk the earlier folder is
still there, and never half a model in its place.
"""

import errno
import os
import shutil
from pathlib import Path

from safetensors import SafetensorError
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from deca_node.numerics.model.facts import model_bytes
from deca_node.numerics.model.quiet import quiet
from deca_node.protocol.errors import StorageError
from deca_node.storage.model_files import brief

# Room for configuration and tokenizer beside the weights; the largest tokenizers in use take about 35 MB.
SAVE_MARGIN_BYTES = 64 * 2**20


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
        with quiet():
            model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
        _sync_tree(partial)
        _swap_in(partial, directory)
    except (OSError, SafetensorError) as error:
        raise StorageError(_write_failure(error, directory, needed)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return directory


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
