"""Who still needs this frame? A frame is let go once, and not before the last command that reads it is answered.

A trainer takes commands in order and answers each. So the frames that a command is the last to read are noted with
it, and let go when its answer comes; a node's own updates wait until every edge has applied its flow.
"""

from collections import deque
from collections.abc import Callable, Iterable

from deca_node.protocol import commands as c
from deca_node.protocol.agreed.frames import FrameId


class Loans:
    """The frames of one visit. ``say`` takes their releases."""

    def __init__(self, say: Callable[[c.Command], None]) -> None:
        self._say = say
        self._own: list[FrameId] = []
        self._lent: deque[list[FrameId]] = deque()

    @property
    def lent(self) -> bool:
        """Whether any command with frames lent to it is still to be answered."""
        return bool(self._lent)

    def wrote(self, frame: FrameId) -> None:
        """The trainer was asked to write an update of our own."""
        self._own.append(frame)

    def lend(self, frames: Iterable[FrameId], own_needed_from: int) -> None:
        """The command that goes out now is the last to read these frames, and our own updates before that step."""
        done = [frame for frame in self._own if frame.inner < own_needed_from]
        self._own = self._own[len(done) :]
        self._lent.append([*frames, *done])

    def lend_all(self, frames: Iterable[FrameId]) -> None:
        """The command that goes out now is the last to read any frame: these, and all of our own."""
        self._lent.append([*frames, *self._own])
        self._own = []

    def answered(self) -> None:
        """The oldest command that had frames lent to it is done."""
        self.release(self._lent.popleft())

    def release(self, frames: Iterable[FrameId]) -> None:
        """Let frames go that no command reads."""
        for frame in frames:
            self._say(c.Release(frame))

    def release_all(self) -> None:
        """There is no trainer any more that could read anything."""
        for frames in self._lent:
            self.release(frames)
        self.release(self._own)
        self._lent.clear()
        self._own = []
