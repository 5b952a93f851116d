"""Faults and delays: the weather of a cluster, complete before the cluster begins.

A fault comes at a time, or right after a node has handled a number of events. The latter hits moments between two
events.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from deca_node.protocol import events as e

Range = tuple[float, float]
"""Seconds, drawn evenly between the two."""


@dataclass(frozen=True)
class Cut:
    """The stream between ``a`` and ``b`` breaks ``at`` a time, and there is no new one for some ``seconds``."""

    a: str
    b: str
    at: float
    seconds: float


@dataclass(frozen=True)
class Deaf:
    """Messages from ``sender`` to ``receiver`` vanish from ``at`` on. After ``seconds`` both ends find their stream
    broken."""

    sender: str
    receiver: str
    at: float
    seconds: float


@dataclass(frozen=True)
class Pause:
    """A node handles nothing for some ``seconds``, as on a laptop that sleeps. Its streams and its trainer live."""

    name: str
    at: float
    seconds: float


@dataclass(frozen=True)
class Crash:
    """A node ends in the middle of its work, ``at`` a time or right after its ``event``-th event (0: at the time). It
    returns after some ``seconds`` (None: never), with its disk or an ``empty`` one."""

    name: str
    at: float = 0.0
    event: int = 0
    back: float | None = None
    empty: bool = False


@dataclass(frozen=True)
class Death:
    """The trainer of a node ends and loses all unwritten state."""

    name: str
    at: float = 0.0
    event: int = 0


@dataclass(frozen=True)
class Ask:
    """A user sends a node a request."""

    name: str
    what: e.Event
    at: float = 0.0
    event: int = 0


@dataclass(frozen=True, kw_only=True)
class Weather:
    """Times, chances and faults. ``link_slowness`` and ``node_slowness`` are factors on ``delay`` and on ``compute``,
    drawn once per link and once per node."""

    delay: Range = (0.001, 0.02)
    """The delay of a message."""
    link_slowness: Range = (1.0, 1.0)
    greeting: Range = (0.0, 0.1)
    notice: Range = (0.0, 0.2)
    """From the end of a stream until an end notices."""
    load: Range = (0.0, 1.0)
    """From the start of a node until its model is loaded."""
    compute: Range = (0.01, 0.05)
    """The duration of one command of the trainer."""
    node_slowness: Range = (1.0, 1.0)
    fetch: Range = (0.05, 0.5)
    """The duration of a fetch from donors."""
    hearsay: Range = (0.0, 0.2)
    """From a change of a member until another node hears of it."""
    heartbeat: float = 1.0
    """The interval between heartbeats, at which nodes tell their positions."""

    heartbeat_lost: float = 0.0
    """Chance that such a message is lost. The same share is out of date."""
    fetch_failing: float = 0.0
    checkpoint_failing: float = 0.0
    malformed: float = 0.0
    """Chance that the bytes of a keyframe or an update are changed on the way."""

    cuts: tuple[Cut, ...] = ()
    deaf: tuple[Deaf, ...] = ()
    pauses: tuple[Pause, ...] = ()
    crashes: tuple[Crash, ...] = ()
    deaths: tuple[Death, ...] = ()
    asks: tuple[Ask, ...] = ()


def partition(one: Iterable[str], other: Iterable[str], at: float, seconds: float) -> tuple[Cut, ...]:
    """Cut every stream between two groups."""
    far = tuple(other)
    return tuple(Cut(a, b, at, seconds) for a in one for b in far)
