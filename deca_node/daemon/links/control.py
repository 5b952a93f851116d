"""Control links: a stream for small messages to each peer, over a connection of its own.

They carry membership's packets and measure round trips. The node that sends first dials, and the stream serves both
directions; if both nodes dial at once they keep the same stream. A packet is a datagram: it may be lost with its
stream, and the oldest packets are dropped where too many wait. Membership says which peers may call.

A peer is identified by its name and its address here. Two processes under one name are two peers until membership has
decided which of them keeps the name.
"""

import asyncio
import contextlib
import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from deca_node.daemon.links.conduct import Refusals
from deca_node.daemon.links.control_session import ControlSession, read_control
from deca_node.daemon.links.greeting import Greeted, Greeter, Identity, Messages, RefusedError, check_addressee
from deca_node.daemon.links.pairing import Pair
from deca_node.daemon.relay.detours import Detours, NoWayError
from deca_node.daemon.settings.address import parse_address
from deca_node.daemon.settings.peers_file import NAME
from deca_node.daemon.wire.broken import StreamBrokenError
from deca_node.daemon.wire.endpoint import Endpoint, Stream, surface
from deca_node.daemon.wire.meters import Quantiles, RecentSamples
from deca_node.daemon.wire.packets import run_in, run_out
from deca_node.daemon.wire_pb import control_pb2 as pb
from deca_node.daemon.wire_pb import exchange_pb2
from deca_node.protocol.agreed.identity import foreign
from deca_node.protocol.errors import DecaError, WireError

Greeting = pb.ControlFrame.Greeting

VERSION = 1
SERVICE = "deca.v1.Control"
METHOD = f"/{SERVICE}/Stream"

GREETING_SECONDS = 5.0
PACKET_BYTES_MAX = 60 << 10
PACKETS_QUEUED_MAX = 128
ADDRESS_LENGTH_MAX = 300
LINKS_MAX = 1024
ROUND_TRIPS_KEPT = 600
ONE_TOO_MANY = ("duplicate", "again")
"""Codes for a stream that is not needed, because another one to the same peer is there or on its way."""
FLUSH_SECONDS = 1.0


class PeerAddress(NamedTuple):
    """A peer's name and its address as HOST:PORT. The name is empty where only the address is known."""

    name: str
    address: str


class Foreign(NamedTuple):
    """A node of another run, and how the run differs, as a sentence. ``called``: this node has dialled it."""

    name: str
    address: str
    sentence: str
    called: bool


@dataclass
class _ControlLink:
    peer: PeerAddress
    pair: Pair
    traffic: Counter[str]
    queue: deque[bytes] = field(default_factory=deque)
    rtt: RecentSamples = field(default_factory=lambda: RecentSamples(ROUND_TRIPS_KEPT))
    session: ControlSession | None = None
    relays: bool = False
    """Whether the peer relays connections, as it said at the newest greeting."""
    dialling: "asyncio.Task[None] | None" = None
    up: asyncio.Event = field(default_factory=asyncio.Event)


class ControlLinks:
    """The control links of one node, registered at ``endpoint``.

    ``on_packet(name, address, payload)`` takes incoming packets, ``on_progress(name, activation)`` a peer's position.
    ``on_fail(name, address)`` is called where a peer cannot be reached; the name is empty where it is not known.
    ``admits(name)`` tells whether a peer may call. ``on_foreign`` is called for each refusal between this node and a
    node of another run. ``book`` counts refusals. A peer in quarantine may speak here, since every member must know
    whether it is alive. ``relays``: this node tells its peers that it relays connections.
    ``detours`` leads to peers that cannot be dialled.
    """

    def __init__(
        self,
        identity: Identity,
        endpoint: Endpoint,
        on_packet: Callable[[str, str, bytes], None],
        on_progress: Callable[[str, int], None],
        on_fail: Callable[[str, str], None],
        book: Refusals,
        admits: Callable[[str], bool] = lambda _: True,
        clock: Callable[[], float] = time.perf_counter,
        on_foreign: Callable[["Foreign"], None] = lambda _: None,
        relays: bool = False,
        detours: Detours | None = None,
    ) -> None:
        self._identity = identity
        self._offers_relay = relays
        self._detours = detours
        self._endpoint = endpoint
        self._on_packet = on_packet
        self._on_progress = on_progress
        self._on_fail = on_fail
        self._admits = admits
        self._on_foreign = on_foreign
        self._clock = clock
        self._numbers = itertools.count(1)
        self._links: dict[PeerAddress, _ControlLink] = {}
        self._known_as: dict[PeerAddress, PeerAddress] = {}
        self._traffic: dict[str, Counter[str]] = {}
        self._closing = False
        self._book = book
        self._greeter = Greeter(
            MESSAGES,
            identity.name,
            GREETING_SECONDS,
            book,
            admit=self._admit,
            hello=self._hello,
            welcome=self._welcome,
            over=self._forget_if_idle,
        )
        endpoint.add_streams(SERVICE, {"Stream": self._answer})

    # --- requests of the daemon ---------------------------------------------------------------------

    def send(self, name: str, address: str, payload: bytes) -> None:
        """Send a packet, over a new stream if there is none. ``name`` is empty where only the address is known. The
        packet may be lost; ``on_fail`` is called where the peer could not be reached."""
        assert len(payload) <= PACKET_BYTES_MAX, "the caller keeps to the limit"
        if self._closing:
            return
        link = self._link(self._known(PeerAddress(name, address)))
        self._enqueue(link, payload)
        if link.session is None and link.dialling is None:
            self._dial(link)

    def drop(self, name: str, why: str) -> None:
        """End every link to a peer. It may call again if ``admits`` says so."""
        for link in [link for peer, link in self._links.items() if peer.name == name]:
            link.queue.clear()
            if link.session:
                link.session.end(why)

    def relays(self) -> set[str]:
        """The peers that relay connections, and to which a stream is up."""
        return {peer.name for peer, link in self._links.items() if link.relays and link.session}

    def linked(self) -> set[str]:
        """The peers to which a stream is up."""
        return {peer.name for peer, link in self._links.items() if link.session}

    def rtt(self) -> dict[str, Quantiles]:
        """Round trips of the last ten minutes, in seconds, to every peer with a live stream."""
        return {peer.name: link.rtt.figures() for peer, link in self._links.items() if link.session}

    def traffic(self) -> Mapping[str, Counter[str]]:
        """Counts by peer since the start: bytes ``sent.packet``, ``received.ping``, ..., and packets ``dropped``. The
        returned mapping is live: its counts grow, and peers are added."""
        return self._traffic

    async def close(self) -> None:
        """Wait a moment for queued packets to go out, then end every stream."""
        self._closing = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                while any(link.queue and link.session for link in self._links.values()):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        dials = [link.dialling for link in self._links.values() if link.dialling]
        for link in list(self._links.values()):
            if link.session:
                link.session.end("this node ends")
        for dial in dials:
            dial.cancel()
        await asyncio.gather(*dials, return_exceptions=True)

    # --- links --------------------------------------------------------------------------------------

    def _link(self, peer: PeerAddress) -> _ControlLink:
        link = self._links.get(peer)
        if link is None:
            own = PeerAddress(self._identity.name, self._identity.address)
            pair = Pair(self._identity.boot, self._numbers, leads=own < peer)
            traffic = self._traffic.setdefault(peer.name, Counter()) if peer.name else Counter()
            link = self._links[peer] = _ControlLink(peer, pair, traffic)
        return link

    def _known(self, peer: PeerAddress) -> PeerAddress:
        """The peer that the last dial of this address reached, or a peer that has called from it."""
        if peer in self._known_as or peer.name:
            return self._known_as.get(peer, peer)
        callers = (other for other, link in self._links.items() if other.address == peer.address and link.session)
        return next(callers, peer)

    def _enqueue(self, link: _ControlLink, payload: bytes) -> None:
        link.queue.append(payload)
        if len(link.queue) > PACKETS_QUEUED_MAX:
            link.queue.popleft()
            link.traffic["dropped"] += 1
        if link.session:
            link.session.stir()

    def _forget_if_idle(self, link: _ControlLink) -> None:
        """Forget a peer with which there is nothing to do."""
        if link.session is None and link.dialling is None and not link.queue:
            if self._links.get(link.peer) is link:
                del self._links[link.peer]
            for peer in [peer for peer, other in self._known_as.items() if other == link.peer]:
                del self._known_as[peer]

    # --- dialling -----------------------------------------------------------------------------------

    def _dial(self, link: _ControlLink) -> None:
        link.dialling = asyncio.ensure_future(self._dialled(link))
        link.dialling.add_done_callback(surface)
        link.dialling.add_done_callback(lambda _: self._dial_over(link))

    async def _dialled(self, link: _ControlLink) -> None:
        """Try once, and hold the session to its end. A peer that cannot be dialled is called through a relay, and first
        of all where that was so lately."""
        name, detours = link.peer.name, self._detours
        preferred = bool(detours and detours.prefers(name))
        reached = await self._dialled_through_a_relay(link) if preferred else None
        if reached is None:
            reached = await self._dialled_at(link, link.peer.address)
            if reached is None and detours:
                detours.failed(name)
                if detours.calls(name) and not preferred:
                    reached = await self._dialled_through_a_relay(link)
        if not reached:
            link.queue.clear()
            if not self._closing:
                self._on_fail(name, link.peer.address)

    async def _dialled_through_a_relay(self, link: _ControlLink) -> bool | None:
        assert self._detours is not None
        with contextlib.suppress(NoWayError):
            async with self._detours.way(link.peer.name) as way:
                return await self._dialled_at(link, str(way.address))
        return None

    async def _dialled_at(self, link: _ControlLink, address: str) -> bool | None:
        """Try once at this address. Returns whether there was a session, here or on a stream of the peer; None where no
        connection came about."""
        try:
            async with self._endpoint.dial(link.peer.name, address, METHOD) as stream:
                await self._hold(await self._greeter.call(link, stream))
            return True
        except (WireError, RefusedError) as problem:
            if problem.reason in ONE_TOO_MANY and await self._comes_up(self._known(link.peer)):
                return True
            if isinstance(problem, RefusedError) and problem.reason == "mismatch":
                name = problem.name if NAME.fullmatch(problem.name) else link.peer.name
                self._on_foreign(Foreign(name, link.peer.address, str(problem), called=True))
        except (TimeoutError, StreamBrokenError):
            return None
        except DecaError:
            pass
        return False

    async def _comes_up(self, peer: PeerAddress) -> bool:
        """Whether the stream that both ends keep instead is there, or is there soon."""
        link = self._links.get(peer)
        if link is None:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GREETING_SECONDS):
                await link.up.wait()
        return link.up.is_set()

    def _dial_over(self, link: _ControlLink) -> None:
        link.dialling = None
        if link.queue and link.session is None and not self._closing:
            self._dial(link)
        self._forget_if_idle(link)

    # --- greeting -----------------------------------------------------------------------------------

    async def _answer(self, stream: Stream) -> None:
        if greeted := await self._greeter.answer(stream):
            await self._hold(greeted)

    def _admit(self, greetings: int) -> None:
        if self._closing or greetings + len(self._links) >= LINKS_MAX:
            raise WireError("busy", f"{self._identity.name} has {len(self._links)} links")

    def _hello(self, link: _ControlLink) -> bytes:
        own, ended = self._identity, link.pair.ended
        greeting = pb.ControlFrame.Greeting(
            protocol=VERSION,
            name=own.name,
            to=link.peer.name,
            boot=own.boot,
            address=own.address,
            ended=exchange_pb2.Ended(boot=ended.boot, number=ended.number),
            run=run_out(own.run) if own.run else None,
            settings=own.run.settings if own.run else None,
            relays=self._offers_relay,
        )
        return pb.ControlFrame(greeting=greeting).SerializeToString()

    def _welcome(self, greeting: Greeting, stream: Stream, called: _ControlLink | None) -> _ControlLink:
        """The link to a caller, or to the peer that was reached. Raises WireError where it is not welcome."""
        own = self._identity.name
        check_addressee(own, greeting.protocol, VERSION, greeting.to or own)
        if greeting.boot == self._identity.boot:
            raise WireError("self", "this node has called itself")
        if not (NAME.fullmatch(greeting.name) and _could_be_dialled(greeting.address)):
            raise WireError("malformed", "a greeting with a malformed name or address")
        stream.verify(greeting.name)
        if not self._admits(greeting.name):
            raise WireError("stranger", f"{own} knows no member {greeting.name!r}")
        self._check_run(greeting, called)
        return self._reached(called, greeting) if called else self._link(PeerAddress(greeting.name, greeting.address))

    def _check_run(self, greeting: Greeting, called: _ControlLink | None) -> None:
        """Raise WireError("mismatch") where the other end takes part in another run."""
        theirs = run_in(greeting.run, greeting.settings) if greeting.HasField("run") else None
        differs = foreign(self._identity.run, theirs, self._identity.name, greeting.name)
        if differs:
            address = called.peer.address if called else greeting.address
            self._on_foreign(Foreign(greeting.name, address, differs, called is not None))
            raise WireError("mismatch", differs)

    def _reached(self, called: _ControlLink, greeting: Greeting) -> _ControlLink:
        """The link to the peer that was really reached: seeds are known by address only, and some addresses are
        aliases. Raises WireError("again") where the peer must be called by the name that it has said."""
        peer = PeerAddress(greeting.name, greeting.address or called.peer.address)
        if peer == called.peer:
            return called
        link = self._link(peer)
        self._known_as[called.peer] = peer
        while called.queue:
            self._enqueue(link, called.queue.popleft())
        if self._endpoint.secure and not called.peer.name:
            # Some member is there, but TLS has not checked which.
            if link.session is None and link.dialling is None:
                self._dial(link)
            raise WireError("again", f"{self._identity.name} calls again by the name {greeting.name}")
        return link

    # --- a session's life ---------------------------------------------------------------------------

    async def _hold(self, greeted: Greeted[Greeting, _ControlLink]) -> None:
        """Run the session from the moment at which the stream is taken. There is no await before the session stands."""
        link, stream = greeted.link, greeted.stream
        if link.session:
            link.session.end("another stream took its place")
        name, address = link.peer
        link.relays = greeted.hello.relays
        # The link may have been forgotten as idle during the greeting.
        self._links[link.peer] = link
        session = link.session = ControlSession(
            stream,
            link.queue,
            self._identity.position,
            lambda payload: self._on_packet(name, address, payload),
            lambda activation: self._on_progress(name, activation),
            link.traffic,
            link.rtt,
            self._clock,
        )
        link.up.set()
        try:
            await session.run(greeted.taken)
        except WireError as problem:
            self._book.blame(name, problem)
            await self._greeter.tell(stream, problem)
        finally:
            link.pair.end(greeted.number)
            if link.session is session:
                link.session = None
                link.up.clear()
            if not link.dialling:
                self._dial_over(link)


def _could_be_dialled(address: str) -> bool:
    """Whether this is HOST:PORT, or empty. gRPC gets the text as it is, and knows other kinds of targets as well."""
    try:
        return not address or (len(address) <= ADDRESS_LENGTH_MAX and bool(parse_address(address)))
    except ValueError:
        return False


MESSAGES = Messages(pb.ControlFrame, "greeting", read_control)
