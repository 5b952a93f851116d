"""Exchange streams: one live stream to every peer, for keyframes and updates.

This node dials every peer and answers every caller. A stream becomes a session once both ends agree on the run, and on
which stream they keep (:mod:`deca_node.daemon.links.pairing`). Unreachable peers are dialled again without end, with
jittered backoff. Peers may appear, change their address and disappear at any time.
"""

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deca_node.daemon.links.conduct import Refusals
from deca_node.daemon.links.greeting import Greeted, Greeter, Identity, Messages, RefusedError, check_addressee
from deca_node.daemon.links.outbox import Shared
from deca_node.daemon.links.pairing import Pair, StreamNumber
from deca_node.daemon.links.session import FrameRules, Session
from deca_node.daemon.relay.detours import Detours, NoWayError
from deca_node.daemon.settings.address import Address
from deca_node.daemon.trainer.arena import FrameStore
from deca_node.daemon.wire import framing
from deca_node.daemon.wire.broken import StreamBrokenError
from deca_node.daemon.wire.endpoint import Endpoint, Stream, surface
from deca_node.daemon.wire.throttle import Throttle
from deca_node.daemon.wire_pb import exchange_pb2 as pb
from deca_node.protocol import events as e
from deca_node.protocol.agreed.agreement import Agreement, mismatch
from deca_node.protocol.agreed.frames import FrameId
from deca_node.protocol.agreed.weights import SHARE_ONE
from deca_node.protocol.errors import DecaError, WireError
from deca_node.protocol.refusals import BY_PEER, DISAGREEMENTS, Problem

PROTOCOL_VERSION = 2
"""The version of the rules in docs/PROTOCOL.md."""
SERVICE = "deca.v1.Exchange"
METHOD = f"/{SERVICE}/Stream"

GREETING_SECONDS = 10.0
GREETINGS_MAX = 64
"""Callers that are greeted at one time. Further ones are refused."""
BACKOFF_SECONDS_MIN = 0.2
BACKOFF_SECONDS_MAX = 5.0
LOADING_SECONDS = 1.0
"""The longest pause before the next dial, if the peer said that it is still loading."""
FLUSH_SECONDS = 5.0
NOT_DIALLED = Problem("", "not dialled yet")


@dataclass
class _ExchangeLink:
    """The record of one peer: its session, or why there is none."""

    name: str
    address: Address
    pair: Pair
    traffic: Counter[str]
    session: Session | None = None
    problem: Problem = NOT_DIALLED
    unreached: bool = False
    """Whether no connection came about at the last dial of its address."""
    dialling: "asyncio.Task[None] | None" = None

    @property
    def loading(self) -> bool:
        """Whether the peer said that it still loads its model."""
        return self.session is None and self.problem.code == "loading"


class Transport:
    """The exchange streams of one node. ``tell`` takes the events; no decision about the run is made here.

    The transport registers its method at ``endpoint``, which must be started later. ``throttle`` limits what all
    sessions send together. ``book`` counts refusals, and knows the peers in quarantine: they are neither dialled nor
    greeted. ``detours`` leads to peers that cannot be dialled.
    """

    def __init__(
        self,
        identity: Identity,
        endpoint: Endpoint,
        tell: Callable[[e.NetworkEvent], None],
        book: Refusals,
        throttle: Throttle | None = None,
        detours: Detours | None = None,
    ) -> None:
        self._identity = identity
        self._endpoint = endpoint
        self._detours = detours
        self._tell = tell
        self._throttle = throttle or Throttle(0.0)
        self._links: dict[str, _ExchangeLink] = {}
        self._numbers = itertools.count(1)
        self._traffic: dict[str, Counter[str]] = {}
        self._agreement: Agreement | None = None
        self._shared: Shared | None = None
        self._rules: FrameRules | None = None
        self._share = SHARE_ONE
        self._closing = False
        self._book = book
        self._greeter = Greeter(
            MESSAGES, identity.name, GREETING_SECONDS, book, admit=self._admit, hello=self._hello, welcome=self._welcome
        )
        endpoint.add_streams(SERVICE, {"Stream": self._answer})

    # --- life ---------------------------------------------------------------------------------------

    def meet(self, agreement: Agreement, store: FrameStore, rules: FrameRules, share: int = SHARE_ONE) -> None:
        """Begin to dial and to greet: the run is known now, and this node's share in its mean. To be called once."""
        assert self._agreement is None, "meet is called once"
        self._agreement, self._rules, self._share = agreement, rules, share
        self._shared = Shared(store, self._throttle)
        store.on_free = self._freed
        for link in self._links.values():
            self._dial_for_ever(link)

    def set_peers(self, peers: Mapping[str, Address]) -> None:
        """Set the peers: new ones are dialled, missing ones are dropped. A new address of a known peer is used at the
        next dial. May be called at any time; once the transport closes, there are no peers."""
        peers = {} if self._closing else peers
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
        """Send what is queued, then end every stream, without PeerDown events."""
        self._closing = True
        links = list(self._links.values())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await asyncio.gather(*(link.session.finish() for link in links if link.session))
        dials = [link.dialling for link in links if link.dialling]
        self.set_peers({})
        await asyncio.gather(*dials, return_exceptions=True)

    # --- requests of the node -----------------------------------------------------------------------

    def send(self, peer: str, message: pb.Frame) -> None:
        """Queue a message for a peer. Without a session it is dropped: the node is told of every lost session."""
        if session := self._session(peer):
            session.send(message)

    def send_open(self, peer: str, opening: pb.Open, keyframe: FrameId | None) -> None:
        """Queue an Open and its keyframe, if it has one, for a peer."""
        session = self._session(peer)
        if session and self._shared and (keyframe is None or keyframe in self._shared.store):
            session.send_open(opening, keyframe)

    def send_frame(self, peer: str, frame: FrameId) -> None:
        """Queue an update for a peer."""
        session = self._session(peer)
        if session and self._shared and frame in self._shared.store:
            session.send_frame(frame)

    def forget(self, peer: str, activation: int, applied: int) -> None:
        """The edge to a peer is closed: drop what is queued for it beyond its last flow."""
        if session := self._session(peer):
            session.forget(activation, applied)

    def drop(self, peer: str, why: str) -> None:
        """End the session with a peer. It is dialled and greeted again."""
        if peer in self._links:
            self._detach(self._links[peer], Problem("", why))

    def traffic(self) -> Mapping[str, Counter[str]]:
        """Bytes by peer and kind since the start: ``sent.update``, ``received.keyframe``, ``sent.control``, ...
        The returned mapping is live: its counts grow, and peers are added."""
        return self._traffic

    def problems(self) -> dict[str, Problem]:
        """Why there is no session, by peer."""
        return {name: link.problem for name, link in self._links.items() if link.session is None}

    def _session(self, peer: str) -> Session | None:
        link = self._links.get(peer)
        return link.session if link else None

    def _freed(self, frame: FrameId) -> None:
        if self._shared:
            self._shared.chunks.forget(frame)
        # Every session is told, since each may be waiting for any slot.
        for link in self._links.values():
            if link.session:
                link.session.freed(frame)

    # --- peers --------------------------------------------------------------------------------------

    def _add(self, name: str, address: Address) -> None:
        pair = Pair(self._identity.boot, self._numbers, leads=self._identity.name < name)
        link = _ExchangeLink(name, address, pair, self._traffic.setdefault(name, Counter()))
        self._links[name] = link
        if self._agreement is not None:
            self._dial_for_ever(link)

    def _remove(self, link: _ExchangeLink) -> None:
        link.pair.close()
        self._detach(link, Problem("", "it is no longer a peer"))
        if link.dialling:
            link.dialling.cancel()

    def _detach(self, link: _ExchangeLink, why: Problem) -> None:
        """End the session now, whatever its stream still does."""
        session, link.session = link.session, None
        if session is None:
            return
        link.problem = why
        session.end(why.sentence)
        if not self._closing:
            self._tell(e.PeerDown(link.name, why.sentence, why.code))

    # --- dialling -----------------------------------------------------------------------------------

    def _dial_for_ever(self, link: _ExchangeLink) -> None:
        """Dial whenever there is no session. Calling it again, for a new address, does not disturb a live session."""
        if link.dialling and link.session:
            return
        if link.dialling:
            link.dialling.cancel()
        link.dialling = asyncio.ensure_future(self._keep_dialling(link))
        link.dialling.add_done_callback(surface)

    async def _keep_dialling(self, link: _ExchangeLink) -> None:
        rng = random.Random(f"{self._identity.boot}:{link.name}")
        pause = BACKOFF_SECONDS_MIN
        while not self._closing:
            if link.session is None and not self._quarantined(link) and await self._dial(link):
                pause = BACKOFF_SECONDS_MIN
            limit = LOADING_SECONDS if link.loading else BACKOFF_SECONDS_MAX
            await asyncio.sleep(min(pause, limit) * (0.5 + rng.random()))
            pause = min(pause * 1.6, BACKOFF_SECONDS_MAX)

    def _quarantined(self, link: _ExchangeLink) -> bool:
        try:
            self._book.check(link.name)
        except WireError as problem:
            link.problem = Problem(problem.reason, str(problem))
            return True
        return False

    async def _dial(self, link: _ExchangeLink) -> bool:
        """Try once, and hold the session to its end. Returns whether there was a session. A peer that cannot be dialled
        is called through a relay, and first of all where that was so lately."""
        detours = self._detours
        preferred = bool(detours and detours.prefers(link.name))
        if preferred:
            held = await self._dial_through_a_relay(link)
            if held or not link.unreached:
                return held
        held = await self._dial_at(link, link.address, str(link.address))
        if detours and link.unreached:
            detours.failed(link.name)
            return not preferred and detours.calls(link.name) and await self._dial_through_a_relay(link)
        return held

    async def _dial_through_a_relay(self, link: _ExchangeLink) -> bool:
        assert self._detours is not None
        try:
            async with self._detours.way(link.name) as way:
                return await self._dial_at(link, way.address, f"{link.address} through {way.relay}")
        except NoWayError as problem:
            link.unreached = True
            if str(problem):
                link.problem = Problem("", f"{link.address} does not answer, and no relay leads there: {problem}")
            return False

    async def _dial_at(self, link: _ExchangeLink, address: Address, where: str) -> bool:
        """Try once at this address, which is called ``where``."""
        link.unreached = False
        try:
            async with self._endpoint.dial(link.name, address, METHOD) as stream:
                await self._hold(await self._greeter.call(link, stream))
                return True
        except TimeoutError:
            link.unreached, link.problem = True, Problem("", f"{where} does not answer")
        except StreamBrokenError as problem:
            link.unreached, link.problem = True, Problem("", f"{where} does not answer yet: {problem}")
        except RefusedError as refusal:
            self._refused(link, refusal)
        except WireError as problem:
            link.problem = Problem(problem.reason, str(problem))
        except DecaError as problem:
            link.problem = Problem("", str(problem))
        return False

    def _refused(self, link: _ExchangeLink, refusal: RefusedError) -> None:
        if refusal.reason == "loading":
            link.problem = Problem("loading", "is still loading its model")
        elif refusal.reason != "duplicate":
            link.problem = Problem(BY_PEER, f"refused us: {refusal}")
        if refusal.reason in DISAGREEMENTS:
            said = (
                str(refusal) if refusal.reason == "mismatch" else f"it refuses this node ({refusal.reason}): {refusal}"
            )
            self._tell(e.PeerRefused(link.name, said))

    # --- greeting -----------------------------------------------------------------------------------

    async def _answer(self, stream: Stream) -> None:
        """A caller's stream, from its Hello to its end."""
        if greeted := await self._greeter.answer(stream):
            await self._hold(greeted)

    def _admit(self, greetings: int) -> None:
        if greetings >= GREETINGS_MAX:
            raise WireError("busy", f"{self._identity.name} is greeting {GREETINGS_MAX} others")

    def _hello(self, link: _ExchangeLink) -> bytes:
        assert self._agreement is not None
        return hello_message(self._identity, link.name, self._agreement, link.pair.ended, self._share)

    def _welcome(self, hello: pb.Hello, stream: Stream, called: _ExchangeLink | None) -> _ExchangeLink:
        """The link to a caller, or to the peer that was called. Raises WireError where it is not welcome."""
        own = self._identity.name
        if self._agreement is None:
            raise WireError("loading", f"{own} is still loading its model")
        check_addressee(own, hello.protocol, PROTOCOL_VERSION, hello.to)
        stream.verify(hello.name)
        link = self._links.get(hello.name)
        if link is None or (called is not None and called is not link):
            raise WireError("stranger", f"{own} knows no member {hello.name[:200]!r}")
        self._book.check(hello.name)
        if link.pair.outlived(hello.boot):
            raise WireError("stale-boot", f"{own} is connected with a later start of {hello.name}")
        differs = mismatch(self._agreement, Agreement(dict(hello.agreement)), own, hello.name)
        if differs:
            self._tell(e.PeerRefused(hello.name, differs))
            raise WireError("mismatch", differs)
        assert self._rules is not None, "the rules are known with the agreement"
        if not self._rules.share_fits(_share_in(hello)):
            raise WireError("malformed", f"{hello.name} claims a share of {hello.share} thousandths in the mean")
        return link

    # --- a session's life ---------------------------------------------------------------------------

    async def _hold(self, greeted: Greeted[pb.Hello, _ExchangeLink]) -> None:
        """Run the session from the moment at which the stream is taken. There is no await before the session stands."""
        assert self._shared is not None and self._rules is not None
        link, stream = greeted.link, greeted.stream
        self._detach(link, Problem("", "another stream took its place"))
        session = Session(link.name, stream, self._shared, self._rules, self._tell, link.traffic)
        link.session = session
        self._tell(e.PeerUp(link.name, greeted.hello.activation, _share_in(greeted.hello)))
        end = Problem("", "the stream was cut off")
        try:
            end = Problem("", await session.run(greeted.taken))
        except WireError as problem:
            end = _broken_off(problem)
            self._book.blame(link.name, problem)
            await self._greeter.tell(stream, problem)
        finally:
            link.pair.end(greeted.number)
            if link.session is session:
                self._detach(link, end)


def _broken_off(problem: WireError) -> Problem:
    """Why a session ended in which a rule was broken, by the peer or, as the peer says, by this node."""
    if problem.reason == BY_PEER:
        return Problem(BY_PEER, f"refused us: {problem}")
    return Problem(problem.reason, f"broke the rules ({problem.reason}): {problem}")


def _share_in(hello: pb.Hello) -> int:
    """The sender's share in the mean, in thousandths of an ordinary one."""
    return hello.share or SHARE_ONE


def hello_message(own: Identity, to: str, agreement: Agreement, ended: StreamNumber, share: int = SHARE_ONE) -> bytes:
    """This node's Hello to the peer ``to``. ``ended`` is the newest stream with it, if that has ended."""
    said = pb.Hello(
        protocol=PROTOCOL_VERSION,
        name=own.name,
        to=to,
        boot=own.boot,
        activation=own.position(),
        agreement=dict(agreement.fields),
        ended=pb.Ended(boot=ended.boot, number=ended.number),
        share=0 if share == SHARE_ONE else share,
    )
    return pb.Frame(hello=said).SerializeToString()


def _decode(message: bytes) -> pb.Frame:
    frame = framing.decode(message)
    if isinstance(frame, framing.Chunk):
        raise WireError("unexpected", "a chunk within the greeting")
    return frame


MESSAGES = Messages(pb.Frame, "hello", _decode)
