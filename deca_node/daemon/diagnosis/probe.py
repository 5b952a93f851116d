"""Checks whether a peer answers and would talk to this node, in steps, so that the failing step is known.

::

    lookup     its host has an address
    connect    a program listens there; a dead host does not answer, a live one without a node refuses
    tls        it shows the certificate of the expected node, and accepts this node's
    greeting   it is a node of the same protocol, lets this node in, and describes its run

A probe does not disturb a node that trains: the last step is the question that late nodes ask of donors. Every peer
gets the same few seconds, and peers are probed in parallel.
"""

import asyncio
import contextlib
import dataclasses
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import grpc
import grpc.aio

from deca_node.daemon.security.certificates import CertificateError, facts_of, parse_certificates
from deca_node.daemon.security.security import Security
from deca_node.daemon.settings.address import Address
from deca_node.daemon.settings.lookup import LookupFailedError, look_up
from deca_node.daemon.transfer.donor import DESCRIBE, PROTOCOL_VERSION
from deca_node.daemon.transfer.offers import Offer, read_offer
from deca_node.daemon.wire.broken import in_a_line
from deca_node.daemon.wire.endpoint import Endpoint
from deca_node.daemon.wire_pb import transfer_pb2 as pb
from deca_node.protocol.errors import WireError

SIDE_BY_SIDE = 16
"""The number of peers that are called at a time, once their names are looked up."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"
"""The first bytes of every HTTP/2 client, with all settings at their defaults."""
SETTINGS_FRAME, FRAME_HEADER_BYTES = 4, 9
"""Every HTTP/2 server begins with a frame of this type. The type is in the fourth byte of the frame's header."""


class Stage(StrEnum):
    """The steps of a probe, in their order."""

    LOOKUP = "lookup"
    CONNECT = "connect"
    TLS = "tls"
    GREETING = "greeting"
    DONE = "done"


class Obstacle(StrEnum):
    """Why a probe failed, as a word that decides the advice."""

    NONE = ""
    NAME = "name"
    NOBODY = "nobody"
    SILENT = "silent"
    UNTRUSTED = "untrusted"
    UNWELCOME = "unwelcome"
    OTHER_NODE = "other-node"
    PLAINTEXT = "plaintext"
    NO_NODE = "no-node"
    LOADING = "loading"


@dataclass(frozen=True, kw_only=True)
class Probed:
    """The result of one probe.

    ``stage`` is the step that failed, or ``DONE``; ``kind`` and ``problem`` say why. ``seconds`` is the duration of the
    probe. ``clock_ahead_seconds`` is how far the peer's clock is ahead of this one, exact to half of ``seconds``.
    ``expires`` is the end of the peer's certificate in unix seconds.
    """

    name: str
    address: str
    stage: Stage
    kind: Obstacle = Obstacle.NONE
    problem: str = ""
    seconds: float = 0.0
    clock_ahead_seconds: float | None = None
    expires: float | None = None
    offer: Offer | None = None


class _Failure(Exception):
    def __init__(self, stage: Stage, kind: Obstacle, problem: str) -> None:
        super().__init__(problem)
        self.stage, self.kind = stage, kind


async def probe_all(
    targets: Sequence[tuple[str, Address]],
    own: str,
    security: Security,
    seconds_max: float,
    heard: Callable[[Probed], None] = lambda _: None,
) -> list[Probed]:
    """Probe every (name, address); an empty name accepts any node of the federation. ``own`` is this node's name.
    ``heard`` takes each result when it is there. Returns the results in the order of ``targets``."""
    seats = asyncio.Semaphore(SIDE_BY_SIDE)

    async def one(name: str, address: Address) -> Probed:
        probed = await probe(name, address, own, security, seconds_max, seats)
        heard(probed)
        return probed

    return list(await asyncio.gather(*(one(name, address) for name, address in targets)))


async def probe(
    name: str,
    address: Address,
    own: str,
    security: Security,
    seconds_max: float,
    seats: asyncio.Semaphore | None = None,
) -> Probed:
    """Probe one peer: ``seconds_max`` at most to look up its name, and as long for all other steps. Peers whose names
    are not found take no seat from others."""
    began = time.monotonic()
    work = _Probe(name, address, own, security)
    try:
        async with asyncio.timeout(seconds_max):
            where = await work.look_up()
        async with seats or contextlib.nullcontext():
            began = time.monotonic()
            async with asyncio.timeout(seconds_max):
                found = await work.run(where)
    except TimeoutError:
        kind = Obstacle.NAME if work.stage is Stage.LOOKUP else Obstacle.SILENT
        words = {Stage.LOOKUP: f"the name {address.host} was not resolved", Stage.CONNECT: "no answer to a connection"}
        says = f"{words.get(work.stage, 'connected, but no answer')} within {seconds_max:g} s"
        found = Probed(name=name, address=str(address), stage=work.stage, kind=kind, problem=says)
    except _Failure as failure:
        found = Probed(name=name, address=str(address), stage=failure.stage, kind=failure.kind, problem=str(failure))
    expires = found.expires if found.expires is not None else work.expires
    return dataclasses.replace(found, seconds=time.monotonic() - began, expires=expires)


class _Probe:
    """A probe in progress; ``stage`` is its current step."""

    def __init__(self, name: str, address: Address, own: str, security: Security) -> None:
        self._name, self._address, self._own, self._security = name, address, own, security
        self.stage = Stage.LOOKUP
        self.expires: float | None = None

    async def run(self, where: list[tuple[Any, ...]]) -> Probed:
        self.stage = Stage.CONNECT
        connected = await self._connect(where)
        self.stage = Stage.TLS
        with connected:
            await self._hear_first_words(connected, where)
        self.stage = Stage.GREETING
        return await self._ask()

    # --- name and connection ------------------------------------------------------------------------

    async def look_up(self) -> list[tuple[Any, ...]]:
        try:
            return await look_up(self._address)
        except LookupFailedError as problem:
            raise _Failure(Stage.LOOKUP, Obstacle.NAME, str(problem)) from None

    async def _connect(self, found: Sequence[tuple[Any, ...]]) -> socket.socket:
        """A connection to the first address that answers."""
        problem: OSError = OSError("no address")
        for family, kind, number, _, where in found:
            made = socket.socket(family, kind, number)
            made.setblocking(False)
            try:
                await asyncio.get_running_loop().sock_connect(made, where)
            except BaseException as error:
                made.close()
                if not isinstance(error, OSError):
                    raise
                problem = error
            else:
                return made
        if isinstance(problem, ConnectionRefusedError):
            raise _Failure(Stage.CONNECT, Obstacle.NOBODY, "the host answers, but no program listens at this port")
        raise _Failure(Stage.CONNECT, Obstacle.SILENT, f"no connection: {problem.strerror or problem}")

    # --- TLS, or plaintext ---------------------------------------------------------------------------

    async def _hear_first_words(self, connected: socket.socket, where: Sequence[tuple[Any, ...]]) -> None:
        """Do the TLS handshake of a run, and wait for the peer's first HTTP/2 frame: only that frame shows that the
        peer has accepted this node's certificate."""
        context = self._security.probe_context()
        target = self._security.target_name(self._name)
        try:
            reader, writer = await asyncio.open_connection(
                sock=connected, ssl=context, server_hostname=target if context else None
            )
        except ssl.SSLCertVerificationError as problem:
            raise await self._distrusted(problem, where) from None
        except (ssl.SSLError, OSError) as problem:
            raise _tls_failure(problem) from None
        try:
            self._note_certificate(writer)
            writer.write(PREFACE)
            first = await reader.readexactly(FRAME_HEADER_BYTES)
        except ssl.SSLError as problem:
            raise _refused_by_peer(problem) from None
        except (OSError, asyncio.IncompleteReadError):
            raise _hung_up(secure=context is not None) from None
        finally:
            writer.transport.abort()
        if first[3] != SETTINGS_FRAME:
            raise _not_http2(first)

    def _note_certificate(self, writer: asyncio.StreamWriter) -> None:
        shown = writer.get_extra_info("ssl_object")
        if shown is not None and (der := shown.getpeercert(True)):
            self.expires = _facts(der)[1]

    async def _distrusted(self, problem: ssl.SSLCertVerificationError, where: Sequence[tuple[Any, ...]]) -> _Failure:
        """The peer's certificate is not the expected one: connect once more to see whose it is."""
        whose = ""
        context = self._security.probe_context()
        if context is not None:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with await self._connect(where) as again:
                try:
                    _, writer = await asyncio.open_connection(sock=again, ssl=context, server_hostname="")
                    der = writer.get_extra_info("ssl_object").getpeercert(True)
                    writer.transport.abort()
                    whose, self.expires = _facts(der or b"")
                except (OSError, ValueError):
                    pass
        shown = f"; it shows the certificate of {whose}" if whose else ""
        if problem.verify_code in (62, 64):
            return _Failure(Stage.TLS, Obstacle.OTHER_NODE, f"the node that answers there is not {self._name}{shown}")
        words = problem.verify_message or str(problem)
        return _Failure(Stage.TLS, Obstacle.UNTRUSTED, f"its certificate is not accepted here: {words}{shown}")

    # --- the greeting ---------------------------------------------------------------------------------

    async def _ask(self) -> Probed:
        endpoint = Endpoint(self._address, self._security.credentials, self._security.verify)
        request = pb.DescribeRequest(name=self._own).SerializeToString()
        async with endpoint.channel(self._name, self._address) as channel:
            # Without serializers messages are bytes. The stubs declare serializers as required.
            call: Any = channel.unary_unary
            sent = time.time()
            try:
                message = await call(DESCRIBE)(request)
            except grpc.aio.AioRpcError as refusal:
                raise _no_description(refusal) from None
            heard = time.time()
        return self._described(message, (sent + heard) / 2)

    def _described(self, message: bytes, now: float) -> Probed:
        said = pb.Description()
        try:
            offer = read_offer(self._name or str(self._address), message)
            said.ParseFromString(message)
        except WireError as problem:
            raise _Failure(Stage.GREETING, Obstacle.NO_NODE, str(problem)) from None
        if said.protocol != PROTOCOL_VERSION:
            words = f"it speaks protocol {said.protocol}, but this node speaks {PROTOCOL_VERSION}"
            raise _Failure(Stage.GREETING, Obstacle.NO_NODE, words)
        return Probed(
            name=self._name,
            address=str(self._address),
            stage=Stage.DONE,
            clock_ahead_seconds=said.time - now if said.time else None,
            offer=offer,
        )


def _no_description(refusal: grpc.aio.AioRpcError) -> _Failure:
    words = in_a_line(refusal)
    match refusal.code():
        case grpc.StatusCode.PERMISSION_DENIED:
            return _Failure(Stage.GREETING, Obstacle.UNWELCOME, f"it does not let this node in: {words}")
        case grpc.StatusCode.UNAVAILABLE if "loading" in words:
            return _Failure(Stage.GREETING, Obstacle.LOADING, "it is up, but still loading its model")
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return _Failure(Stage.GREETING, Obstacle.LOADING, f"it is up, but busy: {words}")
        case grpc.StatusCode.UNIMPLEMENTED:
            return _Failure(
                Stage.GREETING,
                Obstacle.NO_NODE,
                "the program that answers there is not deca-node, or a version without this call",
            )
    return _Failure(Stage.GREETING, Obstacle.NO_NODE, f"it does not answer as a node: {words}")


# --- what TLS says ------------------------------------------------------------------------------------

_ALERTS = {
    "CERTIFICATE_REQUIRED": "it requires a certificate and got none",
    "CERTIFICATE_EXPIRED": "this node's certificate has expired, by its clock",
    "UNKNOWN_CA": "this node's certificate is from no authority that it knows",
    "BAD_CERTIFICATE": "it considers this node's certificate bad",
    "CERTIFICATE_UNKNOWN": "it does not accept this node's certificate",
    "DECRYPT_ERROR": "it could not check this node's certificate",
}


def _tls_failure(problem: Exception) -> _Failure:
    """The failure for a handshake that did not succeed."""
    reason = getattr(problem, "reason", None) or str(problem)
    if any(words in reason for words in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER")):
        return _Failure(Stage.TLS, Obstacle.PLAINTEXT, "it speaks plaintext, but this node speaks TLS")
    if any(words in reason for words in _ALERTS):
        return _refused_by_peer(problem)
    if isinstance(problem, ConnectionError) or "EOF" in reason:
        return _Failure(
            Stage.TLS,
            Obstacle.PLAINTEXT,
            "it hung up during the TLS handshake: it speaks plaintext, or it is not a node",
        )
    return _Failure(Stage.TLS, Obstacle.UNTRUSTED, f"the TLS handshake failed: {reason}")


def _refused_by_peer(problem: Exception) -> _Failure:
    reason = getattr(problem, "reason", None) or str(problem)
    words = next((said for alert, said in _ALERTS.items() if alert in reason), reason)
    return _Failure(Stage.TLS, Obstacle.UNWELCOME, f"it refuses this node's certificate: {words}")


def _hung_up(*, secure: bool) -> _Failure:
    if secure:
        words = "it hung up after the handshake: it does not accept this node's certificate; its log says why"
        return _Failure(Stage.TLS, Obstacle.UNWELCOME, words)
    return _Failure(Stage.TLS, Obstacle.PLAINTEXT, "it hung up on plaintext: it speaks TLS, or it is not a node")


def _not_http2(first: bytes) -> _Failure:
    if first[:2] == b"\x15\x03":
        return _Failure(Stage.TLS, Obstacle.PLAINTEXT, "it speaks TLS, but this node speaks plaintext")
    return _Failure(Stage.TLS, Obstacle.NO_NODE, "the program that answers there is not deca-node")


def _facts(der: bytes) -> tuple[str, float | None]:
    """The owner of a certificate, if it can be read, and its end in unix seconds."""
    try:
        leaf = parse_certificates(ssl.DER_cert_to_PEM_cert(der).encode(), "its certificate")[0]
    except CertificateError:
        return "", None
    expires = leaf.not_valid_after_utc.timestamp()
    try:
        return facts_of(leaf, "its certificate").id.uri, expires
    except CertificateError:
        return leaf.subject.rfc4514_string(), expires
