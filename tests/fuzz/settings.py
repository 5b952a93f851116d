"""What a person writes and a node reads before it begins, and the doors at which it is asked: settings, peers, lists,
certificates, requests over HTTP, and the lines that a trainer says."""

import asyncio
import base64
import contextlib
import datetime as dt
import functools
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiohttp import web

from deca_node.daemon.logs import EventLog
from deca_node.daemon.security import authority, enrolment
from deca_node.daemon.security import certificates as certs
from deca_node.daemon.security.doorman import caller_facts, read_list
from deca_node.daemon.settings import own_address
from deca_node.daemon.settings.address import parse_address
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.peers_file import own_line, read_peers
from deca_node.daemon.settings.sources import load_settings, run_as_toml
from deca_node.daemon.status.history import History
from deca_node.daemon.trainer import messages
from deca_node.daemon.web.admin_socket import AdminSocket
from deca_node.daemon.web.dashboard import add_dashboard
from deca_node.daemon.web.guard import guard, read_token
from deca_node.daemon.web.server import application, log
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.frames import FrameId, FrameKind
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.errors import DecaError
from deca_node.protocol.node.node import Node
from deca_node.storage.jsons import UNFIT
from tests.daemon.web.fake_admin import FakeAdmin
from tests.defaults import default_policy
from tests.fuzz.decoders import Decoder, Finding, Target
from tests.fuzz.scratch import file, fresh
from tests.fuzz.streams import in_loop

NESTED = (b"a = " + b"[" * 3000, b"a = " + b"{a=" * 1500, b"a." * 1500 + b"a = 1", b"rounds = " + b"9" * 5000)
"""What readers of TOML stumble over."""
NOW = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
TOKEN = "0123456789abcdef" * 2


# --- settings, peers, lists --------------------------------------------------------------------------


def _run_file(data: bytes) -> None:
    run = load_settings({}, {}, file("run.toml", data), None).run
    again = load_settings({}, {}, file("again.toml", run_as_toml(run).encode()), None).run
    if again != run:
        raise Finding("run settings that are not what they are written as")


def _node_file(data: bytes) -> None:
    node = load_settings({}, {}, None, file("node.toml", data)).node
    own_address.find_own_address(NodeSettings(name="north", listen=node.listen or "127.0.0.1:7001", join=node.join))


def _environment(data: bytes) -> None:
    pairs = [part.partition("=") for part in data.decode("latin-1").replace("\0", "").split("\n")]
    load_settings({}, {f"DECA_{name}": value for name, _, value in pairs}, None, None)


def _peers(data: bytes) -> None:
    peers = read_peers(file("peers.txt", data))
    own_line(peers, "", parse_address("10.0.0.5:7001"), lambda _: False)


def _token(data: bytes) -> None:
    read_token(str(file("token", data)))


# --- certificates ------------------------------------------------------------------------------------


@functools.cache
def _federation() -> Path:
    folder = fresh("federation")
    authority.init(folder / "ca", "wards.example", NOW)
    request = enrolment.request(folder / "north", certs.NodeId("wards.example", "north"))
    authority.approve(folder / "ca", request, folder / "north.crt", NOW)
    root = certs.read_certificates(folder / "ca" / "ca.crt")[0]
    enrolment.install(folder / "north", folder / "north.crt", certs.fingerprint_of(root), NOW)
    return folder


def _pem(data: bytes, kind: str) -> bytes:
    """A file as it is, or after a plus sign DER that is to be wrapped."""
    if data[:1] != b"+":
        return data
    body = base64.encodebytes(data[1:])
    return b"-----BEGIN %s-----\n%s-----END %s-----\n" % (kind.encode(), body, kind.encode())


def _certificate(data: bytes) -> None:
    files = enrolment.node_files(_federation() / "north", "north")
    pem = _pem(data, "CERTIFICATE")
    with contextlib.suppress(DecaError):
        caller_facts({"x509_pem_cert": [pem]}, NOW)
    certs.read_material(certs.TlsFiles(file("other.crt", pem), files.key, files.ca), NOW)


def _authorities(data: bytes) -> None:
    files = enrolment.node_files(_federation() / "north", "north")
    path = file("other-ca.crt", _pem(data, "CERTIFICATE"))
    certs.read_material(certs.TlsFiles(files.cert, files.key, path), NOW)


def _key(data: bytes) -> None:
    files = enrolment.node_files(_federation() / "north", "north")
    path = file("other.key", _pem(data, "PRIVATE KEY"))
    path.chmod(0o600)
    certs.read_material(certs.TlsFiles(files.cert, path, files.ca), NOW)


def _request(data: bytes) -> None:
    folder = _federation()
    path = file("asked.csr", _pem(data, "CERTIFICATE REQUEST"))
    authority.approve(folder / "ca", path, file("out.crt", b""), NOW, replace=True)
    shutil.copy(folder / "ca" / "issued.jsonl", folder / "issued.jsonl")


def _issued(data: bytes) -> None:
    folder = fresh("book")
    shutil.copytree(_federation() / "ca", folder, dirs_exist_ok=True)
    (folder / "issued.jsonl").write_bytes(data)
    authority.approve(folder, _federation() / "north" / "north.csr", file("out.crt", b""), NOW)


def _certified(kind: str) -> Iterator[bytes]:
    folder = _federation() / "north"
    names = {"CERTIFICATE": "north.crt", "PRIVATE KEY": "north.key", "AUTHORITY": "ca.crt"}
    pem = (folder / names.get(kind, "north.csr")).read_bytes()
    yield pem
    body = pem.partition(b"-----END")[0].partition(b"-----\n")[2]
    yield b"+" + base64.decodebytes(body)


def _uri(data: bytes) -> None:
    text = data.decode("latin-1")
    for parse in (certs.NodeId.parse, certs.parse_fingerprint):
        try:
            parse(text)
        except DecaError:
            continue
    try:
        parse_address(text)
    except ValueError as problem:
        raise DecaError(str(problem)) from None


# --- HTTP --------------------------------------------------------------------------------------------


class _Wire(asyncio.Transport):
    """A connection that takes everything."""

    def __init__(self) -> None:
        super().__init__()
        self.said = bytearray()
        self.closed = False

    def write(self, data: Any) -> None:
        self.said += data

    def writelines(self, list_of_data: Any) -> None:
        for data in list_of_data:
            self.write(data)

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else default

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...


def _applications() -> list[web.Application]:
    """The socket's in the node's folder, and those of a port: on this machine, and elsewhere with a token."""
    door, events = FakeAdmin(), EventLog()
    events.handle(logging.makeLogRecord({"msg": "round 1/4 at /tmp/x", "levelno": 20, "levelname": "INFO"}))
    apps = [AdminSocket(door, events, Path("/nowhere"))._server._runner.app]
    for host, token in (("127.0.0.1", ""), ("10.0.0.5", str(file("token", TOKEN.encode())))):
        app = application(door)
        app.middlewares.append(guard(host, token))
        add_dashboard(app, History(Node("north", ("north",), RunSettings(), default_policy()).state), events)
        apps.append(app)
    return apps


_SERVERS: list[Any] = []


def _http(data: bytes) -> None:
    """A connection: the first byte says to which application, the rest is what comes over it."""
    in_loop(_connection(data))


async def _connection(data: bytes) -> None:
    if not _SERVERS:
        for app in _applications():
            runner = web.AppRunner(app, access_log=None, logger=log)
            await runner.setup()
            _SERVERS.append(runner.server)
    protocol, wire = _SERVERS[data[0] % len(_SERVERS) if data else 0](), _Wire()
    protocol.connection_made(wire)
    half = len(data) // 2
    for part in (data[1:half], data[max(1, half) :]):
        protocol.data_received(part)
        for _ in range(12):
            await asyncio.sleep(0)
    protocol.connection_lost(None)
    await protocol.shutdown(0.01)
    if b" 500 " in wire.said[:20] or b"Traceback" in wire.said:
        raise Finding(f"a request that nothing answers: {bytes(wire.said[:300])!r}")


def _requests() -> list[bytes]:
    basic = base64.b64encode(f"me:{TOKEN}".encode()).decode()
    paths = (
        "/v1/status",
        "/v1/events?last=5",
        "/v1/events?last=5&follow=1",
        "/v1/history?since=3",
        "/v1/map",
        "/metrics",
    )
    heads = ["Host: localhost", f"Authorization: Bearer {TOKEN}", f"Authorization: Basic {basic}", "Host: é.example"]
    said = [f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n" for path in paths for head in heads]
    said += [f"POST /v1/{verb} HTTP/1.1\r\nHost: node\r\nContent-Length: 0\r\n\r\n" for verb in ("pause", "stop")]
    return [bytes([index % 3]) + text.encode() for index, text in enumerate(said)] + [
        b"\2" + said[1].encode() + b"\xff"
    ]


# --- the trainer -------------------------------------------------------------------------------------


def _lines() -> list[bytes]:
    frame = FrameId("north", FrameKind.UPDATE, 3, 4)
    said = (
        e.HalfStepped(Step(3, 4), frame, {"loss": 2.5}),
        e.Mixed(Step(3, 4), {}, (e.Refused("south", "not-finite", "sent NaN"),)),
        e.TrainerFailed("out of memory", 11),
        c.Mix(Step(3, 4), (c.Flow("south", frame, frame),), fold=True),
        messages.Remark("loading"),
    )
    return [messages.encode(said[0], {frame: (1, 40)}), *(messages.encode(body) for body in said), b"[" * 5000]


TARGET = Target(
    "settings",
    (
        Decoder("run.toml", _run_file, lambda: [run_as_toml(RunSettings()).encode(), *NESTED]),
        Decoder("node.toml", _node_file, lambda: [b'name = "north"\njoin = "a:7001, b:7001"\nwait_for = 2\n', *NESTED]),
        Decoder("environment", _environment, lambda: [b"ROUNDS=3\nSIGNAL=v\nSHARE_MODEL=yes"]),
        Decoder("peers file", _peers, lambda: [b"# all\nnorth@10.0.0.5:7001\n[2001:db8::7]:7001 # b\n"]),
        Decoder(
            "list of names",
            lambda data: read_list(file("list", data)),
            lambda: [b"north\nsha256:" + b"ab" * 32 + b" # x"],
        ),
        Decoder("token", _token, lambda: [TOKEN.encode()]),
        Decoder("certificate", _certificate, lambda: list(_certified("CERTIFICATE"))),
        Decoder("authorities", _authorities, lambda: list(_certified("AUTHORITY"))),
        Decoder("key", _key, lambda: list(_certified("PRIVATE KEY"))),
        Decoder("certificate request", _request, lambda: list(_certified("CERTIFICATE REQUEST"))),
        Decoder("issued.jsonl", _issued, lambda: [(_federation() / "ca" / "issued.jsonl").read_bytes(), b"[" * 5000]),
        Decoder("names", _uri, lambda: [b"spiffe://wards.example/node/north", b"sha256:" + b"ab" * 32, b"[::1]:7001"]),
        Decoder("HTTP", _http, _requests),
        Decoder("trainer's line", messages.decode, _lines, refuses=UNFIT),
    ),
)
