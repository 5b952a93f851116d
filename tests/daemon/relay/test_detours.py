"""Two nodes that cannot dial each other meet at a third one: real servers on loopback, with certificates."""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from deca_node.daemon.links.conduct import Refusals
from deca_node.daemon.links.control import ControlLinks
from deca_node.daemon.links.greeting import Identity
from deca_node.daemon.links.session import FrameRules
from deca_node.daemon.links.transport import Transport
from deca_node.daemon.relay import messages
from deca_node.daemon.relay.carrier import Carrier
from deca_node.daemon.relay.detours import Detours
from deca_node.daemon.security.credentials import NodeCredentials
from deca_node.daemon.security.doorman import Doorman, NameLists
from deca_node.daemon.settings.address import Address
from deca_node.daemon.trainer.arena import Arena, FrameStore, shared_file
from deca_node.daemon.wire.endpoint import Endpoint, Stream
from deca_node.daemon.wire.throttle import Throttle
from deca_node.protocol import events as e
from deca_node.protocol.agreed.agreement import Agreement
from deca_node.protocol.agreed.frames import FrameId, FrameKind
from deca_node.protocol.errors import WireError
from tests.daemon.conftest import Federation
from tests.patience import PATIENCE_SECONDS

ANY, NOBODY = Address("127.0.0.1", 0), Address("127.0.0.1", 1)
NBYTES = 1_000_000
PATTERN = b"private"


def run(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await scene()

    asyncio.run(limited())


async def until(condition: Callable[[], Any]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


class Walled(Endpoint):
    """An endpoint from which some addresses cannot be reached."""

    behind_a_wall: frozenset[Address] = frozenset()

    def channel(self, name: str, address: object, *more: tuple[str, Any]) -> Any:
        return super().channel(name, NOBODY if address in {*map(str, self.behind_a_wall)} else address, *more)

    def dial(self, name: str, address: object, method: str) -> Any:
        return super().dial(name, str(address), method)


class Listening:
    """A stream that notes every message which is read from it."""

    def __init__(self, stream: Stream, heard: list[bytes]) -> None:
        self._stream, self._heard = stream, heard
        self.write, self.verify = stream.write, stream.verify

    async def read(self) -> bytes | None:
        message = await self._stream.read()
        self._heard.append(message or b"")
        return message


class Party:
    """The links of one node, as the network puts them together."""

    def __init__(self, name: str, federation: Federation, fingerprint: str, *, relays: bool = False) -> None:
        self.name = name
        node = NodeCredentials(federation.node(name, fingerprint))
        doorman = Doorman("wards.example", NameLists(None, None), lambda *_: None)
        self.endpoint = Walled(ANY, node.for_endpoint(), doorman.verify)
        self.peers: dict[str, Address] = {}
        self.heard: list[bytes] = []
        self.told: list[e.NetworkEvent] = []
        self.packets: list[tuple[str, bytes]] = []
        descriptor = shared_file()
        self.store = FrameStore(Arena(descriptor, NBYTES, 12))
        os.close(descriptor)
        identity = Identity(name, sum(name.encode()), lambda: 0)
        self.identity, self.book = identity, Refusals()
        self.carrier = Carrier(
            name,
            4 if relays else 0,
            [Throttle(0.0)],
            lambda stream, claimed: stream.verify(claimed),
            lambda member: member in self.peers,
        )
        self.endpoint.add_streams(messages.SERVICE, {"Carry": self._carry}, 64)
        self.detours = Detours(name, self.endpoint.dial, self._relays, lambda: self.endpoint.address, time.monotonic)
        self.transport = Transport(identity, self.endpoint, self.told.append, self.book, detours=self.detours)
        self.control = ControlLinks(
            identity,
            self.endpoint,
            lambda peer, _address, payload: self.packets.append((peer, payload)),
            lambda *_: None,
            lambda peer, _address: self.packets.append((peer, b"failed")),
            Refusals(),
            relays=relays,
            detours=self.detours,
        )

    async def _carry(self, stream: Stream) -> None:
        await self.carrier.answer(Listening(stream, self.heard))

    def _relays(self) -> dict[str, Address]:
        return {name: self.peers[name] for name in self.control.relays() & self.peers.keys()}

    async def start(self) -> None:
        await self.endpoint.start()
        self.identity.address = str(self.endpoint.address)

    def meet(self, *others: "Party") -> None:
        self.peers = {party.name: party.endpoint.address for party in others}
        self.detours.keep(self.peers)
        for party in others:
            self.say(party, b"hello")
        self.transport.set_peers(self.peers)
        self.transport.meet(Agreement({}), self.store, FrameRules(lambda *_: NBYTES, 4))

    def say(self, other: "Party", payload: bytes) -> None:
        self.control.send(other.name, str(other.endpoint.address), payload)

    def up(self, other: "Party") -> bool:
        return other.name not in self.transport.problems()

    def send_update(self, other: "Party", inner: int) -> None:
        frame = FrameId(self.name, FrameKind.UPDATE, 0, inner)
        self.store.reserve(frame, NBYTES)[:] = (PATTERN * NBYTES)[:NBYTES]
        self.transport.send_frame(other.name, frame)

    def has(self, other: "Party", inner: int) -> bool:
        return e.UpdateReceived(other.name, FrameId(other.name, FrameKind.UPDATE, 0, inner)) in self.told

    async def close(self) -> None:
        await self.transport.close()
        await self.control.close()
        self.carrier.close()
        await self.endpoint.stop()
        await self.detours.close()


async def parties(federation: Federation, *relays: str) -> list[Party]:
    """East and north, which cannot dial each other, and members that relay."""
    told = federation.begin()
    made = [Party(name, federation, told, relays=name in relays) for name in ("east", "north", *relays)]
    for party in made:
        await party.start()
    east, north = made[:2]
    east.endpoint.behind_a_wall = frozenset({north.endpoint.address})
    north.endpoint.behind_a_wall = frozenset({east.endpoint.address})
    return made


def all_meet(made: list[Party]) -> None:
    for party in made:
        party.meet(*(other for other in made if other is not party))


def test_two_nodes_meet_at_a_relay_which_cannot_read_them(federation: Federation) -> None:
    async def scene() -> None:
        made = await parties(federation, "relay")
        east, north, relay = made
        all_meet(made)
        await until(lambda: east.up(north) and north.up(east))
        assert (east.detours.via(), north.detours.via()) == ({"north": "relay"}, {"east": "relay"})
        east.send_update(north, 0)
        north.send_update(east, 0)
        await until(lambda: north.has(east, 0) and east.has(north, 0))
        # A control packet from either end finds its way, too; the waiting end needs the other's call first.
        east.say(north, b"ping")
        await until(lambda: ("east", b"ping") in north.packets)
        north.say(east, b"pong")
        await until(lambda: ("north", b"pong") in east.packets)
        (row,) = relay.carrier.relayed()
        assert row.pair == ("east", "north") and row.streams == 2
        assert relay.carrier.nbytes > 2 * NBYTES
        assert east.detours.nbytes["north"] > 2 * NBYTES < north.detours.nbytes["east"]
        passed = [messages.read(m, "ask", "data", "end").data for m in relay.heard if m]
        assert sum(map(len, passed)) > 2 * NBYTES
        # The first bytes of each connection are TLS handshakes, and nothing of the updates can be read.
        assert sum(data.startswith(b"\x16\x03") for data in passed) >= 4
        assert not any(PATTERN * 2 in data or b"Exchange" in data for data in passed)
        for party in made:
            await party.close()

    run(scene)


def test_the_next_relay_takes_over(federation: Federation) -> None:
    async def scene() -> None:
        made = await parties(federation, "rose", "lily")
        east, north, *relays = made
        all_meet(made)
        await until(lambda: east.up(north) and north.up(east))
        lost = next(relay for relay in relays if relay.name in east.detours.via()["north"])
        other = next(relay for relay in relays if relay is not lost)
        await lost.close()
        await until(lambda: east.detours.via() == {"north": other.name} and east.up(north) and north.up(east))
        east.send_update(north, 1)
        await until(lambda: north.has(east, 1))
        for party in (east, north, other):
            await party.close()

    run(scene)


def test_a_pair_that_one_end_can_dial_needs_no_relay(federation: Federation) -> None:
    async def scene() -> None:
        made = await parties(federation, "relay")
        east, north, relay = made
        north.endpoint.behind_a_wall = frozenset()
        all_meet(made)
        await until(lambda: east.up(north) and north.up(east) and ("north", b"hello") in east.packets)
        assert not east.detours.via() and not north.detours.via() and relay.carrier.nbytes == 0
        for party in made:
            await party.close()

    run(scene)


@pytest.mark.parametrize("ending", ["east", "north"])
def test_what_is_sent_last_arrives(federation: Federation, ending: str) -> None:
    """A node that ends flushes its streams; what is on its way through a relay then must not be lost."""

    async def scene() -> None:
        made = await parties(federation, "relay")
        east, north, _relay = made
        all_meet(made)
        await until(lambda: east.up(north) and north.up(east))
        first, last = (east, north) if ending == "east" else (north, east)
        for inner in range(3):
            first.send_update(last, inner)
        await first.close()
        await until(lambda: last.has(first, 2))
        for party in made:
            if party is not first:
                await party.close()

    run(scene)


def test_without_a_member_that_relays_the_pair_has_no_stream(federation: Federation) -> None:
    async def scene() -> None:
        made = await parties(federation)
        east, _north = made
        all_meet(made)
        await until(lambda: "does not answer" in east.transport.problems()["north"].sentence)
        await until(lambda: ("north", b"failed") in east.packets)
        assert not east.detours.via()
        for party in made:
            await party.close()

    run(scene)


def test_a_refusal_of_the_peer_passes_through_a_relay(federation: Federation) -> None:
    """The relay joins whom it knows; whether they agree on the run is between the two."""

    async def scene() -> None:
        made = await parties(federation, "relay")
        east, north, relay = made
        for party in (east, relay):
            party.meet(*(other for other in made if other is not party))
        north.peers = {party.name: party.endpoint.address for party in (east, relay)}
        north.detours.keep(north.peers)
        north.say(east, b"hello")
        north.say(relay, b"hello")
        await until(lambda: "loading" in east.transport.problems()["north"].code)
        assert east.detours.prefers("north")
        for party in made:
            await party.close()

    run(scene)


@pytest.mark.parametrize("claimed", ["north", "nobody"])
def test_a_relay_checks_the_name_of_its_caller(federation: Federation, claimed: str) -> None:
    async def scene() -> None:
        made = await parties(federation, "relay")
        east, _north, relay = made
        all_meet(made)
        async with east.endpoint.dial("relay", relay.endpoint.address, messages.METHOD) as stream:
            await stream.write(messages.ask(claimed, "east", waits=True))
            with pytest.raises(WireError) as refused:
                messages.read(await stream.read(), "joined")
            assert refused.value.reason == "identity"
        for party in made:
            await party.close()

    run(scene)
