"""What every step did to the active block, on disk: for whoever checks a run against the equations.

One safetensors file per step, ``trace/AAAAA-RRRRR.safetensors`` (activation and inner step), with the block's
flat vectors in float32: ``gradient`` (absent in flush mixes), ``x_half`` before and ``x`` after the mix. This
takes three times the block's size per step, so it is for small models.
"""

from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from deca_node.protocol.agreed.schedule import Step


class Trace:
    """Writes the files of one node into ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._kept: dict[str, Tensor] = {}

    def half_step(self, x_half: Tensor, gradient: Tensor | None) -> None:
        """Keep copies of what a step has before its mix; float32 [elements] each."""
        self._kept = {"x_half": x_half.cpu().clone()}
        if gradient is not None:
            self._kept["gradient"] = gradient.cpu().clone()

    def mixed(self, step: Step, x: Tensor) -> None:
        """Write the step down; ``x`` is float32 [elements]. Late flows of the last step overwrite its file."""
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{step.activation:05d}-{step.inner:05d}.safetensors"
        save_file({**self._kept, "x": x.cpu().clone()}, path)
