"""A server with the credentials of a node, and callers that shake hands with it: real servers and TLS on loopback."""

import datetime as dt
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from deca_node.daemon.security import authority, enrolment
from deca_node.daemon.security.certificates import NodeId, TlsFiles, fingerprint_of
from deca_node.daemon.security.credentials import NodeCredentials
from deca_node.daemon.security.doorman import Doorman, NameLists
from deca_node.protocol.errors import WireError
from tests.daemon.conftest import Federation

METHOD = "/test/Echo"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"
SETTINGS = b"\0\0"
"""How the answer of an HTTP/2 server begins: the length of its settings frame."""


@dataclass
class Server:
    """A server of a node named north. It echoes every message of the callers that the doorman admits."""

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
    """A stream to north with the certificate in ``files``, or in plaintext where that is None."""
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
    """The details with which the call failed. A write that the refusal has overtaken fails with an error of its own."""
    try:
        await stream.write(b"hello")
        answer = await stream.read()
    except grpc.aio.AioRpcError:
        return str(await stream.details())
    raise AssertionError(f"the call was answered: {answer!r}")


def handshake(port: int, context: ssl.SSLContext) -> tuple[bytes, bytes]:
    """The server's certificate, and the first bytes of its answer; no bytes if it hung up."""
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
    """Replace a node's certificate by one with other dates, without the checks of ``install``."""
    place = files.cert.parent
    asked = enrolment.request(place, NodeId(federation.name, files.cert.stem))
    issued = authority.approve(federation.authority, asked, place / "approved.crt", now, days, replace=True)
    (place / f"{files.cert.stem}.request.key").replace(files.key)
    issued.path.replace(files.cert)


REASONS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "tls-no-certificate",
    "WRONG_VERSION_NUMBER": "tls-plaintext",
    "NO_SHARED_CIPHER": "tls-version",
    "ALERT_PROTOCOL_VERSION": "tls-version",
    "HANDSHAKE_FAILURE": "tls-version",
    "certificate has expired": "tls-expired",
    "certificate is not yet valid": "tls-not-yet-valid",
    "unable to get local issuer": "tls-authority",
    "self signed certificate": "tls-authority",
    "certificate signature failure": "tls-authority",
    "Hostname Verification Check failed": "tls-name",
    "CERTIFICATE_VERIFY_FAILED": "tls-certificate",
}
"""Phrases in the log and in the error details of gRPC, and why the handshake failed. The first match counts."""


def tls_reason(text: str) -> str | None:
    """Why a handshake failed, as one of ``REASONS``. None where ``text`` is about something else.

    A caller whose own certificate was refused finds no reason in its text: gRPC closes the connection, and only the
    side that refused knows why.
    """
    return next((reason for phrase, reason in REASONS.items() if phrase.lower() in text.lower()), None)


@contextmanager
def words_of_grpc(capfd: pytest.CaptureFixture[str], reason: str) -> Iterator[None]:
    """Within this block, the server's log gives exactly this reason for failed handshakes."""
    capfd.readouterr()
    yield
    said = [line for line in capfd.readouterr().err.splitlines() if "andshake" in line]
    assert said and set(filter(None, map(tls_reason, said))) == {reason}, said
