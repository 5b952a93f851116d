"""The queue of a stream: its order, credit, messages that are taken back, and its limits."""

import asyncio

from deca_node.daemon.links.outbox import MESSAGES_QUEUED_MAX
from deca_node.daemon.wire_pb import exchange_pb2 as pb
from deca_node.protocol.agreed.frames import FrameId, FrameKind
from tests.daemon.links.bench import CLOSE, NBYTES, UPDATE, Bench, Script, chunks, content, credit, settle


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


def test_our_credit_overtakes_frames_that_wait_for_theirs() -> None:
    """Otherwise two ends could wait for each other's credit for ever."""
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


def test_an_offer_that_waits_is_forgotten_with_its_edge() -> None:
    bench = Bench()
    bench.offer(0)
    bench.session.forget(0, applied=-1)
    assert len(bench.store) == 0
    bench.script.say(credit(1))
    bench.run()
    assert bench.script.bodies() == []


def test_an_offer_without_a_keyframe_needs_no_credit_and_is_made_once() -> None:
    bench = Bench()
    opening = pb.Open(activation=2, degree=1, steps=[1])

    async def offer_twice() -> None:
        bench.session.send_open(opening, None)
        running = asyncio.ensure_future(bench.session.run())
        await settle()
        bench.session.send_open(opening, None)
        await running

    asyncio.run(offer_twice())
    assert bench.script.bodies() == ["open"]


def test_an_edge_that_was_closed_may_be_offered_anew() -> None:
    """The trainer died, and began the activation again."""
    bench = Bench()
    opening = pb.Open(activation=2, degree=1, steps=[1])

    async def offer_again() -> None:
        bench.session.send_open(opening, None)
        running = asyncio.ensure_future(bench.session.run())
        await settle()
        bench.session.forget(2, applied=-1)
        bench.session.send(pb.Frame(close=pb.Close(activation=2, applied=-1)))
        bench.session.send_open(opening, None)
        await running

    asyncio.run(offer_again())
    assert bench.script.bodies() == ["open", "close", "open"]


def test_an_offer_without_a_keyframe_is_forgotten_with_its_edge() -> None:
    bench = Bench()
    bench.session.send_open(pb.Open(activation=2, degree=1, steps=[1]), None)
    bench.session.forget(2, applied=-1)
    bench.run()
    assert bench.script.bodies() == []


def test_a_peer_that_takes_nothing_is_let_go() -> None:
    """Updates must neither be skipped nor pile up: the stream ends, and everything queued is released."""
    bench = Bench(held_max=3)
    bench.script = bench.session._stream = bench.session._out._stream = Script(stalled=True)

    async def send() -> str:
        running = asyncio.ensure_future(bench.session.run())
        for inner in range(4):
            bench.update(inner)
            await asyncio.sleep(0)
        return await running

    assert asyncio.run(send()) == "it reads too slowly: too much is queued for it"
    assert len(bench.store) == 0


def test_small_messages_have_a_limit_too() -> None:
    bench = Bench()
    for _ in range(MESSAGES_QUEUED_MAX + 1):
        bench.session.send(CLOSE)
    assert bench.run() == "it reads too slowly: too much is queued for it"
