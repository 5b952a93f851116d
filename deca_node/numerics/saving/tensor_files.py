"""Safetensors files: written durably, one tensor at a time, and read back into tensors.

The library's own writer takes all tensors as bytes at once. For a block's master and moments that would be a second
copy in memory. The format is an eight-byte length, a JSON header and the bytes of the tensors, one after another
(https://huggingface.co/docs/safetensors), so it can be written tensor by tensor.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from deca_node.numerics.model.blocks import Block
from deca_node.numerics.model.values import BlockValues, values_of
from deca_node.protocol.errors import StorageError
from deca_node.storage.durable import Sum, write_file

DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> Sum:
    """Write named tensors, whole or not at all; returns the file's length and SHA-256. Raises OSError."""
    return write_file(path, _chunks(tensors))


def read_tensors(path: Path, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
    """The named tensors, on the CPU, one at a time. Their memory may be that of the mapped file.

    Raises StorageError if the file cannot be read or lacks a tensor.
    """
    try:
        with safe_open(path, framework="pt") as file:
            for name in names:
                yield name, file.get_tensor(name)
    except (OSError, SafetensorError) as problem:
        raise StorageError(f"{path} cannot be read: {problem}") from None


def block_tensors(model: nn.Module, block: Block) -> BlockValues:
    """The block's parameters in the model by name; see :class:`~deca_node.numerics.model.values.Values`."""
    return BlockValues(values_of(model), block)


def copy_into(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Fill tensors from the tensors of the same names in a file. Raises StorageError."""
    for name, found in read_tensors(path, tensors):
        mine = _like(tensors, name)
        if found.shape != mine.shape or found.dtype != mine.dtype:
            kinds = (f"{t.dtype} {list(t.shape)}".removeprefix("torch.") for t in (found, mine))
            raise StorageError(f"{path} holds {name} as {' where the model has '.join(kinds)}")
        if isinstance(tensors, BlockValues):
            tensors.put(name, 0, found.reshape(-1))
        else:
            mine.copy_(found)


def _like(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """A tensor of the same shape and dtype."""
    return tensors.like(name) if isinstance(tensors, BlockValues) else tensors[name]


def _chunks(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    # Wide elements first: then each tensor begins at a multiple of its element's size.
    likes = {name: _like(tensors, name) for name in tensors}
    ordered = sorted(likes.items(), key=lambda item: -item[1].element_size())
    header, offset = {}, 0
    for name, tensor in ordered:
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name, _ in ordered:
        yield tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
