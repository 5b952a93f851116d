"""A machine whose memory is too small for trainers: at its 20th step the first runs out of memory in Python, and the
second in torch. Later ones live. Each leaves a file in the folder that FAULTS_DEATHS names.

Python imports this module at its start where its folder is on PYTHONPATH.
"""

import os
import sys
from pathlib import Path
from typing import Any

STEP = 20


def _install() -> None:
    import torch

    from deca_node.numerics.engine import BlockEngine

    folder = Path(os.environ["FAULTS_DEATHS"])
    lives = len(list(folder.iterdir()))
    (folder / str(lives)).touch()
    plain, steps = BlockEngine.half_step, iter(range(1, 1_000_000))

    def half_step(self: BlockEngine, *arguments: Any) -> dict[str, float]:
        step = next(steps)
        if step == STEP and lives == 0:
            raise MemoryError
        if step == STEP and lives == 1:
            torch.empty(1 << 60, dtype=torch.uint8)
        return plain(self, *arguments)

    BlockEngine.half_step = half_step


if any(argument.endswith("/trainer/boot.py") for argument in sys.orig_argv):
    _install()
