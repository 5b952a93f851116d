"""Frames that are lent to the trainer. Each is released once, when the last command that reads it is answered.

A trainer takes commands in order and answers each. So a command is noted together with the frames that it is the last
to read, and they are released when its answer comes. A node's own updates wait until every edge has applied its flow.
"""

from collections import deque
from collections.abc import Callable, Iterable

from deca_node.protocol import commands as c
from deca_node.protocol.agreed.frames import FrameId


class Loans:
    """The frames of one visit. ``say`` takes the Release of each."""

    def __init__(self, say: Callable[[c.Command], None]) -> None:
        self._say = say
        self._own: list[FrameId] = []
        self._lent: deque[list[FrameId]] = deque()

    @property
    def lent(self) -> bool:
        """Whether any command with frames lent to it was not answered yet."""
        return bool(self._lent)

    def wrote(self, frame: FrameId) -> None:
        """The trainer was asked to write this update of the node's own."""
        self._own.append(frame)

    def lend(self, frames: Iterable[FrameId], needed: Callable[[int], bool]) -> None:
        """The command that goes out now is the last to read these frames, and own updates of steps that are not
        ``needed`` any more."""
        done = [frame for frame in self._own if not needed(frame.inner)]
        self._own = [frame for frame in self._own if frame not in done]
        self._lent.append([*frames, *done])

    def lend_all(self, frames: Iterable[FrameId]) -> None:
        """The command that goes out now is the last to read these frames, and all own updates."""
        self._lent.append([*frames, *self._own])
        self._own = []

    def answered(self) -> None:
        """The oldest command that had frames lent to it is answered."""
        self.release(self._lent.popleft())

    def release(self, frames: Iterable[FrameId]) -> None:
        """Release frames that no command reads."""
        for frame in frames:
            self._say(c.Release(frame))

    def release_all(self) -> None:
        """Release all frames, since there is no trainer any more to read them."""
        for frames in self._lent:
            self.release(frames)
        self.release(self._own)
        self._lent.clear()
        self._own = []
