"""One live exchange stream to one peer: queued messages go out in order, incoming messages become events.

An incoming frame is assembled in its slot of shared memory. It becomes an event once it is whole; if the stream breaks
before that, the slot is freed. The peer may send as many frames as it was granted, and is granted another one whenever
the node has released one.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from deca_node.daemon.links.greeting import sentence_of
from deca_node.daemon.links.outbox import Outbox, Shared
from deca_node.daemon.links.turns import LARGE_BYTES
from deca_node.daemon.wire import framing
from deca_node.daemon.wire.endpoint import Stream
from deca_node.daemon.wire.lifetime import Lifetime
from deca_node.daemon.wire_pb import exchange_pb2 as pb
from deca_node.protocol import events as e
from deca_node.protocol.agreed.frames import FrameId, FrameKind
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.agreed.weights import SHARE_ONE
from deca_node.protocol.errors import WireError
from deca_node.protocol.visit.closing import is_orderly

STEPS_MAX = 100_000
"""The most steps that an Open may name."""

REASON_LENGTH_MAX = 500
"""The reason of a Close is cut to this many characters."""


@dataclass(frozen=True)
class FrameRules:
    """The frames that a peer may send. ``nbytes`` gives the size in bytes of a frame of this kind at this step, or None
    where the run has no such frame. ``held_max`` is how many frames of one peer are held at most. ``keyless``: whether
    an Open may come without a keyframe, for an edge over which only moments travel. ``share_fits``: whether a peer of
    the run may have this share in the mean."""

    nbytes: Callable[[FrameKind, Step], int | None]
    held_max: int
    keyless: bool = False
    share_fits: Callable[[int], bool] = SHARE_ONE.__eq__


@dataclass
class _Incoming:
    frame: FrameId
    total: int
    view: memoryview
    received: int = 0


class Session:
    """A live stream to a greeted peer. ``tell`` takes the events, ``traffic`` counts bytes by kind."""

    def __init__(
        self,
        peer: str,
        stream: Stream,
        shared: Shared,
        rules: FrameRules,
        tell: Callable[[e.NetworkEvent], None],
        traffic: Counter[str],
    ) -> None:
        self.peer = peer
        self._stream = stream
        self._store = shared.store
        self._turns = shared.turns
        self._rules = rules
        self._tell = tell
        self._traffic = traffic
        self._out = Outbox(stream, shared, traffic, rules.held_max)
        self._lifetime = Lifetime()
        self._over = asyncio.Event()
        self._open: pb.Open | None = None
        self._incoming: _Incoming | None = None
        self._begun = self._granted = 0
        self._received: set[FrameId] = set()
        self._freed = asyncio.Event()
        self._grant()

    # --- life ---------------------------------------------------------------------------------------

    async def run(self, first: pb.Frame | None = None) -> str:
        """Write ``first``, then read and write until the stream ends; returns why it ended, as a sentence. Raises
        WireError where the peer breaks the rules. After :meth:`end` there are no further events."""
        try:
            return await self._lifetime.run(self._out.run(first), self._read_all())
        finally:
            self._out.discard()
            self._over.set()

    def end(self, why: str) -> None:
        """End the session now."""
        self._lifetime.end(why)

    # --- out ----------------------------------------------------------------------------------------

    def send(self, message: pb.Frame) -> None:
        """Queue a small message."""
        self._out.say(message)
        self._end_if_overfull()

    def send_open(self, opening: pb.Open, keyframe: FrameId | None) -> None:
        """Queue an Open and its keyframe, if it has one. They replace an earlier Open that still waits."""
        self._out.offer(opening, keyframe)
        self._end_if_overfull()

    def send_frame(self, frame: FrameId) -> None:
        """Queue an update. Its slot is held until it is sent."""
        self._out.send(frame)
        self._end_if_overfull()

    def forget(self, activation: int, applied: int) -> None:
        """An edge was closed: drop what is queued for this activation beyond what the edge still owes."""
        self._out.forget(activation, applied)

    async def finish(self) -> None:
        """Send everything in the queue, then end the stream, and wait for its end."""
        self._out.finish()
        await self._over.wait()

    def _end_if_overfull(self) -> None:
        # No update may be skipped: the two ends of the edge would differ. So the whole stream ends, and both ends
        # handle that.
        if self._out.overfull():
            self.end("it reads too slowly: too much is queued for it")

    # --- in -----------------------------------------------------------------------------------------

    def freed(self, frame: FrameId) -> None:
        """The slot of this frame is free again."""
        self._freed.set()
        if frame.sender == self.peer:
            self._received.discard(frame)
            self._grant()

    def _grant(self) -> None:
        """Grant the peer every slot that its frames may fill and do not fill yet."""
        granted = self._begun + self._rules.held_max - self._store.held_from(self.peer)
        if granted > self._granted:
            self._granted = granted
            self._out.grant(granted)

    async def _read_all(self) -> None:
        """Read messages and turn them into events until the stream ends."""
        try:
            while (message := await self._stream.read()) is not None:
                if len(message) >= LARGE_BYTES:
                    await self._turns.take()
                body = framing.decode(message)
                kind = body.kind if isinstance(body, framing.Chunk) else "control"
                self._traffic[f"received.{kind}"] += len(message)
                if isinstance(body, framing.Chunk):
                    await self._take_chunk(body)
                else:
                    self._take_message(body)
        finally:
            if self._incoming:
                self._store.release(self._incoming.frame)
                self._incoming = None

    def _take_message(self, frame: pb.Frame) -> None:
        match frame.WhichOneof("body"):
            case "open":
                self._take_open(frame.open)
            case "close":
                self._take_close(frame.close)
            case "credit":
                self._out.credit(frame.credit.frames)
            case "bye":
                self._tell(e.ByeReceived(self.peer))
            case "refusal":
                raise WireError("refused", sentence_of(frame.refusal))
            case other:
                raise WireError("unexpected", f"a {other} in the middle of a session")

    def _take_open(self, opening: pb.Open) -> None:
        if self._open is not None:
            raise WireError("unexpected", "an Open before the keyframe of the last one was complete")
        if len(opening.steps) > STEPS_MAX:
            raise WireError("size", f"an Open with {len(opening.steps)} steps, at most {STEPS_MAX}")
        if self._rules.keyless and not opening.keyframe_bytes:
            self._opened(opening, None)
            return
        self._expect(FrameKind.KEYFRAME, Step(opening.activation, 0), opening.keyframe_bytes)
        self._open = opening

    def _opened(self, opening: pb.Open, keyframe: FrameId | None) -> None:
        self._tell(
            e.OpenReceived(self.peer, opening.activation, opening.degree, keyframe, tuple(sorted(opening.steps)))
        )

    def _take_close(self, close: pb.Close) -> None:
        reason = close.reason[:REASON_LENGTH_MAX]
        self._tell(e.CloseReceived(self.peer, close.activation, close.applied, reason, is_orderly(reason)))

    async def _take_chunk(self, chunk: framing.Chunk) -> None:
        if self._incoming is None:
            self._incoming = await self._begin(chunk)
        incoming = self._incoming
        if chunk.frame(self.peer) != incoming.frame or chunk.offset != incoming.received or not chunk.data:
            raise WireError("gap", f"a chunk at {chunk.offset} of {chunk.frame(self.peer)}, in the middle of another")
        chunk.copy_to(incoming.view[chunk.offset : chunk.offset + len(chunk.data)])
        incoming.received += len(chunk.data)
        if incoming.received == incoming.total:
            self._incoming = None
            self._complete(incoming.frame)

    async def _begin(self, chunk: framing.Chunk) -> _Incoming:
        frame = chunk.frame(self.peer)
        self._expect(chunk.kind, Step(chunk.activation, chunk.inner), chunk.total)
        keyframe = chunk.kind is FrameKind.KEYFRAME
        if keyframe and (self._open is None or self._open.activation != chunk.activation):
            raise WireError("unexpected", "a keyframe without its Open")
        if frame in self._received:
            raise WireError("replay", f"{frame} was sent before and is still held")
        if self._begun >= self._granted:
            raise WireError("flood", f"more than the {self._granted} frames that were granted")
        # The frame may be held still, from an earlier stream; the node was told that it broke, and will release the
        # frame. Or other peers' frames fill the memory. Neither is this peer's fault, so the stream waits.
        while frame in self._store or not self._store.has_room():
            self._freed.clear()
            await self._freed.wait()
        self._begun += 1
        self._received.add(frame)
        return _Incoming(frame, chunk.total, self._store.reserve(frame, chunk.total))

    def _expect(self, kind: FrameKind, step: Step, nbytes: int) -> None:
        expected = self._rules.nbytes(kind, step)
        where = f"inner step {step.inner} of activation {step.activation}"
        if expected is None:
            raise WireError("size", f"this run has no {kind} at {where}")
        if nbytes != expected:
            raise WireError("size", f"a {kind} of {nbytes} bytes for {where}, which takes {expected}")

    def _complete(self, frame: FrameId) -> None:
        if frame.kind is FrameKind.UPDATE:
            self._tell(e.UpdateReceived(self.peer, frame))
            return
        opening, self._open = self._open, None
        assert opening is not None
        self._opened(opening, frame)
