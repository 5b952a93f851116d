"""One stream with a peer behind it that keeps the rules, or does not; no sockets and no clock."""

import asyncio
import os
from collections import Counter, deque

import pytest

from deca_node.daemon import wire
from deca_node.daemon.arena import Arena, FrameStore, shared_file
from deca_node.daemon.session import FrameRules, Session, run_session
from deca_node.daemon.throttle import Throttle
from deca_node.daemon.wire_pb import exchange_pb2 as pb
from deca_node.protocol import events as e
from deca_node.protocol.errors import WireError
from deca_node.protocol.frames import FrameId, FrameKind
from deca_node.protocol.schedule import Step
from deca_node.protocol.sizes import CHUNK_BYTES

NBYTES = 2 * CHUNK_BYTES + 17
UPDATE = FrameId("south", FrameKind.UPDATE, 0, 0)
OPEN = pb.Frame(open=pb.Open(activation=0, degree=2, keyframe_bytes=NBYTES))


class Script:
    """A stream whose peer says these messages and then hangs up; what is written to it is kept."""

    def __init__(self, *messages: bytes) -> None:
        self._messages = deque(messages)
        self.written: list[bytes] = []

    async def read(self) -> bytes | None:
        await asyncio.sleep(0)
        return self._messages.popleft() if self._messages else None

    async def write(self, message: bytes) -> None:
        await asyncio.sleep(0)
        self.written.append(message)


class Bench:
    """A session on a script, and all that it told."""

    def __init__(self, *messages: bytes, neighbours: tuple[str, ...] = ("south",), held_max: int = 3) -> None:
        descriptor = shared_file()
        self.store = FrameStore(Arena(descriptor, NBYTES, 6))
        os.close(descriptor)
        self.told: list[e.NetworkEvent] = []
        self.traffic: Counter[str] = Counter()
        self.script = Script(*messages)
        rules = FrameRules(nbytes, held_max, frozenset(neighbours))
        self.session = Session(
            "south", 1, self.script, self.store, rules, self.told.append, self.traffic, Throttle(0.0)
        )

    def run(self) -> str:
        return asyncio.run(run_session(self.session))


def nbytes(kind: FrameKind, step: Step) -> int | None:
    return NBYTES if step.activation == 0 else None


def content(seed: int = 0) -> bytes:
    return bytes((i * 7 + seed) % 251 for i in range(1000)) * (NBYTES // 1000) + bytes(NBYTES % 1000)


def chunks(frame: FrameId, data: bytes) -> list[bytes]:
    view = memoryview(data)
    offsets = range(0, len(data), CHUNK_BYTES)
    return [wire.encode_chunk(frame, at, len(data), view[at : at + CHUNK_BYTES]) for at in offsets]


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


def test_what_is_queued_goes_out_in_order() -> None:
    bench = Bench()
    close = pb.Frame(close=pb.Close(activation=0, applied=0, reason="done"))

    async def send() -> None:
        writer = asyncio.ensure_future(bench.session.write_all())
        ours = FrameId("north", FrameKind.UPDATE, 0, 0)
        bench.store.reserve(ours, NBYTES)[:] = content()
        bench.session.send_frame(ours)
        bench.session.send(close)
        bench.store.release(ours)
        await bench.session.flush()
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)

    asyncio.run(send())
    assert bench.script.written == [*chunks(UPDATE, content()), close.SerializeToString()]
    assert len(bench.store) == 0, "released while it was sent, and free once it was on its way"


def test_updates_past_a_closed_edge_are_taken_back() -> None:
    bench = Bench()

    async def send() -> None:
        for inner in range(3):
            ours = FrameId("north", FrameKind.UPDATE, 0, inner)
            bench.store.reserve(ours, NBYTES)
            bench.session.send_frame(ours)
            bench.store.release(ours)
        bench.session.forget(0, applied=0)
        writer = asyncio.ensure_future(bench.session.write_all())
        await bench.session.flush()
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)

    asyncio.run(send())
    assert len(bench.script.written) == 3, "the chunks of one update"
    assert len(bench.store) == 0


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
