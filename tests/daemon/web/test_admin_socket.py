"""The socket in a node's folder: its answers, its permissions, and its possible paths."""

import asyncio
import json
import logging
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
import uvloop

from deca_node.daemon.logs import EventLog
from deca_node.daemon.status.facts import SOCKET, Verb
from deca_node.daemon.web.admin_socket import LISTENERS_MAX, AdminSocket
from tests.daemon.web.fake_admin import FakeAdmin

Talk = Callable[[aiohttp.ClientSession], Awaitable[None]]


def talk(folder: Path, door: FakeAdmin, what: Talk, events: EventLog | None = None) -> None:
    """Open the socket on an event loop like a node's, and talk to it."""

    async def life() -> None:
        admin = AdminSocket(door, events or EventLog(), folder)
        await admin.open()
        try:
            connector = aiohttp.UnixConnector(str(folder / SOCKET))
            async with aiohttp.ClientSession("http://node", connector=connector) as session:
                await what(session)
        finally:
            await admin.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(life())


def test_the_socket_is_its_owners_alone_and_goes_with_the_node(tmp_path: Path) -> None:
    (tmp_path / SOCKET).write_text("left by a node that was killed")

    async def look(_: aiohttp.ClientSession) -> None:
        found = (tmp_path / SOCKET).stat()
        assert stat.S_ISSOCK(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o600

    talk(tmp_path, FakeAdmin(), look)
    assert not (tmp_path / SOCKET).exists()


@pytest.mark.parametrize("verb", list(Verb))
def test_requests_are_passed_on_and_answered_with_a_sentence(tmp_path: Path, verb: Verb) -> None:
    door = FakeAdmin()

    async def ask(session: aiohttp.ClientSession) -> None:
        async with session.post(f"/v1/{verb}") as response:
            assert (response.status, await response.json()) == (200, {"sentence": f"{verb} will be done"})
        door.refusal = "not now"
        async with session.post(f"/v1/{verb}") as response:
            assert (response.status, await response.json()) == (409, {"sentence": "not now"})
        async with session.get(f"/v1/{verb}") as response:
            assert response.status == 405

    talk(tmp_path, door, ask)
    assert door.asked == [verb, verb]


def test_status_is_json_without_infinite_numbers(tmp_path: Path) -> None:
    async def look(session: aiohttp.ClientSession) -> None:
        async with session.get("/v1/status") as response:
            status = json.loads(await response.text(), parse_constant=pytest.fail)
        assert status["position"]["block_name"] == "layers.1"
        assert status["figures"]["mix_seconds"] is None
        assert status["peers"][0]["rtt"]["p99"] == 0.0034

    talk(tmp_path, FakeAdmin(), look)


def test_log_lines_come_as_they_are_written(tmp_path: Path) -> None:
    events = EventLog(kept=3)

    def say(message: str) -> None:
        events.handle(logging.makeLogRecord({"levelname": "INFO", "msg": message}))

    async def listen(session: aiohttp.ClientSession) -> None:
        for number in range(5):
            say(f"line {number}")
        async with session.get("/v1/events?last=2") as response:
            assert [json.loads(line)["message"] async for line in response.content] == ["line 3", "line 4"]
        async with session.get("/v1/events?last=1&follow=1") as response:
            assert json.loads(await response.content.readline())["message"] == "line 4"
            say("a new one")
            assert json.loads(await response.content.readline())["message"] == "a new one"
            for number in range(7):
                say(f"fast {number}")
            heard = [json.loads(await response.content.readline())["message"] for _ in range(4)]
            assert heard == ["4 lines were missed", "fast 4", "fast 5", "fast 6"]
        async with session.get("/v1/events?last=many") as response:
            assert response.status == 400

    talk(tmp_path, FakeAdmin(), listen, events)


def test_so_many_listen_at_a_time_and_no_more(tmp_path: Path) -> None:
    async def listen(session: aiohttp.ClientSession) -> None:
        open_ones = [await session.get("/v1/events?follow=1") for _ in range(LISTENERS_MAX)]
        async with session.get("/v1/events?follow=1") as response:
            assert response.status == 503
        for response in open_ones:
            response.close()

    talk(tmp_path, FakeAdmin(), listen)


def test_a_quiet_log_says_that_it_is_still_there() -> None:
    async def listen() -> str:
        async for line in EventLog().follow(10, quiet_seconds=0.0):
            return line
        return "ended"

    assert asyncio.run(listen()) == ""


def test_a_path_that_is_too_long_for_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 80) / ("e" * 80)
    deep.mkdir(parents=True)

    async def ask() -> None:
        admin = AdminSocket(FakeAdmin(), EventLog(), deep)
        await admin.open()
        assert stat.S_ISSOCK((deep / SOCKET).stat().st_mode)
        monkeypatch.chdir(deep)
        connector = aiohttp.UnixConnector(SOCKET)
        session = aiohttp.ClientSession("http://node", connector=connector)
        async with session, session.get("/livez") as response:
            assert response.status == 200
        await admin.close()

    asyncio.run(ask())


def test_a_filesystem_without_sockets_costs_the_socket_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bind(path: Path) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("deca_node.daemon.web.unix_socket.bind", bind)
    refused(tmp_path, caplog)


def refused(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def life() -> None:
        admin = AdminSocket(FakeAdmin(), EventLog(), folder)
        await admin.open()
        await admin.close()

    caplog.set_level("WARNING", "deca")
    asyncio.run(life())
    assert "cannot reach this node" in caplog.text
