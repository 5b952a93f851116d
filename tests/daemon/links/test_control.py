"""Control links: packets both ways over one stream per pair of nodes, the peers that may call, and round trips."""

import asyncio
import itertools
from typing import Any

import pytest

from deca_node.daemon.links.conduct import Refusals
from deca_node.daemon.links.control import METHOD, PACKETS_QUEUED_MAX, VERSION, ControlLinks, Foreign
from deca_node.daemon.links.control_session import MESSAGE_BYTES_MAX, SILENCE_SECONDS
from deca_node.daemon.links.greeting import Identity
from deca_node.daemon.wire_pb import control_pb2 as pb
from deca_node.daemon.wire_pb import membership_pb2
from deca_node.protocol.agreed.identity import RunIdentity, identity_of
from deca_node.protocol.agreed.run import RunSettings
from tests.daemon.links.fake_net import FakeEndpoint, FakeNet, run, until

BOOTS = itertools.count(1)


def run_of(run_name: str) -> RunIdentity | None:
    return identity_of(RunSettings(run_name=run_name)) if run_name else None


class Party:
    """The control links of one node on a fake net, and the callbacks that they made."""

    def __init__(
        self,
        net: FakeNet,
        name: str,
        address: str = "",
        admits: Any = None,
        *,
        secure: bool = False,
        run_name: str = "",
    ) -> None:
        self.net, self.name, self.address = net, name, address or f"{name}:1"
        self.packets: list[tuple[str, str, bytes]] = []
        self.progress: list[tuple[str, int]] = []
        self.failed: list[tuple[str, str]] = []
        self.foreign: list[Foreign] = []
        self.position = -1
        self.book = Refusals()
        self.endpoint = FakeEndpoint(net, self.address, secure=secure)
        self.links = ControlLinks(
            Identity(name, next(BOOTS), lambda: self.position, self.address, run_of(run_name)),
            self.endpoint,  # type: ignore[arg-type]
            lambda *packet: self.packets.append(packet),
            lambda *at: self.progress.append(at),
            lambda *whom: self.failed.append(whom),
            self.book,
            admits or (lambda _: True),
            lambda: asyncio.get_running_loop().time(),
            self.foreign.append,
        )

    def send(self, other: "Party", payload: bytes, name: str | None = None) -> None:
        self.links.send(other.name if name is None else name, other.address, payload)

    def payloads(self) -> list[bytes]:
        return [payload for _, _, payload in self.packets]

    def live(self) -> list[Any]:
        return [link.session._stream.stream for link in self.links._links.values() if link.session]


def parties(seed: int, *names: str) -> list[Party]:
    net = FakeNet(seed)
    return [Party(net, name) for name in names]


async def close(*all_parties: Party) -> None:
    for party in all_parties:
        await party.links.close()
    await asyncio.sleep(30)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not others, "no task is left"
    assert all(not party.links._links and not party.links._known_as for party in all_parties)


def test_packets_go_both_ways_over_the_stream_of_whoever_spoke_first() -> None:
    async def talk() -> None:
        south, north = parties(0, "south", "north")
        south.send(north, b"hello")
        await until(lambda: north.packets)
        north.send(south, b"good day")
        await until(lambda: south.packets)
        assert north.packets == [("south", "south:1", b"hello")]
        assert south.packets == [("north", "north:1", b"good day")]
        assert len(north.net.streams) == 1
        assert south.links.traffic()["north"]["sent.packet"] == north.links.traffic()["south"]["received.packet"] > 0
        await close(north, south)

    run(talk())


@pytest.mark.parametrize("known", [True, False], ids=["by name", "by address"])
def test_of_streams_that_cross_both_ends_keep_the_same_and_lose_nothing(known: bool) -> None:
    async def cross(seed: int) -> int:
        north, south = parties(seed, "north", "south")
        name = None if known else ""
        for party, other in sorted(((north, south), (south, north)), key=lambda _: north.net.rng.random()):
            party.send(other, b"first", name)
            await asyncio.sleep(north.net.rng.choice([0.0, 0.0, 0.05]))
            party.send(other, b"second", name)
        await asyncio.sleep(9)
        assert sorted(north.payloads()) == sorted(south.payloads()) == [b"first", b"second"], seed
        assert north.live() == south.live() and len(north.live()) == 1, seed
        assert north.failed == south.failed == [], seed
        await close(north, south)
        return len(north.net.streams)

    assert {1, 2} <= {run(cross(seed)) for seed in range(200)} <= {1, 2, 3}


@pytest.mark.parametrize("seed", range(20))
def test_after_any_breaks_packets_flow_again(seed: int) -> None:
    async def break_and_mend() -> None:
        north, south = parties(seed, "north", "south")
        net = north.net
        for _ in range(40):
            for party, other in ((north, south), (south, north)):
                if net.rng.random() < 0.5:
                    party.send(other, b"noise", net.rng.choice([None, ""]))
            await asyncio.sleep(net.rng.choice([0.0, 0.01, 0.05, 0.3, 2.0]))
            for end in net.rng.choice([["near"], ["far"], ["near", "far"]]):
                if net.streams:
                    getattr(net.rng.choice(net.streams[-3:]), end).break_now()
        await asyncio.sleep(20)
        north.send(south, b"over")
        south.send(north, b"out")
        await until(lambda: b"over" in south.payloads() and b"out" in north.payloads())
        await asyncio.sleep(10)
        assert north.live() == south.live() and len(north.live()) == 1
        await close(north, south)

    run(break_and_mend())


def test_a_peer_that_cannot_be_reached_is_told_of() -> None:
    async def fail() -> None:
        (north,) = parties(0, "north")
        north.links.send("south", "south:1", b"anybody?")
        north.links.send("", "nowhere:1", b"anybody?")
        await until(lambda: len(north.failed) == 2)
        assert sorted(north.failed) == [("", "nowhere:1"), ("south", "south:1")]
        assert not north.links._links, "and nothing is kept of it"
        await close(north)

    run(fail())


@pytest.mark.parametrize("seed", range(10))
def test_with_certificates_whoever_was_found_by_address_is_called_again_by_name(seed: int) -> None:
    """TLS checks the name under which a peer was dialled. Nothing else verifies a peer that was dialled."""

    async def find() -> None:
        net = FakeNet(seed)
        for found, finder in (("north", "south"), ("south", "north")):
            there = Party(net, found, f"there-{found}:1", secure=True)
            here = Party(net, finder, f"here-{finder}:1", secure=True)
            here.send(there, b"hello", "")
            await until(lambda there=there: there.packets)
            assert here.endpoint.dialled == ["", found]
            assert there.payloads() == [b"hello"] and here.failed == []
            await close(here, there)

    run(find())


def test_only_who_is_admitted_may_call() -> None:
    async def call() -> None:
        net = FakeNet(0)
        north, mallory = Party(net, "north", admits=lambda name: name != "mallory"), Party(net, "mallory")
        mallory.send(north, b"let me in")
        await until(lambda: mallory.failed)
        assert north.packets == [] and north.book.counts == {"stranger": 1}
        assert not north.links._links
        await close(north, mallory)

    run(call())


@pytest.mark.parametrize("known", [True, False], ids=["by name", "by address"])
def test_a_node_of_another_run_is_refused_at_the_door_and_both_ends_hear_what_differs(known: bool) -> None:
    async def call() -> None:
        net = FakeNet(0)
        north, west = Party(net, "north", run_name="x"), Party(net, "west", run_name="y")
        west.send(north, b"let me in", None if known else "")
        await until(lambda: west.failed)
        sentence = "the run differs: run_name is x at north and y at west"
        assert north.packets == [] and north.book.counts == {"mismatch": 1}
        assert north.foreign == [Foreign("west", "west:1", sentence, called=False)]
        assert west.foreign == [Foreign("north", "north:1", sentence, called=True)]
        assert not north.links._links
        await close(north, west)

    run(call())


@pytest.mark.parametrize("names", [("x", ""), ("", "x"), ("x", "x")])
def test_a_node_of_this_run_is_let_in_and_so_is_one_that_does_not_say(names: tuple[str, str]) -> None:
    """Nodes of versions before the field say nothing."""

    async def call() -> None:
        net = FakeNet(0)
        north, south = Party(net, "north", run_name=names[0]), Party(net, "south", run_name=names[1])
        south.send(north, b"hello")
        await until(lambda: north.packets)
        assert north.foreign == south.foreign == [] and not north.book.counts
        await close(north, south)

    run(call())


def test_two_processes_under_one_name_are_two() -> None:
    """Membership speaks with both to decide which of them keeps the name. Each may even call the other."""

    async def clash() -> None:
        net = FakeNet(0)
        old, new, north = Party(net, "south", "old:1"), Party(net, "south", "new:1"), Party(net, "north")
        old.send(north, b"old")
        new.send(north, b"new")
        new.send(old, b"who are you?")
        await until(lambda: len(north.packets) == 2 and old.packets)
        north.send(old, b"to the old one")
        north.send(new, b"to the new one")
        await until(lambda: new.packets and len(old.packets) == 2)
        assert new.payloads() == [b"to the new one"] and b"to the old one" in old.payloads()
        await close(old, new, north)

    run(clash())


def test_the_oldest_packets_give_way_where_too_many_wait() -> None:
    async def crowd() -> None:
        north, south = parties(0, "north", "south")
        for number in range(PACKETS_QUEUED_MAX + 3):
            north.send(south, b"%d" % number)
        await until(lambda: len(south.packets) == PACKETS_QUEUED_MAX)
        assert south.payloads()[0] == b"3"
        assert north.links.traffic()["south"]["dropped"] == 3
        await close(north, south)

    run(crowd())


def test_pings_measure_round_trips_and_carry_where_a_peer_stands() -> None:
    async def ping() -> None:
        net = FakeNet(0, delay=(0.01, 0.05))
        north, south = Party(net, "north"), Party(net, "south")
        north.send(south, b"hello")
        await asyncio.sleep(60)
        south.position = 4
        await asyncio.sleep(2)
        for party, other in ((north, "south"), (south, "north")):
            figures = party.links.rtt()[other]
            assert figures.count >= 60 and 0.02 <= figures.p50 <= figures.p99 <= figures.max <= 0.11
        assert north.progress == [("south", -1), ("south", 4)]
        await close(north, south)

    run(ping())


def test_a_silent_peer_is_let_go() -> None:
    async def silence() -> None:
        north, south = parties(0, "north", "south")
        north.send(south, b"hello")
        await until(north.live)
        (stream,) = north.live()
        stream.near.deliver = lambda _: None
        await asyncio.sleep(SILENCE_SECONDS + 2)
        assert not north.live()
        await close(north, south)

    run(silence())


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("version", {"protocol": VERSION + 1}),
        ("address", {"to": "west"}),
        ("malformed", {"name": "../etc"}),
        ("malformed", {"address": "x" * 301}),
        ("malformed", {"run": membership_pb2.RunIdentity(fingerprint=b"short")}),
        ("malformed", b"nonsense"),
        ("size", b"\x22" + bytes(MESSAGE_BYTES_MAX)),
        ("unexpected", pb.ControlFrame(ping=pb.ControlFrame.Ping(number=1)).SerializeToString()),
    ],
)
def test_a_greeting_that_is_not_welcome_hears_why(reason: str, message: Any) -> None:
    async def greet() -> None:
        (north,) = parties(0, "north")
        said = message
        if isinstance(message, dict):
            fields = {"protocol": VERSION, "name": "south", "to": "north", "boot": 5, "address": "south:1"} | message
            said = pb.ControlFrame(greeting=pb.ControlFrame.Greeting(**fields)).SerializeToString()
        async with FakeEndpoint(north.net, "caller").dial("north", north.address, METHOD) as stream:
            await stream.write(said)
            refusal = pb.ControlFrame.FromString(await stream.read() or b"").refusal
        assert refusal.reason == reason and refusal.sentence
        assert north.book.counts == {reason: 1}
        await close(north)

    run(greet())


def test_a_node_that_calls_itself_finds_out() -> None:
    async def narcissus() -> None:
        (north,) = parties(0, "north")
        north.send(north, b"hello", "")
        await until(lambda: north.failed)
        assert north.packets == [] and north.book.counts["self"] > 0
        await close(north)

    run(narcissus())
