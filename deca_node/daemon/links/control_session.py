"""One live control stream: packets both ways, and a ping every second that says how far away the peer is.

Everything is small and everything is bounded: packets queue up to a number, of answers to pings only the newest
waits, and a peer that says more per second than it needs is read more slowly. A peer that is silent for long has
lost the stream without our hearing of it.
"""

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import Callable

from google.protobuf.message import DecodeError

from deca_node.daemon.links.greeting import sentence_of
from deca_node.daemon.links.lifetime import Lifetime
from deca_node.daemon.wire.endpoint import Stream
from deca_node.daemon.wire.meters import Window
from deca_node.daemon.wire_pb import control_pb2 as pb
from deca_node.protocol.errors import WireError

MESSAGE_BYTES_MAX = 64 << 10
PING_SECONDS = 1.0
SILENCE_SECONDS = 10.0
PINGS_OPEN_MAX = 10
MESSAGES_PER_SECOND_MAX = 500


class ControlSession:
    """A greeted peer on a live stream. ``queue`` holds packets that wait to be sent; :meth:`stir` says that there are
    more. ``position`` is this node's activation; ``heard`` takes each packet's payload, ``progress`` the peer's
    activation whenever it is another one."""

    def __init__(
        self,
        stream: Stream,
        queue: deque[bytes],
        position: Callable[[], int],
        heard: Callable[[bytes], None],
        progress: Callable[[int], None],
        traffic: Counter[str],
        rtt: Window,
        clock: Callable[[], float],
    ) -> None:
        self._stream = stream
        self._queue = queue
        self._position = position
        self._heard = heard
        self._progress = progress
        self._traffic = traffic
        self._rtt = rtt
        self._now = clock
        self._lifetime = Lifetime()
        self._stirred = asyncio.Event()
        self._ping: int | None = None
        self._pong: int | None = None
        self._asked: dict[int, float] = {}
        self._last_heard = 0.0
        self._activation: int | None = None

    async def run(self, first: pb.ControlFrame | None = None) -> str:
        """Read and write, ``first`` before all else, until the stream ends or breaks; returns why, in words. Raises
        WireError where the peer breaks the rules."""
        self._last_heard = self._now()
        return await self._lifetime.run(self._write_all(first), self._read_all(), self._ping_all())

    def end(self, why: str) -> None:
        """Let the stream go, from this moment on."""
        self._lifetime.end(why)

    def stir(self) -> None:
        """There is something to send."""
        self._stirred.set()

    # --- out ----------------------------------------------------------------------------------------

    async def _write_all(self, first: pb.ControlFrame | None) -> None:
        if first:
            await self._write("greeting", first)
        while True:
            self._stirred.clear()
            if self._pong is not None:
                number, self._pong = self._pong, None
                await self._write("ping", pb.ControlFrame(pong=pb.ControlFrame.Pong(number=number)))
            elif self._ping is not None:
                number, self._ping = self._ping, None
                await self._write("ping", pb.ControlFrame(ping=pb.ControlFrame.Ping(number=number)))
            elif self._queue:
                packet = pb.ControlFrame.Packet(payload=self._queue.popleft())
                await self._write("packet", pb.ControlFrame(packet=packet))
            else:
                await self._stirred.wait()

    async def _write(self, kind: str, frame: pb.ControlFrame) -> None:
        frame.activation = self._position()
        message = frame.SerializeToString()
        await self._stream.write(message)
        self._traffic[f"sent.{kind}"] += len(message)

    async def _ping_all(self) -> None:
        for number in itertools.count(1):
            if self._now() - self._last_heard > SILENCE_SECONDS:
                break
            self._asked[number] = self._now()
            self._asked.pop(number - PINGS_OPEN_MAX, None)
            self._ping = number
            self.stir()
            await asyncio.sleep(PING_SECONDS)
        self._lifetime.end(f"it was silent for {SILENCE_SECONDS:g} s")

    # --- in -----------------------------------------------------------------------------------------

    async def _read_all(self) -> None:
        second, count = 0.0, 0
        while (message := await self._stream.read()) is not None:
            self._last_heard = self._now()
            self._take(read_control(message), len(message))
            if self._last_heard - second >= 1.0:
                second, count = self._last_heard, 0
            count += 1
            if count >= MESSAGES_PER_SECOND_MAX:
                await asyncio.sleep(second + 1.0 - self._last_heard)

    def _take(self, frame: pb.ControlFrame, nbytes: int) -> None:
        body = frame.WhichOneof("body")
        match body:
            case "packet":
                self._heard(frame.packet.payload)
            case "ping":
                self._pong = frame.ping.number
                self.stir()
            case "pong" if frame.pong.number in self._asked:
                self._rtt.add(self._now() - self._asked.pop(frame.pong.number))
            case "pong":
                pass
            case "refusal":
                raise WireError("refused", sentence_of(frame.refusal))
            case _:
                raise WireError("unexpected", f"a {body} in the middle of a control stream")
        self._traffic[f"received.{'packet' if body == 'packet' else 'ping'}"] += nbytes
        if frame.activation != self._activation:
            self._activation = frame.activation
            self._progress(frame.activation)


def read_control(message: bytes) -> pb.ControlFrame:
    """One message from a peer. Raises WireError where it is none."""
    if len(message) > MESSAGE_BYTES_MAX:
        raise WireError("size", f"a control message of {len(message)} bytes; {MESSAGE_BYTES_MAX} are the limit")
    frame = pb.ControlFrame()
    try:
        frame.ParseFromString(message)
    except DecodeError as problem:
        raise WireError("malformed", f"not a ControlFrame: {problem}") from None
    if frame.WhichOneof("body") is None:
        raise WireError("malformed", "a ControlFrame without a known body")
    return frame
