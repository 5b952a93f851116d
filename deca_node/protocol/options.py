"""The options of a trainer. The daemon, which has no torch, writes them; the trainer reads them before it loads."""

import random
import re
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
    devices: str
    parallel: str
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
    elsewhere: tuple[str, ...] = ()
    """The devices that other servers of this party lend, as DEVICE@HOST; the daemon knows them once all are there."""
    meet: str = ""
    """With ``elsewhere``: this machine's address in the network of those servers."""

    @property
    def seed(self) -> int:
        """The seed of this node's own random choices; see :func:`own_seed`."""
        return own_seed(self.settings, self.name)


ATTENTIONS = ("auto", "eager", "sdpa", "flash_attention_2")
"""Values of the node's setting ``attention``: the implementations of transformers that train."""

PARALLELS = ("auto", "data", "shard")
"""Values of the node's setting ``parallel``: what several ranks share."""

AT = "@"
"""Between the name of a device and that of the server that lends it."""

RANKS_MAX = 64
"""The largest number of processes of one trainer."""

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?|mps")
_COUNTED = re.compile(r"(?:(auto|cpu|cuda|mps)(?:\*(\d+))?|(\d+))")
_CARDS = re.compile(r"cuda:\d+(?:,cuda:\d+)*")


def check_where(device: str, devices: str, parallel: str, elsewhere: int, at: str, *, private: bool) -> None:
    """Check the settings that say where and how a node trains. Raises SettingsError."""
    if bool(elsewhere) != bool(at):
        raise SettingsError("ranks_elsewhere and ranks_at belong together: set both, or none of them")
    if elsewhere and "mps" in {device, devices}:
        raise SettingsError("mps takes one rank: leave ranks_elsewhere out")
    if not _DEVICE.fullmatch(device):
        raise SettingsError(f"device = {device!r} is not auto, cpu, cuda, cuda:N or mps")
    if devices and devices_of(devices).kind and device != "auto":
        says = f"device = {device!r} names one device and devices = {devices!r} several"
        raise SettingsError(f"{says}; leave one out")
    if parallel == "shard" and private:
        raise SettingsError(
            "parallel = 'shard' with dp_noise: each record's gradient is needed whole at one rank, and a sharded model "
            "sums over the ranks at once; set parallel = 'data'"
        )


@dataclass(frozen=True)
class Devices:
    """The setting ``devices``: the first ``count`` devices of a ``kind`` (0: all there are, of a CPU one), or the CUDA
    devices with these ``cards``' numbers. ``auto`` stands for CUDA if there is a card, and for the CPU otherwise."""

    kind: str
    count: int = 0
    cards: tuple[int, ...] = ()


def devices_of(text: str) -> Devices:
    """Read the setting ``devices``. Raises SettingsError."""
    text = "".join(text.split())
    if _CARDS.fullmatch(text):
        cards = tuple(int(each.removeprefix("cuda:")) for each in text.split(","))
        if len(set(cards)) < len(cards):
            raise SettingsError(f"devices = {text!r} names a card twice; every rank needs a card of its own")
        return Devices("cuda", len(cards), cards)
    found = _COUNTED.fullmatch(text)
    if not found:
        raise SettingsError(
            f"devices = {text!r} is not auto, a number of ranks, cpu*N, cuda, cuda*N, cuda:N,cuda:M,... or mps"
        )
    kind, count = found[1] or "auto", found[2] or found[3]
    if count is not None and not 1 <= int(count) <= RANKS_MAX:
        raise SettingsError(f"devices = {text!r}: a trainer has 1 to {RANKS_MAX} ranks")
    if kind == "mps" and count not in (None, "1"):
        raise SettingsError(f"devices = {text!r}: torch sees one MPS device, and it takes one rank")
    return Devices(kind, int(count or 0))


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
