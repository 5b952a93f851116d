"""The queue of one exchange stream. Messages go out in the order in which they were queued.

A frame waits for the peer's credit, and later messages wait behind it, because the protocol promises this order. Only
this node's own credit to the peer overtakes: otherwise two ends could wait for each other's credit for ever. A queued
message that has become useless is taken back: the updates of a closed edge, or an Open that a newer one replaces. The
queue has a limit.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from deca_node.daemon.links.turns import Turns
from deca_node.daemon.trainer.arena import FrameStore
from deca_node.daemon.wire.chunks import Chunks
from deca_node.daemon.wire.endpoint import Stream
from deca_node.daemon.wire.throttle import Throttle
from deca_node.daemon.wire_pb import exchange_pb2 as pb
from deca_node.protocol.agreed.frames import CHUNK_BYTES, FrameId

MESSAGES_QUEUED_MAX = 1000
"""Small messages that may wait for one peer. With more, the peer counts as one that no longer reads."""


class Shared:
    """The parts that all streams of a node share: frames, their chunks, the upload limit, and turns on the loop."""

    def __init__(self, store: FrameStore, throttle: Throttle) -> None:
        self.store = store
        self.throttle = throttle
        self.chunks = Chunks(store)
        self.turns = Turns()


@dataclass(frozen=True)
class _Opening:
    """An Open message and its keyframe, if it has one. They are sent together or not at all."""

    message: pb.Frame
    keyframe: FrameId | None

    @property
    def activation(self) -> int:
        """The activation for which an edge is offered."""
        return self.message.open.activation


_Item = pb.Frame | FrameId | _Opening


class Outbox:
    """The queue of one stream. At most ``frames_max`` frames may wait in it; ``traffic`` counts bytes by kind."""

    def __init__(self, stream: Stream, shared: Shared, traffic: Counter[str], frames_max: int) -> None:
        self._stream = stream
        self._shared = shared
        self._store = shared.store
        self._traffic = traffic
        self._frames_max = frames_max
        self._queue: deque[_Item] = deque()
        self._offered: int | None = None
        """The activation of the last Open that was written."""
        self._begun = 0
        self._credit = 0
        self._granted = self._granted_told = 0
        self._stirred = asyncio.Event()
        self._finishing = False

    # --- the queue ----------------------------------------------------------------------------------

    def say(self, message: pb.Frame) -> None:
        """Queue a small message."""
        self._put(message)

    def offer(self, opening: pb.Open, keyframe: FrameId | None) -> None:
        """Queue an Open and its keyframe, if it has one, in place of an earlier Open that still waits."""
        # The node may repeat an Open that it queued before it heard of this stream.
        if opening.activation == self._offered:
            return
        self._take_back(lambda item: isinstance(item, _Opening))
        if keyframe:
            self._store.hold(keyframe)
        self._put(_Opening(pb.Frame(open=opening), keyframe))

    def send(self, frame: FrameId) -> None:
        """Queue an update. Its slot is held until it is sent."""
        self._store.hold(frame)
        self._put(frame)

    def forget(self, activation: int, applied: int) -> None:
        """An edge was closed: take back what waits for it beyond what the edge still owes. A later Open of the same
        activation is a new one, as after the trainer's death."""
        if activation == self._offered:
            self._offered = None
        self._take_back(lambda item: _past(item, activation, applied))

    def overfull(self) -> bool:
        """Whether more waits than ever could for a peer that reads."""
        frames = sum(_frame_of(item) is not None for item in self._queue)
        return frames > self._frames_max or len(self._queue) - frames > MESSAGES_QUEUED_MAX

    def finish(self) -> None:
        """Nothing more will be queued: end the stream once the queue is empty."""
        self._finishing = True
        self._stirred.set()

    def discard(self) -> None:
        """The stream is over: release everything that waits."""
        self._take_back(lambda _: True)

    def _put(self, item: _Item) -> None:
        self._queue.append(item)
        self._stirred.set()

    def _take_back(self, useless: Callable[[_Item], bool]) -> None:
        kept: deque[_Item] = deque()
        for item in self._queue:
            if not useless(item):
                kept.append(item)
            elif frame := _frame_of(item):
                self._store.unhold(frame)
        self._queue = kept

    # --- credit -------------------------------------------------------------------------------------

    def credit(self, frames: int) -> None:
        """The peer has room for this many frames, counted from the start of the stream."""
        self._credit = max(self._credit, frames)
        self._stirred.set()

    def grant(self, frames: int) -> None:
        """Tell the peer how many frames it may send, counted from the start of the stream. This goes out first."""
        self._granted = frames
        self._stirred.set()

    # --- writing ------------------------------------------------------------------------------------

    async def run(self, first: pb.Frame | None) -> None:
        """Send ``first``, then what is queued, until :meth:`finish` is called and everything is sent. Raises
        StreamBrokenError."""
        if first:
            await self._write(first)
        while True:
            await self._grant_if_due()
            if self._queue and self._may_begin(self._queue[0]):
                await self._write(self._queue.popleft())
                continue
            if self._finishing and not self._queue:
                return await self._stream.end()
            await self._stirred.wait()
            self._stirred.clear()

    def _may_begin(self, item: _Item) -> bool:
        return _frame_of(item) is None or self._begun < self._credit

    async def _write(self, item: _Item) -> None:
        if isinstance(item, pb.Frame):
            await self._write_counted("control", item.SerializeToString())
            return
        frame = _frame_of(item)
        self._begun += frame is not None
        try:
            if isinstance(item, _Opening):
                self._offered = item.activation
                await self._write_counted("control", item.message.SerializeToString())
            if frame:
                await self._write_chunks(frame)
        finally:
            if frame:
                self._store.unhold(frame)

    async def _write_chunks(self, frame: FrameId) -> None:
        _, nbytes = self._store.slot(frame)
        for offset in range(0, nbytes, CHUNK_BYTES):
            await self._shared.throttle.take(min(CHUNK_BYTES, nbytes - offset))
            await self._shared.turns.take()
            message = self._shared.chunks.message(frame, offset)
            # gRPC copies the message, and often sends it, before ``write`` returns.
            await self._shared.turns.take()
            await self._write_counted(frame.kind, message)
            await self._grant_if_due()

    async def _grant_if_due(self) -> None:
        if self._granted > self._granted_told:
            self._granted_told = self._granted
            message = pb.Frame(credit=pb.Credit(frames=self._granted))
            await self._write_counted("control", message.SerializeToString())

    async def _write_counted(self, kind: str, message: bytes) -> None:
        await self._stream.write(message)
        self._traffic[f"sent.{kind}"] += len(message)


def _frame_of(item: _Item) -> FrameId | None:
    if isinstance(item, _Opening):
        return item.keyframe
    return item if isinstance(item, FrameId) else None


def _past(item: _Item, activation: int, applied: int) -> bool:
    """Whether this message is useless once the edge of an activation is closed after ``applied``."""
    if isinstance(item, _Opening):
        # An Open that still waits belongs to an edge that never opened at the other end.
        return item.activation == activation
    return isinstance(item, FrameId) and item.activation == activation and item.inner > applied
