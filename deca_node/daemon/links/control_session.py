"""One live control stream: packets both ways, and a ping every second that measures the round trip.

All of it is bounded: the queue of packets has a limit, only the newest answer to a ping waits, and a peer that sends
too many messages per second is read more slowly. A peer that is silent for long is taken to have lost the stream.
"""

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import Callable

from google.protobuf.message import DecodeError

from deca_node.daemon.links.greeting import sentence_of
from deca_node.daemon.wire.endpoint import Stream
from deca_node.daemon.wire.lifetime import Lifetime
from deca_node.daemon.wire.meters import RecentSamples
from deca_node.daemon.wire_pb import control_pb2 as pb
from deca_node.protocol.errors import WireError

MESSAGE_BYTES_MAX = 64 << 10
PING_SECONDS = 1.0
SILENCE_SECONDS = 10.0
PINGS_OPEN_MAX = 10
MESSAGES_PER_SECOND_MAX = 500


class ControlSession:
    """A live control stream to a greeted peer. ``queue`` holds packets to send; call :meth:`stir` after adding one.
    ``position`` gives this node's activation. ``heard`` takes each packet's payload, ``progress`` the peer's activation
    whenever it changes."""

    def __init__(
        self,
        stream: Stream,
        queue: deque[bytes],
        position: Callable[[], int],
        heard: Callable[[bytes], None],
        progress: Callable[[int], None],
        traffic: Counter[str],
        rtt: RecentSamples,
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
        """Write ``first``, then read and write until the stream ends; returns why it ended, as a sentence. Raises
        WireError where the peer breaks the rules."""
        self._last_heard = self._now()
        return await self._lifetime.run(self._write_all(first), self._read_all(), self._ping_all())

    def end(self, why: str) -> None:
        """End the session now."""
        self._lifetime.end(why)

    def stir(self) -> None:
        """Tell the session that there is something to send."""
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
    """One message from a peer. Raises WireError("size" or "malformed")."""
    if len(message) > MESSAGE_BYTES_MAX:
        raise WireError("size", f"a control message of {len(message)} bytes; the limit is {MESSAGE_BYTES_MAX}")
    frame = pb.ControlFrame()
    try:
        frame.ParseFromString(message)
    except DecodeError as problem:
        raise WireError("malformed", f"not a ControlFrame: {problem}") from None
    if frame.WhichOneof("body") is None:
        raise WireError("malformed", "a ControlFrame without a known body")
    return frame
