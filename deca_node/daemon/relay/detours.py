"""The two ends of a relayed connection: how two members that cannot dial each other meet at a third one.

An end takes part only after it has dialled the other in vain. The end with the greater name then waits, at a few
members that relay; the end with the smaller name calls one relay after the other until it finds one where the other
waits. So the two meet if, and only if, both dials have failed, and no third party has to say so. Both ends take the
relays in the same order, which depends on the pair, so that several relays share the work. A relay that is lost costs
its connections; the pair then meets at the next one, where the waiting end waits already.
"""

import asyncio
import contextlib
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

from deca_node.daemon.relay import messages
from deca_node.daemon.relay.bridge import GRACE_SECONDS, bridge, connect, own_port
from deca_node.daemon.settings.address import Address
from deca_node.daemon.wire.broken import StreamBrokenError
from deca_node.daemon.wire.endpoint import Stream, surface
from deca_node.protocol.errors import WireError

LEASE_SECONDS = 60.0
"""An end takes part for this long after its last dial in vain, or after the last relayed connection has ended."""
RELAYS_WAITED_AT = 3
"""An end waits at this many relays at one time."""
RELAYS_ASKED = 6
"""An end asks this many relays at one attempt: more than the other waits at, since the two may see other relays."""
ASK_SECONDS = 5.0
LOOK_SECONDS = 1.0
"""The time between two looks at which relays there are."""
PAUSE_SECONDS_MIN = 0.5
PAUSE_SECONDS_MAX = 5.0

Dial = Callable[[str, object, str], AbstractAsyncContextManager[Stream]]


class Way(NamedTuple):
    """An address on this machine that leads to a peer, and the name of the member that relays."""

    address: Address
    relay: str


class NoWayError(Exception):
    """No relay leads to the peer. The message says what each of them said; it is empty where there is none."""


@dataclass(eq=False)
class _Carried:
    peer: str
    relay: str


class Detours:
    """The relayed connections of one node, ``own``.

    ``dial(name, address, method)`` opens a stream to a relay, ``relays()`` gives the members that relay and can be
    called, and ``server()`` the address of this node's own server. ``clock`` is monotonic, and ``say(peer, sentence)``
    takes the news for the log.
    """

    def __init__(
        self,
        own: str,
        dial: Dial,
        relays: Callable[[], Mapping[str, Address]],
        server: Callable[[], Address],
        clock: Callable[[], float],
        say: Callable[[str, str], None] = lambda _peer, _sentence: None,
    ) -> None:
        self._own = own
        self._dial = dial
        self._relays = relays
        self._server = server
        self._clock = clock
        self._say = say
        self._peers: Collection[str] = ()
        self._until: dict[str, float] = {}
        self._waits: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._carried: set[_Carried] = set()
        self._said: dict[str, str] = {}
        self.nbytes: Counter[str] = Counter()
        """Bytes by peer that this node has sent and received through relays."""

    # --- what others ask ----------------------------------------------------------------------------

    def failed(self, peer: str) -> None:
        """A dial of this peer has failed."""
        if peer not in self._peers:
            return
        self._extend(peer)
        if self._own > peer and peer not in self._waits:
            self._waits[peer] = self._begin(self._wait_for(peer))

    def calls(self, peer: str) -> bool:
        """Whether this node is the one of the two that calls through a relay."""
        return bool(peer) and self._own < peer

    def prefers(self, peer: str) -> bool:
        """Whether a relay is to be tried before the peer's own address: a dial of that has failed lately."""
        return self.calls(peer) and self._wanted(peer)

    def via(self) -> dict[str, str]:
        """The members that relay now, by the peer that is reached through them."""
        return {peer: ", ".join(sorted(self._via(peer))) for peer in {carried.peer for carried in self._carried}}

    def keep(self, peers: Collection[str]) -> None:
        """These are the peers: take no part for others."""
        self._peers = peers
        for peer in [peer for peer in self._until if peer not in peers]:
            del self._until[peer]
            self._said.pop(peer, None)
            if waits := self._waits.pop(peer, None):
                waits.cancel()

    async def close(self) -> None:
        """End everything. What is on its way has a moment to arrive."""
        self.keep(())
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GRACE_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- the calling end ----------------------------------------------------------------------------

    @asynccontextmanager
    async def way(self, peer: str) -> AsyncIterator[Way]:
        """A way to a peer through a relay; one connection can be made on it. Raises NoWayError where no relay leads
        there."""
        async with contextlib.AsyncExitStack() as stack:
            relay, stream = await self._called(stack, peer)
            with self._noted(peer, relay):
                async with own_port(stream, self._counter(peer)) as address:
                    yield Way(address, relay)

    async def _called(self, stack: contextlib.AsyncExitStack, peer: str) -> tuple[str, Stream]:
        said = []
        for relay, address in self._in_order(peer)[:RELAYS_ASKED]:
            async with contextlib.AsyncExitStack() as attempt:
                try:
                    stream = await attempt.enter_async_context(self._dial(relay, address, messages.METHOD))
                    async with asyncio.timeout(ASK_SECONDS):
                        await stream.write(messages.ask(self._own, peer, waits=False))
                        messages.read(await stream.read(), "joined")
                except (TimeoutError, StreamBrokenError, WireError) as problem:
                    said.append(f"{relay}: {str(problem) or 'no answer'}")
                else:
                    stack.push_async_exit(attempt.pop_all())
                    return relay, stream
        raise NoWayError("; ".join(said))

    def _in_order(self, peer: str) -> list[tuple[str, Address]]:
        """The relays for a pair, in an order that both ends share."""
        found = {name: at for name, at in self._relays().items() if name not in (peer, self._own)}
        pair = " ".join(sorted((self._own, peer)))
        order = sorted(found, key=lambda relay: hashlib.sha256(f"{pair} {relay}".encode()).digest())
        # The relay of the pair's other stream comes first. One that could not be dialled lately comes last: it may be
        # behind NAT itself.
        used = self._via(peer)
        return [
            (relay, found[relay]) for relay in sorted(order, key=lambda relay: (relay not in used, self._wanted(relay)))
        ]

    # --- the waiting end ----------------------------------------------------------------------------

    async def _wait_for(self, peer: str) -> None:
        """Wait at the first few relays, whichever they are, for as long as this end takes part."""
        waiting: dict[str, asyncio.Task[None]] = {}
        try:
            while self._wanted(peer):
                relays = dict(self._in_order(peer)[:RELAYS_WAITED_AT])
                for relay in [relay for relay in waiting if relay not in relays]:
                    waiting.pop(relay).cancel()
                for relay in relays:
                    if relay not in waiting:
                        waiting[relay] = self._begin(self._wait_at(relay, peer))
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            self._waits.pop(peer, None)
            for task in waiting.values():
                task.cancel()

    async def _wait_at(self, relay: str, peer: str) -> None:
        """Keep one stream waiting at a relay. Once it is joined, another one takes its place."""
        pause = PAUSE_SECONDS_MIN
        while True:
            joined = asyncio.get_running_loop().create_future()
            task = self._begin(self._serve(relay, peer, joined))
            try:
                await asyncio.wait({task, joined}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not joined.done():
                    task.cancel()
            pause = PAUSE_SECONDS_MIN if joined.done() else min(2 * pause, PAUSE_SECONDS_MAX)
            if not joined.done():
                await asyncio.sleep(pause)

    async def _serve(self, relay: str, peer: str, joined: "asyncio.Future[None]") -> None:
        """One stream: wait until the peer has called, then connect it with this node's own server."""
        address = self._relays().get(relay)
        if address is None:
            return
        with contextlib.suppress(TimeoutError, StreamBrokenError, WireError, OSError):
            async with self._dial(relay, address, messages.METHOD) as stream:
                await stream.write(messages.ask(self._own, peer, waits=True))
                messages.read(await stream.read(), "joined")
                joined.set_result(None)
                with self._noted(peer, relay):
                    await bridge(stream, await connect(self._server()), self._counter(peer))

    # --- what both ends note ------------------------------------------------------------------------

    @contextlib.contextmanager
    def _noted(self, peer: str, relay: str) -> Iterator[None]:
        carried = _Carried(peer, relay)
        if self._said.get(peer) != relay:
            self._said[peer] = relay
            self._say(peer, f"{peer} is reached through {relay}: no direct connection comes about in either direction")
        self._carried.add(carried)
        try:
            yield
        finally:
            self._carried.discard(carried)
            self._extend(peer)

    def _via(self, peer: str) -> set[str]:
        return {carried.relay for carried in self._carried if carried.peer == peer}

    def _counter(self, peer: str) -> Callable[[int], None]:
        def count(nbytes: int) -> None:
            self.nbytes[peer] += nbytes

        return count

    def _extend(self, peer: str) -> None:
        self._until[peer] = self._clock() + LEASE_SECONDS

    def _wanted(self, peer: str) -> bool:
        carried = any(one.peer == peer for one in self._carried)
        return carried or self._clock() < self._until.get(peer, 0.0)

    def _begin(self, work: Coroutine[None, None, None]) -> "asyncio.Task[None]":
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(surface)
        return task
