"""Events and commands as text, for transcripts that a person can read and a test can replay.

A line has the kind of the fact, its subject, and then the other fields by name::

    open-received b activation=0 degree=1 b:key-0       half-step 0.3 gradient=yes a:0.3
    peer-down b sentence="the stream broke"             mix 0.3 flows=b:0.2+a:0.2,b:0.3+a:0.3 fold=yes

A step is ``activation.inner``, an update ``sender:activation.inner``, a keyframe ``sender:key-activation``.
Held-out losses are ``round/loss+round/loss@activation``, the last where the run stops early.
"""

import dataclasses
import json
import re
import shlex
import typing
from collections.abc import Mapping
from typing import Any, NamedTuple

from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.agreement import ModelFacts
from deca_node.protocol.agreed.frames import BlockVersion, Delta, FrameId, FrameKind, FrameSizes
from deca_node.protocol.agreed.schedule import Activation, Step
from deca_node.protocol.agreed.stopping import Heldout

START = Step(0, 0)

BARE = ("peer", "step", "update", "keyframe", "frame", "when", "name", "kind", "ours")
"""Fields that are written without their name, since the value is clear."""

SILENT = ("scalars", "agreement")
"""Fields that are left out: they do not matter for the order of events, or differ between machines."""

RARE = (
    *("steps", "refused", "died", "for_good", "code", "orderly", "alone", "heldout", "keep", "problem"),
    *("level", "about", "share"),
)
"""Fields that are written only if they are neither empty nor what they are by default."""

EVENTS = {kind.__name__: kind for kind in typing.get_args(e.Event)}


class Line(NamedTuple):
    """One line of the transcript: an event, a command (``said``), or a fault in words."""

    when: float
    node: str
    said: bool
    fact: e.Event | c.Command | str

    def __str__(self) -> str:
        words = f"*** {self.fact}" if isinstance(self.fact, str) else write(self.fact)
        return f"{self.when:9.3f} {self.node}{'    ' if self.said else ' '}{words}"


def write(fact: e.Event | c.Command) -> str:
    """One event or command as one line."""
    words = [_kebab(type(fact).__name__)]
    if isinstance(fact, e.TrainerReady):
        at = "" if fact.position == START else f" position={_spell(fact.position)}"
        return f"{words[0]} blocks={len(fact.model.block_names)}{at}"
    for field in dataclasses.fields(fact):
        value = getattr(fact, field.name)
        if field.name not in SILENT and not (field.name in RARE and (not value or value == field.default)):
            words.append(_spell(value) if field.name in BARE else f"{field.name}={_spell(value)}")
    return " ".join(words)


def read_event(line: str) -> e.Event:
    """The event that :func:`write` wrote. Raises ValueError, KeyError or TypeError if the line is no such event."""
    kind_word, *words = shlex.split(line)
    kind = EVENTS["".join(part.capitalize() for part in kind_word.split("-"))]
    if kind is e.TrainerReady:
        position = words[1].removeprefix("position=") if len(words) > 1 else "0.0"
        return ready(int(words[0].removeprefix("blocks=")), _read(position, Step))
    named = dict(word.split("=", 1) for word in words if "=" in word)
    bare = iter([word for word in words if "=" not in word])
    hints = typing.get_type_hints(kind)
    fields = [field for field in dataclasses.fields(kind) if field.name not in SILENT]
    fields = [field for field in fields if field.name not in RARE or field.name in named]
    texts = {field.name: next(bare) if field.name in BARE else named[field.name] for field in fields}
    return kind(**{name: _read(text, hints[name]) for name, text in texts.items()})


def ready(blocks: int, position: Step = START) -> e.TrainerReady:
    """The event of a trainer that is ready with a model of so many blocks with one element each."""
    facts = ModelFacts("0" * 64, tuple(f"layers.{i}" for i in range(blocks)), (1,) * blocks)
    return e.TrainerReady(facts, FrameSizes((1,) * blocks, (1,) * blocks, (0,) * blocks, (0,) * blocks), position)


def _spell(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case FrameId(kind=FrameKind.KEYFRAME):
            return f"{value.sender}:key-{value.activation}"
        case FrameId():
            return f"{value.sender}:{value.activation}.{value.inner}"
        case Step():
            return f"{value.activation}.{value.inner}"
        case Activation():
            return f"{value.index} block={value.block} steps={value.inner_steps}+{value.flush_mixes}"
        case c.Flow():
            return f"{_spell(value.theirs)}+{_spell(value.ours)}"
        case c.Neighbour():
            return f"{value.weight:.3g}*{_spell(value.keyframe)}"
        case Heldout():
            losses = "+".join(f"{number}/{_spell(loss)}" for number, loss in value.losses)
            return losses if value.stop_at is None else f"{losses}@{value.stop_at}"
        case Delta():
            return f"{value.version.block}@{value.version.activation}"
        case Mapping():
            return ",".join(f"{name}:{_spell(value[name])}" for name in sorted(value)) or "-"
        case e.Refused():
            return f"{value.peer}:{value.reason}:{_spell(value.sentence)}"
        case tuple():
            return ",".join(map(_spell, value)) or "-"
        case str() if re.search(r"[\s\"'=]", value) or not value:
            return json.dumps(value, ensure_ascii=False)
        case _:
            return str(value)


def _read(text: str, kind: Any) -> Any:
    if kind is bool:
        return text == "yes"
    if kind == tuple[Delta, ...]:
        return tuple(map(_read_delta, text.split(","))) if text != "-" else ()
    if kind == Mapping[str, int]:
        return {name: int(at) for name, _, at in (pair.rpartition(":") for pair in text.split(","))}
    if kind == Mapping[str, Heldout]:
        told = (pair.rpartition(":") for pair in text.split(","))
        return {name: _read_heldout(facts) for name, _, facts in told}
    if kind == tuple[e.Refused, ...]:
        return (e.Refused(*text.split(":", 2)),)
    if text == "-":
        return None
    if kind is Step:
        return Step(*map(int, text.split(".")))
    if kind in (FrameId, FrameId | None):
        return _read_frame(text)
    return kind(text)


def _read_frame(text: str) -> FrameId:
    sender, _, place = text.rpartition(":")
    if place.startswith("key-"):
        return FrameId(sender, FrameKind.KEYFRAME, int(place.removeprefix("key-")), 0)
    activation, inner = place.split(".")
    return FrameId(sender, FrameKind.UPDATE, int(activation), int(inner))


def _read_heldout(text: str) -> Heldout:
    losses, _, stop = text.partition("@")
    pairs = (pair.split("/") for pair in losses.split("+") if pair)
    told = tuple((int(number), None if loss == "-" else float(loss)) for number, loss in pairs)
    return Heldout(told, int(stop) if stop else None)


def _read_delta(text: str) -> Delta:
    block, _, activation = text.rpartition("@")
    return Delta(BlockVersion(block, int(activation)), f"incoming/{text}")


def _kebab(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()
