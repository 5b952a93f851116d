"""The real server on loopback: messages, streams that break, and an address that is taken."""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import deca_node
from deca_node.daemon.settings.address import Address
from deca_node.daemon.settings.environment import PROXIES
from deca_node.daemon.wire.broken import StreamBrokenError
from deca_node.daemon.wire.endpoint import Endpoint, Stream
from deca_node.daemon.wire.framing import MESSAGE_BYTES_MAX
from deca_node.protocol.errors import AddressError
from tests.patience import PATIENCE_SECONDS

ANY = Address("127.0.0.1", 0)
METHOD = "/test.Echo/Stream"


def run(work: Awaitable[None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await work

    asyncio.run(limited())


async def echo(stream: Stream) -> None:
    while (message := await stream.read()) is not None:
        await stream.write(message)


async def serve(answer: Callable[[Stream], Awaitable[None]], **more: Any) -> Endpoint:
    endpoint = Endpoint(ANY, **more)
    endpoint.add_streams("test.Echo", {"Stream": answer})
    await endpoint.start()
    return endpoint


def test_messages_are_bytes_both_ways() -> None:
    async def talk() -> None:
        server = await serve(echo)
        assert server.address.port
        async with Endpoint(ANY).dial("peer", server.address, METHOD) as stream:
            for message in (b"hello", bytes(MESSAGE_BYTES_MAX), b""):
                await stream.write(message)
                assert await stream.read() == message
        await server.stop()

    run(talk())


def test_a_broken_stream_is_an_error_with_a_sentence() -> None:
    async def once(stream: Stream) -> None:
        await stream.write(await stream.read() or b"")

    async def talk() -> None:
        server = await serve(once)
        caller = Endpoint(ANY)
        async with caller.dial("peer", server.address, METHOD) as stream:
            await stream.write(b"only one")
            assert [await stream.read(), await stream.read()] == [b"only one", None]
            with pytest.raises(StreamBrokenError):
                await stream.write(b"more")
        async with caller.dial("peer", server.address, METHOD) as stream:
            await stream.write(bytes(MESSAGE_BYTES_MAX - 1))
            await stream.read()
        async with caller.dial("peer", server.address, "/test.Echo/Other") as stream:
            with pytest.raises(StreamBrokenError, match="not found"):
                await stream.read()
        await server.stop()
        async with caller.dial("peer", server.address, METHOD) as stream:
            with pytest.raises(StreamBrokenError, match="onnect"):
                await stream.read()

    run(talk())


def test_a_message_beyond_the_limit_breaks_the_stream() -> None:
    async def talk() -> None:
        async def shout(stream: Stream) -> None:
            await stream.write(bytes(MESSAGE_BYTES_MAX + 1))

        server = await serve(shout)
        async with Endpoint(ANY).dial("peer", server.address, METHOD) as stream:
            with pytest.raises(StreamBrokenError):
                await stream.read()
        await server.stop()

    run(talk())


def test_an_address_that_is_taken_is_an_error_that_says_so() -> None:
    async def take() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = Address("127.0.0.1", taken.getsockname()[1])
            with pytest.raises(AddressError, match="cannot listen"):
                await Endpoint(address).start()

    run(take())


@pytest.mark.parametrize("variable", PROXIES)
def test_no_variable_sends_a_peers_traffic_through_a_proxy(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy here listens, and answers nothing: a stream through it would never open."""

    async def talk() -> None:
        calls: list[bytes] = []

        async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            calls.append(await reader.readline())
            writer.close()

        listener = await asyncio.start_server(proxy, "127.0.0.1", 0)
        host, port = listener.sockets[0].getsockname()
        monkeypatch.setenv(variable, f"http://{host}:{port}")
        if variable.startswith("GRPC_ADDRESS"):
            monkeypatch.setenv("GRPC_ADDRESS_HTTP_PROXY", f"{host}:{port}")
            monkeypatch.setenv("GRPC_ADDRESS_HTTP_PROXY_ENABLED_ADDRESSES", "127.0.0.1,0.0.0.0/0")
        server = await serve(echo)
        async with Endpoint(ANY).dial("peer", server.address, METHOD) as stream:
            await stream.write(b"hello")
            assert await stream.read() == b"hello"
        assert calls == []
        await server.stop()
        listener.close()

    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    run(talk())


def test_a_connection_says_nothing_on_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    """gRPC writes there by itself, for every connection, what it takes for a malformed option."""

    async def talk() -> None:
        server = await serve(echo)
        async with Endpoint(ANY).dial("peer", server.address, METHOD) as stream:
            await stream.write(b"hello")
            assert await stream.read() == b"hello"
        await server.stop()

    run(talk())
    assert capfd.readouterr().err == ""


def test_every_channel_is_made_in_one_place() -> None:
    """Its options keep proxies out; a channel made elsewhere would not have them."""
    package = Path(deca_node.__file__).parent
    makes = re.compile(r"\b(in)?secure_channel\(")
    found = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if makes.search(path.read_text())}
    assert found == {"daemon/wire/endpoint.py"}
