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
    model: str
    data: str
    device: str
    threads: int
    micro_batch: int
    gradient_checkpointing: bool
    holdout: float
    eval_sequences: int
    bad_records: str
    norm_limit: float
    trace: bool
    dp_noise: float
    dp_clip: float
    dp_delta: float
    dp_epsilon: float

    @property
    def seed(self) -> int:
        """The seed of this node's own random choices; see :func:`own_seed`."""
        return own_seed(self.settings, self.name)


def own_seed(settings: RunSettings, name: str) -> int:
    """The seed of what the node ``name`` draws for itself: its held-out records, its batches, its dropout."""
    return random.Random(f"{settings.seed}:{name}").getrandbits(31)
