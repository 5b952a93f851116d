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
