"""Streams to the peers: one per peer, whoever dials, kept up for ever.

Each node dials every peer and answers every caller; of two streams that would cross, the one dialled by the
smaller name stays. Both ends say Hello first, and a stream is a session only once both agree on the run. A
refusal names what differs; unreachable peers are dialled again and again, with jittered backoff.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from deca_node.daemon import wire
from deca_node.daemon.arena import FrameStore
from deca_node.daemon.peers import Address
from deca_node.daemon.session import FrameRules, Session, describe, run_session
from deca_node.daemon.throttle import Throttle
from deca_node.daemon.wire_pb import exchange_pb2 as pb
from deca_node.protocol import events as e
from deca_node.protocol.errors import AddressError, WireError
from deca_node.protocol.frames import FrameId
from deca_node.protocol.run import Agreement, mismatch

PROTOCOL_VERSION = 1
SERVICE = "deca.v1.Exchange"
METHOD = f"/{SERVICE}/Stream"

GREETING_SECONDS = 10.0
BACKOFF_SECONDS_MIN = 0.2
BACKOFF_SECONDS_MAX = 5.0
FLUSH_SECONDS = 5.0

CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", wire.MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", wire.MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
]
# Without this two nodes could share one port, and neither would notice.
SERVER_OPTIONS = [*CHANNEL_OPTIONS, ("grpc.so_reuseport", 0)]


@dataclass
class Identity:
    """Who this node says it is in every Hello."""

    name: str
    boot: int
    position: Callable[[], int]


@dataclass
class _Link:
    """What is known of one peer: its session if there is one, its traffic, and why it was last refused."""

    address: Address
    session: Session | None = None
    greeting: bool = False
    traffic: Counter[str] = field(default_factory=Counter)
    problem: str = "not dialled yet"


class Transport:
    """The network's side of the daemon. ``tell`` takes events; nothing here decides about the run."""

    def __init__(
        self,
        identity: Identity,
        peers: dict[str, Address],
        tell: Callable[[e.NetworkEvent], None],
        max_upload_mbit: float = 0.0,
    ) -> None:
        self._identity = identity
        self._throttle = Throttle(max_upload_mbit * 1e6 / 8)
        self._tell = tell
        self._links = {name: _Link(address) for name, address in peers.items()}
        self._server: grpc.aio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = asyncio.Event()
        self._agreement = Agreement({})
        self._closing = False
        self._store: FrameStore | None = None
        self._rules: FrameRules | None = None
        self.refusals: Counter[str] = Counter()

    # --- life ---------------------------------------------------------------------------------------

    async def listen(self, address: Address) -> None:
        """Answer callers at ``address``. Raises AddressError where it cannot be taken."""
        server = grpc.aio.server(options=SERVER_OPTIONS)
        handler = grpc.stream_stream_rpc_method_handler(self._answer)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Stream": handler}),))
        try:
            server.add_insecure_port(str(address))
        except RuntimeError:
            raise AddressError(
                f"cannot listen on {address}: the port is taken, or the address is not this machine's; "
                "stop what listens there, or choose another with --listen"
            ) from None
        await server.start()
        self._server = server

    def meet(self, agreement: Agreement, store: FrameStore, rules: FrameRules) -> None:
        """Begin to dial and to greet: the run is known now."""
        self._agreement, self._store, self._rules = agreement, store, rules
        self._ready.set()
        for peer in self._links:
            task = asyncio.ensure_future(self._dial_for_ever(peer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Send what is queued, then end every stream; the losses that this causes are nobody's news."""
        self._closing = True
        flushes = [link.session.flush() for link in self._links.values() if link.session]
        if flushes:
            await asyncio.wait([asyncio.ensure_future(f) for f in flushes], timeout=FLUSH_SECONDS)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server:
            await self._server.stop(grace=0.5)

    # --- what the core asks for ---------------------------------------------------------------------

    def send(self, peer: str, message: pb.Frame) -> None:
        """Queue a message for a peer; without a session it is dropped, as the core will hear of the loss."""
        session = self._links[peer].session
        if session:
            session.send(message)

    def send_frame(self, peer: str, frame: FrameId) -> None:
        """Queue a frame for a peer."""
        session = self._links[peer].session
        if session and self._store is not None and frame in self._store:
            session.send_frame(frame)

    def forget(self, peer: str, activation: int, applied: int) -> None:
        """The edge to a peer is closed: what is queued for it past its last flow need not be sent any more."""
        session = self._links[peer].session
        if session:
            session.forget(activation, applied)

    def traffic(self) -> dict[str, Counter[str]]:
        """Bytes by peer and kind: ``sent.update``, ``received.keyframe``, ``sent.control``, ..."""
        return {peer: link.traffic for peer, link in self._links.items()}

    def problems(self) -> dict[str, str]:
        """Why there is no session, by peer."""
        return {peer: link.problem for peer, link in self._links.items() if link.session is None}

    # --- greeting -----------------------------------------------------------------------------------

    async def _dial_for_ever(self, peer: str) -> None:
        rng = random.Random(f"{self._identity.boot}:{peer}")
        pause = BACKOFF_SECONDS_MIN
        while True:
            if self._links[peer].session is None and await self._dial(peer):
                pause = BACKOFF_SECONDS_MIN
            await asyncio.sleep(pause * (0.5 + rng.random()))
            pause = min(pause * 1.6, BACKOFF_SECONDS_MAX)

    async def _dial(self, peer: str) -> bool:
        """One attempt, and the whole session if it succeeds; whether it did."""
        link = self._links[peer]
        async with grpc.aio.insecure_channel(str(link.address), options=CHANNEL_OPTIONS) as channel:
            stream = _Dialled(channel)
            try:
                await asyncio.wait_for(channel.channel_ready(), GREETING_SECONDS)
                if link.session is not None:
                    return False
                link.greeting = True
                async with asyncio.timeout(GREETING_SECONDS):
                    hello = await self._greet(stream, peer)
            except (TimeoutError, OSError, grpc.aio.AioRpcError, WireError) as problem:
                link.problem = (
                    f"{link.address} does not answer yet" if isinstance(problem, TimeoutError) else describe(problem)
                )
                return False
            finally:
                link.greeting = False
            if hello is None or link.session is not None:
                return False
            await self._hold(peer, hello, stream)
            return True

    async def _greet(self, stream: "_Dialled", peer: str) -> pb.Hello | None:
        await stream.write(self._hello(peer))
        answer = wire.decode(await stream.read() or b"")
        if isinstance(answer, wire.Chunk):
            raise WireError("unexpected", "a chunk before the greeting")
        if answer.WhichOneof("body") == "refusal":
            self._heard_refusal(peer, answer.refusal)
            return None
        return self._checked(answer, peer)

    def _checked(self, frame: pb.Frame, peer: str | None) -> pb.Hello:
        """The Hello of a caller, or of ``peer`` who was called. Raises WireError where it is not welcome."""
        if frame.WhichOneof("body") != "hello":
            raise WireError("unexpected", "the first message was no Hello")
        hello = frame.hello
        if hello.protocol != PROTOCOL_VERSION:
            raise WireError("version", f"protocol {hello.protocol}, this node speaks {PROTOCOL_VERSION}")
        if hello.to != self._identity.name:
            raise WireError("address", f"meant for {hello.to!r}, but this is {self._identity.name!r}")
        if hello.name not in self._links or peer not in (None, hello.name):
            raise WireError("stranger", f"{hello.name!r} is not in the peers file of {self._identity.name}")
        differs = mismatch(self._agreement, Agreement(dict(hello.agreement)), self._identity.name, hello.name)
        if differs:
            self._tell(e.PeerRefused(hello.name, differs))
            raise WireError("mismatch", differs)
        return hello

    def _heard_refusal(self, peer: str, refusal: pb.Refusal) -> None:
        if refusal.reason == "duplicate":
            return
        self._links[peer].problem = f"refused us: {refusal.sentence[:1000]}"
        if refusal.reason == "mismatch":
            self._tell(e.PeerRefused(peer, refusal.sentence[:1000]))

    async def _answer(self, _: Any, context: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
        """A caller's stream, from its Hello to its end."""
        stream = _Answered(context)
        try:
            async with asyncio.timeout(GREETING_SECONDS):
                first = await stream.read()
            await self._ready.wait()
            frame = wire.decode(first or b"")
            if isinstance(frame, wire.Chunk):
                raise WireError("unexpected", "a chunk before the greeting")
            hello = self._checked(frame, None)
            self._welcome(hello)
            await stream.write(self._hello(hello.name))
            await self._hold(hello.name, hello, stream)
        except TimeoutError:
            return
        except WireError as problem:
            await self._refuse(stream, problem)

    async def _refuse(self, stream: "_Dialled | _Answered", problem: WireError) -> None:
        """Count a broken rule, and tell the peer which, if it still listens."""
        self.refusals[problem.reason] += 1
        refusal = pb.Frame(refusal=pb.Refusal(reason=problem.reason, sentence=str(problem)))
        with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
            await stream.write(refusal.SerializeToString())

    def _welcome(self, hello: pb.Hello) -> None:
        """Refuse a second stream to the same peer; a peer that was restarted replaces its old one."""
        link = self._links[hello.name]
        crossing = link.greeting and self._identity.name < hello.name
        if crossing or (link.session is not None and link.session.boot == hello.boot):
            raise WireError("duplicate", f"{self._identity.name} has a stream with {hello.name} already")

    def _hello(self, to: str) -> bytes:
        hello = pb.Hello(
            protocol=PROTOCOL_VERSION,
            name=self._identity.name,
            to=to,
            boot=self._identity.boot,
            activation=self._identity.position(),
            agreement=dict(self._agreement.fields),
        )
        return pb.Frame(hello=hello).SerializeToString()

    # --- a session's life ---------------------------------------------------------------------------

    async def _hold(self, peer: str, hello: pb.Hello, stream: "_Dialled | _Answered") -> None:
        assert self._store is not None and self._rules is not None
        link = self._links[peer]
        session = Session(peer, hello.boot, stream, self._store, self._rules, self._tell, link.traffic, self._throttle)
        if link.session is not None:
            self._tell(e.PeerDown(peer, "it was started again"))
        link.session = session
        self._tell(e.PeerUp(peer, hello.activation))
        why = "this node ended the stream"
        try:
            why = await run_session(session)
        except WireError as problem:
            why = f"broke the rules ({problem.reason}): {problem}"
            if problem.reason != "refused":
                await self._refuse(stream, problem)
        finally:
            if link.session is session:
                link.session = None
                link.problem = why
                if not self._closing:
                    self._tell(e.PeerDown(peer, why))


# What a read gives at a stream's end; the published type stubs do not know it.
_END: Any = getattr(grpc.aio, "EOF")  # noqa: B009


class _Dialled:
    """The caller's end of a stream."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        # Without serializers messages are bytes; the stubs insist on them.
        self._open: Any = channel.stream_stream
        self._call: Any = None

    async def read(self) -> bytes | None:
        message = await self._call.read()
        return None if message is _END else message

    async def write(self, message: bytes) -> None:
        if self._call is None:
            self._call = self._open(METHOD)()
        await self._call.write(message)


class _Answered:
    """The answering end of a stream."""

    def __init__(self, context: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
        self._context = context

    async def read(self) -> bytes | None:
        message: Any = await self._context.read()
        return None if message is _END else message

    async def write(self, message: bytes) -> None:
        await self._context.write(message)
