"""What a trainer is told before it loads anything. No torch here: the daemon writes it, the trainer reads it."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from deca_node.protocol.agreed.run import RunSettings


class Note(Protocol):
    """Takes what a trainer says to people while it loads; ``level`` is info or warning."""

    def __call__(self, sentence: str, level: str = "info") -> None: ...


ProgressReport = Callable[[int, int], None]
"""Takes the progress of long work: how much is done, and how much there is in all."""


@dataclass(frozen=True, kw_only=True)
class TrainerOptions:
    """One node's part; meanings and units as in ``node.toml`` and ``run.toml``."""

    name: str
    settings: RunSettings
    directory: str
    model: str = ""
    data: str = ""
    device: str = "auto"
    threads: int = 0
    micro_batch: int = 0
    gradient_checkpointing: bool = False
    holdout: float = 0.1
    eval_sequences: int = 64
    bad_records: str = "stop"
    norm_limit: float = 1000.0
    trace: bool = False
    dp_noise: float = 0.0
    dp_clip: float = 1.0
    dp_delta: float = 1e-5
    dp_epsilon: float = 0.0

    @property
    def seed(self) -> int:
        """Of what this node draws for itself: its held-out records, its batches, its dropout."""
        return random.Random(f"{self.settings.seed}:{self.name}").getrandbits(31)
