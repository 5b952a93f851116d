"""Certificates that change while the node runs, and how long one is still valid."""

import asyncio
import datetime as dt
import shutil
import ssl

import pytest

from deca_node.daemon.security import enrolment
from deca_node.daemon.security.certificates import facts_of, fingerprint_of, read_certificates
from deca_node.daemon.security.credentials import NodeCredentials
from tests.daemon.conftest import Federation
from tests.daemon.security.handshakes import (
    Server,
    answered,
    calling,
    context_of,
    handshake,
    says_again,
    serving,
)


def test_rotation_disturbs_no_stream(federation: Federation) -> None:
    told = federation.begin()
    north, south = federation.node("north", told), federation.node("south", told)
    before = [fingerprint_of(read_certificates(files.cert)[0]) for files in (north, south)]

    async def rotate() -> None:
        async with serving(north) as server, calling(server, south) as stream:
            await says_again(stream)
            federation.node("north", told)
            federation.node("south", told)
            after = [fingerprint_of(read_certificates(files.cert)[0]) for files in (north, south)]
            assert not set(before) & set(after)
            async with calling(server, south) as another:
                await says_again(another)
            shown, _ = await asyncio.to_thread(handshake, server.port, context_of(south))
            assert ssl.DER_cert_to_PEM_cert(shown) in north.cert.read_text()
            await says_again(stream, b"still here")
            assert server.callers == [before[1], after[1]]

    asyncio.run(rotate())


def test_half_a_rotation_changes_nothing(federation: Federation, caplog: pytest.LogCaptureFixture) -> None:
    told = federation.begin()
    north = federation.node("north", told)
    credentials = NodeCredentials(north)
    before = credentials.current()
    federation.node("north", told, folder="aside")
    (federation.folder / "aside" / "north.key").replace(north.key)
    assert credentials.current() is before
    assert credentials.current() is before
    assert [record.message for record in caplog.records] == [
        f"the certificate in use stays in use: the key {north.key} does not belong to the certificate {north.cert}"
    ]
    (federation.folder / "aside" / "north.crt").replace(north.cert)
    assert credentials.current() is not before


def test_another_nodes_certificate_is_not_taken_up(federation: Federation) -> None:
    told = federation.begin()
    north, south = federation.node("north", told), federation.node("south", told)
    credentials = NodeCredentials(north)
    south.key.replace(north.key)
    south.cert.replace(north.cert)
    assert credentials.current().facts.id.name == credentials.id.name == "north"


def test_a_federation_changes_its_authority(federation: Federation) -> None:
    """Every node trusts the next authority, one node after the other gets a new certificate, and then the old authority
    is forgotten. No node is cut off at any time."""
    told = federation.begin()
    north, south = federation.node("north", told), federation.node("south", told)
    # copytree keeps modes, and the key is private.
    old_south = enrolment.node_files(shutil.copytree(south.cert.parent, federation.folder / "old-south"), "south")
    now = dt.datetime.now(dt.UTC)

    async def talk(server: Server) -> None:
        async with calling(server, south) as stream:
            await says_again(stream)

    async def change() -> None:
        async with serving(north) as server:
            await talk(server)
            federation.authority_folder = "next-authority"
            next_told = federation.begin()
            for files in (north, south):
                enrolment.trust(files.cert.parent, federation.authority / "ca.crt", next_told, now)
            await talk(server)
            federation.node("south", next_told)
            await talk(server)
            federation.node("north", next_told)
            await talk(server)
            old_south.ca.write_bytes(south.ca.read_bytes())
            assert await asyncio.to_thread(answered, server.port, context_of(old_south))
            enrolment.install(north.cert.parent, north.cert.parent / "approved.crt", next_told, now, forget_old=True)
            await talk(server)
            assert not await asyncio.to_thread(answered, server.port, context_of(old_south))

    asyncio.run(change())


def test_what_is_left_of_a_certificate(federation: Federation) -> None:
    now = dt.datetime.now(dt.UTC)
    north = federation.node("north", federation.begin(), days=30)
    clock = [now]
    credentials = NodeCredentials(north, now=lambda: clock[0])
    assert credentials.expires_in_seconds == pytest.approx(30 * 86400, abs=60)
    assert credentials.warning() is None
    clock[0] = now + dt.timedelta(days=20)
    assert "expires on" in (credentials.warning() or "")
    clock[0] = now + dt.timedelta(days=31)
    assert "no peer accepts it" in (credentials.warning() or "")
    assert credentials.expires_in_seconds < 0


def test_facts_are_those_of_the_certificate(federation: Federation) -> None:
    north = federation.node("north", federation.begin())
    leaf = read_certificates(north.cert)[0]
    assert NodeCredentials(north).current().facts == facts_of(leaf, "")
