"""Large pieces of work take turns on the event loop."""

import asyncio

from deca_node.daemon.links.turns import Turns


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
