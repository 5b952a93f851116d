"""Exchange streams between peers that appear, disappear, move and dial at once; without sockets, on a simulated
clock."""

import asyncio
import os
from typing import Any

import pytest

from deca_node.daemon.links.conduct import Refusals
from deca_node.daemon.links.greeting import Identity
from deca_node.daemon.links.session import FrameRules
from deca_node.daemon.links.transport import METHOD, PROTOCOL_VERSION, Transport
from deca_node.daemon.settings.address import Address
from deca_node.daemon.trainer.arena import Arena, FrameStore, shared_file
from deca_node.daemon.wire_pb import exchange_pb2 as pb
from deca_node.protocol import events as e
from deca_node.protocol.agreed.agreement import Agreement
from deca_node.protocol.agreed.frames import FrameId, FrameKind
from deca_node.protocol.agreed.weights import SHARE_ONE
from deca_node.protocol.errors import WireError
from tests.daemon.links.fake_net import FakeEndpoint, FakeNet, FakeStream, run, until

NBYTES = 1000
HELD_MAX = 4
BYE = pb.Frame(bye=pb.Bye())


class Party:
    """A transport on a fake net, and the events that it told."""

    def __init__(self, net: FakeNet, name: str, boot: int = 1, agreement: dict[str, str] | None = None) -> None:
        self.net, self.name, self.address = net, name, Address(name, 1)
        descriptor = shared_file()
        self.store = FrameStore(Arena(descriptor, NBYTES, 40))
        os.close(descriptor)
        self.told: list[e.NetworkEvent] = []
        self.book = Refusals()
        self.transport = Transport(
            Identity(name, boot, lambda: 7),
            FakeEndpoint(net, str(self.address)),  # type: ignore[arg-type]
            self.told.append,
            self.book,
        )
        self.agreement = Agreement(agreement or {"rounds": "4"})

    def peers(self, *others: "Party") -> None:
        self.transport.set_peers({party.name: party.address for party in others})

    def meet(self, share: int = SHARE_ONE) -> None:
        rules = FrameRules(lambda *_: NBYTES, HELD_MAX, share_fits=lambda given: 250 <= given <= 4000)
        self.transport.meet(self.agreement, self.store, rules, share)

    def ups(self, peer: str) -> int:
        return sum(isinstance(event, e.PeerUp) and event.peer == peer for event in self.told)

    def downs(self) -> list[e.PeerDown]:
        return [event for event in self.told if isinstance(event, e.PeerDown)]

    def stream(self, peer: str) -> FakeStream | None:
        session: Any = self.transport._links[peer].session
        return session and session._stream.stream

    def up(self, *peers: "Party") -> bool:
        return all(peer.name not in self.transport.problems() for peer in peers)

    def update(self, inner: int) -> FrameId:
        frame = FrameId(self.name, FrameKind.UPDATE, 0, inner)
        self.store.reserve(frame, NBYTES)
        return frame


def two(seed: int = 0, **more: Any) -> tuple[FakeNet, Party, Party]:
    net = FakeNet(seed, **more)
    north, south = Party(net, "north"), Party(net, "south")
    north.peers(south)
    south.peers(north)
    return net, north, south


async def close(*parties: Party) -> None:
    for party in parties:
        await party.transport.close()
    await asyncio.sleep(60)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not others, "no task is left"


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_of_streams_that_cross_both_ends_keep_the_same(first: int) -> None:
    """Two hundred orders of dialling at once: each gives one stream, greeted once, that stays."""

    async def cross(seed: int) -> int:
        net, north, south = two(seed)
        for party in sorted((north, south), key=lambda _: net.rng.random()):
            party.meet()
            await asyncio.sleep(net.rng.choice([0.0, 0.0, 0.02, 0.3]))
        await asyncio.sleep(30)
        assert north.up(south) and south.up(north), seed
        assert north.stream("south") is south.stream("north"), seed
        assert (north.ups("south"), south.ups("north"), north.downs(), south.downs()) == (1, 1, [], []), seed
        north.transport.send("south", BYE)
        south.transport.send("north", BYE)
        await asyncio.sleep(1)
        assert north.told[-1] == e.ByeReceived("south") and south.told[-1] == e.ByeReceived("north"), seed
        await close(north, south)
        return len(net.streams)

    streams = [run(cross(seed)) for seed in range(first, first + 50)]
    assert max(streams) > 1, "some did cross"


@pytest.mark.parametrize("seed", range(40))
def test_after_any_breaks_both_ends_find_the_same_stream_again(seed: int) -> None:
    """Streams break for both ends, or silently for one of them only, also during a greeting."""

    async def break_and_mend() -> None:
        net, north, south = two(seed)
        north.meet()
        south.meet()
        for _ in range(30):
            await asyncio.sleep(net.rng.choice([0.0, 0.01, 0.05, 0.3, 2.0]))
            stream = net.rng.choice(net.streams[-3:]) if net.streams else None
            if stream:
                for end in net.rng.choice([[stream.near], [stream.far], [stream.near, stream.far]]):
                    end.break_now()
        await asyncio.sleep(30)
        assert north.up(south) and south.up(north)
        assert north.stream("south") is south.stream("north")
        for party in (north, south):
            other = south if party is north else north
            assert party.ups(other.name) == len(party.downs()) + 1
        await close(north, south)

    run(break_and_mend())


def test_a_peer_that_was_started_again_takes_the_place_of_its_old_self() -> None:
    async def restart() -> None:
        net, north, south = two()
        north.meet()
        south.meet()
        await until(lambda: north.up(south) and south.up(north))
        again = Party(net, "south", boot=2)
        again.peers(north)
        again.meet()
        await until(lambda: again.up(north))
        assert north.downs() == [e.PeerDown("south", "another stream took its place")]
        assert north.ups("south") == 2
        south.transport._closing = True
        await close(south, again, north)

    run(restart())


def test_who_is_still_loading_says_so_at_once() -> None:
    async def load() -> None:
        _, north, south = two()
        north.meet()
        await until(lambda: north.transport.problems()["south"].code == "loading", 1.0)
        assert north.book.counts == {} and south.book.counts == {"loading": 1}
        south.meet()
        await until(lambda: north.up(south), 3.0)
        assert north.told == [e.PeerUp("south", 7)]
        await close(north, south)

    run(load())


def test_each_end_tells_its_share_in_the_mean_and_a_wild_one_is_refused() -> None:
    async def tell() -> None:
        net, north, south = two()
        west = Party(net, "west")
        west.peers(north)
        north.peers(south, west)
        north.meet(250)
        south.meet()
        west.meet(4001)
        await until(lambda: north.up(south) and south.up(north))
        assert e.PeerUp("south", 7, SHARE_ONE) in north.told and e.PeerUp("north", 7, 250) in south.told
        await until(lambda: north.book.counts["malformed"] > 0)
        assert north.ups("west") == 0
        assert "west claims a share of 4001 thousandths" in west.transport.problems()["north"].sentence
        await close(north, south, west)

    run(tell())


def test_peers_come_go_and_move() -> None:
    async def change() -> None:
        net, north, south = two()
        west = Party(net, "west")
        west.peers(north)
        for party in (north, south, west):
            party.meet()
        await until(lambda: north.up(south))
        assert north.ups("west") == 0 and north.book.counts["stranger"] > 0
        north.peers(south, west)
        await until(lambda: north.up(west) and west.up(north))
        frame = north.update(0)
        north.transport.send_frame("west", frame)
        north.peers(south)
        assert north.downs() == [e.PeerDown("west", "it is no longer a peer")]
        await until(lambda: not west.up(north))
        north.store.release(frame)
        assert len(north.store) == 0, "nothing is held for a peer that is gone"
        north.peers(south, west)
        await until(lambda: north.up(west) and west.up(north))
        assert (north.downs(), len(south.downs())) == ([e.PeerDown("west", "it is no longer a peer")], 0)
        await close(north, south, west)

    run(change())


def test_a_new_address_is_dialled_and_a_live_stream_left_in_peace() -> None:
    async def move() -> None:
        _, north, south = two()
        nowhere = Address("nowhere", 1)
        north.transport.set_peers({"south": nowhere})
        south.transport.set_peers({"north": nowhere})
        north.meet()
        south.meet()
        await asyncio.sleep(20)
        assert not north.up(south) and "nowhere:1 does not answer" in north.transport.problems()["south"].sentence
        north.peers(south)
        await until(lambda: north.up(south), 1.0)
        north.transport.set_peers({"south": nowhere})
        await asyncio.sleep(20)
        assert north.up(south) and north.downs() == []
        await close(north, south)

    run(move())


@pytest.mark.parametrize("reason", ["version", "identity", "expired", "denied", "not-allowed"])
def test_a_refusal_that_does_not_pass_counts_as_disagreement(reason: str) -> None:
    async def refuse() -> None:
        _, north, south = two()
        north.peers(south)
        south.peers(north)
        south.transport._greeter._welcome = raising(WireError(reason, "the reason in words"))
        north.meet()
        south.meet()
        await asyncio.sleep(5)
        refused = [event for event in north.told if isinstance(event, e.PeerRefused)]
        assert {event.sentence for event in refused} == {f"it refuses this node ({reason}): the reason in words"}
        await close(north, south)

    run(refuse())


@pytest.mark.parametrize("reason", ["stranger", "busy", "loading", "quarantined"])
def test_a_refusal_that_passes_is_no_disagreement(reason: str) -> None:
    async def refuse() -> None:
        _, north, south = two()
        north.peers(south)
        south.transport._greeter._welcome = raising(WireError(reason, "the reason in words"))
        north.meet()
        south.meet()
        await asyncio.sleep(5)
        assert not [event for event in north.told if isinstance(event, e.PeerRefused)]
        await close(north, south)

    run(refuse())


def raising(problem: WireError) -> Any:
    def welcome(*_: Any) -> Any:
        raise problem

    return welcome


def test_who_differs_is_told_and_dialled_again() -> None:
    async def differ() -> None:
        net = FakeNet(0)
        north, south = Party(net, "north"), Party(net, "south", agreement={"rounds": "5"})
        north.peers(south)
        south.peers(north)
        north.meet()
        south.meet()
        await asyncio.sleep(20)
        for party, other in ((north, south), (south, north)):
            refused = [event for event in party.told if isinstance(event, e.PeerRefused)]
            assert len(refused) > 2 and all("rounds" in event.sentence for event in refused)
            assert "rounds" in party.transport.problems()[other.name].sentence
        await close(north, south)

    run(differ())


@pytest.mark.parametrize(
    ("reason", "hello"),
    [
        ("version", {"protocol": PROTOCOL_VERSION + 1}),
        ("address", {"to": "west"}),
        ("stranger", {"name": "mallory"}),
        ("mismatch", {"agreement": {"rounds": "9"}}),
        ("unexpected", None),
        ("malformed", b"nonsense"),
    ],
)
def test_a_greeting_that_is_not_welcome_hears_why(reason: str, hello: Any) -> None:
    async def greet() -> None:
        _, north, south = two()
        north.meet()
        fields = {"protocol": PROTOCOL_VERSION, "name": "south", "to": "north", "boot": 5, "agreement": {"rounds": "4"}}
        message = BYE if hello is None else hello
        if isinstance(hello, dict):
            message = pb.Frame(hello=pb.Hello(**fields | hello))
        async with FakeEndpoint(north.net, "caller").dial("north", north.address, METHOD) as stream:
            await stream.write(message if isinstance(message, bytes) else message.SerializeToString())
            refusal = pb.Frame.FromString(await stream.read() or b"").refusal
        assert refusal.reason == reason and refusal.sentence
        assert north.book.counts == {reason: 1}
        await close(north, south)

    run(greet())


def test_a_session_that_ends_by_a_broken_rule_has_its_code_at_both_ends() -> None:
    async def offend() -> None:
        _, north, south = two()
        # North is the one that dials: it hears the refusal before the stream is gone.
        south.transport.set_peers({"north": Address("nowhere", 1)})
        north.meet()
        south.meet()
        await until(lambda: north.up(south) and south.up(north))
        north.transport.send("south", pb.Frame(hello=pb.Hello(name="north")))
        await until(lambda: north.downs() and south.downs())
        sentence = "a hello in the middle of a session"
        assert south.downs() == [e.PeerDown("north", f"broke the rules (unexpected): {sentence}", "unexpected")]
        assert north.downs() == [e.PeerDown("south", f"refused us: {sentence}", "refused")]
        assert (north.book.counts, south.book.counts) == ({"refused": 1}, {"unexpected": 1})
        await close(north, south)

    run(offend())


def test_the_problem_of_a_refused_dial_says_that_the_peer_has_refused() -> None:
    async def refuse() -> None:
        _, north, south = two()
        south.transport.set_peers({})
        north.meet()
        south.meet()
        await until(lambda: north.transport.problems()["south"].code == "refused")
        assert north.transport.problems()["south"].sentence == "refused us: south knows no member 'north'"
        await close(north, south)

    run(refuse())


def test_a_caller_that_says_nothing_is_let_go() -> None:
    async def wait() -> None:
        _, north, south = two()
        async with FakeEndpoint(north.net, "caller").dial("north", north.address, METHOD) as stream:
            assert pb.Frame.FromString(await stream.read() or b"").refusal.reason == "slow"
            assert await stream.read() is None, "the end of the stream"
        assert 9 < asyncio.get_running_loop().time() < 12
        await close(north, south)

    run(wait())


def test_nobody_is_flooded_and_nothing_piles_up() -> None:
    """Two ends send as fast as they may and release frames at any time."""

    async def flow(seed: int) -> None:
        net, north, south = two(seed, delay=(0.0, 0.01))
        for party in (north, south):
            party.transport._tell = _lets_go(party, net)
            party.meet()
        await until(lambda: north.up(south) and south.up(north))
        for inner in range(300):
            for party, other in ((north, "south"), (south, "north")):
                await until(lambda party=party: len(party.store) < 20 and _queue_length(party) < HELD_MAX)
                frame = party.update(inner)
                party.transport.send_frame(other, frame)
                party.store.release(frame)
            assert south.store.held_from("north") <= HELD_MAX
            assert north.store.held_from("south") <= HELD_MAX
        await until(lambda: not len(north.store) and not len(south.store))
        for party in (north, south):
            inners = [event.update.inner for event in party.told if isinstance(event, e.UpdateReceived)]
            assert inners == list(range(300))
            assert party.downs() == []
        await close(north, south)

    for seed in range(3):
        run(flow(seed))


@pytest.mark.parametrize("seed", range(30))
def test_a_sender_that_keeps_the_rules_is_never_refused(seed: int) -> None:
    """Offers, updates, closings, and offers again after a broken stream. The receiver releases frames at any time, or
    never."""

    async def fuzz() -> None:
        net, north, south = two(seed, delay=(0.0, 0.03))
        rng = net.rng
        held = _keeps(south)
        for party in (north, south):
            party.meet()
        activation, inner, offered, own = 0, 0, 0, []
        for _ in range(300):
            await asyncio.sleep(rng.choice([0.0, 0.0, 0.01, 0.1]))
            match rng.choice(["offer", "update", "update", "update", "close", "flap", "stall", "release"]):
                case "offer":
                    # The same again only over another stream.
                    activation += rng.randint(0, 1) if north.ups("south") > offered else 1
                    offered = north.ups("south")
                    keyframe = FrameId("north", FrameKind.KEYFRAME, activation, 0)
                    if keyframe not in north.store and not north.store.senders(keyframe):
                        north.store.reserve(keyframe, NBYTES)
                        own.append(keyframe)
                    if keyframe in north.store:
                        opening = pb.Open(activation=activation, degree=1, keyframe_bytes=NBYTES)
                        north.transport.send_open("south", opening, keyframe)
                case "update" if north.up(south) and _queue_length(north) < HELD_MAX:
                    inner += 1
                    update = FrameId("north", FrameKind.UPDATE, activation, inner)
                    north.store.reserve(update, NBYTES)
                    own.append(update)
                    north.transport.send_frame("south", update)
                case "close":
                    north.transport.forget("south", activation, rng.randint(-1, 10**6))
                case "flap" if net.streams and rng.random() < 0.2:
                    net.streams[-1].near.break_now()
                case "release":
                    _release_some(rng, south, held)
            while own and (len(own) > 10 or rng.random() < 0.3):
                north.store.release(own.pop(0))
            assert south.store.held_from("north") <= HELD_MAX
        assert south.book.counts == north.book.counts == {}
        assert all("broke the rules" not in event.sentence for event in north.downs() + south.downs())
        await close(north, south)
        for party, frames in ((north, own), (south, held)):
            for frame in frames:
                party.store.release(frame)
        assert len(north.store) == len(south.store) == 0, "nothing is held that nobody needs"

    run(fuzz())


def _keeps(party: Party) -> list[FrameId]:
    """The node of a receiver: the frames that it holds. When a stream is lost it releases keyframes, as a real node
    does."""
    held: list[FrameId] = []

    def tell(event: e.NetworkEvent) -> None:
        party.told.append(event)
        match event:
            case e.UpdateReceived(update=frame) | e.OpenReceived(keyframe=frame):
                held.append(frame)
            case e.PeerDown():
                for frame in [frame for frame in held if frame.kind is FrameKind.KEYFRAME]:
                    held.remove(frame)
                    asyncio.get_running_loop().call_later(0.02, party.store.release, frame)

    party.transport._tell = tell
    return held


def _release_some(rng: Any, party: Party, held: list[FrameId]) -> None:
    for _ in range(rng.randint(0, len(held))):
        party.store.release(held.pop(0))


def _queue_length(party: Party) -> int:
    (link,) = party.transport._links.values()
    assert link.session
    return len(link.session._out._queue)


def _lets_go(party: Party, net: FakeNet) -> Any:
    def tell(event: e.NetworkEvent) -> None:
        party.told.append(event)
        if isinstance(event, e.UpdateReceived):
            asyncio.get_running_loop().call_later(net.rng.uniform(0, 0.1), party.store.release, event.update)

    return tell
