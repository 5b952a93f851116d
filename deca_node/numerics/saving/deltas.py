"""A block version as a file that travels: Q8(x - x0) in the keyframe's codec, and nothing else.

Donors serve these files to nodes that were away or join late. x are the values of the frozen block in the model's
dtype. Files are written and read in segments. A segment has whole groups of the codec, so the file is equal to one
encoding of the whole block, and no vector of the block's size is made.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from deca_node.numerics.codecs.formats import KEYFRAME_CODEC
from deca_node.numerics.model.blocks import Block, Origin, origin_from, spans
from deca_node.numerics.saving.tensor_files import block_tensors
from deca_node.protocol.errors import StorageError, WireError

SEGMENT_ELEMENTS = 1 << 20
assert SEGMENT_ELEMENTS % KEYFRAME_CODEC.group == 0


class Segment(NamedTuple):
    """Elements [start, stop) of the block's vector, and their codes (uint8)."""

    start: int
    stop: int
    codes: Tensor


@torch.no_grad()
def delta_chunks(model: nn.Module, block: Block, origin: Origin) -> Iterator[memoryview]:
    """The bytes of the block's delta file, in segments. Raises NotFiniteError if the block has diverged."""
    parameters = block_tensors(model, block)
    values = origin_from(spans(model, block), parameters.__getitem__)
    for start, stop in _segments(block):
        x = values(start, stop)
        out = torch.empty(KEYFRAME_CODEC.nbytes(stop - start), dtype=torch.uint8)
        KEYFRAME_CODEC.encode(x - origin(start, stop).to(x.device), out, start)
        yield out.numpy().data


@torch.no_grad()
def check_delta(path: Path, model: nn.Module, block: Block) -> None:
    """Check a delta file without using it.

    Raises WireError if it is not a delta of this block, and StorageError if it cannot be read.
    """
    tensors = block_tensors(model, block)
    largest = min(torch.finfo(tensors.like(name).dtype).max for name in tensors) / 2
    for segment in _read(path, block):
        if KEYFRAME_CODEC.largest(segment.codes, segment.stop - segment.start, str(path)) > largest:
            raise WireError("not-finite", f"{path} holds numbers that block {block.name} cannot take up")


@torch.no_grad()
def apply_delta(path: Path, model: nn.Module, block: Block, origin: Origin) -> None:
    """Set the frozen block to x0 + delta, in the model's dtype. Raises as :func:`check_delta` does for a bad length."""
    parameters, layout = block_tensors(model, block), spans(model, block)
    for start, stop, codes in _read(path, block):
        x = KEYFRAME_CODEC.decode(codes, 0, stop - start).add_(origin(start, stop))
        for span in layout:
            first, last = max(start, span.start), min(stop, span.stop)
            if first < last:
                parameters.put(span.name, first - span.start, x[first - start : last - start])


def _segments(block: Block) -> Iterator[tuple[int, int]]:
    return (
        (start, min(start + SEGMENT_ELEMENTS, block.elements)) for start in range(0, block.elements, SEGMENT_ELEMENTS)
    )


def _read(path: Path, block: Block) -> Iterator[Segment]:
    """The segments of a delta file. Its length is checked before any memory is taken."""
    expected = KEYFRAME_CODEC.nbytes(block.elements)
    try:
        if path.stat().st_size != expected:
            words = f"{path} has {path.stat().st_size:,} bytes, and a delta of block {block.name} has {expected:,}"
            raise WireError("bad-length", words)
        with path.open("rb") as file:
            for start, stop in _segments(block):
                codes = bytearray(KEYFRAME_CODEC.nbytes(stop - start))
                if file.readinto(codes) != len(codes):
                    raise WireError("bad-length", f"{path} became shorter while it was read")
                yield Segment(start, stop, torch.frombuffer(codes, dtype=torch.uint8))
    except OSError as problem:
        raise StorageError(f"{path} cannot be read: {problem.strerror}") from None
