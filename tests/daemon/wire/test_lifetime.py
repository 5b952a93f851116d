"""The loops of a stream: all end when one ends, and the reason is the most telling one."""

import asyncio
from collections.abc import Coroutine

import pytest

from deca_node.daemon.wire.broken import StreamBrokenError
from deca_node.daemon.wire.lifetime import Lifetime
from deca_node.protocol.errors import WireError


async def forever(ended: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("cancelled")


async def failing(problem: Exception) -> None:
    raise problem


async def returning() -> None:
    await asyncio.sleep(0)


def outcome(*loops: Coroutine[None, None, None]) -> str:
    return asyncio.run(Lifetime().run(*loops))


def test_all_loops_end_when_one_ends() -> None:
    ended: list[str] = []
    assert outcome(returning(), forever(ended), forever(ended)) == "the peer closed its stream"
    assert ended == ["cancelled", "cancelled"]


def test_a_broken_stream_is_a_reason_and_a_broken_rule_is_raised() -> None:
    assert outcome(failing(StreamBrokenError("reset"))) == "reset"
    with pytest.raises(WireError, match="too long"):
        outcome(failing(StreamBrokenError("reset")), failing(WireError("size", "too long")))


def test_the_first_reason_to_end_counts() -> None:
    async def end_twice() -> str:
        lifetime, ended = Lifetime(), list[str]()
        running = asyncio.ensure_future(lifetime.run(forever(ended)))
        await asyncio.sleep(0)
        lifetime.end("enough")
        lifetime.end("really")
        return await running

    assert asyncio.run(end_twice()) == "enough"


def test_a_stream_that_ended_before_its_loops_began_runs_none_of_them() -> None:
    async def never() -> str:
        lifetime, ended = Lifetime(), list[str]()
        lifetime.end("too late")
        why = await lifetime.run(forever(ended))
        assert ended == []
        return why

    assert asyncio.run(never()) == "too late"
