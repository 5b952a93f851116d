"""Where a node of a cluster sits: its trainer beside it, and between the two the frames that both see."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.frames import FrameId
from deca_node.protocol.node.node import Node


class Obeys(Protocol):
    """A trainer, as far as a cluster is concerned."""

    def ready(self) -> e.TrainerReady:
        """The model's facts, the sizes of frames, and where to go on."""

    def obey(self, command: c.TrainerCommand) -> e.TrainerEvent:
        """Do what is asked, and say that it is done."""


@runtime_checkable
class Endures(Obeys, Protocol):
    """One that can die and be started again, and from whose disk others can fetch."""

    def restart(self) -> None:
        """Forget all that is not on the disk."""

    def give(self) -> e.Fetched | None:
        """What a donor would hand out of the newest checkpoint; None where there is none yet."""


class FrameBook:
    """One node's frames, in plain memory. To take a frame twice, or to use one that is not held, is an error."""

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
        """How many frames of one sender are held."""
        return sum(frame.sender == sender for frame in self._frames)

    def reserve(self, frame: FrameId, nbytes: int) -> None:
        """Take a frame in."""
        assert frame not in self._frames, f"{frame} is held already"
        self._frames[frame] = bytearray(nbytes)

    def view(self, frame: FrameId) -> memoryview:
        """The bytes of a held frame, writable; what a trainer takes as its ``frames``."""
        assert frame in self._frames, f"{frame} is not held"
        return memoryview(self._frames[frame])

    def release(self, frame: FrameId) -> None:
        """Let a frame go."""
        assert frame in self._frames, f"{frame} is released, but it is not held"
        del self._frames[frame]


class Seat(NamedTuple):
    """A node, its trainer, and the frames that both see."""

    node: Node
    trainer: Obeys
    frames: FrameBook


@dataclass
class Member:
    """A seat and what goes on at it. ``inbox`` holds what came in during a pause; ``lives`` counts trainers."""

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
        """The node's."""
        return self.seat.node.name


def seats(nodes: Iterable[Node], trainer: Callable[[Node, FrameBook], Obeys]) -> dict[str, Seat]:
    """A seat for every node, with the trainer that ``trainer(node, frames)`` makes for it."""
    books = ((node, FrameBook()) for node in nodes)
    return {node.name: Seat(node, trainer(node, frames), frames) for node, frames in books}
