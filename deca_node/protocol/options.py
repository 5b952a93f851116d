"""The options of a trainer. The daemon, which has no torch, writes them; the trainer reads them before it loads."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from deca_node.protocol.agreed.run import RunSettings


class Note(Protocol):
    """Takes the log lines of a trainer; ``level`` is info or warning."""

    def __call__(self, sentence: str, level: str = "info") -> None: ...


ProgressReport = Callable[[int, int], None]
"""Takes the progress of long work: the amount that is done, and the total."""


@dataclass(frozen=True, kw_only=True)
class TrainerOptions:
    """The settings that one trainer needs. Meanings and units are those of ``node.toml`` and ``run.toml``."""

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
    """The seed of the random choices that the node ``name`` makes alone: its held-out records, batches and dropout."""
    return random.Random(f"{settings.seed}:{name}").getrandbits(31)
