"""x0, the common starting point, kept on disk block by block.

A keyframe is the difference of a block to its values at the run's start. The first visit of a block finds
them in the model itself and writes them down; every later visit reads them back, a tensor at a time.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from deca_node.numerics.blocks import Block, origin_from, spans
from deca_node.numerics.flows import Origin
from deca_node.protocol.errors import StorageError


class StartValues:
    """The starting values of visited blocks, in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def origin(self, model: nn.Module, block: Block) -> Origin:
        """x0 of a block. Called before the block is thawed; the first call writes the model's values down.

        Raises StorageError where they cannot be written.
        """
        path = self._directory / f"{block.name}.safetensors"
        if not path.exists():
            self._write(path, model, block)
        file = safe_open(path, framework="pt")

        def tensor(name: str) -> Tensor:
            return file.get_tensor(name)

        return origin_from(spans(model, block), tensor)

    def _write(self, path: Path, model: nn.Module, block: Block) -> None:
        parameters = dict(model.named_parameters())
        tensors = {name: parameters[name].detach().to("cpu", copy=True).contiguous() for name in block.parameters}
        aside = path.with_suffix(".partial")
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            save_file(tensors, aside)
            aside.rename(path)
        except (OSError, SafetensorError) as problem:
            nbytes = sum(t.numel() * t.element_size() for t in tensors.values())
            raise StorageError(
                f"cannot write the starting values of block {block.name} ({nbytes:,} bytes) to {path}: {problem}"
            ) from None


def nothing(start: int, stop: int) -> Tensor:
    """The origin of a node without neighbours, which never needs one."""
    return torch.zeros(stop - start)
