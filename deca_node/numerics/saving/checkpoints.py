"""Writes checkpoints of a node's state, and restores from them: the part of checkpoints that handles tensors.

:mod:`deca_node.storage.manifest` defines the files of a checkpoint and decides which checkpoint is sound. Blocks change
one at a time. So a checkpoint writes the blocks that were frozen since the checkpoint before it and, within a visit,
the active block's master and moments. The rest of the state is small: the place in the data, and the states of random
generators. A restored run continues bit for bit on a CPU::

    frozen blocks   their values in the model's dtype, and Q8(x - x0) for late nodes
    active block    master, m, v, counts; no x^ and no e_ij, because edges end with the process
    the rest        place in the data, random generators, position (from which the step size follows)
"""

import base64
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from deca_node.numerics.data.batches import Batches, Cursor
from deca_node.numerics.engine import BlockEngine
from deca_node.numerics.model.blocks import Block
from deca_node.numerics.saving.deltas import delta_chunks
from deca_node.numerics.saving.start_values import StartValues
from deca_node.numerics.saving.tensor_files import block_tensors, copy_into, write_tensors
from deca_node.protocol.agreed.agreement import Agreement
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.errors import StorageError
from deca_node.protocol.options import Note
from deca_node.storage.durable import Sum, make_folder, replace_folder, write_file
from deca_node.storage.manifest import (
    ACTIVE,
    BLOCKS,
    DataPlace,
    Manifest,
    StoredActive,
    StoredBlock,
    StoredFile,
    delta_name,
    folder_of,
    prune,
    value_name,
    write_manifest,
)


class Moving(NamedTuple):
    """The state that changes with every step, beside the frozen blocks."""

    position: Step
    engine: BlockEngine | None
    cursor: DataPlace
    rng: Mapping[str, str]


class Versions:
    """The activation after which each block was last frozen, and which of these versions are on the disk."""

    def __init__(self) -> None:
        self.stored: dict[str, StoredBlock] = {}
        self.fresh: dict[str, int] = {}
        """Blocks that are frozen and have changed since they were last written, with their activations."""

    def frozen(self, block: Block, activation: int) -> None:
        """Record that the model holds this version of the block now."""
        self.fresh[block.name] = activation

    def thawed(self, block: Block) -> None:
        """Record that a version of the block that was not written is gone."""
        self.fresh.pop(block.name, None)

    def has(self, block: Block, activation: int) -> bool:
        """Whether this version is on the disk and named by a checkpoint."""
        stored = self.stored.get(block.name)
        return stored is not None and stored.activation == activation


class Checkpoints:
    """The checkpoints of one node, in its folder."""

    def __init__(
        self, directory: Path, agreement: Agreement, model: nn.Module, blocks: Sequence[Block], start: StartValues
    ) -> None:
        self.versions = Versions()
        self._directory = directory
        self._agreement = agreement
        self._model = model
        self._blocks = {block.name: block for block in blocks}
        self._start = start

    def write(self, moving: Moving, now: float) -> tuple[Path, int]:
        """Write a checkpoint, and delete the files that no kept checkpoint needs; returns its folder and the bytes
        written.

        ``now`` is in Unix seconds. Raises OSError or StorageError if the disk fails; then the checkpoint before it is
        still there, and nothing else is left.
        """
        try:
            written = {name: self._write_block(self._blocks[name], at) for name, at in self.versions.fresh.items()}
            blocks = self.versions.stored | written
            folder, active = self._write_folder(moving, blocks, now)
        except (OSError, StorageError):
            self._prune()
            raise
        self.versions.stored, self.versions.fresh = blocks, {}
        self._prune()
        return folder, sum(part.value.bytes + part.delta.bytes for part in written.values()) + active

    def restore(self, manifest: Manifest) -> None:
        """Copy the blocks of a sound checkpoint into the model, which must still be the model that the run starts from.

        Raises StorageError if a file does not fit the model.
        """
        visited = {*manifest.blocks, *([manifest.active.block] if manifest.active else [])}
        if unknown := visited - self._blocks.keys():
            raise StorageError(f"the checkpoint names blocks that this model does not have: {', '.join(unknown)}")
        self._start.settle(self._model, [self._blocks[name] for name in sorted(visited)])
        self.versions.stored = dict(manifest.blocks)
        for name in manifest.blocks:
            self.reread(self._blocks[name])

    @torch.no_grad()
    def reread(self, block: Block) -> None:
        """Copy the version of a block that is on the disk into the model. Raises StorageError."""
        copy_into(block_tensors(self._model, block), self._directory / self.versions.stored[block.name].value.file)
        self.versions.thawed(block)

    def _write_block(self, block: Block, activation: int) -> StoredBlock:
        make_folder(self._directory / BLOCKS)
        value, delta = value_name(block.name, activation), delta_name(block.name, activation)
        chunks = delta_chunks(self._model, block, self._start.origin(self._model, block))
        return StoredBlock(
            activation,
            _stored(value, write_tensors(self._directory / value, block_tensors(self._model, block))),
            _stored(delta, write_file(self._directory / delta, chunks)),
        )

    def _write_folder(self, moving: Moving, blocks: Mapping[str, StoredBlock], now: float) -> tuple[Path, int]:
        folder = folder_of(self._directory, moving.position)
        with replace_folder(folder) as aside:
            active = None
            if moving.engine:
                name, counts = moving.engine.flat.block.name, moving.engine.counts
                found = write_tensors(aside / ACTIVE, moving.engine.tensors())
                within = str((folder / ACTIVE).relative_to(self._directory))
                active = StoredActive(name, _stored(within, found), (counts.gradients, counts.c1, counts.c2))
            manifest = Manifest(self._agreement, moving.position, blocks, active, moving.cursor, moving.rng, now)
            write_manifest(aside, manifest)
        return folder, active.file.bytes if active else 0

    def _prune(self) -> None:
        # Files that cannot be deleted now are deleted after a later checkpoint.
        with contextlib.suppress(OSError):
            prune(self._directory)


def place_of(batches: Batches) -> DataPlace:
    """Where the next batch begins."""
    cursor = batches.state()
    return DataPlace(cursor.epoch, cursor.position, batches.sequences)


def restore_place(batches: Batches, place: DataPlace, note: Note, changed: str = "") -> None:
    """Go to a place in the data. If the data has changed since, a fresh epoch begins, with a warning.

    ``changed`` says what has changed; it is empty if nothing is known of it.
    """
    if batches.sequences == place.sequences and not changed:
        batches.restore(Cursor(place.epoch, place.position))
        return
    batches.restore(Cursor(place.epoch + 1, 0))
    note(
        f"{changed or 'the data has changed'}: {batches.sequences:,} sequences to train on, and {place.sequences:,} "
        "when the checkpoint was written; going on with a fresh epoch of it",
        "warning",
    )


def rng_states(device: torch.device) -> dict[str, str]:
    """The states of torch's random generators in base64, by kind of device. Dropout draws from that of the model's
    device."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return {name: base64.b64encode(state.numpy().tobytes()).decode() for name, state in states.items()}


def restore_rng(states: Mapping[str, str], device: torch.device) -> None:
    """The inverse of :func:`rng_states`; the state of a kind of device that is not used now is ignored.

    Raises StorageError if a state does not fit this version of torch.
    """
    try:
        for name, text in states.items():
            state = torch.frombuffer(bytearray(base64.b64decode(text, validate=True)), dtype=torch.uint8)
            if name == "cpu":
                torch.set_rng_state(state)
            elif name == device.type:
                torch.cuda.set_rng_state(state, device)
    except (ValueError, RuntimeError, TypeError) as problem:
        raise StorageError(f"the checkpoint's state of the random generator {name!r} does not fit: {problem}") from None


def _stored(name: str, found: Sum) -> StoredFile:
    return StoredFile(name, found.bytes, found.sha256)
