"""One session with a peer that keeps the rules, or breaks them; without sockets or clock."""

import asyncio
import dataclasses
from collections import Counter

import pytest

from deca_node.daemon.links.outbox import Shared
from deca_node.daemon.links.session import STEPS_MAX, Session
from deca_node.daemon.wire.throttle import Throttle
from deca_node.daemon.wire_pb import exchange_pb2 as pb
from deca_node.protocol import events as e
from deca_node.protocol.agreed.frames import FrameId, FrameKind
from deca_node.protocol.errors import WireError
from tests.daemon.links.bench import NBYTES, OPEN, UPDATE, Bench, chunks, content, credit, settle


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


def test_where_only_moments_travel_an_edge_is_offered_without_a_keyframe() -> None:
    opening = pb.Frame(open=pb.Open(activation=3, degree=1, steps=[4, 1])).SerializeToString()
    bench = Bench(opening)
    bench.session._rules = dataclasses.replace(bench.session._rules, keyless=True)
    bench.run()
    assert bench.told == [e.OpenReceived("south", 3, 1, None, (1, 4))]
    with pytest.raises(WireError, match="this run has no keyframe"):
        Bench(opening).run()


def test_an_open_names_no_more_steps_than_a_run_can_have() -> None:
    opening = pb.Frame(open=pb.Open(activation=0, degree=1, steps=range(STEPS_MAX + 1)))
    with pytest.raises(WireError, match="an Open with 100001 steps, at most 100000"):
        Bench(opening.SerializeToString()).run()


def test_whoever_lets_go_of_a_frame_grants_another() -> None:
    frames = [FrameId("south", FrameKind.UPDATE, 0, inner) for inner in range(4)]
    bench = Bench(*(message for frame in frames for message in chunks(frame, content())), held_max=3)
    bench.session._tell = lambda event: bench.store.release(event.update)  # type: ignore[union-attr]
    bench.run()
    assert bench.script.frames()[-1] == credit(3 + 4), "all four that came, and three more"
    assert len(bench.store) == 0


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
    """The stream was replaced: the node still holds the keyframe of the stream before, and has not heard of its end
    yet."""
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


@pytest.mark.parametrize(
    ("reason", "orderly"),
    [
        ("in answer", True),
        ("south stops for now", True),
        ("south has mixed as often as it means to", True),
        ("south has ended this activation", True),
        ("", True),
        ("north did not open it in time; no edge to it for 2 more activations", False),
    ],
)
def test_an_orderly_close_is_known_by_its_words(reason: str, orderly: bool) -> None:
    """A Close carries no code, and nodes of every version say these words."""
    bench = Bench(pb.Frame(close=pb.Close(activation=0, applied=3, reason=reason)).SerializeToString())
    bench.run()
    assert bench.told == [e.CloseReceived("south", 0, 3, reason, orderly)]
