"""Exchange streams and control streams over one real port, and the check of every name."""

import asyncio
import os
from collections.abc import Awaitable
from typing import Any

import pytest

from deca_node.daemon.links.conduct import Refusals
from deca_node.daemon.links.control import ControlLinks
from deca_node.daemon.links.greeting import Identity
from deca_node.daemon.links.session import FrameRules
from deca_node.daemon.links.transport import Transport
from deca_node.daemon.settings.address import Address
from deca_node.daemon.trainer.arena import Arena, FrameStore, shared_file
from deca_node.daemon.wire.endpoint import Endpoint
from deca_node.protocol import events as e
from deca_node.protocol.agreed.agreement import Agreement
from deca_node.protocol.agreed.frames import FrameId, FrameKind
from deca_node.protocol.errors import WireError
from tests.patience import PATIENCE_SECONDS

ANY = Address("127.0.0.1", 0)
NBYTES = 5_000_000


def run(work: Awaitable[None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await work

    asyncio.run(limited())


class Party:
    """The streams of one node over real gRPC. Only its frames are made up."""

    def __init__(self, name: str, verify: Any = None) -> None:
        self.name = name
        self.endpoint = Endpoint(ANY, verify=verify)
        self.events: asyncio.Queue[e.NetworkEvent] = asyncio.Queue()
        self.packets: asyncio.Queue[tuple[str, str, bytes]] = asyncio.Queue()
        descriptor = shared_file()
        self.store = FrameStore(Arena(descriptor, NBYTES, 12))
        os.close(descriptor)
        self.identity = Identity(name, len(name), lambda: 0)
        self.calls, self.book = Refusals(), Refusals()
        self.transport = Transport(self.identity, self.endpoint, self.events.put_nowait, self.book)
        self.links = ControlLinks(
            self.identity,
            self.endpoint,
            lambda *packet: self.packets.put_nowait(packet),
            lambda *_: None,
            self._failed,
            self.calls,
        )

    def _failed(self, name: str, address: str) -> None:
        self.packets.put_nowait((name, address, b"failed"))

    async def start(self) -> None:
        await self.endpoint.start()
        self.identity.address = str(self.endpoint.address)

    def meet(self, *others: "Party") -> None:
        self.transport.set_peers({party.name: party.endpoint.address for party in others})
        self.transport.meet(Agreement({}), self.store, FrameRules(lambda *_: NBYTES, 4))

    async def close(self) -> None:
        await self.links.close()
        await self.transport.close()
        await self.endpoint.stop()


def test_frames_and_packets_over_one_port() -> None:
    async def exchange() -> None:
        north, south = Party("north"), Party("southern")
        for party in (north, south):
            await party.start()
        north.meet(south)
        south.meet(north)
        for party, other in ((north, south), (south, north)):
            assert await party.events.get() == e.PeerUp(other.name, 0)
            frame = FrameId(party.name, FrameKind.UPDATE, 0, 0)
            party.store.reserve(frame, NBYTES)[:] = party.name[:5].encode() * (NBYTES // 5)
            party.transport.send_frame(other.name, frame)
            party.links.send(other.name, str(other.endpoint.address), b"hello from " + party.name.encode())
        for party, other in ((north, south), (south, north)):
            frame = FrameId(other.name, FrameKind.UPDATE, 0, 0)
            assert await party.events.get() == e.UpdateReceived(other.name, frame)
            assert bytes(party.store.view(frame)) == other.name[:5].encode() * (NBYTES // 5)
            packet = await party.packets.get()
            assert packet == (other.name, str(other.endpoint.address), b"hello from " + other.name.encode())
        await north.close()
        await south.close()

    run(exchange())


@pytest.mark.parametrize("leads", [True, False])
def test_a_node_that_ends_loses_nothing_that_it_has_queued(leads: bool) -> None:
    """The one with the lesser name is the caller in the end. gRPC drops what the answering end has not read yet when a
    caller cancels its stream, so the caller waits for the other's end."""

    async def exchange() -> None:
        north, south = Party("north"), Party("southern")
        for party in (north, south):
            await party.start()
        north.meet(south)
        south.meet(north)
        ending, staying = (north, south) if leads else (south, north)
        for party, other in ((north, south), (south, north)):
            assert await party.events.get() == e.PeerUp(other.name, 0)
        for inner in range(4):
            frame = FrameId(ending.name, FrameKind.UPDATE, 0, inner)
            ending.store.reserve(frame, NBYTES)
            ending.transport.send_frame(staying.name, frame)
        await ending.close()
        told = [await staying.events.get() for _ in range(5)]
        assert told[:4] == [
            e.UpdateReceived(ending.name, FrameId(ending.name, FrameKind.UPDATE, 0, inner)) for inner in range(4)
        ]
        assert isinstance(told[4], e.PeerDown)
        await staying.close()

    run(exchange())


def test_every_hello_is_verified_at_both_ends() -> None:
    """The answering end checks the caller's certificate. At the calling end TLS has checked the name."""
    seen: list[tuple[bool, str]] = []

    def verify(context: Any, name: str) -> None:
        seen.append((context is not None, name))
        if context is not None:
            raise WireError("identity", f"no certificate says {name!r}")

    async def exchange() -> None:
        north, south = Party("north", verify), Party("southern")
        for party in (north, south):
            await party.start()
        south.links.send("north", str(north.endpoint.address), b"hello")
        assert (await south.packets.get())[2] == b"failed"
        assert north.calls.counts == {"identity": 1}
        north.links.send("southern", str(south.endpoint.address), b"hello")
        assert (await south.packets.get())[2] == b"hello"
        south.transport.set_peers({"north": north.endpoint.address})
        north.transport.meet(Agreement({}), north.store, FrameRules(lambda *_: NBYTES, 4))
        north.transport._add("southern", Address("127.0.0.1", 1))
        south.meet(north)
        while "no certificate" not in south.transport.problems()["north"].sentence:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert north.book.counts["identity"] >= 1
        assert seen[:2] == [(True, "southern"), (False, "southern")]
        await north.close()
        await south.close()

    run(exchange())
