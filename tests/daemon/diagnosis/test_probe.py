"""Probes of real servers on loopback: each obstacle is recognized."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from deca_node.daemon.diagnosis.probe import SIDE_BY_SIDE, Obstacle, Probed, Stage, probe, probe_all
from deca_node.daemon.security.certificates import TlsFiles
from deca_node.daemon.security.security import Security
from deca_node.daemon.settings.address import Address
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.transfer.donor import Donor
from deca_node.daemon.wire.endpoint import Endpoint
from deca_node.protocol.agreed.agreement import Agreement, settings_fields
from deca_node.protocol.agreed.run import RunSettings
from tests.daemon.conftest import Federation

HOST = "127.0.0.1"
SECONDS = 20.0
RUN = Agreement(settings_fields(RunSettings()))


def secure(files: TlsFiles, ca: Path | None = None, deny: Path | None = None) -> Security:
    named = {"tls_cert": str(files.cert), "tls_key": str(files.key), "tls_ca": str(ca or files.ca)}
    return Security(NodeSettings(**named, deny=str(deny or "")))


def plain(**more: str) -> Security:
    return Security(NodeSettings(insecure=1, **more))


@asynccontextmanager
async def node(folder: Path, security: Security, agreement: Agreement | None = RUN) -> AsyncIterator[Address]:
    """The part of a node that answers a probe."""
    endpoint = Endpoint(Address(HOST, 0), security.credentials, security.verify)
    donor = Donor(folder, lambda: 7, lambda: agreement, "", verify=security.verify)
    endpoint.add(*donor.handlers())
    await endpoint.start()
    try:
        yield endpoint.address
    finally:
        donor.close()
        await endpoint.stop()


@asynccontextmanager
async def program(answer: bytes) -> AsyncIterator[Address]:
    """Another program that listens: it sends ``answer`` after the first bytes, and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    async with server:
        yield Address(HOST, server.sockets[0].getsockname()[1])


async def ask(address: Address, security: Security, name: str = "south", seconds: float = SECONDS) -> Probed:
    return await probe(name, address, "north", security, seconds)


def test_a_node_in_plaintext(tmp_path: Path) -> None:
    async def main() -> Probed:
        async with node(tmp_path, plain()) as address:
            return await ask(address, plain())

    found = asyncio.run(main())
    assert (found.stage, found.kind, found.problem) == (Stage.DONE, Obstacle.NONE, "")
    assert found.offer is not None and (found.offer.agreement, found.offer.position) == (RUN, 7)
    assert found.clock_ahead_seconds is not None and abs(found.clock_ahead_seconds) < SECONDS
    assert found.expires is None


def test_a_node_with_certificates(federation: Federation) -> None:
    said = federation.begin()
    north, south = (secure(federation.node(name, said)) for name in ("north", "south"))

    async def main() -> list[Probed]:
        async with node(federation.folder / "data", south) as address:
            # By its name, by nobody's in particular, and by another's.
            return [await ask(address, north, name) for name in ("south", "", "east")]

    named, unnamed, mistaken = asyncio.run(main())
    assert named.stage is unnamed.stage is Stage.DONE
    assert named.expires is not None and named.expires > 0
    assert (mistaken.stage, mistaken.kind) == (Stage.TLS, Obstacle.OTHER_NODE)
    assert mistaken.problem.endswith("it shows the certificate of spiffe://wards.example/node/south")


def test_neither_side_trusts_another_federation(federation: Federation) -> None:
    ours = federation.node("north", federation.begin())
    federation.authority_folder = "another-authority"
    theirs = federation.node("south", federation.begin(), folder="elsewhere")
    both = federation.folder / "both.crt"
    both.write_bytes(ours.ca.read_bytes() + theirs.ca.read_bytes())

    async def main() -> list[Probed]:
        async with node(federation.folder / "data", secure(theirs)) as address:
            # None of ours vouches for the other; and where one does, none of theirs does for this one.
            return [await ask(address, secure(ours)), await ask(address, secure(ours, ca=both))]

    untrusted, unwelcome = asyncio.run(main())
    assert (untrusted.stage, untrusted.kind) == (Stage.TLS, Obstacle.UNTRUSTED)
    assert "spiffe://wards.example/node/south" in untrusted.problem
    assert (unwelcome.stage, unwelcome.kind) == (Stage.TLS, Obstacle.UNWELCOME)
    assert unwelcome.problem.startswith(("it refuses this node's certificate", "it hung up after the handshake"))


def test_one_side_speaks_plaintext(federation: Federation) -> None:
    north = secure(federation.node("north", federation.begin()))

    async def main() -> list[Probed]:
        async with node(federation.folder / "a", plain()) as bare, node(federation.folder / "b", north) as tls:
            return [await ask(bare, north), await ask(tls, plain())]

    for found in asyncio.run(main()):
        assert (found.stage, found.kind) == (Stage.TLS, Obstacle.PLAINTEXT)


def test_the_lists_and_loading(federation: Federation) -> None:
    said = federation.begin()
    deny = federation.folder / "deny.txt"
    deny.write_text("north\n")
    north, files = secure(federation.node("north", said)), federation.node("south", said)

    async def main() -> list[Probed]:
        async with node(federation.folder / "a", secure(files, deny=deny)) as shut:
            refused = await ask(shut, north)
        async with node(federation.folder / "b", secure(files), agreement=None) as young:
            return [refused, await ask(young, north)]

    refused, loading = asyncio.run(main())
    assert (refused.stage, refused.kind) == (Stage.GREETING, Obstacle.UNWELCOME)
    assert refused.problem == "it does not let this node in: north is on this node's deny-list"
    assert (loading.stage, loading.kind) == (Stage.GREETING, Obstacle.LOADING)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x46 and more", b""])
def test_another_program(answer: bytes) -> None:
    async def main() -> Probed:
        async with program(answer) as address:
            return await ask(address, plain())

    found = asyncio.run(main())
    assert found.stage is Stage.TLS
    assert found.kind is (Obstacle.NO_NODE if answer.startswith(b"HTTP") else Obstacle.PLAINTEXT)


def test_no_listener_no_address_and_no_answer() -> None:
    """A port without a listener, a name without an address, and a listener that never answers."""
    with socket.socket() as taken, socket.socket() as mute:
        for each in (taken, mute):
            each.bind((HOST, 0))
        mute.listen(8)

        async def main() -> list[Probed]:
            heard: list[Probed] = []
            targets = [
                ("nobody", Address(HOST, taken.getsockname()[1])),
                ("nowhere", Address("no-such-host.invalid", 7001)),
                ("never", Address(HOST, mute.getsockname()[1])),
            ]
            found = await probe_all(targets, "north", plain(), 1.0, heard.append)
            assert sorted(each.name for each in heard) == sorted(name for name, _ in targets)
            return found

        nobody, nowhere, never = asyncio.run(main())
    assert (nobody.stage, nobody.kind) == (Stage.CONNECT, Obstacle.NOBODY)
    assert (nowhere.stage, nowhere.kind) == (Stage.LOOKUP, Obstacle.NAME)
    assert (never.stage, never.kind) == (Stage.TLS, Obstacle.SILENT)
    assert never.problem == "connected, but no answer within 1 s"


def test_names_without_an_answer_take_no_seat_from_other_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thrice as many mute names as there are seats: all of them end together, each with its own sentence."""
    ended, real = threading.Event(), socket.getaddrinfo

    def names(host: str, *more: Any, **options: Any) -> Any:
        if options.get("flags", 0) & socket.AI_NUMERICHOST:
            return real(host, *more, **options)
        if ".." in host:
            host.encode("idna")
        ended.wait(SECONDS)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", names)
    mute = [("", Address(f"mute{number}.example", 7001)) for number in range(3 * SIDE_BY_SIDE)]
    began = time.monotonic()
    *found, wrong = asyncio.run(probe_all([*mute, ("c", Address("node..example.com", 1))], "north", plain(), 2.0))
    assert time.monotonic() - began < 5.0, "one after the other they take three times as long as one"
    ended.set()
    assert {each.kind for each in found} == {Obstacle.NAME}
    assert found[7].problem == "the name mute7.example was not resolved within 2 s"
    assert (wrong.kind, "is not a host name" in wrong.problem) == (Obstacle.NAME, True)
