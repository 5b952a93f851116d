"""Members that keep the rules until they are told not to, and callers that are no members at all.

A :class:`Member` is the network side of a real node, with a certificate of the federation and without a trainer: it is
dialled, offered edges and sent updates like any other, and says to whom it likes what it likes. An :class:`Http2`
speaks just as much HTTP/2 as it takes to open streams that no library would open.
"""

import asyncio
import dataclasses
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from deca_node.daemon.links.session import FrameRules
from deca_node.daemon.network import Network
from deca_node.daemon.security.certificates import TlsFiles
from deca_node.daemon.security.security import Security
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.own_address import find_own_address
from deca_node.daemon.trainer.arena import Arena, FrameStore, shared_file
from deca_node.daemon.wire.endpoint import Stream
from deca_node.daemon.wire_pb import exchange_pb2 as pb
from deca_node.lab.rigs.processes import LOOPBACK, free_ports
from deca_node.protocol import events as e
from deca_node.protocol.agreed.agreement import Agreement
from deca_node.protocol.agreed.frames import FrameId, FrameKind, FrameSizes
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Schedule, Step

HELD_MAX = 8
Update = Callable[[FrameId, bytes], bytes | None]
"""What to send for an update of the victim's, of which name and bytes are given; None: nothing."""


class Shared:
    """A stream on which two may write: gRPC takes one message at a time."""

    def __init__(self, stream: Stream) -> None:
        self.read, self.verify, self._write = stream.read, stream.verify, stream.write
        self._turn = asyncio.Lock()

    async def write(self, message: bytes) -> None:
        async with self._turn:
            await self._write(message)


class Member:
    """See above. ``update`` says what it answers the ``victim``'s updates with; others get zeros."""

    def __init__(
        self, network: Network, agreement: Agreement, settings: RunSettings, events: "asyncio.Queue[Any]"
    ) -> None:
        self.network = network
        self.name = network._own.name
        self.up = asyncio.Event()
        self.edge = asyncio.Event()
        self.downs: list[str] = []
        self.update: Update = lambda _frame, theirs: bytes(len(theirs))
        self.keyframe: Callable[[int], bytes] = bytes
        blocks = [int(block.rpartition(":")[2]) for block in agreement.fields["blocks"].split()]
        self._schedule = Schedule(settings, len(blocks), 4)
        self._sizes = sizes_of(blocks)
        self._events = events
        descriptor = shared_file()
        self.store = FrameStore(Arena(descriptor, self._sizes.largest, 200))
        os.close(descriptor)
        hold: Any = network.transport._hold

        async def shared(greeted: Any) -> None:
            await hold(dataclasses.replace(greeted, stream=Shared(greeted.stream)))

        network.transport._hold = shared  # type: ignore[method-assign]
        network.meet(agreement)
        network.transport.meet(agreement, self.store, FrameRules(self.nbytes, HELD_MAX))

    def nbytes(self, kind: FrameKind, step: Step) -> int | None:
        return self._sizes.nbytes(self._schedule, kind, step)

    async def raw(self, victim: str, message: bytes) -> None:
        """Say something on the live stream, past everything that would keep the rules."""
        session: Any = self.network.transport._links[victim].session
        await session._stream.write(message)

    async def play(self, victim: str) -> None:
        """Answer offers and updates, for ever."""
        while True:
            match await self._events.get():
                case e.PeerUp(peer=peer) if peer == victim:
                    self.up.set()
                case e.PeerDown(peer=peer, sentence=sentence) if peer == victim:
                    self.up.clear()
                    self.downs.append(sentence)
                case e.OpenReceived() as offer:
                    self.store.release(offer.keyframe)
                    self._open(offer, self.keyframe if offer.peer == victim else bytes)
                case e.UpdateReceived(peer=peer, update=update):
                    theirs = bytes(self.store.view(update))
                    self.store.release(update)
                    if peer == victim:
                        self.edge.set()
                    self._answer(peer, update, self.update(update, theirs) if peer == victim else bytes(len(theirs)))

    def _open(self, offer: e.OpenReceived, content: Callable[[int], bytes]) -> None:
        nbytes = self.nbytes(FrameKind.KEYFRAME, Step(offer.activation, 0))
        assert nbytes is not None
        frame = FrameId(self.name, FrameKind.KEYFRAME, offer.activation, 0)
        if frame not in self.store:
            self.store.reserve(frame, nbytes)[:] = content(nbytes)
        opening = pb.Open(activation=offer.activation, degree=offer.degree, keyframe_bytes=nbytes)
        self.network.transport.send_open(offer.peer, opening, frame)
        self.store.release(frame)

    def _answer(self, peer: str, theirs: FrameId, content: bytes | None) -> None:
        frame = FrameId(self.name, FrameKind.UPDATE, theirs.activation, theirs.inner)
        if content is None:
            return
        if frame not in self.store:
            self.store.reserve(frame, len(content))[:] = content
        self.network.transport.send_frame(peer, frame)
        self.store.release(frame)


def sizes_of(blocks: list[int]) -> FrameSizes:
    """Of int8 without signals."""
    codes = tuple(4 * -(-n // 256) + n for n in blocks)
    return FrameSizes(codes, tuple(n + 20 for n in codes), *((0,) * len(blocks),) * 2)


@asynccontextmanager
async def member(
    name: str, files: TlsFiles, seed: str, victim: str, agreement: Agreement, settings: RunSettings, folder: Path
) -> AsyncIterator[Member]:
    """A member of this name, from its first packet to its last."""
    own = NodeSettings(
        name=name,
        listen=f"{LOOPBACK}:{free_ports(1)[0]}",
        join=seed,
        peers=str(folder / "none.txt"),
        tls_cert=str(files.cert),
        tls_key=str(files.key),
        tls_ca=str(files.ca),
        dir=str(folder),
    )
    events: asyncio.Queue[Any] = asyncio.Queue()
    network = Network(
        settings, own, find_own_address(own, name), folder, Security(own), events.put_nowait, lambda: 0, lambda _: None
    )
    made = Member(network, agreement, settings, events)
    await network.start()
    playing = asyncio.ensure_future(made.play(victim))
    try:
        yield made
    finally:
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
        await network.close(leaving=True)


def magnified(frame: bytes, times: float) -> bytes:
    """An int8 frame with every scale that many times as large."""
    out = bytearray(frame)
    for at in range(0, len(out) - 24, 260):
        (scale,) = struct.unpack_from("<f", out, at)
        struct.pack_into("<f", out, at, min(scale * times, 1e30))
    return bytes(out)


class Http2:
    """One connection on which streams are opened by hand; ``context`` None is plaintext."""

    PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    SETTINGS, HEADERS, DATA, RST, GOAWAY, PING = 4, 1, 0, 3, 7, 6

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.resets = 0
        self.over = asyncio.ensure_future(self._read(reader))

    @classmethod
    async def connect(cls, port: int, context: ssl.SSLContext | None) -> "Http2":
        name = "north.node.wards.example.deca.internal" if context else None
        streams = await asyncio.open_connection(LOOPBACK, port, ssl=context, server_hostname=name)
        made = cls(*streams)
        made.writer.write(cls.PREFACE + cls._frame(cls.SETTINGS, 0, 0, b""))
        return made

    def open(self, stream: int, path: str = "/deca.v1.Exchange/Stream") -> None:
        """The headers of a call, and nothing after them. ``stream`` is odd and grows."""
        fields = {":method": "POST", ":scheme": "https", ":path": path, ":authority": "node"}
        fields |= {"te": "trailers", "content-type": "application/grpc"}
        block = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())
        self.writer.write(self._frame(self.HEADERS, 4, stream, block))

    def say(self, stream: int, data: bytes) -> None:
        """Bytes of a message."""
        self.writer.write(self._frame(self.DATA, 0, stream, data))

    def close(self) -> None:
        self.over.cancel()
        self.writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader) -> str:
        """Until the other end closes; why, as far as it is known."""
        try:
            while True:
                head = await reader.readexactly(9)
                payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
                if head[3] == self.RST:
                    self.resets += 1
                elif head[3] == self.PING and not head[4] & 1:
                    self.writer.write(self._frame(self.PING, 1, 0, payload))
                elif head[3] == self.SETTINGS and not head[4] & 1:
                    self.writer.write(self._frame(self.SETTINGS, 1, 0, b""))
        except (OSError, asyncio.IncompleteReadError) as problem:
            return type(problem).__name__

    @staticmethod
    def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _text(text: str) -> bytes:
    assert len(text) < 127
    return bytes([len(text)]) + text.encode()


def half_open(port: int, said: bytes) -> socket.socket:
    """A connection that has said the beginning of something, and waits."""
    made = socket.create_connection((LOOPBACK, port), 20)
    made.sendall(said)
    made.setblocking(False)
    return made


def resident_bytes(pid: int) -> int:
    """What a process holds in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
