"""One live stream to one peer: what is queued goes out in order, what comes in becomes events.

The stream's order is a promise of the protocol, so there is one queue per session and one session per peer.
A frame that the peer sends is put together directly in its slot of shared memory, and is an event once it
is whole; if the stream breaks before, the slot is free again and nobody ever saw it.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from deca_node.daemon import wire
from deca_node.daemon.arena import FrameStore
from deca_node.daemon.throttle import Throttle
from deca_node.daemon.wire_pb import exchange_pb2 as pb
from deca_node.protocol import events as e
from deca_node.protocol.errors import DecaError, WireError
from deca_node.protocol.frames import FrameId, FrameKind
from deca_node.protocol.schedule import Step
from deca_node.protocol.sizes import CHUNK_BYTES


class Stream(Protocol):
    """Either end of a gRPC stream of raw messages. ``read`` gives None at the stream's end."""

    async def read(self) -> bytes | None:
        """The next message."""

    async def write(self, message: bytes) -> None:
        """Send one message; returns once the transport has room for more."""


@dataclass(frozen=True)
class FrameRules:
    """What frames may a peer send? ``nbytes`` says what a frame of a kind must measure at a step (None: the
    run has no such frame), ``held_max`` how many of one peer's frames are held at most, and
    ``neighbours`` who may send any."""

    nbytes: Callable[[FrameKind, Step], int | None]
    held_max: int
    neighbours: frozenset[str]


@dataclass
class _Incoming:
    frame: FrameId
    total: int
    view: memoryview
    received: int = 0


class Session:
    """A greeted peer on a live stream. ``tell`` takes the events; ``traffic`` counts bytes by kind; ``throttle``
    is shared by all sessions of a node."""

    def __init__(
        self,
        peer: str,
        boot: int,
        stream: Stream,
        store: FrameStore,
        rules: FrameRules,
        tell: Callable[[e.NetworkEvent], None],
        traffic: Counter[str],
        throttle: Throttle,
    ) -> None:
        self.peer = peer
        self.boot = boot
        self._stream = stream
        self._store = store
        self._rules = rules
        self._tell = tell
        self._traffic = traffic
        self._throttle = throttle
        self._queue: deque[bytes | FrameId] = deque()
        self._stirred = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._open: pb.Open | None = None
        self._incoming: _Incoming | None = None

    # --- out ----------------------------------------------------------------------------------------

    def send(self, message: pb.Frame) -> None:
        """Queue a small message."""
        self._put(message.SerializeToString())

    def send_frame(self, frame: FrameId) -> None:
        """Queue a whole frame; its slot is held until it is on its way."""
        self._store.hold(frame)
        self._put(frame)

    def forget(self, activation: int, applied: int) -> None:
        """Take back updates of an activation that are queued and past what an edge that was closed still owes."""
        kept: deque[bytes | FrameId] = deque()
        for item in self._queue:
            update = isinstance(item, FrameId) and item.kind is FrameKind.UPDATE
            if isinstance(item, FrameId) and update and item.activation == activation and item.inner > applied:
                self._store.unhold(item)
            else:
                kept.append(item)
        self._queue = kept

    async def flush(self) -> None:
        """Wait until everything queued is on its way."""
        await self._idle.wait()

    def _put(self, item: bytes | FrameId) -> None:
        self._queue.append(item)
        self._idle.clear()
        self._stirred.set()

    async def write_all(self) -> None:
        """Send what is queued, for ever; raises what the stream raises."""
        try:
            while True:
                await self._stirred.wait()
                self._stirred.clear()
                while self._queue:
                    await self._write(self._queue.popleft())
                self._idle.set()
        finally:
            for item in self._queue:
                if isinstance(item, FrameId):
                    self._store.unhold(item)
            self._queue.clear()
            self._idle.set()

    async def _write(self, item: bytes | FrameId) -> None:
        if isinstance(item, bytes):
            await self._write_counted("control", item)
            return
        try:
            view = self._store.view(item)
            for offset in range(0, len(view), CHUNK_BYTES):
                data = view[offset : offset + CHUNK_BYTES]
                await self._throttle.take(len(data))
                await self._write_counted(item.kind, wire.encode_chunk(item, offset, len(view), data))
        finally:
            self._store.unhold(item)

    async def _write_counted(self, kind: str, message: bytes) -> None:
        await self._stream.write(message)
        self._traffic[f"sent.{kind}"] += len(message)

    # --- in -----------------------------------------------------------------------------------------

    async def read_all(self) -> None:
        """Turn what comes in into events until the stream ends. Raises WireError where the peer breaks the rules."""
        try:
            while (message := await self._stream.read()) is not None:
                body = wire.decode(message)
                kind = body.kind if isinstance(body, wire.Chunk) else "control"
                self._traffic[f"received.{kind}"] += len(message)
                if isinstance(body, wire.Chunk):
                    self._take_chunk(body)
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
                close = frame.close
                self._tell(e.CloseReceived(self.peer, close.activation, close.applied, close.reason[:500]))
            case "bye":
                self._tell(e.ByeReceived(self.peer))
            case "refusal":
                raise WireError("refused", frame.refusal.sentence[:2000])
            case other:
                raise WireError("unexpected", f"a {other} in the middle of a session")

    def _take_open(self, opening: pb.Open) -> None:
        if self._open is not None:
            raise WireError("unexpected", "an Open before the keyframe of the last one was complete")
        self._expect(FrameKind.KEYFRAME, Step(opening.activation, 0), opening.keyframe_bytes)
        self._open = opening

    def _take_chunk(self, chunk: wire.Chunk) -> None:
        if self._incoming is None:
            self._incoming = self._begin(chunk)
        incoming = self._incoming
        if chunk.frame(self.peer) != incoming.frame or chunk.offset != incoming.received or not chunk.data:
            raise WireError("gap", f"a chunk at {chunk.offset} of {chunk.frame(self.peer)}, in the middle of another")
        incoming.view[chunk.offset : chunk.offset + len(chunk.data)] = chunk.data
        incoming.received += len(chunk.data)
        if incoming.received == incoming.total:
            self._incoming = None
            self._complete(incoming.frame)

    def _begin(self, chunk: wire.Chunk) -> _Incoming:
        frame = chunk.frame(self.peer)
        self._expect(chunk.kind, Step(chunk.activation, chunk.inner), chunk.total)
        keyframe = chunk.kind is FrameKind.KEYFRAME
        if keyframe and (self._open is None or self._open.activation != chunk.activation):
            raise WireError("unexpected", "a keyframe without its Open")
        if frame in self._store:
            raise WireError("replay", f"{frame} was sent before and is still held")
        if self._store.held_from(self.peer) >= self._rules.held_max:
            raise WireError("flood", f"more than {self._rules.held_max} frames that nobody asked for yet")
        try:
            return _Incoming(frame, chunk.total, self._store.reserve(frame, chunk.total))
        except DecaError as problem:
            raise WireError("flood", str(problem)) from None

    def _expect(self, kind: FrameKind, step: Step, nbytes: int) -> None:
        if self.peer not in self._rules.neighbours:
            raise WireError("no-edge", f"a {kind} from {self.peer}, which shares no edge with this node")
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
        self._tell(e.OpenReceived(self.peer, opening.activation, opening.degree, frame))


async def run_session(session: Session, ended: Callable[[], Awaitable[None]] | None = None) -> str:
    """Read and write until the stream ends or breaks; returns why, in words. Raises WireError for broken rules."""
    writer = asyncio.ensure_future(session.write_all())
    reader = asyncio.ensure_future(session.read_all())
    try:
        done, _ = await asyncio.wait({writer, reader}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            problem = task.exception()
            if isinstance(problem, WireError):
                raise problem
            if problem is not None:
                return describe(problem)
        return "the peer closed its stream"
    finally:
        for task in (writer, reader):
            task.cancel()
        await asyncio.gather(writer, reader, return_exceptions=True)
        if ended:
            await ended()


def describe(problem: BaseException) -> str:
    """A network problem in one short line."""
    details = getattr(problem, "details", None)
    text = details() if callable(details) else str(problem)
    return (text or type(problem).__name__).splitlines()[0][:300]
