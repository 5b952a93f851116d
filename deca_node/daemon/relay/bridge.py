"""Passes the bytes of a TCP connection on this machine through a relayed stream, and back.

gRPC connects to addresses only. So each end of a relayed connection holds a TCP connection to its own node: the
caller's channel connects to a port of loopback that this module opens for it, and at the other end this module connects
to the node's own server. Everything above TCP is the same as without a relay: TLS, the check of names, the greeting.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from deca_node.daemon.relay import messages
from deca_node.daemon.settings.address import Address
from deca_node.daemon.wire.broken import StreamBrokenError
from deca_node.daemon.wire.endpoint import Stream
from deca_node.protocol.errors import WireError

LOOPBACK = "127.0.0.1"
GRACE_SECONDS = 2.0
"""How long one direction may go on after the other one has ended."""

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def bridge(stream: Stream, connection: Connection, count: Callable[[int], None]) -> None:
    """Pass bytes both ways until both directions have ended, or the stream has broken. The connection is closed then.
    ``count`` is told the number of bytes of each piece. Raises WireError where the other end breaks the rules."""
    reader, writer = connection
    out = asyncio.ensure_future(_send_all(reader, stream, count))
    into = asyncio.ensure_future(_receive_all(stream, writer, count))
    try:
        done, rest = await asyncio.wait({out, into}, return_when=asyncio.FIRST_COMPLETED)
        if rest and not any(task.exception() for task in done):
            await asyncio.wait(rest, timeout=GRACE_SECONDS)
    finally:
        for task in (out, into):
            task.cancel()
        ends = await asyncio.gather(out, into, return_exceptions=True)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    for problem in ends:
        if isinstance(problem, WireError):
            raise problem


async def _send_all(reader: asyncio.StreamReader, stream: Stream, count: Callable[[int], None]) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(messages.DATA_BYTES_MAX):
            await stream.write(messages.data(piece))
            count(len(piece))
    # The end is said, and not only shown by the stream's own end: gRPC drops what is on its way in a stream that ends.
    await stream.write(messages.END)


async def _receive_all(stream: Stream, writer: asyncio.StreamWriter, count: Callable[[int], None]) -> None:
    while True:
        frame = messages.read(await stream.read(), "data", "end")
        if frame.WhichOneof("body") == "end":
            writer.write_eof()
            return
        writer.write(frame.data)
        count(len(frame.data))
        await writer.drain()


@asynccontextmanager
async def own_port(stream: Stream, count: Callable[[int], None]) -> AsyncIterator[Address]:
    """A port of loopback at which one connection, and no more, is taken and passed through the stream. At the end of
    the context, what was written there before is still passed on, within limits."""
    taken: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()

    def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if taken.done():
            writer.transport.abort()
        else:
            taken.set_result((reader, writer))

    server = await asyncio.start_server(take, LOOPBACK, 0, limit=messages.DATA_BYTES_MAX)
    work = asyncio.ensure_future(_bridged(stream, taken, server.close, count))
    try:
        yield Address(LOOPBACK, server.sockets[0].getsockname()[1])
    finally:
        server.close()
        if taken.done():
            await asyncio.wait({work}, timeout=GRACE_SECONDS)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def _bridged(
    stream: Stream, taken: Awaitable[Connection], close: Callable[[], None], count: Callable[[int], None]
) -> None:
    connection = await taken
    close()
    # Where the stream has broken, the connection is closed, and its user notices.
    with contextlib.suppress(StreamBrokenError, WireError):
        await bridge(stream, connection, count)


async def connect(address: Address) -> Connection:
    """A connection to this node's own server. Raises OSError."""
    return await asyncio.open_connection(address.host, address.port, limit=messages.DATA_BYTES_MAX)
