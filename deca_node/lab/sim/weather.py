"""What goes wrong, and how long everything takes: a cluster's weather, in full before it begins.

Faults come at a time, or right after a node has handled so many events, which finds the moments between two facts.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from deca_node.protocol import events as e

Range = tuple[float, float]
"""Seconds, drawn evenly between the two."""


@dataclass(frozen=True)
class Cut:
    """The stream between ``a`` and ``b`` breaks ``at`` a time and cannot be had again for some ``seconds``."""

    a: str
    b: str
    at: float
    seconds: float


@dataclass(frozen=True)
class Deaf:
    """What ``sender`` sends to ``receiver`` vanishes, from ``at`` a time until, some ``seconds`` later, both find their
    stream broken."""

    sender: str
    receiver: str
    at: float
    seconds: float


@dataclass(frozen=True)
class Pause:
    """A node handles nothing for some ``seconds``, as in a laptop that sleeps; its streams and its trainer live."""

    name: str
    at: float
    seconds: float


@dataclass(frozen=True)
class Crash:
    """A node ends in the middle of whatever it does: ``at`` a time, or right after it handled its ``event``-th event
    (0: at the time). It is back after some ``seconds`` (None: never), with its disk or an ``empty`` one."""

    name: str
    at: float = 0.0
    event: int = 0
    back: float | None = None
    empty: bool = False


@dataclass(frozen=True)
class Death:
    """A node's trainer ends, with all that it has not written down."""

    name: str
    at: float = 0.0
    event: int = 0


@dataclass(frozen=True)
class Ask:
    """Somebody asks a node for something."""

    name: str
    what: e.Event
    at: float = 0.0
    event: int = 0


@dataclass(frozen=True, kw_only=True)
class Weather:
    """Times, chances and faults. ``link_slowness`` and ``node_slowness`` are factors, drawn once per link and per
    node, on ``delay`` and on ``compute``."""

    delay: Range = (0.001, 0.02)
    """A message's way."""
    link_slowness: Range = (1.0, 1.0)
    greeting: Range = (0.0, 0.1)
    notice: Range = (0.0, 0.2)
    """From a broken stream to an end's hearing of it."""
    load: Range = (0.0, 1.0)
    """From a node's start to its model's being loaded."""
    compute: Range = (0.01, 0.05)
    """One command to the trainer."""
    node_slowness: Range = (1.0, 1.0)
    fetch: Range = (0.05, 0.5)
    """To get block versions from donors."""
    hearsay: Range = (0.0, 0.2)
    """From a change of a member to another's hearing of it."""
    heartbeat: float = 1.0
    """From one telling of positions to the next."""

    heartbeat_lost: float = 0.0
    """Chance that a telling of a position is lost; as many are out of date."""
    fetch_failing: float = 0.0
    checkpoint_failing: float = 0.0
    malformed: float = 0.0
    """Chance that a keyframe's or an update's bytes are not what its sender wrote."""

    cuts: tuple[Cut, ...] = ()
    deaf: tuple[Deaf, ...] = ()
    pauses: tuple[Pause, ...] = ()
    crashes: tuple[Crash, ...] = ()
    deaths: tuple[Death, ...] = ()
    asks: tuple[Ask, ...] = ()


def partition(one: Iterable[str], other: Iterable[str], at: float, seconds: float) -> tuple[Cut, ...]:
    """Every stream between two groups is cut."""
    far = tuple(other)
    return tuple(Cut(a, b, at, seconds) for a in one for b in far)
