"""Handshakes with a real server on loopback: which callers are accepted, and why others are refused."""

import asyncio
import datetime as dt
import ssl
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from deca_node.daemon.security.certificates import TlsFiles, fingerprint_of, read_certificates
from deca_node.daemon.security.credentials import NodeCredentials
from deca_node.daemon.security.doorman import Doorman, NameLists
from deca_node.daemon.settings.address import Address
from deca_node.daemon.wire.endpoint import Endpoint
from deca_node.protocol.errors import WireError
from tests.daemon.conftest import Federation
from tests.daemon.security.handshakes import (
    METHOD,
    Server,
    answered,
    calling,
    context_of,
    issue,
    refusal_of,
    says_again,
    serving,
    tls_reason,
    words_of_grpc,
)


def test_members_talk(federation: Federation) -> None:
    told = federation.begin()
    north, south = federation.node("north", told), federation.node("south", told)

    async def talk() -> None:
        async with serving(north) as server:
            async with calling(server, south) as stream:
                await says_again(stream)
            async with calling(server, south, to="") as stream:
                await says_again(stream)
            assert server.refused == []

    asyncio.run(talk())


def test_odd_names_talk_too(federation: Federation) -> None:
    """Names that are addresses, as a peers file without names has them, and capitals, which TLS does not tell apart."""
    told = federation.begin()
    north = federation.node("[2001:db8::7]:7001", told, folder="one")
    south = federation.node("South", told)

    async def talk() -> None:
        async with serving(north) as server:
            async with calling(server, south, claims="South", to="[2001:db8::7]:7001") as stream:
                await says_again(stream)
            async with calling(server, south, claims="south", to="[2001:db8::7]:7001") as stream:
                await refusal_of(stream)
            async with calling(server, south, claims="South", to="[2001:DB8::7]:7001") as stream:
                assert tls_reason(await refusal_of(stream)) == "tls-name"
            assert server.refused == ["identity"]

    asyncio.run(talk())


@pytest.mark.parametrize(("days_ago", "days", "reason"), [(100, 90, "tls-expired"), (-2, 90, "tls-not-yet-valid")])
def test_certificates_out_of_their_dates_are_refused(
    federation: Federation, capfd: pytest.CaptureFixture[str], days_ago: int, days: int, reason: str
) -> None:
    now = dt.datetime.now(dt.UTC)
    told = federation.begin(now - dt.timedelta(days=200))
    north, south = federation.node("north", told), federation.node("south", told)
    issue(federation, south, now - dt.timedelta(days=days_ago), days)

    async def call() -> None:
        async with serving(north) as server:
            with words_of_grpc(capfd, reason):
                assert not await asyncio.to_thread(answered, server.port, context_of(south))
            assert server.callers == []

    asyncio.run(call())


def test_callers_refuse_an_expired_server(federation: Federation) -> None:
    """A node that runs on after its certificate has expired: its callers refuse it, and get the reason."""
    now = dt.datetime.now(dt.UTC)
    told = federation.begin(now - dt.timedelta(days=200))
    north, south = federation.node("north", told), federation.node("south", told)
    issue(federation, north, now - dt.timedelta(days=100))

    async def call() -> None:
        credentials = NodeCredentials(north, now=lambda: now - dt.timedelta(days=50))
        server = grpc.aio.server()
        port = server.add_secure_port("127.0.0.1:0", credentials.server_credentials())
        await server.start()
        door = Server(credentials, Doorman(None, NameLists(None, None), lambda *_: None), port)
        async with calling(door, south) as stream:
            reason = tls_reason(await refusal_of(stream))
        await server.stop(None)
        assert reason == "tls-expired"

    asyncio.run(call())


def test_strangers_are_refused(federation: Federation, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Callers without a certificate, with one of another authority for the same federation, in plaintext, or with TLS
    1.2."""
    told = federation.begin()
    north, south = federation.node("north", told), federation.node("south", told)
    other = Federation(tmp_path / "elsewhere")
    stranger = other.node("south", other.begin())

    async def call() -> None:
        async with serving(north) as server:
            with words_of_grpc(capfd, "tls-no-certificate"):
                assert not await asyncio.to_thread(answered, server.port, context_of(south, certificate=False))
            with words_of_grpc(capfd, "tls-authority"):
                trusting = TlsFiles(stranger.cert, stranger.key, south.ca)
                assert not await asyncio.to_thread(answered, server.port, context_of(trusting))
            with words_of_grpc(capfd, "tls-plaintext"):
                async with calling(server, None) as stream:
                    await refusal_of(stream)
            with words_of_grpc(capfd, "tls-version"):
                old = context_of(south, version=ssl.TLSVersion.TLSv1_2)
                assert not await asyncio.to_thread(answered, server.port, old)
            assert await asyncio.to_thread(answered, server.port, context_of(south))
            async with calling(server, stranger) as stream:
                reason = tls_reason(await refusal_of(stream))
                assert reason == "tls-authority"
            assert server.callers == []
            assert server.credentials.handshakes >= 6, "strangers are counted as well"

    asyncio.run(call())


def test_a_member_cannot_pose_as_another(federation: Federation) -> None:
    """A member cannot call under another name, answer for another name, or come from another federation of the same
    authority."""
    told = federation.begin()
    north, south = federation.node("north", told), federation.node("south", told)

    async def call() -> None:
        async with serving(north) as server:
            async with calling(server, south, claims="east") as stream:
                assert await refusal_of(stream) == "the certificate is that of south, and the Hello says east"
            async with calling(server, south, to="east") as stream:
                assert tls_reason(await refusal_of(stream)) == "tls-name"
            assert server.refused == ["identity"]
        async with serving(north, federation="beds.example") as server, calling(server, south) as stream:
            assert "of the federation wards.example, not of beds.example" in await refusal_of(stream)

    asyncio.run(call())


def test_lists_are_asked_at_every_hello(federation: Federation, tmp_path: Path) -> None:
    told = federation.begin()
    north, south = federation.node("north", told), federation.node("south", told)
    allow, deny = tmp_path / "allow", tmp_path / "deny"
    allow.write_text("south\n")
    deny.write_text("# nobody yet\n")

    async def call() -> None:
        async with serving(north, allow, deny) as server:
            async with calling(server, south) as stream:
                await says_again(stream)
            deny.write_text(f"sha256:{fingerprint_of(read_certificates(south.cert)[0])}\n")
            assert server.doorman.reload() == ["south"]
            async with calling(server, south) as stream:
                assert await refusal_of(stream) == "south is on this node's deny-list"
            deny.write_text("")
            allow.write_text("east\n")
            assert server.doorman.reload() == []
            async with calling(server, south) as stream:
                assert await refusal_of(stream) == "south is not on this node's allow-list"
            assert server.refused == ["denied", "not-allowed"]

    asyncio.run(call())


def test_an_endpoint_takes_them(federation: Federation) -> None:
    """The daemon's own endpoint, with its own streams, at both ends."""
    told = federation.begin()
    north, south = federation.node("north", told), federation.node("south", told)
    heard: list[str] = []

    async def answer(stream: Any) -> None:
        claimed = (await stream.read()).decode()
        try:
            stream.verify(claimed)
        except WireError as error:
            heard.append(error.reason)
        else:
            heard.append(claimed)
        await stream.write(b"done")

    def endpoint(files: TlsFiles) -> Endpoint:
        doorman = Doorman("wards.example", NameLists(None, None), lambda *_: None)
        return Endpoint(Address("127.0.0.1", 0), NodeCredentials(files).for_endpoint(), doorman.verify)

    async def talk() -> None:
        server = endpoint(north)
        server.add_streams("test", {"Echo": answer})
        await server.start()
        for claimed in (b"south", b"east"):
            async with endpoint(south).dial("north", server.address, METHOD) as stream:
                await stream.write(claimed)
                assert await stream.read() == b"done"
        await server.stop()

    asyncio.run(talk())
    assert heard == ["south", "identity"]


def test_words_that_are_of_no_handshake() -> None:
    assert tls_reason("failed to connect to all addresses; last error: Connection refused") is None
