"""x0, the common starting point, kept on disk block by block.

Keyframes and deltas are differences of a block to its values at the run's start. The first visit of a block finds
them in the model itself and writes them down; from then on they are read back, a tensor at a time. Where the disk
refuses they are kept in memory, and written when it does not. A file that an earlier process left is believed only
where it equals the model that the run starts from.
"""

from collections.abc import Iterable
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
        """Values of blocks that the disk had no room for."""

    def origin(self, model: nn.Module, block: Block) -> Origin:
        """x0 of a block. Called before the block is first thawed or changed: then the model's values are written
        down, durably, or else held in memory.

        Raises StorageError where they are gone.
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
        """While the model still is what the run starts from: make sure of the values of blocks that were visited."""
        for block in visited:
            if self._holds(model, block):
                self._kept.add(block.name)
            else:
                self._keep(model, block)

    def _keep(self, model: nn.Module, block: Block) -> None:
        """A full disk must not end the training: whoever writes checkpoints will say that it is full."""
        if block.name in self._kept:
            return
        tensors = self._held.get(block.name) or block_tensors(model, block)
        try:
            self._write(block, tensors)
        except OSError:
            self._held.setdefault(block.name, {name: t.to("cpu", copy=True) for name, t in tensors.items()})

    def _holds(self, model: nn.Module, block: Block) -> bool:
        """Bit for bit, so that a NaN is itself."""
        mine = block_tensors(model, block)
        try:
            return all(_same(found, mine[name]) for name, found in read_tensors(self._path(block), mine))
        except StorageError:
            return False

    def _path(self, block: Block) -> Path:
        return self._directory / f"{block.name}.safetensors"

    def _write(self, block: Block, tensors: dict[str, Tensor]) -> None:
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
    """The origin of a node without neighbours, which never needs one."""
    return torch.zeros(stop - start)
