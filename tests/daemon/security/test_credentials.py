"""Handshakes with a real server on loopback: who is let in, who is not and why, and certificates that change."""

import asyncio
import datetime as dt
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from deca_node.daemon.security import authority, enrolment, tls_only_13
from deca_node.daemon.security.certificates import NodeId, TlsFiles, facts_of, fingerprint_of, read_certificates
from deca_node.daemon.security.credentials import NodeCredentials, tls_reason
from deca_node.daemon.security.doorman import Doorman, NameLists
from deca_node.daemon.settings.address import Address
from deca_node.daemon.wire.endpoint import Endpoint
from deca_node.protocol.errors import WireError
from tests.daemon.conftest import Federation

METHOD = "/test/Echo"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"
SETTINGS = b"\0\0"
"""How the answer of an HTTP/2 server begins: the length of its settings frame."""


@dataclass
class Server:
    """A node named north, as far as doors go: it says every message again, to those whom the doorman lets in."""

    credentials: NodeCredentials
    doorman: Doorman
    port: int = 0
    refused: list[str] = field(default_factory=list)
    callers: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def echo(self, messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        claimed = dict(context.invocation_metadata())["claims"]
        try:
            self.doorman.verify(context, claimed)
        except WireError as error:
            self.refused.append(error.reason)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
        self.callers.append(pem_fingerprint(context))
        async for message in messages:
            yield message


def pem_fingerprint(context: Any) -> str:
    from cryptography import x509

    return fingerprint_of(x509.load_pem_x509_certificate(next(iter(context.auth_context()["x509_pem_cert"]))))


@asynccontextmanager
async def serving(
    files: TlsFiles, allow: Path | None = None, deny: Path | None = None, federation: str = "wards.example"
) -> AsyncIterator[Server]:
    north = Server(NodeCredentials(files), Doorman(federation, NameLists(allow, deny), lambda *_: None))
    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(north.echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", {"Echo": handler}),))
    north.port = server.add_secure_port("127.0.0.1:0", north.credentials.server_credentials())
    await server.start()
    try:
        yield north
    finally:
        await server.stop(None)


@asynccontextmanager
async def calling(
    north: Server, files: TlsFiles | None, claims: str = "south", to: str = "north"
) -> AsyncIterator[Any]:
    """A stream to north with the certificate in ``files``; in plaintext without."""
    options: list[tuple[str, Any]] = [("grpc.use_local_subchannel_pool", 1)]
    if files is None:
        channel = grpc.aio.insecure_channel(north.address, options=options)
    else:
        south = NodeCredentials(files)
        options.append(("grpc.ssl_target_name_override", south.target_name(to)))
        channel = grpc.aio.secure_channel(north.address, south.channel_credentials(), options=options)
    async with channel:
        open_stream: Any = channel.stream_stream
        yield open_stream(METHOD)(metadata=(("claims", claims),))


async def says_again(stream: Any, message: bytes = b"hello") -> None:
    await stream.write(message)
    assert await stream.read() == message


async def refusal_of(stream: Any) -> str:
    """The words with which the call failed."""
    try:
        await stream.write(b"hello")
        answer = await stream.read()
    except grpc.aio.AioRpcError as error:
        return str(error.details())
    raise AssertionError(f"the call was answered: {answer!r}")


def handshake(port: int, context: ssl.SSLContext) -> tuple[bytes, bytes]:
    """The server's certificate, and the first bytes of its answer: none if it hung up."""
    with (
        socket.create_connection(("127.0.0.1", port), 20) as plain,
        context.wrap_socket(plain, server_hostname="north.node.wards.example.deca.internal") as secure,
    ):
        secure.sendall(PREFACE)
        return secure.getpeercert(binary_form=True) or b"", secure.recv(len(SETTINGS))


def context_of(files: TlsFiles, *, version: ssl.TLSVersion | None = None, certificate: bool = True) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(files.ca))
    context.set_alpn_protocols(["h2"])
    if version:
        context.minimum_version = context.maximum_version = version
    if certificate:
        context.load_cert_chain(files.cert, files.key)
    return context


def answered(port: int, context: ssl.SSLContext) -> bool:
    try:
        return handshake(port, context)[1] == SETTINGS
    except OSError:
        return False


def issue(federation: Federation, files: TlsFiles, now: dt.datetime, days: int = 90) -> None:
    """Put a certificate of other dates into a node's place, by the back door."""
    place = files.cert.parent
    asked = enrolment.request(place, NodeId(federation.name, files.cert.stem))
    issued = authority.approve(federation.authority, asked, place / "approved.crt", now, days, replace=True)
    (place / f"{files.cert.stem}.request.key").replace(files.key)
    issued.path.replace(files.cert)


# --- who is let in -----------------------------------------------------------------------------------


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
                assert tls_reason(await refusal_of(stream)) == ("tls-name", NOT_THE_ONE)
            assert server.refused == ["identity"]

    asyncio.run(talk())


NOT_THE_ONE = "whoever answers there is another node than was called"


@contextmanager
def words_of_grpc(capfd: pytest.CaptureFixture[str], reason: str) -> Iterator[None]:
    """What the server's side says of a handshake within: one reason, and no stranger was served."""
    capfd.readouterr()
    yield
    said = [line for line in capfd.readouterr().err.splitlines() if "andshake" in line]
    assert said and {found[0] for found in map(tls_reason, said) if found} == {reason}, said


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
    """A node that runs on past its certificate's end reaches nobody, and those who call it hear why."""
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
        assert reason is not None and reason[0] == "tls-expired"

    asyncio.run(call())


def test_strangers_are_refused(federation: Federation, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """No certificate; one of another authority of the same federation's name; plaintext; TLS 1.2."""
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
                assert reason is not None and reason[0] == "tls-authority"
            assert server.callers == []
            assert server.credentials.handshakes >= 6, "strangers are counted as well"

    asyncio.run(call())


@pytest.mark.parametrize(
    ("version", "outcome"), [(ssl.TLSVersion.TLSv1_2, "tls-version"), (ssl.TLSVersion.TLSv1_3, "a session")]
)
def test_nobody_is_called_with_tls_1_2(federation: Federation, version: ssl.TLSVersion, outcome: str) -> None:
    told = federation.begin()
    north, south = federation.node("north", told), federation.node("south", told)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(north.cert, north.key)
    context.set_alpn_protocols(["h2"])

    def answer_once(listener: socket.socket) -> str:
        with listener.accept()[0] as plain:
            try:
                with context.wrap_socket(plain, server_side=True) as secure:
                    return "a session" if secure.recv(3) == PREFACE[:3] else "nothing"
            except OSError:
                return "no session"

    async def call() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            answering = asyncio.ensure_future(asyncio.to_thread(answer_once, listener))
            door = Server(NodeCredentials(north), Doorman(None, NameLists(None, None), lambda *_: None))
            door.port = listener.getsockname()[1]
            async with calling(door, south) as stream:
                reason = tls_reason(await refusal_of(stream))
            assert outcome == (reason[0] if reason else await answering)
            assert (await answering == "a session") == (version is ssl.TLSVersion.TLSv1_3)

    asyncio.run(call())


def test_a_member_cannot_pose_as_another(federation: Federation) -> None:
    """As a caller, nor as the one who answers at another's address, nor from another federation of one authority."""
    told = federation.begin()
    north, south = federation.node("north", told), federation.node("south", told)

    async def call() -> None:
        async with serving(north) as server:
            async with calling(server, south, claims="east") as stream:
                assert await refusal_of(stream) == "the certificate is that of south, and the Hello says east"
            async with calling(server, south, to="east") as stream:
                assert tls_reason(await refusal_of(stream)) == ("tls-name", NOT_THE_ONE)
            assert server.refused == ["identity"]
        async with serving(north, federation="beds.example") as server, calling(server, south) as stream:
            assert "of the federation wards.example, not beds.example" in await refusal_of(stream)

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


# --- certificates that change ------------------------------------------------------------------------


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
        f"the certificate in use stays: the key {north.key} does not belong to the certificate {north.cert}"
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
    """Trust the next one everywhere, move one node after the other, forget the old one: nobody is ever cut off."""
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


# --- the seams ---------------------------------------------------------------------------------------


def test_an_endpoint_takes_them(federation: Federation) -> None:
    """The daemon's own door, with its own streams, at both ends."""
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


def test_facts_are_those_of_the_certificate(federation: Federation) -> None:
    north = federation.node("north", federation.begin())
    leaf = read_certificates(north.cert)[0]
    assert NodeCredentials(north).current().facts == facts_of(leaf, "")


def test_grpc_learns_of_tls_1_3_before_it_is_imported() -> None:
    """In a fresh process, whatever module of the daemon comes first, and whatever the environment says."""
    code = (
        "import deca_node.daemon.links.transport, os\n"
        "from deca_node.daemon.security import tls_only_13\n"
        "tls_only_13.check()\n"
        "assert os.environ[tls_only_13.VARIABLE] == tls_only_13.SUITE\n"
    )
    environment = {tls_only_13.VARIABLE: "ECDHE-ECDSA-AES256-GCM-SHA384", "PYTHONPATH": str(Path.cwd())}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    late = subprocess.run(
        [sys.executable, "-c", f"import grpc\n{code}"], check=False, capture_output=True, text=True, env=environment
    )
    assert "grpc was imported before" in late.stderr


def test_words_that_are_of_no_handshake() -> None:
    assert tls_reason("failed to connect to all addresses; last error: Connection refused") is None
