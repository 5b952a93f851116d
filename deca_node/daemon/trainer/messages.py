"""Commands and events as lines of JSON, for the socket between the daemon and its trainer.

The dataclasses of :mod:`deca_node.protocol` are the schema; pydantic reads and checks them. Tensor bytes do not pass
here: a command names frames, and ``slots`` says where each frame is in shared memory.
"""

import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pydantic

from deca_node.protocol import commands, events
from deca_node.protocol.agreed.frames import FrameId
from deca_node.protocol.options import TrainerOptions
from deca_node.storage.jsons import parse

Slots = dict[FrameId, tuple[int, int]]
"""The slot of each frame, and its size in bytes."""


@dataclass(frozen=True)
class ArenaShape:
    """The shape of the shared memory. It is the second message to a trainer, after TrainerOptions."""

    slot_bytes: int
    slots: int


@dataclass(frozen=True)
class Remark:
    """A log line from the trainer, while it loads."""

    sentence: str
    level: str = "info"


@dataclass(frozen=True)
class RanksWanted:
    """Rank 0 has looked for its devices, and there are several: the names of all, its own first, and the place where
    they find each other: a folder, which the daemon removes if rank 0 cannot, or tcp://HOST:PORT. ``sharded``: each
    rank holds a part of the model."""

    devices: tuple[str, ...]
    place: str
    sharded: bool = False


@dataclass(frozen=True)
class FollowerSetup:
    """The first message to each rank beside the first; ``wanted`` is what rank 0 has said."""

    options: TrainerOptions
    rank: int
    wanted: RanksWanted
    trial: bool = False


@dataclass(frozen=True)
class Trial:
    """The first message to a trainer that is only to try whether its ranks can add up. Its one answer is Tried."""

    options: TrainerOptions


@dataclass(frozen=True)
class Tried:
    """The ranks have added up a vector of ``nbytes`` in so many seconds. ``devices`` are empty if there is only one
    rank, which has nothing to try."""

    devices: tuple[str, ...]
    nbytes: int
    seconds: float


@dataclass(frozen=True)
class RankLost:
    """The last message of a rank that another one does not answer any more."""

    sentence: str


@dataclass(frozen=True)
class Question:
    """The first message to a server that calls: it answers with Lends."""

    nonce: str


@dataclass(frozen=True)
class Lends:
    """Another server of this party lends a device. ``proof`` shows that it knows the secret."""

    device: str
    host: str
    version: str
    proof: str


@dataclass(frozen=True)
class TurnedAway:
    """The node takes no device of this server, for this reason."""

    sentence: str


@dataclass(frozen=True)
class NodeEnds:
    """The node ends, and needs the device no more."""


@dataclass(frozen=True)
class RankEnded:
    """The process of a rank on another server has ended; ``code`` as in subprocess."""

    code: int


@dataclass(frozen=True)
class Envelope:
    """A message with the slots of the frames that it names."""

    body: Any
    slots: Slots = field(default_factory=dict)


_BODIES: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        *typing.get_args(commands.TrainerCommand),
        *typing.get_args(events.TrainerEvent),
        TrainerOptions,
        ArenaShape,
        Remark,
        RanksWanted,
        FollowerSetup,
        Trial,
        Tried,
        RankLost,
        Question,
        Lends,
        TurnedAway,
        NodeEnds,
        RankEnded,
    )
}


_ADAPTERS: "dict[type, pydantic.TypeAdapter[Any]]" = {cls: pydantic.TypeAdapter(cls) for cls in _BODIES.values()}


_SLOTS: "pydantic.TypeAdapter[list[tuple[FrameId, int, int]]]" = pydantic.TypeAdapter(list[tuple[FrameId, int, int]])


def encode(body: Any, slots: Mapping[FrameId, tuple[int, int]] | None = None) -> bytes:
    """The message as one line."""
    cls = type(body)
    message: dict[str, Any] = {"kind": cls.__name__, "body": _ADAPTERS[cls].dump_python(body, mode="json")}
    if slots:
        message["slots"] = _SLOTS.dump_python([(f, s, n) for f, (s, n) in slots.items()], mode="json")
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Envelope:
    """The inverse of :func:`encode`. Raises ValueError (or pydantic's, which is one) for a malformed line."""
    message = parse(line)
    body = _ADAPTERS[_BODIES[message["kind"]]].validate_python(message["body"])
    slots = _SLOTS.validate_python(message.get("slots", []))
    return Envelope(body, {frame: (slot, nbytes) for frame, slot, nbytes in slots})
