"""One stream with a peer behind it that keeps the rules, or does not; no sockets and no clock."""

import asyncio
import os
from collections import Counter, deque

import pytest

from deca_node.daemon.links.outbox import MESSAGES_QUEUED_MAX, Shared
from deca_node.daemon.links.session import FrameRules, Session
from deca_node.daemon.links.turns import Turns
from deca_node.daemon.trainer.arena import Arena, FrameStore, shared_file
from deca_node.daemon.wire import framing
from deca_node.daemon.wire.chunks import Chunks
from deca_node.daemon.wire.throttle import Throttle
from deca_node.daemon.wire_pb import exchange_pb2 as pb
from deca_node.protocol import events as e
from deca_node.protocol.agreed.frames import CHUNK_BYTES, FrameId, FrameKind
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.errors import WireError

NBYTES = 2 * CHUNK_BYTES + 17
UPDATE = FrameId("south", FrameKind.UPDATE, 0, 0)
OPEN = pb.Frame(open=pb.Open(activation=0, degree=2, keyframe_bytes=NBYTES))


class Script:
    """A stream whose peer says these messages, and more with :meth:`say`, and then hangs up; what is written to it
    is kept. A peer that is ``stalled`` reads nothing: the first write never ends."""

    def __init__(self, *messages: bytes, stalled: bool = False) -> None:
        self._messages: deque[bytes | None] = deque([*messages, None])
        self._stalled = stalled
        self.written: list[bytes] = []

    def say(self, *messages: pb.Frame) -> None:
        self._messages.extendleft(message.SerializeToString() for message in reversed(messages))

    async def read(self) -> bytes | None:
        await settle()
        return self._messages.popleft()

    async def write(self, message: bytes) -> None:
        await asyncio.sleep(0)
        if self._stalled:
            await asyncio.Event().wait()
        self.written.append(message)

    def frames(self) -> list[pb.Frame]:
        return [pb.Frame.FromString(message) for message in self.written]

    def bodies(self) -> list[str | None]:
        """What was written, by kind, but for our own credit."""
        bodies = [frame.WhichOneof("body") for frame in self.frames()]
        return [body for body in bodies if body != "credit"]


async def settle() -> None:
    """Let everybody go on until all wait."""
    for _ in range(100):
        await asyncio.sleep(0)


class Bench:
    """A session on a script, and all that it told."""

    def __init__(
        self, *messages: bytes, neighbours: tuple[str, ...] = ("south",), held_max: int = 3, slots: int = 8
    ) -> None:
        descriptor = shared_file()
        self.store = FrameStore(Arena(descriptor, NBYTES, slots))
        os.close(descriptor)
        self.told: list[e.NetworkEvent] = []
        self.traffic: Counter[str] = Counter()
        self.script = Script(*messages)
        rules = FrameRules(nbytes, held_max, lambda peer, _: peer in neighbours)
        self.session = Session(
            "south", self.script, Shared(self.store, Throttle(0.0)), rules, self.told.append, self.traffic
        )
        self.store.on_free = self.session.freed

    def run(self) -> str:
        return asyncio.run(self.session.run())

    def update(self, inner: int) -> FrameId:
        """An update of our own, which the core has let go of once it is queued."""
        ours = FrameId("north", FrameKind.UPDATE, 0, inner)
        self.store.reserve(ours, NBYTES)[:] = content(inner)
        self.session.send_frame(ours)
        self.store.release(ours)
        return ours

    def offer(self, activation: int) -> FrameId:
        ours = FrameId("north", FrameKind.KEYFRAME, activation, 0)
        self.store.reserve(ours, NBYTES)[:] = content(activation)
        self.session.send_open(pb.Open(activation=activation, degree=1, keyframe_bytes=NBYTES), ours)
        self.store.release(ours)
        return ours


def nbytes(kind: FrameKind, step: Step) -> int | None:
    return NBYTES if step.activation == 0 else None


def content(seed: int = 0) -> bytes:
    return bytes((i * 7 + seed) % 251 for i in range(1000)) * (NBYTES // 1000) + bytes(NBYTES % 1000)


def chunks(frame: FrameId, data: bytes) -> list[bytes]:
    view = memoryview(data)
    offsets = range(0, len(data), CHUNK_BYTES)
    return [framing.encode_chunk(frame, at, len(data), view[at : at + CHUNK_BYTES]) for at in offsets]


def test_a_frame_is_an_event_once_it_is_whole() -> None:
    bench = Bench(*chunks(UPDATE, content()))
    assert bench.run() == "the peer closed its stream"
    assert bench.told == [e.UpdateReceived("south", UPDATE)]
    assert bytes(bench.store.view(UPDATE)) == content()
    assert bench.traffic["received.update"] == sum(map(len, chunks(UPDATE, content())))


def test_a_stream_that_breaks_within_a_frame_leaves_nothing() -> None:
    bench = Bench(*chunks(UPDATE, content())[:-1])
    bench.run()
    assert bench.told == []
    assert len(bench.store) == 0


def test_an_edge_is_offered_once_its_keyframe_is_whole() -> None:
    keyframe = FrameId("south", FrameKind.KEYFRAME, 0, 0)
    bench = Bench(OPEN.SerializeToString(), *chunks(keyframe, content()))
    bench.run()
    assert bench.told == [e.OpenReceived("south", 0, 2, keyframe)]


def credit(frames: int) -> pb.Frame:
    return pb.Frame(credit=pb.Credit(frames=frames))


CLOSE = pb.Frame(close=pb.Close(activation=0, applied=0, reason="done"))


def test_what_is_queued_goes_out_in_order() -> None:
    bench = Bench()
    bench.script.say(credit(1))
    bench.update(0)
    bench.session.send(CLOSE)
    bench.run()
    ours = FrameId("north", FrameKind.UPDATE, 0, 0)
    assert bench.script.written[1:] == [*chunks(ours, content()), CLOSE.SerializeToString()]
    assert len(bench.store) == 0, "released while it was sent, and free once it was on its way"


def test_the_first_message_is_the_credit_that_the_peer_has() -> None:
    bench = Bench(held_max=3)
    bench.run()
    assert bench.script.frames() == [credit(3)]


def test_frames_wait_for_credit_and_what_comes_after_them_too() -> None:
    bench = Bench()
    bench.script.say(credit(1), credit(2))
    for inner in range(3):
        bench.update(inner)
    bench.session.send(CLOSE)
    bench.run()
    sent = [frame.chunk.inner for frame in bench.script.frames() if frame.WhichOneof("body") == "chunk"]
    assert sent == [0, 0, 0, 1, 1, 1]
    assert "close" not in bench.script.bodies()
    assert len(bench.store) == 0, "the stream is over, and nothing is held for it"


def test_whoever_lets_go_of_a_frame_grants_another() -> None:
    frames = [FrameId("south", FrameKind.UPDATE, 0, inner) for inner in range(4)]
    bench = Bench(*(message for frame in frames for message in chunks(frame, content())), held_max=3)
    bench.session._tell = lambda event: bench.store.release(event.update)  # type: ignore[union-attr]
    bench.run()
    assert bench.script.frames()[-1] == credit(3 + 4), "all four that came, and three more"
    assert len(bench.store) == 0


def test_our_credit_overtakes_frames_that_wait_for_theirs() -> None:
    """Or two ends that wait for each other's credit would wait for ever."""
    bench = Bench(*chunks(UPDATE, content()), held_max=3)
    bench.update(0)
    bench.session._tell = lambda event: bench.store.release(event.update)  # type: ignore[union-attr]
    bench.run()
    assert bench.script.frames() == [credit(3), credit(4)]


def test_updates_past_a_closed_edge_are_taken_back() -> None:
    bench = Bench()
    bench.script.say(credit(9))
    for inner in range(3):
        bench.update(inner)
    bench.session.forget(0, applied=0)
    bench.run()
    assert bench.script.bodies() == ["chunk"] * 3, "of one update"
    assert len(bench.store) == 0


def test_an_offer_that_waits_is_replaced_by_a_newer_one() -> None:
    bench = Bench(held_max=2)
    for activation in range(50):
        bench.offer(activation)
        assert len(bench.store) == 1
    bench.script.say(credit(1))
    bench.run()
    opened = [frame.open.activation for frame in bench.script.frames() if frame.WhichOneof("body") == "open"]
    assert opened == [49]
    assert bench.script.bodies() == ["open", "chunk", "chunk", "chunk"]


def test_an_offer_that_is_on_its_way_is_not_made_twice() -> None:
    bench = Bench()
    bench.script.say(credit(9))

    async def offer_twice() -> None:
        keyframe = FrameId("north", FrameKind.KEYFRAME, 0, 0)
        bench.store.reserve(keyframe, NBYTES)
        opening = pb.Open(activation=0, degree=1, keyframe_bytes=NBYTES)
        bench.session.send_open(opening, keyframe)
        running = asyncio.ensure_future(bench.session.run())
        for _ in range(120):
            await asyncio.sleep(0)
        assert bench.script.bodies()[0] == "open"
        bench.session.send_open(opening, keyframe)
        await running

    asyncio.run(offer_twice())
    assert bench.script.bodies() == ["open", "chunk", "chunk", "chunk"]


def test_a_frame_for_several_neighbours_is_framed_once_and_never_for_another_under_its_name() -> None:
    descriptor = shared_file()
    store = FrameStore(Arena(descriptor, NBYTES, 2))
    os.close(descriptor)
    made = Chunks(store)
    store.on_free = made.forget
    store.reserve(UPDATE, NBYTES)[:] = content(1)
    for _ in range(2):
        store.hold(UPDATE)
    first = made.message(UPDATE, CHUNK_BYTES)
    assert first == chunks(UPDATE, content(1))[1]
    assert made.message(UPDATE, CHUNK_BYTES) is first
    for _ in range(2):
        store.unhold(UPDATE)
    store.release(UPDATE)
    store.reserve(UPDATE, NBYTES)[:] = content(2)
    assert made.message(UPDATE, CHUNK_BYTES) == chunks(UPDATE, content(2))[1]
    assert made.message(UPDATE, 0) is not made.message(UPDATE, 0), "nobody else will want it"


def test_large_pieces_of_work_take_turns() -> None:
    turns, done = Turns(), []

    async def work(name: str) -> None:
        for number in range(3):
            await turns.take()
            done.append((name, number))

    async def all_at_once() -> list[int]:
        tasks = [asyncio.ensure_future(work(name)) for name in ("a", "b", "c", "cancelled")]
        per_turn = []
        for turn in range(40):
            before = len(done)
            await asyncio.sleep(0)
            per_turn.append(len(done) - before)
            if turn == 3:
                tasks[3].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return per_turn

    per_turn = asyncio.run(all_at_once())
    assert max(per_turn) == 1
    assert {name for name, number in done if number == 2} == {"a", "b", "c"}


def test_some_slots_are_kept_for_our_own_frames() -> None:
    descriptor = shared_file()
    store = FrameStore(Arena(descriptor, NBYTES, 3), kept_free=2)
    os.close(descriptor)
    assert store.has_room()
    store.reserve(UPDATE, NBYTES)
    assert not store.has_room()
    store.reserve(FrameId("north", FrameKind.UPDATE, 0, 0), NBYTES)
    store.release(UPDATE)
    assert not store.has_room()


def test_an_offer_that_waits_is_forgotten_with_its_edge() -> None:
    bench = Bench()
    bench.offer(0)
    bench.session.forget(0, applied=-1)
    assert len(bench.store) == 0
    bench.script.say(credit(1))
    bench.run()
    assert bench.script.bodies() == []


def test_a_peer_that_takes_nothing_is_let_go() -> None:
    """Updates must not be skipped, and must not pile up: the link ends, and all that was queued with it."""
    bench = Bench(held_max=3)
    bench.script = bench.session._stream = bench.session._out._stream = Script(stalled=True)

    async def send() -> str:
        running = asyncio.ensure_future(bench.session.run())
        for inner in range(4):
            bench.update(inner)
            await asyncio.sleep(0)
        return await running

    assert asyncio.run(send()) == "it takes nothing: too much is queued for it"
    assert len(bench.store) == 0


def test_small_messages_have_a_limit_too() -> None:
    bench = Bench()
    for _ in range(MESSAGES_QUEUED_MAX + 1):
        bench.session.send(CLOSE)
    assert bench.run() == "it takes nothing: too much is queued for it"


def test_a_session_that_was_ended_tells_nothing_more() -> None:
    bench = Bench(*chunks(UPDATE, content()))

    async def end() -> str:
        running = asyncio.ensure_future(bench.session.run())
        await settle()
        await asyncio.sleep(0)
        await settle()
        assert bench.store.held_from("south") == 1, "the first chunk has come"
        bench.session.end("enough")
        return await running

    assert asyncio.run(end()) == "enough"
    assert bench.told == []
    assert len(bench.store) == 0


def test_a_keyframe_that_is_offered_again_waits_until_the_first_is_let_go() -> None:
    """The link flapped: the core still holds what came over the stream before, and is about to hear of the loss."""
    keyframe = FrameId("south", FrameKind.KEYFRAME, 0, 0)
    bench = Bench(OPEN.SerializeToString(), *chunks(keyframe, content(1)))
    bench.store.reserve(keyframe, NBYTES)[:] = content(0)

    async def flap() -> str:
        running = asyncio.ensure_future(bench.session.run())
        for _ in range(5):
            await settle()
        assert bench.told == []
        assert bytes(bench.store.view(keyframe)) == content(0), "what the core works with stays as it is"
        bench.store.release(keyframe)
        return await running

    assert asyncio.run(flap()) == "the peer closed its stream"
    assert bench.told == [e.OpenReceived("south", 0, 2, keyframe)]
    assert bytes(bench.store.view(keyframe)) == content(1)


def test_frames_of_an_earlier_stream_count_against_credit() -> None:
    bench = Bench(held_max=3)
    bench.store.reserve(UPDATE, NBYTES)
    again = Session("south", bench.script, Shared(bench.store, Throttle(0)), bench.session._rules, print, Counter())
    asyncio.run(again.run())
    assert bench.script.frames() == [credit(2)]


def test_a_peer_waits_where_others_have_taken_all_slots() -> None:
    bench = Bench(*chunks(UPDATE, content()), slots=1)
    other = FrameId("west", FrameKind.UPDATE, 0, 0)
    bench.store.reserve(other, NBYTES)

    async def wait() -> None:
        running = asyncio.ensure_future(bench.session.run())
        for _ in range(5):
            await settle()
        assert bench.told == []
        bench.store.release(other)
        await running

    asyncio.run(wait())
    assert bench.told == [e.UpdateReceived("south", UPDATE)]


UNKNOWN = FrameId("south", FrameKind.UPDATE, 9, 0)
KEYFRAME = FrameId("south", FrameKind.KEYFRAME, 0, 0)
SMALL = OPEN.__class__(open=pb.Open(activation=0, degree=2, keyframe_bytes=5))


@pytest.mark.parametrize(
    ("reason", "messages"),
    [
        ("malformed", [b"nonsense"]),
        ("size", chunks(UNKNOWN, content())),
        ("size", chunks(UPDATE, content()[:-1])),
        ("size", [SMALL.SerializeToString()]),
        ("gap", chunks(UPDATE, content())[1:]),
        ("gap", [chunks(UPDATE, content())[0], chunks(UPDATE, content())[0]]),
        ("replay", [*chunks(UPDATE, content()), *chunks(UPDATE, content())]),
        ("unexpected", chunks(KEYFRAME, content())),
        ("unexpected", [OPEN.SerializeToString(), OPEN.SerializeToString()]),
        ("unexpected", [pb.Frame(hello=pb.Hello(name="south")).SerializeToString()]),
        ("refused", [pb.Frame(refusal=pb.Refusal(reason="mismatch", sentence="no")).SerializeToString()]),
    ],
)
def test_broken_rules_have_their_reason_and_leave_nothing(reason: str, messages: list[bytes]) -> None:
    bench = Bench(*messages)
    with pytest.raises(WireError) as caught:
        bench.run()
    assert caught.value.reason == reason
    assert len(bench.store) == sum(isinstance(event, e.UpdateReceived) for event in bench.told)


def test_a_flood_of_frames_ends_at_its_limit() -> None:
    frames = [FrameId("south", FrameKind.UPDATE, 0, inner) for inner in range(5)]
    bench = Bench(*(message for frame in frames for message in chunks(frame, content())), held_max=3)
    with pytest.raises(WireError) as caught:
        bench.run()
    assert caught.value.reason == "flood"
    assert len(bench.store) == 3


def test_frames_come_from_neighbours_only() -> None:
    bench = Bench(*chunks(UPDATE, content()), neighbours=("west",))
    with pytest.raises(WireError) as caught:
        bench.run()
    assert caught.value.reason == "no-edge"
