"""A node's one door: the server that every peer calls, and the making of connections to others.

Several services stand behind one address. Whoever offers one registers it before the server starts; whoever
needs a peer asks for a channel, or for a stream of raw messages over a connection of its own. Whether all
that is encrypted, and who the other end is, is settled here and nowhere else: without credentials everything
is plaintext and a name is what a peer says it is.
"""

import asyncio
import resource
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import grpc.aio

from deca_node.daemon.settings.address import Address
from deca_node.daemon.wire.broken import BROKEN, END, StreamBrokenError, in_a_line, short
from deca_node.daemon.wire.framing import MESSAGE_BYTES_MAX
from deca_node.protocol.errors import AddressError

# What is a little too large is for us to refuse, in words; what is much too large gRPC ends before it is taken.
OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", 2 * MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
]
STREAMS_PER_CONNECTION = 32
"""Streams last as long as peers do, so whoever opens many on one connection is no peer."""
CALLS_PER_MEMBER = 16
"""At one time, by the certificate of the caller; a peer that keeps the rules has a handful."""
CALLS_MAX = 4096
"""At one time, of all callers together."""
HANDSHAKE_SECONDS = 10.0
"""Whoever has connected and not finished its handshake after so long is let go."""
CONNECTIONS_MAX = 1024
"""That may come in at one time; half of the files that the process may open, where that is less."""
IDLE_SECONDS = 60.0
"""And whoever has for so long no call on its connection."""
# Streams must not share a connection: what is small would queue behind what is large. And a channel that is
# made anew must dial anew, not wait out the backoff of one that failed before.
CHANNEL_OPTIONS = [*OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
# Without the first two nodes could share one port, and neither would notice.
SERVER_OPTIONS = [
    *OPTIONS,
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", STREAMS_PER_CONNECTION),
    ("grpc.server_handshake_timeout_ms", int(HANDSHAKE_SECONDS * 1000)),
    ("grpc.max_connection_idle_ms", int(IDLE_SECONDS * 1000)),
]

# The stubs know type parameters that the classes do not have at run time.
if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[bytes, bytes]
    Handler = grpc.GenericRpcHandler[Any, Any]
else:
    Context, Handler = grpc.aio.ServicerContext, grpc.GenericRpcHandler


class Stream(Protocol):
    """Either end of a gRPC stream of raw messages."""

    async def read(self) -> bytes | None:
        """The next message, or None at the stream's end. Raises StreamBrokenError."""

    async def write(self, message: bytes) -> None:
        """Send one message; returns once the transport has room for more. Raises StreamBrokenError."""

    def verify(self, name: str) -> None:
        """Is the other end who it says it is? Raises WireError("identity")."""


Answer = Callable[[Stream], Awaitable[None]]
Verify = Callable[[Context | None, str], None]


@dataclass(frozen=True)
class Credentials:
    """What TLS needs at both ends.

    ``channel`` is asked anew for every connection, so that certificates can be renewed while the node runs.
    ``target_name`` gives what a peer's certificate must be made out to; whatever address is dialled, TLS checks that.
    An empty name stands for a peer that is known by its address only.
    """

    server: grpc.ServerCredentials
    channel: Callable[[], grpc.ChannelCredentials]
    target_name: Callable[[str], str]


def _anybody(context: Context | None, name: str) -> None:
    """Without certificates everybody is who they say."""


class Endpoint:
    """The server at ``address`` and the channels to others.

    ``verify(context, name)`` is called for every Hello, at both ends, and raises WireError("identity") where the
    other end may not go by this name; ``context`` is None for a peer that was dialled, whose name TLS has checked.
    ``refused(reason)`` counts calls that were turned away before anybody read them.
    """

    def __init__(
        self,
        address: Address,
        credentials: Credentials | None = None,
        verify: Verify | None = None,
        refused: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        self.address = address
        self._credentials = credentials
        self._verify = verify or _anybody
        self._refused = refused
        self._calls: Counter[bytes] = Counter()
        self._handlers: list[Handler] = []
        self._server: grpc.aio.Server | None = None

    # --- the server ---------------------------------------------------------------------------------

    def add(self, *handlers: Handler) -> None:
        """Offer a service. Before the server starts only."""
        assert self._server is None, "services are added before the server starts"
        self._handlers.extend(handlers)

    def add_streams(self, service: str, methods: Mapping[str, Answer]) -> None:
        """Offer bidirectional methods without serializers: messages are bytes. A call lasts as long as its answer."""
        handlers = {method: self._stream_handler(answer) for method, answer in methods.items()}
        self.add(grpc.method_handlers_generic_handler(service, handlers))

    def _stream_handler(self, answer: Answer) -> "grpc.RpcMethodHandler[bytes, bytes]":
        async def call(_: Any, context: Context) -> None:
            bearer = _bearer(context)
            if self._calls[bearer] >= CALLS_PER_MEMBER and bearer:
                self._refused("busy")
                many = f"busy: {CALLS_PER_MEMBER} calls of this member are open already"
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, many)
            self._calls[bearer] += 1
            try:
                await answer(_Answered(context, self._verify))
            finally:
                self._calls[bearer] -= 1
                if not self._calls[bearer]:
                    del self._calls[bearer]

        handler: Any = call
        return grpc.stream_stream_rpc_method_handler(handler)

    async def start(self) -> None:
        """Answer callers from now on. Raises AddressError where the address cannot be taken."""
        connections = ("grpc.max_allowed_incoming_connections", connections_max())
        server = grpc.aio.server(options=[*SERVER_OPTIONS, connections], maximum_concurrent_rpcs=CALLS_MAX)
        server.add_generic_rpc_handlers(tuple(self._handlers))
        try:
            if self._credentials:
                port = server.add_secure_port(str(self.address), self._credentials.server)
            else:
                port = server.add_insecure_port(str(self.address))
        except RuntimeError:
            raise AddressError(
                f"cannot listen on {self.address}: the port is taken, or the address is not this machine's; "
                "stop what listens there, or choose another with --listen"
            ) from None
        await server.start()
        # Port 0 asks for any that is free.
        self._server, self.address = server, Address(self.address.host, port)

    async def stop(self, grace: float = 0.5) -> None:
        """End the server; calls that still run are given ``grace`` seconds."""
        if self._server:
            await self._server.stop(grace)

    @property
    def secure(self) -> bool:
        """Whether TLS says who the other end is."""
        return self._credentials is not None

    # --- connections --------------------------------------------------------------------------------

    def channel(self, name: str, address: object, *more: tuple[str, Any]) -> grpc.aio.Channel:
        """A new connection to the peer ``name``, which must be closed after use. ``address`` is HOST:PORT, or an
        Address; ``more`` are further channel options."""
        options = [*CHANNEL_OPTIONS, *more]
        if self._credentials is None:
            return grpc.aio.insecure_channel(str(address), options=options)
        options.append(("grpc.ssl_target_name_override", self._credentials.target_name(name)))
        return grpc.aio.secure_channel(str(address), self._credentials.channel(), options=options)

    @asynccontextmanager
    async def dial(self, name: str, address: object, method: str) -> AsyncIterator[Stream]:
        """A stream to a peer over a connection of its own. Dialling begins with the first message; where nobody
        answers, writing and reading raise StreamBrokenError."""
        async with self.channel(name, address) as channel:
            yield _Dialled(channel, method, self._verify)


class _Dialled:
    """The caller's end of a stream."""

    def __init__(self, channel: grpc.aio.Channel, method: str, verify: Verify) -> None:
        # Without serializers messages are bytes; the stubs insist on them.
        open_stream: Any = channel.stream_stream
        self._call: Any = open_stream(method)()
        self._verify = verify

    def verify(self, name: str) -> None:
        self._verify(None, name)

    async def read(self) -> bytes | None:
        try:
            message = await self._call.read()
        except BROKEN as problem:
            raise StreamBrokenError(in_a_line(problem)) from None
        if message is not END:
            return bytes(message)
        if not self._call.done() or await self._call.code() is grpc.StatusCode.OK:
            return None
        raise StreamBrokenError(short(await self._call.details()) or f"the call ended with {await self._call.code()}")

    async def write(self, message: bytes) -> None:
        try:
            await self._call.write(message)
        except BROKEN as problem:
            raise StreamBrokenError(in_a_line(problem)) from None


class _Answered:
    """The answering end of a stream."""

    def __init__(self, context: Context, verify: Verify) -> None:
        self._context = context
        self._verify = verify

    def verify(self, name: str) -> None:
        self._verify(self._context, name)

    async def read(self) -> bytes | None:
        try:
            message: Any = await self._context.read()
        except BROKEN as problem:
            raise StreamBrokenError(in_a_line(problem)) from None
        return None if message is END else message

    async def write(self, message: bytes) -> None:
        try:
            await self._context.write(message)
        except BROKEN as problem:
            raise StreamBrokenError(in_a_line(problem)) from None


def connections_max() -> int:
    """How many connections may come in at one time: not so many that no file could be opened any more."""
    return min(CONNECTIONS_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)


def _bearer(context: Context) -> bytes:
    """Whose certificate a call comes with; empty in plaintext, where nobody can be told from another."""
    certificate: Iterable[bytes] = (context.auth_context() or {}).get("x509_pem_cert", ())
    return next(iter(certificate), b"")


def surface(task: "asyncio.Task[None]") -> None:
    """For tasks that nobody waits for: if one ends by a bug, let it be seen."""
    if not task.cancelled() and (problem := task.exception()):
        context = {"message": "a task of the network failed", "exception": problem, "task": task}
        asyncio.get_running_loop().call_exception_handler(context)
