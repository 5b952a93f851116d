"""Makes a Hugging Face folder of a node's newest checkpoint, at any time in a run.

The model is the start model with the visited blocks in their places. The block in the middle of its visit is its
master, rounded to the model's dtype.
"""

from pathlib import Path

import torch
from torch import nn

from deca_node.numerics.model.blocks import Block, partition, spans
from deca_node.numerics.model.classifier import Head
from deca_node.numerics.model.facts import parameter_hash
from deca_node.numerics.model.load import LoadedModel, load_model
from deca_node.numerics.model.save import save_model
from deca_node.numerics.saving.tensor_files import block_tensors, copy_into, read_tensors
from deca_node.protocol.errors import ModelError, StorageError
from deca_node.protocol.options import Note
from deca_node.storage.manifest import (
    CHECKPOINTS,
    DamagedError,
    Manifest,
    StoredActive,
    check_files,
    checkpoints,
    read_manifest,
)


def export(directory: Path, start_model: str, out: Path, note: Note) -> Manifest:
    """Write the model of the newest sound checkpoint in ``directory`` to ``out``; returns that checkpoint's manifest.

    Raises as :func:`restore` does, and StorageError if ``out`` cannot be written.
    """
    loaded, manifest = restore(directory, start_model, note)
    save_model(loaded.model, loaded.tokenizer, out, beside=loaded.beside)
    return manifest


def restore(directory: Path, start_model: str, note: Note) -> tuple[LoadedModel, Manifest]:
    """The model of the newest sound checkpoint in ``directory``, and that checkpoint's manifest.

    ``start_model`` is the folder or hub id that the run started from. Raises StorageError if there is no sound
    checkpoint, and ModelError if ``start_model`` is another model.
    """
    manifest = _newest_sound(directory, note)
    fields = manifest.agreement.fields
    loaded = load_model(start_model, dtype=fields["dtype"], head=Head.agreed(fields))
    if parameter_hash(loaded.model) != fields["model"]:
        raise ModelError(f"{start_model} is not the model that the run in {directory} started from")
    blocks = {block.name: block for block in partition(loaded.model, int(fields["block_layers"]))}
    for name, stored in manifest.blocks.items():
        copy_into(block_tensors(loaded.model, blocks[name]), directory / stored.value.file)
    if manifest.active:
        _copy_active(loaded.model, blocks[manifest.active.block], directory, manifest.active)
    return loaded, manifest


def _newest_sound(directory: Path, note: Note) -> Manifest:
    """The newest sound checkpoint. No file is changed here, because the node may be running."""
    for folder in checkpoints(directory):
        try:
            manifest = read_manifest(folder)
            check_files(directory, manifest)
        except DamagedError as problem:
            note(f"checkpoint {folder.name} is left out: {problem}", "warning")
        else:
            return manifest
    raise StorageError(f"there is no sound checkpoint in {directory / CHECKPOINTS} to make a model of")


@torch.no_grad()
def _copy_active(model: nn.Module, block: Block, directory: Path, active: StoredActive) -> None:
    """Copy the block's master into the model, rounded to its dtype."""
    ((_, master),) = read_tensors(directory / active.file.file, ["master"])
    if master.numel() != block.elements:
        raise StorageError(f"{active.file.file} holds {master.numel():,} elements, and {block.name} {block.elements:,}")
    parameters = block_tensors(model, block)
    for span in spans(model, block):
        parameters.put(span.name, 0, master[span.start : span.stop])
