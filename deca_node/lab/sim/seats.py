"""The seat of a node in a cluster: the node, its trainer, and the frames that both use."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.frames import FrameId
from deca_node.protocol.node.node import Node


class Obeys(Protocol):
    """The part of a trainer that a cluster needs."""

    def ready(self) -> e.TrainerReady:
        """The model's facts, the sizes of frames, and the position to continue from."""

    def obey(self, command: c.TrainerCommand) -> e.TrainerEvent:
        """Perform a command and return the answer."""


@runtime_checkable
class Endures(Obeys, Protocol):
    """A trainer that can die and be started again, and from whose disk others can fetch."""

    def restart(self) -> None:
        """Forget everything that is not on the disk."""

    def give(self) -> e.Fetched | None:
        """The blocks of the newest checkpoint that a donor would give, or None if there is no checkpoint."""


class FrameBook:
    """The frames of one node in plain memory. It is an error to take a frame twice, or to use a frame that is not
    held."""

    def __init__(self) -> None:
        self._frames: dict[FrameId, bytearray] = {}

    def __len__(self) -> int:
        return len(self._frames)

    def __contains__(self, frame: FrameId) -> bool:
        return frame in self._frames

    def held(self) -> list[FrameId]:
        """All frames that are held."""
        return sorted(self._frames)

    def held_from(self, sender: str) -> int:
        """The number of frames of one sender that are held."""
        return sum(frame.sender == sender for frame in self._frames)

    def reserve(self, frame: FrameId, nbytes: int) -> None:
        """Take a frame."""
        assert frame not in self._frames, f"{frame} is held already"
        self._frames[frame] = bytearray(nbytes)

    def view(self, frame: FrameId) -> memoryview:
        """The writable bytes of a held frame. A trainer takes this method as its ``frames``."""
        assert frame in self._frames, f"{frame} is not held"
        return memoryview(self._frames[frame])

    def release(self, frame: FrameId) -> None:
        """Release a frame."""
        assert frame in self._frames, f"{frame} is released, but it is not held"
        del self._frames[frame]


class Seat(NamedTuple):
    """A node, its trainer, and the frames that both use."""

    node: Node
    trainer: Obeys
    frames: FrameBook


@dataclass
class Member:
    """A seat and its state. ``inbox`` holds messages that came during a pause; ``lives`` counts the trainers."""

    seat: Seat
    slowness: float
    ready: e.TrainerReady | None = None
    orders: deque[c.TrainerCommand] = field(default_factory=deque)
    inbox: deque[Callable[[], None]] = field(default_factory=deque)
    paused: bool = False
    gone: bool = False
    woken_at: float | None = None
    heard: int = 0
    lives: int = 0
    trainer_alive: bool = False

    @property
    def name(self) -> str:
        """The name of the node."""
        return self.seat.node.name


def seats(nodes: Iterable[Node], trainer: Callable[[Node, FrameBook], Obeys]) -> dict[str, Seat]:
    """A seat for every node, each with the trainer that ``trainer(node, frames)`` returns."""
    books = ((node, FrameBook()) for node in nodes)
    return {node.name: Seat(node, trainer(node, frames), frames) for node, frames in books}
