"""x0, the common starting point, kept on disk block by block.

Keyframes and deltas are differences of a block to its values at the run's start. At the first visit of a block these
values are still in the model, and are written to a file. Afterwards they are read back, one tensor at a time. If the
disk fails they are kept in memory, and written later. A file that an earlier process left is used only if it equals the
model that the run starts from.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from deca_node.numerics.model.blocks import Block, Origin, origin_from, spans
from deca_node.numerics.saving.tensor_files import block_tensors, read_tensors, write_tensors
from deca_node.protocol.errors import StorageError
from deca_node.storage.durable import make_folder


class StartValues:
    """The starting values of visited blocks, in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._kept: set[str] = set()
        self._held: dict[str, dict[str, Tensor]] = {}
        """Values of blocks that could not be written to the disk."""

    def origin(self, model: nn.Module, block: Block) -> Origin:
        """x0 of a block. The first call must come before the block is thawed or changed: it writes the model's values
        durably, or keeps them in memory if that fails.

        Raises StorageError if the file cannot be read.
        """
        self._keep(model, block)
        if held := self._held.get(block.name):
            return origin_from(spans(model, block), held.__getitem__)
        path = self._path(block)
        try:
            file = safe_open(path, framework="pt")
        except (OSError, SafetensorError) as problem:
            raise StorageError(f"the starting values of block {block.name} cannot be read: {path}: {problem}") from None

        def tensor(name: str) -> Tensor:
            return file.get_tensor(name)

        return origin_from(spans(model, block), tensor)

    def settle(self, model: nn.Module, visited: Iterable[Block]) -> None:
        """Make sure that x0 of visited blocks is on the disk; the model must still be the one that the run starts
        from."""
        for block in visited:
            if self._holds(model, block):
                self._kept.add(block.name)
            else:
                self._keep(model, block)

    def _keep(self, model: nn.Module, block: Block) -> None:
        """Write x0 of a block, once. A full disk does not end training here: the next checkpoint reports it."""
        if block.name in self._kept:
            return
        tensors = self._held.get(block.name) or block_tensors(model, block)
        try:
            self._write(block, tensors)
        except OSError:
            self._held.setdefault(block.name, {name: t.to("cpu", copy=True) for name, t in tensors.items()})

    def _holds(self, model: nn.Module, block: Block) -> bool:
        """Whether the file holds the model's values, bit for bit (so a NaN equals itself)."""
        mine = block_tensors(model, block)
        try:
            return all(_same(found, mine[name]) for name, found in read_tensors(self._path(block), mine))
        except StorageError:
            return False

    def _path(self, block: Block) -> Path:
        return self._directory / f"{block.name}.safetensors"

    def _write(self, block: Block, tensors: Mapping[str, Tensor]) -> None:
        make_folder(self._directory)
        write_tensors(self._path(block), tensors)
        self._kept.add(block.name)
        self._held.pop(block.name, None)


def _same(one: Tensor, other: Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    flat, also = (t.cpu().contiguous().reshape(-1).view(torch.uint8) for t in (one, other))
    return torch.equal(flat, also)


def nothing(start: int, stop: int) -> Tensor:
    """An origin of zeros, for a node without neighbours, which never reads it."""
    return torch.zeros(stop - start)
