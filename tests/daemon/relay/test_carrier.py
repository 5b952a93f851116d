"""The member in the middle: whom it joins, and everything that it bounds; without sockets, on a simulated clock."""

import asyncio
import contextlib
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from deca_node.daemon.relay import carrier as carriers
from deca_node.daemon.relay import messages
from deca_node.daemon.relay.carrier import Carrier
from deca_node.daemon.wire.broken import StreamBrokenError
from deca_node.daemon.wire.throttle import Throttle
from deca_node.protocol.errors import WireError
from tests.daemon.links.fake_net import FakeEnd, FakeEndpoint, FakeNet, run, until

MEMBERS = {"north", "south", "east", "west"}


class Town:
    """A relay, and members that ask it."""

    def __init__(self, pairs_max: int = 2, rate: float = 0.0) -> None:
        self.net = FakeNet(seed=0)
        self.counted: list[str] = []
        self.said: list[str] = []
        self.unwelcome: set[str] = set()
        self.carrier = Carrier(
            "relay",
            pairs_max,
            [Throttle(rate)],
            self._admit,
            MEMBERS.__contains__,
            self.counted.append,
            self.said.append,
        )
        FakeEndpoint(self.net, "relay").add_streams(messages.SERVICE, {"Carry": self.carrier.answer})
        self._caller = FakeEndpoint(self.net, "elsewhere")

    def _admit(self, _stream: Any, name: str) -> None:
        if name in self.unwelcome:
            raise WireError("identity", f"not {name}")

    def dial(self) -> AbstractAsyncContextManager[FakeEnd]:
        return self._caller.dial("relay", "relay", messages.METHOD)

    async def refused(self, ask: bytes) -> str:
        """The code with which a caller is refused."""
        async with self.dial() as stream:
            await stream.write(ask)
            return messages.read(await stream.read(), "refusal").refusal.reason


def waits(name: str, to: str) -> bytes:
    return messages.ask(name, to, waits=True)


def calls(name: str, to: str) -> bytes:
    return messages.ask(name, to, waits=False)


async def joined(*streams: FakeEnd) -> None:
    for stream in streams:
        messages.read(await stream.read(), "joined")


def test_two_members_are_joined_and_their_bytes_are_counted() -> None:
    async def scene() -> None:
        town = Town()
        async with town.dial() as south, town.dial() as north:
            await south.write(waits("south", "north"))
            await asyncio.sleep(1)
            await north.write(calls("north", "south"))
            await joined(south, north)
            there, back = messages.data(b"there" * 100), messages.data(b"back")
            await north.write(there)
            await south.write(back)
            assert await south.read() == there and await north.read() == back
            (row,) = town.carrier.relayed()
            assert (row.pair, row.streams, row.nbytes) == (("north", "south"), 1, len(there) + len(back))
        await until(lambda: not town.carrier.relayed())
        assert town.carrier.nbytes == row.nbytes
        assert town.said == ["relaying between north and south, of which neither can dial the other"]

    run(scene())


def test_a_caller_is_told_at_once_that_nobody_waits_for_it() -> None:
    """Otherwise it would not try the next relay in time. Nor may a third member take the place of the one called."""

    async def scene() -> None:
        town = Town()
        async with town.dial() as south:
            await south.write(waits("south", "north"))
            await asyncio.sleep(1)
            assert await town.refused(calls("east", "south")) == "absent"
            assert await town.refused(calls("north", "west")) == "absent"

    run(scene())


@pytest.mark.parametrize(
    ("ask", "reason"),
    [
        (waits("north", "nobody"), "stranger"),
        (waits("nobody", "north"), "stranger"),
        (messages.JOINED, "unexpected"),
        (b"\xff\xff", "malformed"),
        (messages.data(bytes(messages.DATA_BYTES_MAX + 100)), "size"),
    ],
)
def test_bad_requests_are_refused_and_counted(ask: bytes, reason: str) -> None:
    async def scene() -> None:
        town = Town()
        assert await town.refused(ask) == reason
        assert town.counted == [reason]

    run(scene())


def test_a_name_is_verified() -> None:
    async def scene() -> None:
        town = Town()
        town.unwelcome.add("south")
        assert await town.refused(waits("south", "north")) == "identity"

    run(scene())


def test_a_node_without_the_setting_relays_nothing() -> None:
    async def scene() -> None:
        town = Town(pairs_max=0)
        assert not town.carrier.offered
        async with town.dial() as stream:
            assert messages.read(await stream.read(), "refusal").refusal.reason == "no-relay"

    run(scene())


def test_a_silent_caller_is_sent_away() -> None:
    async def scene() -> None:
        town = Town()
        async with town.dial() as stream:
            assert messages.read(await stream.read(), "refusal").refusal.reason == "slow"

    run(scene())


async def pair_up(town: Town, stack: Any, one: str, other: str) -> tuple[FakeEnd, FakeEnd]:
    waiting, calling = await stack.enter_async_context(town.dial()), await stack.enter_async_context(town.dial())
    await waiting.write(waits(one, other))
    await asyncio.sleep(1)
    await calling.write(calls(other, one))
    await joined(waiting, calling)
    return waiting, calling


def test_pairs_and_streams_are_bounded() -> None:
    async def scene() -> None:
        town = Town(pairs_max=1)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(carriers.STREAMS_PER_PAIR):
                await pair_up(town, stack, "south", "north")
            for one, other in (("south", "north"), ("west", "east")):
                waiting = await stack.enter_async_context(town.dial())
                await waiting.write(waits(one, other))
                await asyncio.sleep(1)
                assert await town.refused(calls(other, one)) == "busy"
        await until(lambda: not town.carrier.relayed())

    run(scene())


def test_a_newer_stream_that_waits_replaces_the_older_one() -> None:
    async def scene() -> None:
        town = Town()
        async with town.dial() as old, town.dial() as new, town.dial() as north:
            await old.write(waits("south", "north"))
            await asyncio.sleep(1)
            await new.write(waits("south", "north"))
            assert messages.read(await old.read(), "refusal").refusal.reason == "duplicate"
            await north.write(calls("north", "south"))
            await joined(new, north)

    run(scene())


def test_one_end_that_goes_away_ends_the_other() -> None:
    async def scene() -> None:
        for gone in (0, 1):
            town = Town()
            async with contextlib.AsyncExitStack() as stack:
                ends = await pair_up(town, stack, "south", "north")
                ends[gone].stream.hang_up()
                with contextlib.suppress(StreamBrokenError):
                    assert await ends[1 - gone].read() is None
                await until(lambda town=town: not town.carrier.relayed())

    run(scene())


def test_a_pair_that_is_silent_is_ended() -> None:
    async def scene() -> None:
        town = Town()
        async with contextlib.AsyncExitStack() as stack:
            south, north = await pair_up(town, stack, "south", "north")
            began = asyncio.get_running_loop().time()
            await asyncio.sleep(carriers.SILENCE_SECONDS - 10)
            await north.write(messages.data(b"still here"))
            assert await south.read()
            assert await south.read() is None
            assert asyncio.get_running_loop().time() - began == pytest.approx(2 * carriers.SILENCE_SECONDS - 10, abs=2)

    run(scene())


def test_a_member_that_is_no_longer_welcome_is_not_relayed() -> None:
    async def scene() -> None:
        town = Town()
        async with contextlib.AsyncExitStack() as stack:
            south, _north = await pair_up(town, stack, "south", "north")
            town.carrier.keep({"south", "east", "west"})
            assert await south.read() is None

    run(scene())


def test_the_rate_is_bounded() -> None:
    async def scene() -> None:
        town = Town(rate=1000.0)
        async with contextlib.AsyncExitStack() as stack:
            south, north = await pair_up(town, stack, "south", "north")
            began = asyncio.get_running_loop().time()
            for _ in range(10):
                await north.write(messages.data(bytes(1000)))
            for _ in range(10):
                assert await south.read()
            # The last message is sent when those before it would have gone out.
            assert asyncio.get_running_loop().time() - began == pytest.approx(9.0, abs=0.2)

    run(scene())


def test_the_end_of_a_node_waits_for_what_it_relays() -> None:
    async def scene() -> None:
        town = Town()
        async with contextlib.AsyncExitStack() as stack:
            await pair_up(town, stack, "south", "north")
            clock = asyncio.get_running_loop().time
            began = clock()
            await town.carrier.idle(5.0)
            assert clock() - began == pytest.approx(5.0, abs=0.2)
        await town.carrier.idle(5.0)
        assert clock() - began < 7.0

    run(scene())
