"""Attempts on a run of two real nodes over TLS: each is refused for its own reason, takes no memory, disturbs nobody.

docs/ATTEMPTS.md is the table of them. Callers that are no members come with sockets of their own; members that turn
hostile are the network side of a real node (tests/e2e/hostile.py).
"""

import asyncio
import contextlib
import datetime as dt
import json
import logging
import os
import re
import ssl
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from deca_node.api.client import NodeClient, read
from deca_node.daemon.links.greeting import Identity
from deca_node.daemon.links.pairing import NONE
from deca_node.daemon.links.transport import METHOD, hello_message
from deca_node.daemon.security.certificates import TlsFiles
from deca_node.daemon.security.credentials import NodeCredentials
from deca_node.daemon.settings.address import Address
from deca_node.daemon.status.facts import MemberRow, Status
from deca_node.daemon.wire import framing
from deca_node.daemon.wire.broken import StreamBrokenError
from deca_node.daemon.wire.endpoint import Endpoint, _Dialled
from deca_node.daemon.wire_pb import exchange_pb2 as pb
from deca_node.lab.rigs.processes import NodeProcess
from deca_node.protocol.agreed.agreement import Agreement
from deca_node.protocol.agreed.frames import FrameId, FrameKind
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.membership.facts import BOOT_MAX
from tests.daemon.conftest import Federation
from tests.daemon.security.handshakes import answered, context_of, issue, tls_reason
from tests.e2e.hostile import Http2, Member, half_open, magnified, member, resident_bytes
from tests.e2e.testbed import Testbed, look, make_tiny_model, until
from tests.patience import PATIENCE_SECONDS

log = logging.getLogger(__name__)
"""What was measured, with ``-o log_cli=true -o log_cli_level=INFO``."""

pytestmark = pytest.mark.slow

RUN: dict[str, Any] = {
    "rounds": 5000,
    "inner_steps": 12,
    "sequence_length": 16,
    "batch_size": 2,
    "learning_rate": 1e-4,
    "topology": "full",
    "signal": "none",
}
NODE = {"open_timeout_seconds": 2, "step_timeout_seconds": 2, "quarantine_seconds": 2, "wait_for": 2}
GROWTH_BYTES_MAX = 24 << 20
"""Of the daemon's memory over one attempt: what gRPC keeps for its connections, and no more."""
STREAMS = 10_000


@dataclass
class Live:
    """The run, and what is needed to attack it."""

    folder: Path
    federation: Federation
    told: str
    north: NodeProcess
    south: NodeProcess
    seed: str
    certified: dict[str, TlsFiles] = field(default_factory=dict)

    @property
    def status(self) -> Status:
        found: Status = read(Status, NodeClient(self.north.directory).get("/v1/status"))
        return found

    @property
    def members(self) -> list[MemberRow]:
        found: list[MemberRow] = read(list[MemberRow], NodeClient(self.north.directory).get("/v1/members"))
        return found

    @property
    def port(self) -> int:
        return int(self.seed.rpartition(":")[2])

    @property
    def agreement(self) -> Agreement:
        record = json.loads((self.north.directory / "run.json").read_text())
        return Agreement(record["agreement"])

    def steps(self) -> int:
        position = self.status.position
        return position.done if position else 0

    def certify(self, name: str) -> TlsFiles:
        """The certificate of a member of this name."""
        if name not in self.certified:
            self.certified[name] = self.federation.node(name, self.told)
        return self.certified[name]

    @contextlib.asynccontextmanager
    async def hostile(self, name: str) -> Any:
        settings, folder = RunSettings(**RUN), self.folder / "hostile" / name
        files = self.certify(name)
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - within a loop of asyncio
        async with member(name, files, self.seed, "north", self.agreement, settings, folder) as made:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await made.up.wait()
            yield made


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("attempts")
    federation = Federation(folder / "certificates")
    told = federation.begin(dt.datetime.now(dt.UTC) - dt.timedelta(days=200))
    deny = folder / "deny.txt"
    deny.write_text("denied\n")
    with Testbed(folder, make_tiny_model(folder / "tiny")) as bed:
        peers = bed.peers("north", "south").read_text().split()
        seed = peers[0].partition("@")[2]
        nodes, certified = [], {}
        for name in ("north", "south"):
            files = certified[name] = federation.node(name, told)
            flags = {"tls_cert": files.cert, "tls_key": files.key, "tls_ca": files.ca, "insecure": None, "deny": deny}
            nodes.append(bed.start(name, **RUN, **NODE, **flags))
        made = Live(folder, federation, told, nodes[0], nodes[1], seed, certified)
        look(made.north, lambda status: (status.position.done if status.position else 0) > 20, "some steps")
        yield made


@contextlib.contextmanager
def undisturbed(live: Live) -> Iterator[None]:
    """North lives on within, takes no memory to speak of, and takes steps, with south, after it."""
    before, memory = live.steps(), resident_bytes(live.north.process.pid)
    yield
    until(lambda: live.steps() > before + 2, "steps after the attempt")
    # What is free goes back to the system every 15 s.
    until(lambda: resident_bytes(live.north.process.pid) - memory < GROWTH_BYTES_MAX, "the memory of before")
    grown = resident_bytes(live.north.process.pid) - memory
    log.info("steps %d, memory %+.1f MiB", live.steps() - before, grown / 2**20)
    look(live.north, lambda status: any(p.name == "south" and p.state == "up" for p in status.peers), "south")


@contextlib.contextmanager
def refused_for(live: Live, reason: str) -> Iterator[None]:
    """North counts one refusal or more for this reason within."""
    before = live.status.refusals.get(reason, 0)
    with undisturbed(live):
        yield
        until(lambda: live.status.refusals.get(reason, 0) > before, f"a refusal for {reason}")


# --- before the first message ------------------------------------------------------------------------


def no_certificate(live: Live) -> ssl.SSLContext:
    return context_of(live.certify("caller"), certificate=False)


def wrong_authority(live: Live) -> ssl.SSLContext:
    other = Federation(live.folder / "elsewhere")
    stranger = other.node("south", other.begin())
    return context_of(TlsFiles(stranger.cert, stranger.key, live.certify("caller").ca))


def out_of_dates(live: Live, name: str, days_ago: int) -> ssl.SSLContext:
    files = live.certify(name)
    issue(live.federation, files, dt.datetime.now(dt.UTC) - dt.timedelta(days=days_ago))
    return context_of(files)


def tls_12(live: Live) -> ssl.SSLContext:
    return context_of(live.certify("caller"), version=ssl.TLSVersion.TLSv1_2)


HANDSHAKES: dict[str, Callable[[Live], ssl.SSLContext]] = {
    "tls-no-certificate": no_certificate,
    "tls-authority": wrong_authority,
    "tls-expired": lambda live: out_of_dates(live, "old", 100),
    "tls-not-yet-valid": lambda live: out_of_dates(live, "early", -2),
    "tls-version": tls_12,
}


@pytest.mark.parametrize("reason", HANDSHAKES)
def test_handshakes(live: Live, reason: str) -> None:
    """No byte of HTTP/2 comes back; north's log names the reason; and one handshake more than callers is counted."""
    context = HANDSHAKES[reason](live)
    before, said = live.status, len(live.north.log_text())
    with undisturbed(live):
        assert not answered(live.port, context)
        until(lambda: reason in reasons(live.north.log_text()[said:]), f"{reason} in the log")
    after = live.status
    assert after.tls_handshakes is not None and before.tls_handshakes is not None
    assert after.tls_handshakes > before.tls_handshakes
    assert after.tls_callers == before.tls_callers


def reasons(log: str) -> set[str]:
    return {found for line in log.splitlines() if "andshake" in line and (found := tls_reason(line))}


def test_plaintext(live: Live) -> None:
    said = len(live.north.log_text())

    async def call() -> str:
        try:
            async with Endpoint(Address("127.0.0.1", 0)).dial("north", live.seed, METHOD) as stream:
                await stream.write(b"hello")
                return repr(await stream.read())
        except StreamBrokenError:
            return "broken"

    with undisturbed(live):
        assert asyncio.run(call()) == "broken"
        until(lambda: "tls-plaintext" in reasons(live.north.log_text()[said:]), "tls-plaintext in the log")


def test_our_own_certificate_is_welcome(live: Live) -> None:
    """The same socket with what it should have: so the refusals above are no accident of the test."""
    assert answered(live.port, context_of(live.certify("caller")))


# --- the greeting ------------------------------------------------------------------------------------


async def greeted(live: Live, bearer: str, first: bytes) -> pb.Refusal:
    """What north answers to a first message over a connection with this bearer's certificate; of any length."""
    credentials = NodeCredentials(live.certify(bearer)).for_endpoint()
    options: list[tuple[str, Any]] = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    options.append(("grpc.ssl_target_name_override", credentials.target_name("north")))
    async with grpc.aio.secure_channel(live.seed, credentials.channel(), options=options) as channel:
        stream = _Dialled(channel, METHOD, lambda *_: None)
        await stream.write(first)
        async with asyncio.timeout(PATIENCE_SECONDS):
            return pb.Frame.FromString(await stream.read() or b"").refusal


def hello(live: Live, name: str, to: str = "north", boot: int = BOOT_MAX, **changes: str) -> bytes:
    agreement = Agreement({**live.agreement.fields, **changes})
    return hello_message(Identity(name, boot, lambda: 0), to, agreement, NONE)


GREETINGS = {
    "denied": ("denied", "denied", {}),
    "identity": ("caller", "south", {}),
    "stranger": ("caller", "caller", {}),
    "address": ("caller", "caller", {"to": "elsewhere"}),
    "stale-boot": ("south", "south", {"boot": 1}),
    "mismatch": ("south", "south", {"learning_rate": "0.5"}),
}
"""Whose certificate, what name is said, and what is wrong beside it."""


@pytest.mark.parametrize("reason", GREETINGS)
def test_greetings(live: Live, reason: str) -> None:
    bearer, name, wrong = GREETINGS[reason]
    with refused_for(live, reason):
        refusal = asyncio.run(greeted(live, bearer, hello(live, name, **wrong)))  # type: ignore[arg-type]
        assert refusal.reason == reason and refusal.sentence, refusal
    log.info(refusal.sentence)


def test_whoever_says_hello_byte_by_byte_is_let_go(live: Live) -> None:
    """A stream that never becomes a greeting ends after 10 s, however busy it is."""
    message = hello(live, "caller")

    async def trickle() -> float:
        line = await Http2.connect(live.port, context_of(live.certify("caller")))
        line.open(1)
        line.say(1, struct.pack(">?I", False, len(message)))
        began = time.monotonic()
        for byte in message * 100:
            line.say(1, bytes([byte]))
            await asyncio.wait([line.over], timeout=0.25)
            if line.resets or line.over.done() or time.monotonic() - began > 40:
                break
        line.close()
        return time.monotonic() - began

    with refused_for(live, "slow"):
        assert asyncio.run(trickle()) < 40


# --- a member that turns hostile ---------------------------------------------------------------------


async def message_too_large(hostile: Member, live: Live) -> None:
    """As the first message of a caller."""
    refusal = await greeted(live, "large", bytes(3 << 20))
    assert refusal.reason == "size", refusal


async def message_far_too_large(hostile: Member, live: Live) -> None:
    """gRPC itself ends the stream, and its words are all that there are."""
    with pytest.raises(StreamBrokenError):
        await greeted(live, "larger", bytes(64 << 20))


def chunk(hostile: Member, data: bytes, total: int, offset: int = 0) -> bytes:
    frame = FrameId(hostile.name, FrameKind.UPDATE, 0, 0)
    return framing.encode_chunk(frame, offset, total, memoryview(data))


async def frame_too_large(hostile: Member, live: Live) -> None:
    await hostile.raw("north", chunk(hostile, bytes(100), 1 << 40))


async def lying_size(hostile: Member, live: Live) -> None:
    """The chunk says that it is longer than the message it comes in."""
    whole = chunk(hostile, bytes(100), 100)
    await hostile.raw("north", whole[:-10])


async def beyond_its_end(hostile: Member, live: Live) -> None:
    await hostile.raw("north", chunk(hostile, bytes(100), 150, 100))


async def bad_checksum(hostile: Member, live: Live) -> None:
    """A piece of the update that north waits for; of others it would not even look at the sum."""
    asked: asyncio.Queue[tuple[FrameId, int]] = asyncio.Queue()
    hostile.update = lambda theirs, content: asked.put_nowait((theirs, len(content)))
    async with asyncio.timeout(PATIENCE_SECONDS):
        theirs, nbytes = await asked.get()
    frame = FrameId(hostile.name, FrameKind.UPDATE, theirs.activation, theirs.inner)
    whole = bytearray(framing.encode_chunk(frame, 0, nbytes, memoryview(bytes(nbytes))))
    whole[-1] ^= 1
    await hostile.raw("north", bytes(whole))


async def no_message(hostile: Member, live: Live) -> None:
    await hostile.raw("north", os.urandom(64))


MESSAGES: dict[str, tuple[str, Callable[[Member, Live], Awaitable[None]]]] = {
    "large": ("size", message_too_large),
    "larger": ("", message_far_too_large),
    "frame": ("size", frame_too_large),
    "lying": ("malformed", lying_size),
    "beyond": ("size", beyond_its_end),
    "checksum": ("checksum", bad_checksum),
    "noise": ("malformed", no_message),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages(live: Live, name: str) -> None:
    reason, attempt = MESSAGES[name]

    async def attack() -> None:
        async with live.hostile(name) as hostile:
            await attempt(hostile, live)
            if reason:
                until(lambda: live.status.refusals.get(reason, 0) > before, reason)

    before = live.status.refusals.get(reason, 0)
    with refused_for(live, reason) if reason else undisturbed(live):
        asyncio.run(attack())


def not_a_number(_: FrameId, theirs: bytes) -> bytes:
    return b"\x00\x00\xc0\x7f" + theirs[4:]


def a_million_times(_: FrameId, theirs: bytes) -> bytes:
    return magnified(theirs, 1e6)


def no_encoder_writes(_: FrameId, theirs: bytes) -> bytes:
    return theirs[:4] + b"\x80" + theirs[5:]


UPDATES: dict[str, Callable[[FrameId, bytes], bytes]] = {
    "not-finite": not_a_number,
    "wild-norm": a_million_times,
    "bad-codes": no_encoder_writes,
}


@pytest.mark.parametrize("reason", UPDATES)
def test_updates(live: Live, reason: str) -> None:
    """Well-formed frames over an open edge, with numbers in them that no trainer may take up."""

    async def attack() -> None:
        async with live.hostile(f"m-{reason}") as hostile:
            hostile.update = UPDATES[reason]
            async with asyncio.timeout(PATIENCE_SECONDS):
                await hostile.edge.wait()
                while live.status.refusals.get(reason, 0) == before:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)

    before = live.status.refusals.get(reason, 0)
    with refused_for(live, reason):
        asyncio.run(attack())
    assert reason in live.north.log_text()


def test_a_replayed_update(live: Live) -> None:
    """The update of a step that is mixed already, once more."""

    async def attack() -> None:
        async with live.hostile("again") as hostile:
            sent: list[tuple[FrameId, int]] = []

            def twice(theirs: FrameId, content: bytes) -> bytes:
                # North is at its next update, so it has mixed the one before.
                if sent and sent[-1][0].activation == theirs.activation:
                    before, nbytes = sent[-1]
                    replayed.append(framing.encode_chunk(before, 0, nbytes, memoryview(bytes(nbytes))))
                sent.append((FrameId("again", FrameKind.UPDATE, theirs.activation, theirs.inner), len(content)))
                return bytes(len(content))

            replayed: list[bytes] = []
            hostile.update = twice
            async with asyncio.timeout(PATIENCE_SECONDS):
                while live.status.refusals.get("replay", 0) == before:
                    if replayed and hostile.up.is_set():
                        await hostile.raw("north", replayed.pop())
                        replayed.clear()
                    await asyncio.sleep(0.02)

    before = live.status.refusals.get("replay", 0)
    with refused_for(live, "replay"):
        asyncio.run(attack())


def held_by_north(hostile: Member) -> bool:
    """Whether the member knows that north holds it in quarantine."""
    problem = hostile.network.transport.problems().get("north")
    return problem is not None and "quarantine" in problem.sentence


def test_quarantine(live: Live) -> None:
    """Three broken rules and a member is let be: not greeted, not dialled, and shown; then it is welcome again, and
    whoever breaks a rule after that is let be for twice as long."""

    async def offend(hostile: Member) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await hostile.up.wait()
            hostile.up.clear()
            await hostile.raw("north", b"\xff\xff")
            while not hostile.downs:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            hostile.downs.clear()

    def held() -> MemberRow | None:
        return next((m for m in live.members if m.name == "rude" and m.quarantine), None)

    async def attack() -> None:
        async with live.hostile("rude") as hostile:
            for _ in range(3):
                await offend(hostile)
            row = await asyncio.to_thread(until, held, "the quarantine", 30)
            peer = next(p for p in live.status.peers if p.name == "rude")
            assert row.quarantined_until and peer.state == "quarantined" and peer.quarantined_until
            assert "malformed" in row.quarantine and re.search(r"until \d\d:\d\d:\d\d UTC", row.quarantine)
            first = row.quarantined_until - time.time()
            await asyncio.to_thread(until, lambda: held_by_north(hostile), "the refusal", 30)
            await offend(hostile)
            again = await asyncio.to_thread(until, held, "the second quarantine", 30)
            assert "the 2nd time" in again.quarantine and again.quarantined_until - time.time() > first - 2
            async with asyncio.timeout(PATIENCE_SECONDS):
                await hostile.up.wait()

    before = live.status.quarantines
    with refused_for(live, "quarantined"):
        asyncio.run(attack())
    assert live.status.quarantines == before + 2
    assert "rude is in quarantine until" in live.north.log_text()


# --- too much of something ---------------------------------------------------------------------------


async def flood(live: Live, connections: int) -> None:
    """Ten thousand streams on which nothing is said, until nobody waits for an answer any more."""
    context, lines = context_of(live.certify("flood")), []
    for _ in range(connections):
        line = await Http2.connect(live.port, context)
        for number in range(STREAMS // connections):
            line.open(2 * number + 1)
        lines.append(line)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not all(line.over.done() or line.resets >= STREAMS // connections for line in lines):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    reset, cut = sum(line.resets for line in lines), sum(line.over.done() for line in lines)
    peak = resident_bytes(live.north.process.pid)
    log.info("%d of %d streams reset, %d of %d connections cut", reset, STREAMS, cut, connections)
    log.info("at that moment %.1f MiB", peak / 2**20)
    for line in lines:
        line.close()


@pytest.mark.parametrize("connections", [1, 400])
def test_ten_thousand_idle_streams(live: Live, connections: int) -> None:
    """Of one member's certificate, on one connection or many: 16 are read, the rest is turned away at once, and those
    16 end after 10 s. What gRPC takes for a connection it keeps for the next: a second time costs nothing."""
    asyncio.run(flood(live, connections))
    with undisturbed(live):
        asyncio.run(flood(live, connections))


def hold_half_open(live: Live) -> None:
    """Fifteen hundred connections that say nothing, or half a greeting of TLS, until they are closed from there."""
    hello_begun = b"\x16\x03\x01\x02\x00\x01\x00"
    held = [half_open(live.port, hello_begun if number % 2 else b"") for number in range(1500)]
    began = time.monotonic()
    until(lambda: any(map(is_closed, held)), "the first to be closed")
    log.info("%d closed after %.1f s", sum(map(is_closed, held)), time.monotonic() - began)
    until(lambda: all(map(is_closed, held)), "all of them to be closed")
    log.info("all closed after %.1f s", time.monotonic() - began)
    for each in held:
        each.close()


def test_half_open_connections(live: Live) -> None:
    """All are closed after 10 s; any beyond the limit would be closed at once. What gRPC takes for
    a connection it keeps for the next: a second time costs nothing."""
    hold_half_open(live)
    with undisturbed(live):
        hold_half_open(live)


def is_closed(connection: Any) -> bool:
    try:
        return connection.recv(4096) == b"" or False
    except BlockingIOError:
        return False
    except OSError:
        return True
