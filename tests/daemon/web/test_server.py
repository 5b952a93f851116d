"""A node's answers over HTTP: probes, metrics and status, all read-only."""

import asyncio
import dataclasses
import socket
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
import uvloop
from aiohttp import web

from deca_node.daemon.settings.address import Address
from deca_node.daemon.status.facts import Verb
from deca_node.daemon.web import server as http
from deca_node.daemon.web.server import CONNECTIONS_MAX, Server, application
from deca_node.protocol.errors import AddressError
from tests.daemon.web.fake_admin import FakeAdmin
from tests.patience import PATIENCE_SECONDS

Talk = Callable[[aiohttp.ClientSession], Awaitable[None]]
LOOPBACK = Address("127.0.0.1", 0)


def talk(door: FakeAdmin, what: Talk) -> None:
    async def life() -> None:
        server = Server(application(door))
        bound = await server.listen_tcp(LOOPBACK)
        try:
            async with aiohttp.ClientSession(f"http://{bound}") as session:
                await what(session)
        finally:
            await server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(life())


async def answer(session: aiohttp.ClientSession, path: str) -> tuple[int, str]:
    async with session.get(path) as response:
        return response.status, await response.text()


def test_probes_follow_the_node() -> None:
    door = FakeAdmin(started=False, ready=False, phase="loading", awaits="its trainer (loading)")

    async def probe(session: aiohttp.ClientSession) -> None:
        assert await answer(session, "/livez") == (200, "ok\n")
        assert await answer(session, "/startupz") == (503, "loading: its trainer (loading)\n")
        door.now = dataclasses.replace(door.now, started=True, phase="gathering", awaits="peers: south")
        assert await answer(session, "/startupz") == (200, "ok\n")
        assert await answer(session, "/readyz") == (503, "gathering: peers: south\n")
        door.now = dataclasses.replace(door.now, ready=True)
        assert await answer(session, "/readyz") == (200, "ok\n")

    talk(door, probe)


def test_a_node_whose_status_cannot_be_told_lives_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    door = FakeAdmin()
    door.status = lambda: 1 / 0  # type: ignore[method-assign,assignment,return-value]

    async def probe(session: aiohttp.ClientSession) -> None:
        assert (await answer(session, "/readyz"))[0] == 500
        assert (await answer(session, "/livez"))[0] == 200

    talk(door, probe)
    assert "ZeroDivisionError" in caplog.text


def test_metrics_come_in_the_format_that_is_asked_for() -> None:
    async def scrape(session: aiohttp.ClientSession) -> None:
        async with session.get("/metrics") as response:
            assert response.content_type == "text/plain"
            assert "deca_peer_sent_bytes_total" in await response.text()
        async with session.get("/metrics", headers={"Accept": "application/openmetrics-text"}) as response:
            assert response.content_type == "application/openmetrics-text"
            assert (await response.text()).endswith("# EOF\n")

    talk(FakeAdmin(), scrape)


def test_status_and_members() -> None:
    async def look(session: aiohttp.ClientSession) -> None:
        async with session.get("/v1/status") as response:
            assert (await response.json())["name"] == "north"
        async with session.get("/v1/members") as response:
            assert [member["state"] for member in await response.json()] == ["alive", "suspect"]

    talk(FakeAdmin(), look)


@pytest.mark.parametrize("path", [*(f"/v1/{verb}" for verb in Verb), "/v1/events"])
def test_nothing_can_be_asked_of_the_node_here(path: str) -> None:
    door = FakeAdmin()

    async def ask(session: aiohttp.ClientSession) -> None:
        for method in ("GET", "POST", "PUT", "DELETE"):
            async with session.request(method, path) as response:
                assert response.status == 404
        async with session.post("/v1/status") as response:
            assert response.status == 405

    talk(door, ask)
    assert door.asked == []


def test_so_many_connections_and_no_more() -> None:
    async def life() -> None:
        server = Server(application(FakeAdmin()))
        bound = await server.listen_tcp(LOOPBACK)
        held = [await asyncio.open_connection(*bound) for _ in range(CONNECTIONS_MAX)]
        # Connections are taken up in their order: once the last of them was answered, all were.
        held[-1][1].write(b"GET /livez HTTP/1.1\r\nHost: node\r\n\r\n")
        assert (await held[-1][0].readline()).startswith(b"HTTP/1.1 200")
        reader, writer = await asyncio.open_connection(*bound)
        assert await reader.read() == b""
        for _, each in [*held, (reader, writer)]:
            each.close()
        await server.close()

    asyncio.run(life())


@pytest.mark.parametrize("said", [b"", b"GET /livez HTTP/1.1\r\nHost: node\r\nX-Slow: "])
def test_a_client_that_sends_a_request_letter_by_letter_is_cut_off(
    said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that keeps sending is cut too, because only a complete request counts. Answered clients stay."""
    monkeypatch.setattr(http, "REQUEST_SECONDS", 0.2)
    monkeypatch.setattr(http, "PATROL_SECONDS", 0.02)

    async def life() -> None:
        server = Server(application(FakeAdmin()))
        bound = await server.listen_tcp(LOOPBACK)
        kept = await asyncio.open_connection(*bound)
        await livez(*kept)
        reader, writer = await asyncio.open_connection(*bound)
        writer.write(said)
        over = asyncio.ensure_future(reader.read())
        while not over.done():
            if said:
                writer.write(b"a")
            await asyncio.wait([over], timeout=0.02)
        assert over.exception() is not None or over.result() == b""
        await livez(*kept)
        for each in (writer, kept[1]):
            each.close()
        await server.close()

    async def livez(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /livez HTTP/1.1\r\nHost: node\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\nok\n")).startswith(b"HTTP/1.1 200")

    asyncio.run(asyncio.wait_for(life(), PATIENCE_SECONDS))


def test_a_client_that_does_not_read_the_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(http, "PATROL_SECONDS", 0.02)

    async def much(_: web.Request) -> web.Response:
        return web.Response(body=bytes(32 << 20))

    async def life() -> None:
        app = application(FakeAdmin())
        app.add_routes([web.get("/much", much)])
        server = Server(app)
        bound = await server.listen_tcp(LOOPBACK)
        _, writer = await asyncio.open_connection(*bound, limit=1024)
        writer.write(b"GET /much HTTP/1.1\r\nHost: node\r\n\r\n")
        runner = server._runner.server
        assert runner is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not runner.requests_count:  # noqa: ASYNC110
                await asyncio.sleep(0)
            while runner.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        writer.close()
        await server.close()

    asyncio.run(life())


def test_an_address_that_is_taken() -> None:
    async def listen() -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            server = Server(application(FakeAdmin()))
            with pytest.raises(AddressError, match="choose another --http"):
                await server.listen_tcp(Address("127.0.0.1", other.getsockname()[1]))
            await server.close()

    asyncio.run(listen())


def test_an_address_that_is_no_host_name() -> None:
    async def listen() -> None:
        server = Server(application(FakeAdmin()))
        with pytest.raises(AddressError, match=r"cannot answer HTTP at node\.\.example:7001"):
            await server.listen_tcp(Address("node..example", 7001))
        await server.close()

    asyncio.run(listen())
