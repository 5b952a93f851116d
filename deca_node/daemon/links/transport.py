"""Streams to the peers: one per peer, whoever dials, kept up for as long as it is a peer.

Each node dials every peer and answers every caller. Both ends say Hello first, and a stream is a session only
once both agree on the run and on the stream (:mod:`deca_node.daemon.links.pairing`). A refusal names what differs;
unreachable peers are dialled again and again, with jittered backoff. Peers come, move and go at any time.
"""

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Never

from deca_node.daemon.links import greeting
from deca_node.daemon.links.conduct import Refusals
from deca_node.daemon.links.greeting import PROTOCOL_VERSION, Identity, RefusedError, check_addressee, read_frame
from deca_node.daemon.links.outbox import Shared
from deca_node.daemon.links.pairing import Pair, StreamNumber
from deca_node.daemon.links.session import FrameRules, Session
from deca_node.daemon.settings.address import Address
from deca_node.daemon.trainer.arena import FrameStore
from deca_node.daemon.wire.broken import StreamBrokenError
from deca_node.daemon.wire.endpoint import Endpoint, Stream, surface
from deca_node.daemon.wire.throttle import Throttle
from deca_node.daemon.wire_pb import exchange_pb2 as pb
from deca_node.protocol import events as e
from deca_node.protocol.agreed.agreement import Agreement, mismatch
from deca_node.protocol.agreed.frames import FrameId
from deca_node.protocol.errors import DecaError, WireError

SERVICE = "deca.v1.Exchange"
METHOD = f"/{SERVICE}/Stream"

GREETING_SECONDS = 10.0
GREETINGS_MAX = 64
"""Callers that are being greeted at one time; more are refused."""
BACKOFF_SECONDS_MIN = 0.2
BACKOFF_SECONDS_MAX = 5.0
LOADING_SECONDS = 1.0
"""The pause after a peer said that it is still loading."""
FLUSH_SECONDS = 5.0


@dataclass
class _Link:
    """What is known of one peer: its session if there is one, and why there is none."""

    name: str
    address: Address
    pair: Pair
    traffic: Counter[str]
    session: Session | None = None
    problem: str = "not dialled yet"
    dialling: "asyncio.Task[None] | None" = None
    gone: bool = False
    loading: bool = False


@dataclass(frozen=True)
class _Greeted:
    """A stream on which both ends know each other and the run."""

    link: _Link
    hello: pb.Hello
    stream: Stream


class Transport:
    """The network's side of the daemon. ``tell`` takes events; nothing here decides about the run.

    It registers itself at ``endpoint``, which must be started after that. ``throttle`` limits what all sessions
    send together; ``book`` counts what is refused, and knows who is in quarantine: such a peer is neither dialled nor
    greeted.
    """

    def __init__(
        self,
        identity: Identity,
        endpoint: Endpoint,
        tell: Callable[[e.NetworkEvent], None],
        throttle: Throttle | None = None,
        book: Refusals | None = None,
    ) -> None:
        self._identity = identity
        self._endpoint = endpoint
        self._tell = tell
        self._throttle = throttle or Throttle(0.0)
        self._links: dict[str, _Link] = {}
        self._numbers = itertools.count(1)
        self._traffic: dict[str, Counter[str]] = {}
        self._agreement: Agreement | None = None
        self._shared: Shared | None = None
        self._rules: FrameRules | None = None
        self._greetings = 0
        self._closing = False
        self._book = book or Refusals()
        self.refusals = self._book.counts
        endpoint.add_streams(SERVICE, {"Stream": self._answer})

    # --- life ---------------------------------------------------------------------------------------

    def meet(self, agreement: Agreement, store: FrameStore, rules: FrameRules) -> None:
        """Begin to dial and to greet: the run is known now."""
        assert self._agreement is None, "the run is met once"
        self._agreement, self._rules = agreement, rules
        self._shared = Shared(store, self._throttle)
        store.on_free = self._freed
        for link in self._links.values():
            self._dial_for_ever(link)

    def set_peers(self, peers: Mapping[str, Address]) -> None:
        """These are all peers from now on: new ones are dialled, those that are missing are let go, and where only the
        address is new, it is dialled next. At any time."""
        for name in [name for name in self._links if name not in peers]:
            self._remove(self._links.pop(name))
        for name, address in peers.items():
            link = self._links.get(name)
            if link is None:
                self._add(name, address)
            elif link.address != address:
                link.address = address
                self._dial_for_ever(link)

    async def close(self) -> None:
        """Send what is queued, then end every stream; the losses that this causes are nobody's news."""
        self._closing = True
        links = list(self._links.values())
        flushes = [asyncio.ensure_future(link.session.flush()) for link in links if link.session]
        if flushes:
            _, late = await asyncio.wait(flushes, timeout=FLUSH_SECONDS)
            for flush in late:
                flush.cancel()
        dials = [link.dialling for link in links if link.dialling]
        self.set_peers({})
        await asyncio.gather(*dials, return_exceptions=True)

    # --- what the core asks for ---------------------------------------------------------------------

    def send(self, peer: str, message: pb.Frame) -> None:
        """Queue a message for a peer; without a session it is dropped, as the core will hear of the loss."""
        if session := self._session(peer):
            session.send(message)

    def send_open(self, peer: str, opening: pb.Open, keyframe: FrameId) -> None:
        """Queue an Open and its keyframe for a peer."""
        session = self._session(peer)
        if session and self._shared and keyframe in self._shared.store:
            session.send_open(opening, keyframe)

    def send_frame(self, peer: str, frame: FrameId) -> None:
        """Queue an update for a peer."""
        session = self._session(peer)
        if session and self._shared and frame in self._shared.store:
            session.send_frame(frame)

    def forget(self, peer: str, activation: int, applied: int) -> None:
        """The edge to a peer is closed: what is queued for it past its last flow need not be sent any more."""
        if session := self._session(peer):
            session.forget(activation, applied)

    def drop(self, peer: str, why: str) -> None:
        """End the session with a peer; it is dialled, and greeted, again."""
        if peer in self._links:
            self._detach(self._links[peer], why)

    def traffic(self) -> Mapping[str, Counter[str]]:
        """Bytes by peer and kind since the start: ``sent.update``, ``received.keyframe``, ``sent.control``, ...
        What is returned goes on counting, and peers appear in it."""
        return self._traffic

    def problems(self) -> dict[str, str]:
        """Why there is no session, by peer."""
        return {name: link.problem for name, link in self._links.items() if link.session is None}

    def _session(self, peer: str) -> Session | None:
        link = self._links.get(peer)
        return link.session if link else None

    def _freed(self, frame: FrameId) -> None:
        if self._shared:
            self._shared.chunks.forget(frame)
        # Everybody is told: a session may wait for any slot.
        for link in self._links.values():
            if link.session:
                link.session.freed(frame)

    # --- peers --------------------------------------------------------------------------------------

    def _add(self, name: str, address: Address) -> None:
        pair = Pair(self._identity.boot, self._numbers, leads=self._identity.name < name)
        link = _Link(name, address, pair, self._traffic.setdefault(name, Counter()))
        self._links[name] = link
        if self._agreement is not None:
            self._dial_for_ever(link)

    def _remove(self, link: _Link) -> None:
        link.gone = True
        self._detach(link, "it is no peer any more")
        if link.dialling:
            link.dialling.cancel()

    def _detach(self, link: _Link, why: str) -> None:
        """The session ends now, whatever its stream still does."""
        session, link.session = link.session, None
        if session is None:
            return
        link.problem = why
        session.end(why)
        if not self._closing:
            self._tell(e.PeerDown(link.name, why))

    # --- dialling -----------------------------------------------------------------------------------

    def _dial_for_ever(self, link: _Link) -> None:
        """Dial whenever there is no session. Called again for a new address, it leaves a session in peace."""
        if link.dialling and link.session:
            return
        if link.dialling:
            link.dialling.cancel()
        link.dialling = asyncio.ensure_future(self._keep_dialling(link))
        link.dialling.add_done_callback(surface)

    async def _keep_dialling(self, link: _Link) -> None:
        rng = random.Random(f"{self._identity.boot}:{link.name}")
        pause = BACKOFF_SECONDS_MIN
        while True:
            if link.session is None and not self._quarantined(link) and await self._dial(link):
                pause = BACKOFF_SECONDS_MIN
            limit = LOADING_SECONDS if link.loading else BACKOFF_SECONDS_MAX
            await asyncio.sleep(min(pause, limit) * (0.5 + rng.random()))
            pause = min(pause * 1.6, BACKOFF_SECONDS_MAX)

    def _quarantined(self, link: _Link) -> bool:
        try:
            self._book.check(link.name)
        except WireError as problem:
            link.problem = str(problem)
            return True
        return False

    async def _dial(self, link: _Link) -> bool:
        """One attempt, and the whole session if it succeeds; whether it did."""
        link.loading = False
        try:
            async with self._endpoint.dial(link.name, link.address, METHOD) as stream:
                greeted, number = await self._greet(link, stream)
                await self._hold(greeted, number)
                return True
        except TimeoutError:
            link.problem = f"{link.address} does not answer"
        except StreamBrokenError as problem:
            link.problem = f"{link.address} does not answer yet: {problem}"
        except RefusedError as refusal:
            self._refused(link, refusal)
        except DecaError as problem:
            link.problem = str(problem)
        return False

    async def _greet(self, link: _Link, stream: Stream) -> tuple[_Greeted, StreamNumber]:
        try:
            async with asyncio.timeout(GREETING_SECONDS):
                await stream.write(self._hello(link))
                hello, _ = self._checked(await stream.read(), stream, link.name)
                greeted = _Greeted(link, hello, stream)
                return greeted, await self._number(greeted)
        except WireError as problem:
            await self._refuse(stream, problem)
            raise

    def _refused(self, link: _Link, refusal: RefusedError) -> None:
        if refusal.reason == "loading":
            link.loading, link.problem = True, "is still loading its model"
        elif refusal.reason != "duplicate":
            link.problem = f"refused us: {refusal}"
        if refusal.reason == "mismatch":
            self._tell(e.PeerRefused(link.name, str(refusal)))

    # --- answering ----------------------------------------------------------------------------------

    async def _answer(self, stream: Stream) -> None:
        """A caller's stream, from its Hello to its end."""
        try:
            greeted, number = await self._greet_caller(stream)
        except (StreamBrokenError, RefusedError):
            return
        except TimeoutError:
            slow = f"the greeting did not end within {GREETING_SECONDS:g} s"
            await self._refuse(stream, WireError("slow", slow))
            return
        except WireError as problem:
            await self._refuse(stream, problem)
            return
        await self._hold(greeted, number)

    async def _greet_caller(self, stream: Stream) -> tuple[_Greeted, StreamNumber]:
        if self._greetings >= GREETINGS_MAX:
            raise WireError("busy", f"{self._identity.name} is greeting {GREETINGS_MAX} others")
        self._greetings += 1
        try:
            async with asyncio.timeout(GREETING_SECONDS):
                first = await stream.read()
                if self._agreement is None:
                    raise WireError("loading", f"{self._identity.name} is still loading its model")
                hello, link = self._checked(first, stream, None)
                await stream.write(self._hello(link))
                greeted = _Greeted(link, hello, stream)
                return greeted, await self._number(greeted)
        finally:
            self._greetings -= 1

    # --- greeting -----------------------------------------------------------------------------------

    def _hello(self, link: _Link) -> bytes:
        assert self._agreement is not None
        return greeting.hello(self._identity, link.name, self._agreement, link.pair.ended)

    def _checked(self, message: bytes | None, stream: Stream, called: str | None) -> tuple[pb.Hello, _Link]:
        """The Hello of a caller, or of the peer that was ``called``. Raises WireError where it is not welcome."""
        hello = read_frame(message, "hello").hello
        check_addressee(self._identity.name, hello.protocol, PROTOCOL_VERSION, hello.to)
        stream.verify(hello.name)
        link = self._links.get(hello.name)
        if link is None or called not in (None, hello.name):
            raise WireError("stranger", f"{self._identity.name} knows no member {hello.name[:200]!r}")
        self._book.check(hello.name)
        if link.pair.outlived(hello.boot):
            raise WireError("stale-boot", f"{self._identity.name} is connected with a later start of {hello.name}")
        assert self._agreement is not None
        differs = mismatch(self._agreement, Agreement(dict(hello.agreement)), self._identity.name, hello.name)
        if differs:
            self._tell(e.PeerRefused(hello.name, differs))
            raise WireError("mismatch", differs)
        return hello, link

    async def _number(self, greeted: _Greeted) -> StreamNumber:
        """The number under which both ends keep this stream. Raises WireError("duplicate") where they keep another."""
        link, hello = greeted.link, greeted.hello
        if link.pair.leads:
            ended = StreamNumber(hello.ended.boot, hello.ended.number)
            number = None if link.gone else link.pair.take(hello.boot, ended)
            if number is None:
                self._duplicate(link)
            return number
        taken = read_frame(await greeted.stream.read(), "taken").taken
        number = StreamNumber(hello.boot, taken.number)
        if link.gone or not link.pair.follow(number):
            self._duplicate(link)
        return number

    def _duplicate(self, link: _Link) -> Never:
        raise WireError("duplicate", f"{self._identity.name} has another stream with {link.name}")

    async def _refuse(self, stream: Stream, problem: WireError) -> None:
        """Count a refusal, and tell the peer, if it still listens."""
        self._book.count(problem.reason)
        await self._say_refused(stream, problem)

    async def _say_refused(self, stream: Stream, problem: WireError) -> None:
        if problem.reason == "refused":
            return
        refusal = pb.Frame(refusal=pb.Refusal(reason=problem.reason, sentence=str(problem)))
        with contextlib.suppress(StreamBrokenError):
            await stream.write(refusal.SerializeToString())

    # --- a session's life ---------------------------------------------------------------------------

    async def _hold(self, greeted: _Greeted, number: StreamNumber) -> None:
        """From the moment at which the stream was taken to its end. Nothing is awaited before the session stands."""
        assert self._shared is not None and self._rules is not None
        link, stream = greeted.link, greeted.stream
        self._detach(link, "another stream took its place")
        session = Session(link.name, stream, self._shared, self._rules, self._tell, link.traffic)
        link.session = session
        first = pb.Frame(taken=pb.Taken(number=number.number)) if link.pair.leads else None
        self._tell(e.PeerUp(link.name, greeted.hello.activation))
        why = "the stream was cut off"
        try:
            why = await session.run(first)
        except WireError as problem:
            why = f"broke the rules ({problem.reason}): {problem}"
            self._book.blame(link.name, problem)
            await self._say_refused(stream, problem)
        finally:
            link.pair.end(number)
            if link.session is session:
                self._detach(link, why)
