"""The greeting as one sequence, with a service whose peers and messages are the test's."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from itertools import count

import pytest

from deca_node.daemon.links.conduct import Refusals
from deca_node.daemon.links.greeting import Greeter, Messages, RefusedError, check_addressee, sentence_of
from deca_node.daemon.links.pairing import Pair, StreamNumber
from deca_node.daemon.wire.broken import StreamBrokenError
from deca_node.daemon.wire.endpoint import Stream
from deca_node.daemon.wire_pb import exchange_pb2 as pb
from deca_node.protocol.errors import WireError

SOUTH = pb.Hello(name="south", boot=5)
TAKEN = pb.Frame(taken=pb.Taken(number=4))


@dataclass
class Link:
    name: str
    pair: Pair


@dataclass
class Script:
    """A stream whose peer sends these messages and then closes it. What is written is kept."""

    said: deque[pb.Frame | None]
    written: list[pb.Frame] = field(default_factory=list)

    async def read(self) -> bytes | None:
        frame = self.said.popleft() if self.said else None
        return frame.SerializeToString() if frame else None

    async def write(self, message: bytes) -> None:
        self.written.append(pb.Frame.FromString(message))

    def verify(self, name: str) -> None:
        pass


class Service:
    """North, which knows south. It greets at most one caller at a time."""

    def __init__(self, *, leads: bool) -> None:
        self.south = Link("south", Pair(1, count(1), leads=leads))
        self.book = Refusals()
        self.over: list[str] = []
        self.greeter: Greeter[pb.Hello, Link] = Greeter(
            Messages(pb.Frame, "hello", pb.Frame.FromString),
            "north",
            5.0,
            self.book,
            admit=self._admit,
            hello=lambda link: pb.Frame(hello=pb.Hello(name="north", to=link.name)).SerializeToString(),
            welcome=self._welcome,
            over=lambda link: self.over.append(link.name),
        )

    def _admit(self, greetings: int) -> None:
        if greetings >= 1:
            raise WireError("busy", "north is greeting 1 other")

    def _welcome(self, hello: pb.Hello, _stream: Stream, _called: Link | None) -> Link:
        if hello.name != "south":
            raise WireError("stranger", f"north knows no member {hello.name!r}")
        return self.south


def script(*said: pb.Frame) -> Script:
    return Script(deque(said))


def test_a_leader_that_calls_gives_the_stream_its_number() -> None:
    north, stream = Service(leads=True), script(pb.Frame(hello=SOUTH))
    greeted = asyncio.run(north.greeter.call(north.south, stream))
    assert (greeted.link, greeted.hello, greeted.number) == (north.south, SOUTH, StreamNumber(1, 1))
    assert greeted.taken == pb.Frame(taken=pb.Taken(number=1)), "for the session to send"
    assert [frame.WhichOneof("body") for frame in stream.written] == ["hello"]


def test_a_follower_that_answers_waits_for_the_number() -> None:
    north, stream = Service(leads=False), script(pb.Frame(hello=SOUTH), TAKEN)
    greeted = asyncio.run(north.greeter.answer(stream))
    assert greeted and greeted.number == StreamNumber(5, 4) and greeted.taken is None
    assert north.over == ["south"]


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("stranger", [pb.Frame(hello=pb.Hello(name="mallory"))]),
        ("unexpected", [TAKEN]),
        ("unexpected", [pb.Frame(hello=SOUTH), pb.Frame(bye=pb.Bye())]),
    ],
)
def test_a_caller_that_is_refused_is_told_and_counted(reason: str, said: list[pb.Frame]) -> None:
    north, stream = Service(leads=False), script(*said)
    assert asyncio.run(north.greeter.answer(stream)) is None
    assert stream.written[-1].refusal.reason == reason and north.book.counts == {reason: 1}


def test_a_peer_that_was_called_and_is_refused_is_told_and_counted() -> None:
    north, stream = Service(leads=True), script(pb.Frame(hello=pb.Hello(name="mallory")))
    with pytest.raises(WireError, match="knows no member"):
        asyncio.run(north.greeter.call(north.south, stream))
    assert stream.written[-1].refusal.reason == "stranger" and north.book.counts == {"stranger": 1}


def test_a_second_stream_is_a_duplicate_and_is_not_counted() -> None:
    north = Service(leads=True)
    asyncio.run(north.greeter.call(north.south, script(pb.Frame(hello=SOUTH))))
    stream = script(pb.Frame(hello=SOUTH))
    assert asyncio.run(north.greeter.answer(stream)) is None
    assert stream.written[-1].refusal.sentence == "north has another stream with south"
    assert north.book.counts == {}


def test_what_the_peer_says_is_passed_on_and_not_answered() -> None:
    refusal = pb.Frame(refusal=pb.Refusal(reason="denied", sentence="north is on this node's deny-list"))
    for said, problem in ((refusal, RefusedError), (None, StreamBrokenError)):
        north, stream = Service(leads=True), Script(deque([said]))
        with pytest.raises(problem):
            asyncio.run(north.greeter.call(north.south, stream))
        assert len(stream.written) == 1
        assert asyncio.run(north.greeter.answer(Script(deque([said])))) is None
    assert north.book.counts == {}


def test_callers_beyond_the_limit_are_told_to_come_later() -> None:
    async def crowd() -> None:
        north, silent = Service(leads=True), asyncio.Event()

        class Silent(Script):
            async def read(self) -> bytes | None:
                await silent.wait()
                return None

        first = asyncio.ensure_future(north.greeter.answer(Silent(deque())))
        await asyncio.sleep(0)
        second = script()
        assert await north.greeter.answer(second) is None
        assert second.written[-1].refusal.reason == "busy"
        silent.set()
        assert await first is None
        assert await north.greeter.answer(script(pb.Frame(hello=SOUTH))), "the place is free again"

    asyncio.run(crowd())


def test_a_hello_must_be_of_this_version_and_for_this_node() -> None:
    check_addressee("north", 2, 2, "north")
    for protocol, to, reason in ((3, "north", "version"), (2, "west", "address")):
        with pytest.raises(WireError) as refused:
            check_addressee("north", protocol, 2, to)
        assert refused.value.reason == reason


def test_the_sentence_of_a_refusal_is_cut() -> None:
    assert sentence_of(pb.Refusal(sentence="x" * 2000)) == "x" * 1000
    assert sentence_of(pb.Refusal()) == "it gave no reason"
