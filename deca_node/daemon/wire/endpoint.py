"""The server that every peer calls, and connections to other nodes.

All services of a node share one address; each registers its methods before the server starts. A service that needs a
peer asks for a channel, or for a stream of raw messages over a connection of its own. Encryption and the check of the
other end's name happen here and nowhere else. Without credentials everything is plaintext, and names are not verified.
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

# A message that is a little too large reaches this node, which refuses it with a sentence. gRPC ends the stream of a
# message that is much too large before it takes any memory.
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
"""A peer opens few streams, and keeps them. A caller that opens many on one connection is no peer."""
CALLS_PER_MEMBER = 16
"""Calls that may be open at one time with one certificate. A peer that keeps the rules has a handful."""
CALLS_MAX = 4096
"""Calls that may be open at one time, of all callers together."""
HANDSHAKE_SECONDS = 10.0
"""A connection is closed if its handshake takes longer."""
CONNECTIONS_MAX = 6144
"""Incoming connections at one time. The limit is half of the files that the process may open, where that is less. gRPC
turns newcomers away at the limit, health checks too, and cannot close an idle connection for them. So the limit is far
above what a run needs: strangers must hold that many to be in the way, each for ``HANDSHAKE_SECONDS`` at most."""
IDLE_SECONDS = 60.0
"""A connection that has had no call for this long is closed."""
# Streams must not share a connection: small messages would queue behind large ones. And a new channel must dial at
# once; it must not wait out the backoff of a channel that failed before.
# Variables of the environment must not send a peer's traffic through a proxy. The first option leaves
# GRPC_ADDRESS_HTTP_PROXY in force; by the second one it is for no address. (gRPC takes an empty grpc.address_http_proxy
# for a malformed address, and says so on standard error for every connection.)
DIRECT = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.address_http_proxy_enabled_addresses", ""),
]
LOOKUP_MILLISECONDS = 5_000
"""A peer's name is looked up for this long per attempt. gRPC's own limit is two minutes."""
CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    *OPTIONS,
    *DIRECT,
    ("grpc.dns_ares_query_timeout", LOOKUP_MILLISECONDS),
    ("grpc.use_local_subchannel_pool", 1),
]
# Without the first option two nodes could share one port unnoticed.
SERVER_OPTIONS = [
    *OPTIONS,
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", STREAMS_PER_CONNECTION),
    ("grpc.server_handshake_timeout_ms", int(HANDSHAKE_SECONDS * 1000)),
    ("grpc.max_connection_idle_ms", int(IDLE_SECONDS * 1000)),
]

# The stubs have type parameters; the classes have none at run time.
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
        """Send one message; returns once gRPC has room for more. Raises StreamBrokenError."""

    async def end(self) -> None:
        """Say that nothing more is written. A caller waits until the other end has ended the stream, since gRPC drops
        what that end has not read yet when a caller ends it. Raises StreamBrokenError."""

    def verify(self, name: str) -> None:
        """Check that the other end may use this name. Raises WireError, for example "identity"."""


Answer = Callable[[Stream], Awaitable[None]]
Verify = Callable[[Context | None, str], None]


@dataclass(frozen=True)
class Credentials:
    """What TLS needs at both ends.

    ``channel`` is called for every connection, so that certificates can be renewed while the node runs.
    ``target_name`` gives the DNS name that a peer's certificate must hold; TLS checks it whatever address is dialled.
    An empty name stands for a peer of which only the address is known.
    """

    server: grpc.ServerCredentials
    channel: Callable[[], grpc.ChannelCredentials]
    target_name: Callable[[str], str]


def _unverified(context: Context | None, name: str) -> None:
    """Without certificates every name is accepted."""


class Endpoint:
    """The server at ``address`` and the channels to others.

    ``verify(context, name)`` is called for every Hello, at both ends, and raises WireError("identity") where the
    other end may not use this name. ``context`` is None for a peer that was dialled: TLS has checked its name.
    ``refused(reason)`` counts calls that are refused before any message of theirs is read.
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
        self._verify = verify or _unverified
        self._refused = refused
        self._calls: Counter[bytes] = Counter()
        self._handlers: list[Handler] = []
        self._server: grpc.aio.Server | None = None

    # --- the server ---------------------------------------------------------------------------------

    def add(self, *handlers: Handler) -> None:
        """Offer services. To be called before the server starts."""
        assert self._server is None, "services are added before the server starts"
        self._handlers.extend(handlers)

    def add_streams(self, service: str, methods: Mapping[str, Answer], calls_max: int = 0) -> None:
        """Offer bidirectional methods whose messages are bytes. A call ends when its answer returns. With
        ``calls_max``, so many calls of one certificate may be open in this service, and they do not count elsewhere."""
        calls, calls_max = (Counter(), calls_max) if calls_max else (self._calls, CALLS_PER_MEMBER)
        handlers = {method: self._stream_handler(answer, calls, calls_max) for method, answer in methods.items()}
        self.add(grpc.method_handlers_generic_handler(service, handlers))

    def _stream_handler(
        self, answer: Answer, calls: Counter[bytes], calls_max: int
    ) -> "grpc.RpcMethodHandler[bytes, bytes]":
        async def call(_: Any, context: Context) -> None:
            bearer = _bearer(context)
            if calls[bearer] >= calls_max and bearer:
                self._refused("busy")
                many = f"busy: {calls_max} calls of this member are open already"
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, many)
            calls[bearer] += 1
            try:
                await answer(_Answered(context, self._verify))
            finally:
                calls[bearer] -= 1
                if not calls[bearer]:
                    del calls[bearer]

        handler: Any = call
        return grpc.stream_stream_rpc_method_handler(handler)

    async def start(self) -> None:
        """Begin to answer callers. Raises AddressError where the address cannot be taken."""
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
        # Port 0 asks for any free port.
        self._server, self.address = server, Address(self.address.host, port)

    async def stop(self, grace: float = 0.5) -> None:
        """Stop the server; open calls have ``grace`` seconds to end."""
        if self._server:
            await self._server.stop(grace)

    @property
    def secure(self) -> bool:
        """Whether TLS verifies the other end."""
        return self._credentials is not None

    # --- connections --------------------------------------------------------------------------------

    def channel(self, name: str, address: object, *more: tuple[str, Any]) -> grpc.aio.Channel:
        """A new connection to the peer ``name``; the caller closes it. ``address`` is HOST:PORT or an Address, ``more``
        are further channel options."""
        options = [*CHANNEL_OPTIONS, *more]
        if self._credentials is None:
            return grpc.aio.insecure_channel(str(address), options=options)
        options.append(("grpc.ssl_target_name_override", self._credentials.target_name(name)))
        return grpc.aio.secure_channel(str(address), self._credentials.channel(), options=options)

    @asynccontextmanager
    async def dial(self, name: str, address: object, method: str) -> AsyncIterator[Stream]:
        """A stream to a peer, over a connection of its own. Dialling begins with the first message. Without an answer,
        reading and writing raise StreamBrokenError."""
        async with self.channel(name, address) as channel:
            yield _Dialled(channel, method, self._verify)


class _Dialled:
    """The caller's end of a stream."""

    def __init__(self, channel: grpc.aio.Channel, method: str, verify: Verify) -> None:
        # Without serializers messages are bytes. The stubs require serializers.
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

    async def end(self) -> None:
        try:
            await self._call.done_writing()
            await self._call.code()
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

    async def end(self) -> None:
        # The caller reads everything before it learns that the answer has ended.
        pass


def connections_max() -> int:
    """How many incoming connections are accepted at one time, so that the process can still open files."""
    return min(CONNECTIONS_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)


def _bearer(context: Context) -> bytes:
    """The certificate of a call's caller; empty in plaintext, where callers cannot be told apart."""
    certificate: Iterable[bytes] = (context.auth_context() or {}).get("x509_pem_cert", ())
    return next(iter(certificate), b"")


def surface(task: "asyncio.Task[None]") -> None:
    """A callback for tasks whose result is never read: it reports the exception of a task that has failed."""
    if not task.cancelled() and (problem := task.exception()):
        context = {"message": "a task of the network failed", "exception": problem, "task": task}
        asyncio.get_running_loop().call_exception_handler(context)
