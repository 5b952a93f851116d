"""The member in the middle: it joins the streams of two members that cannot dial each other, and passes bytes on.

::

    south                     relay                      north
      | -- Ask north, waits --> |                          |
      |                         | <-- Ask south, calls --- |
      | <------------- Joined - | - Joined --------------> |
      | ======================= data ===================== |

The bytes are those of an ordinary connection between the two, with their own TLS inside. So the relay learns who talks
with whom, when, and how much, and nothing else. Everything is bounded: the pairs, the streams of a pair, the streams
that wait, the rate, and one message per direction in memory.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from deca_node.daemon.relay import messages
from deca_node.daemon.wire.broken import StreamBrokenError
from deca_node.daemon.wire.endpoint import Stream
from deca_node.daemon.wire.lifetime import Lifetime
from deca_node.daemon.wire.throttle import Throttle
from deca_node.daemon.wire_pb import relay_pb2 as pb
from deca_node.protocol.errors import WireError

ASK_SECONDS = 10.0
"""A caller's first message comes within this time."""
ASKING_MAX = 64
"""Callers whose first message is awaited at one time."""
WAITING_MAX = 512
WAITING_PER_MEMBER = 32
STREAMS_PER_PAIR = 4
"""An exchange stream and a control stream, and each of them once more while a broken one is found out."""
IDLE_LOOK_SECONDS = 0.1
CALLS_MAX = WAITING_PER_MEMBER + 32
"""Calls of one member that may be open at one time at a relay: those that wait, and those that are joined."""
SILENCE_SECONDS = 60.0
"""A joined pair of streams is ended after this long without a byte. Nodes send something every ten seconds."""

Pair = tuple[str, str]
"""The two names, the smaller one first."""


@dataclass(frozen=True)
class Relayed:
    """What this node relays for a pair of members: its open streams, and bytes in both directions since the start."""

    pair: Pair
    streams: int
    nbytes: int


@dataclass(eq=False)
class _Waiter:
    """A member's stream that waits. ``over`` ends the wait; ``gone`` says that the member has gone away."""

    stream: Stream
    over: "asyncio.Future[None]"
    gone: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(eq=False)
class _Carried:
    """Two joined streams, and the time of the newest byte."""

    pair: Pair
    moved_at: float
    lifetime: Lifetime = field(default_factory=Lifetime)


class Carrier:
    """The relay of one node. It relays for ``pairs_max`` pairs; 0: for none.

    ``admit(stream, name)`` raises WireError where the caller may not use its name or is not welcome; ``knows(name)``
    says whether a name is a member's. ``throttles`` limit what is passed on, ``count`` counts refusals by reason, and
    ``say`` takes the news for the log.
    """

    def __init__(
        self,
        own: str,
        pairs_max: int,
        throttles: Sequence[Throttle],
        admit: Callable[[Stream, str], None],
        knows: Callable[[str], bool],
        count: Callable[[str], None] = lambda _reason: None,
        say: Callable[[str], None] = lambda _sentence: None,
    ) -> None:
        self._own = own
        self._pairs_max = pairs_max
        self._throttles = throttles
        self._admit = admit
        self._knows = knows
        self._count = count
        self._say = say
        self._asking = 0
        self._waiting: dict[tuple[str, str], _Waiter] = {}
        self._carried: set[_Carried] = set()
        self._nbytes: Counter[Pair] = Counter()

    @property
    def offered(self) -> bool:
        """Whether this node relays at all."""
        return self._pairs_max > 0

    @property
    def nbytes(self) -> int:
        """Bytes that were passed on since the start, in both directions, for all pairs."""
        return self._nbytes.total()

    def relayed(self) -> list[Relayed]:
        """The pairs that are joined now."""
        streams = self._streams()
        return [Relayed(pair, streams[pair], self._nbytes[pair]) for pair in sorted(streams)]

    def keep(self, names: Collection[str]) -> None:
        """These are the members that are welcome: end what is relayed for others."""
        for carried in self._carried:
            if not set(carried.pair) <= set(names):
                carried.lifetime.end("one of the two is no longer a member")

    async def idle(self, seconds: float) -> None:
        """Wait until nothing is relayed any more, for so long at most."""
        end = asyncio.get_running_loop().time() + seconds
        while self._carried and asyncio.get_running_loop().time() < end:  # noqa: ASYNC110
            await asyncio.sleep(IDLE_LOOK_SECONDS)

    def close(self) -> None:
        """End everything that is relayed."""
        self.keep(())

    async def answer(self, stream: Stream) -> None:
        """A caller's stream, from its Ask to its end."""
        try:
            ask = await self._asked(stream)
            if ask.waits:
                await self._wait(ask, stream)
            else:
                await self._join(ask, stream)
        except StreamBrokenError:
            pass
        except TimeoutError:
            await self._refuse(stream, WireError("slow", f"no request came within {ASK_SECONDS:g} s"))
        except WireError as problem:
            await self._refuse(stream, problem)

    async def _refuse(self, stream: Stream, problem: WireError) -> None:
        self._count(problem.reason)
        with contextlib.suppress(StreamBrokenError):
            await stream.write(messages.refusal(problem, self._own))

    # --- who asks -----------------------------------------------------------------------------------

    async def _asked(self, stream: Stream) -> pb.RelayFrame.Ask:
        if not self.offered:
            raise WireError("no-relay", f"{self._own} does not relay")
        if self._asking >= ASKING_MAX:
            raise WireError("busy", f"{self._own} is asked by {ASKING_MAX} others at once")
        self._asking += 1
        try:
            async with asyncio.timeout(ASK_SECONDS):
                ask = messages.read(await stream.read(), "ask").ask
        finally:
            self._asking -= 1
        if ask.protocol != messages.VERSION:
            raise WireError("version", f"relaying {ask.protocol}, this node speaks {messages.VERSION}")
        self._admit(stream, ask.name)
        for name in (ask.name, ask.to):
            if not self._knows(name):
                raise WireError("stranger", f"{self._own} knows no member {name[:200]!r}")
        return ask

    async def _wait(self, ask: pb.RelayFrame.Ask, stream: Stream) -> None:
        """Hold the stream of a member that waits until it was joined and that is over. gRPC cancels this where the
        caller goes away."""
        key = (ask.name, ask.to)
        older = self._waiting.pop(key, None)
        if older and not older.over.done():
            older.over.set_exception(WireError("duplicate", f"{ask.name} waits for {ask.to} on a newer stream"))
        mine = sum(name == ask.name for name, _ in self._waiting)
        if len(self._waiting) >= WAITING_MAX or mine >= WAITING_PER_MEMBER:
            raise WireError("busy", f"too many members wait at {self._own}")
        waiter = self._waiting[key] = _Waiter(stream, asyncio.get_running_loop().create_future())
        try:
            await waiter.over
        finally:
            waiter.gone.set()
            if self._waiting.get(key) is waiter:
                del self._waiting[key]

    # --- joined -------------------------------------------------------------------------------------

    async def _join(self, ask: pb.RelayFrame.Ask, stream: Stream) -> None:
        """Join a caller with the member that waits for it, until either of them ends."""
        waiter = self._waiting.get((ask.to, ask.name))
        if waiter is None:
            raise WireError("absent", f"{ask.to} does not wait for {ask.name} at {self._own}")
        pair = (min(ask.name, ask.to), max(ask.name, ask.to))
        self._check_room(pair)
        del self._waiting[ask.to, ask.name]
        if pair not in self._nbytes:
            self._nbytes[pair] = 0
            self._say(f"relaying between {pair[0]} and {pair[1]}, of which neither can dial the other")
        carried = _Carried(pair, asyncio.get_running_loop().time())
        self._carried.add(carried)
        try:
            await waiter.stream.write(messages.JOINED)
            await stream.write(messages.JOINED)
            await carried.lifetime.run(
                self._pass_on(carried, stream, waiter.stream),
                self._pass_on(carried, waiter.stream, stream),
                self._watch(carried),
                _gone(waiter),
            )
        finally:
            self._carried.discard(carried)
            if not waiter.over.done():
                waiter.over.set_result(None)

    def _check_room(self, pair: Pair) -> None:
        streams = self._streams()
        if streams[pair] >= STREAMS_PER_PAIR:
            raise WireError("busy", f"{self._own} relays {STREAMS_PER_PAIR} streams of this pair already")
        if pair not in streams and len(streams) >= self._pairs_max:
            raise WireError("busy", f"{self._own} relays {self._pairs_max} pairs already")

    def _streams(self) -> Counter[Pair]:
        return Counter(carried.pair for carried in self._carried)

    async def _pass_on(self, carried: _Carried, source: Stream, target: Stream) -> None:
        while (message := await source.read()) is not None:
            if len(message) > messages.MESSAGE_BYTES_MAX:
                raise WireError("size", f"a relayed message of {len(message)} bytes")
            carried.moved_at = asyncio.get_running_loop().time()
            for throttle in self._throttles:
                await throttle.take(len(message))
            await target.write(message)
            self._nbytes[carried.pair] += len(message)

    async def _watch(self, carried: _Carried) -> None:
        """Return once nothing has moved for too long."""
        left = SILENCE_SECONDS
        while left > 0:
            await asyncio.sleep(left)
            left = carried.moved_at + SILENCE_SECONDS - asyncio.get_running_loop().time()


async def _gone(waiter: _Waiter) -> None:
    """Return once the end that has waited is gone: its call was cancelled."""
    await waiter.gone.wait()
