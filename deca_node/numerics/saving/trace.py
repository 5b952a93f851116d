"""The trace of a run: the active block's vectors at every step, on disk, to check a run against the equations.

Every step is one safetensors file, ``trace/AAAAA-RRRRR.safetensors`` (activation and inner step). It holds the block's
flat vectors in float32: ``gradient`` (not in flush mixes), ``x_half`` before the mix and ``x`` after it. A step takes
three times the block's size, so a trace is for small models.
"""

from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from deca_node.protocol.agreed.schedule import Step


class Trace:
    """Writes the trace of one node into ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._kept: dict[str, Tensor] = {}

    def half_step(self, x_half: Tensor, gradient: Tensor | None) -> None:
        """Keep copies of a step's vectors before its mix; float32 [elements] each."""
        self._kept = {"x_half": x_half.cpu().clone()}
        if gradient is not None:
            self._kept["gradient"] = gradient.cpu().clone()

    def mixed(self, step: Step, x: Tensor) -> None:
        """Write a step's file; ``x`` is float32 [elements]. Late flows after the last step overwrite its file."""
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{step.activation:05d}-{step.inner:05d}.safetensors"
        save_file({**self._kept, "x": x.cpu().clone()}, path)
