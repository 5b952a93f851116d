"""The options of a trainer. The daemon, which has no torch, writes them; the trainer reads them before it loads."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.errors import SettingsError


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
    attention: str
    micro_batch: int
    gradient_checkpointing: bool
    holdout: float
    eval_sequences: int
    bad_records: str
    data_format: str
    columns: str
    chat_template: str
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


ATTENTIONS = ("auto", "eager", "sdpa", "flash_attention_2")
"""Values of the node's setting ``attention``: the implementations of transformers that train."""

DATA_FORMATS = (
    *("auto", "text", "prompt", "messages", "alpaca", "sharegpt"),
    *("jsonl", "json", "csv", "tsv", "parquet", "arrow"),
)
"""Values of the node's setting ``format``: kinds of records, and formats of files."""


def columns_of(text: str) -> dict[str, str]:
    """The setting ``columns`` as a table: the column in the data for each name that a record has.

    Raises SettingsError where it is no list of NAME=COLUMN.
    """
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, column = (piece.strip() for piece in part.partition("="))
        if not (name and equals and column) or name in found:
            raise SettingsError(
                f"columns has {part!r}; write NAME=COLUMN, separated by commas, each name once, as in text=body"
            )
        found[name] = column
    return found


def own_seed(settings: RunSettings, name: str) -> int:
    """The seed of the random choices that the node ``name`` makes alone: its held-out records, batches and dropout."""
    return random.Random(f"{settings.seed}:{name}").getrandbits(31)
