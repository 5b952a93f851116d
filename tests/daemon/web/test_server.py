"""A node's answers over HTTP: probes, metrics and status, all read-only."""

import asyncio
import dataclasses
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
import uvloop
from aiohttp import web

from deca_node.daemon.settings.address import Address
from deca_node.daemon.status.facts import Verb
from deca_node.daemon.web import connections
from deca_node.daemon.web import server as http
from deca_node.daemon.web.connections import CONNECTIONS_MAX, PROBES_MAX
from deca_node.daemon.web.server import Server, application
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
        async with session.get("/v1/run") as response:
            rows = await response.json()
        assert [(row["name"], row["own"], row["done"], row["page"]) for row in rows] == [
            ("north", True, 1417, ""),
            ("south", False, None, "127.0.0.1:9641"),
        ]

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


def few(monkeypatch: pytest.MonkeyPatch, limit: int = 8) -> int:
    """Let the servers of this test have few connections, so that the files of this process suffice."""
    monkeypatch.setattr(connections, "CONNECTIONS_MAX", limit)
    return limit


async def asks(bound: Address, path: str = "/livez") -> bytes:
    """The whole answer to a request on a new connection; empty where the connection is cut."""
    reader, writer = await asyncio.open_connection(*bound)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n".encode())
    try:
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_probes_are_answered_beside_any_number_of_connections_that_never_ask(loop: Callable[[], Any]) -> None:
    """More than ever fit, from the address of the probe itself, with half a request each. The newest stay, up to the
    share of one address."""
    count = CONNECTIONS_MAX + 100

    async def life() -> None:
        server = Server(application(FakeAdmin()))
        bound = await server.listen_tcp(LOOPBACK)
        held = []
        for _ in range(count):
            held.append(await asyncio.open_connection(*bound))
            held[-1][1].write(b"GET /livez HTTP/1.1\r\nHost:")
            if len(held) % 100 == 0:
                assert (await asks(bound)).startswith(b"HTTP/1.1 200")
        assert (await asks(bound)).startswith(b"HTTP/1.1 200")
        assert server.connections and len(server.connections) <= CONNECTIONS_MAX * connections.ADDRESS_SHARE
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await held[0][0].readexactly(1)
        for _, each in held:
            each.close()
        await server.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(asyncio.wait_for(life(), PATIENCE_SECONDS))


def test_one_address_cannot_take_the_room_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = few(monkeypatch)

    async def life() -> None:
        server = Server(application(FakeAdmin()))
        bound = await server.listen_tcp(LOOPBACK)
        other = await asyncio.open_connection(*bound, local_addr=("127.0.0.2", 0))
        held = [await asyncio.open_connection(*bound) for _ in range(3 * limit)]
        assert (await asks(bound)).startswith(b"HTTP/1.1 200")
        other[1].write(b"GET /livez HTTP/1.1\r\nHost: node\r\n\r\n")
        assert (await other[0].readline()).startswith(b"HTTP/1.1 200"), "the oldest of all, and of another address"
        for _, each in [*held, other]:
            each.close()
        await server.close()

    asyncio.run(asyncio.wait_for(life(), PATIENCE_SECONDS))


def test_where_every_connection_is_busy_there_is_room_for_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = int(few(monkeypatch) * connections.ADDRESS_SHARE)

    async def life() -> None:
        begun, over = asyncio.Semaphore(0), asyncio.Event()

        async def long(_: web.Request) -> web.Response:
            begun.release()
            await over.wait()
            return web.Response(text="at last")

        app = application(FakeAdmin())
        app.add_routes([web.get("/long", long)])
        server = Server(app)
        bound = await server.listen_tcp(LOOPBACK)
        busy = [asyncio.ensure_future(asks(bound, "/long")) for _ in range(limit)]
        for _ in busy:
            await begun.acquire()
        assert (await asks(bound)).startswith(b"HTTP/1.1 200")
        assert b"only probes are answered" in await asks(bound, "/metrics")
        held = [await asyncio.open_connection(*bound) for _ in range(PROBES_MAX)]
        assert (await asks(bound)).startswith(b"HTTP/1.1 200"), "the oldest of those that never asked gives way"
        over.set()
        assert all(answer.endswith(b"at last") for answer in await asyncio.gather(*busy))
        assert b"# HELP" in await asks(bound, "/metrics")
        for _, each in held:
            each.close()
        await server.close()

    asyncio.run(asyncio.wait_for(life(), PATIENCE_SECONDS))


@pytest.mark.parametrize("said", [b"GET /livez HTTP/1.1\r\nHost: node\r\n\r\n", b"NO HTTP AT ALL\r\n\r\n"])
def test_answers_do_not_name_versions(said: bytes) -> None:
    async def life() -> None:
        server = Server(application(FakeAdmin()))
        reader, writer = await asyncio.open_connection(*await server.listen_tcp(LOOPBACK))
        writer.write(said)
        assert b"Server: deca-node\r\n" in await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await server.close()

    asyncio.run(asyncio.wait_for(life(), PATIENCE_SECONDS))


@pytest.mark.parametrize("said", [b"", b"GET /livez HTTP/1.1\r\nHost: node\r\nX-Slow: "])
def test_a_client_that_sends_a_request_letter_by_letter_is_cut_off(
    said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that keeps sending is cut too, because only a complete request counts. Answered clients stay."""
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.2)
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
    monkeypatch.setattr(connections, "ANSWER_SECONDS", 0.2)
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
