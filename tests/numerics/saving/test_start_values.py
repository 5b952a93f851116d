"""x0 is kept in memory if the disk has no room for it."""

from pathlib import Path

import torch
from torch import nn

from deca_node.numerics.model.blocks import Block, partition
from deca_node.numerics.saving.start_values import StartValues
from tests.numerics.saving.checkpoint_runs import tiny_model


def x0_after_a_change(start: StartValues, model: nn.Module, block: Block) -> torch.Tensor:
    """Ask for x0 as an activation does, and then change the block."""
    origin = start.origin(model, block)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in block.parameters:
                parameter.add_(1.0)
    return origin(0, block.elements)


def test_values_that_cannot_be_written_are_held_until_they_can(tmp_path: Path) -> None:
    model = tiny_model()
    block = partition(model, 1)[1]
    expected = StartValues(tmp_path / "other").origin(model, block)(0, block.elements)
    folder = tmp_path / "start"
    folder.write_text("a file where the folder should be: nothing can be written")
    start = StartValues(folder)
    assert x0_after_a_change(start, model, block).equal(expected)
    assert x0_after_a_change(start, model, block).equal(expected), "still from memory"
    folder.unlink()
    assert x0_after_a_change(start, model, block).equal(expected)
    (written,) = folder.iterdir()
    assert written.read_bytes() == (tmp_path / "other" / written.name).read_bytes()
