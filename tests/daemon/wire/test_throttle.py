"""The upload limit, on a fake clock."""

import asyncio

from deca_node.daemon.wire.throttle import Throttle


def test_bytes_over_time_stay_below_the_rate() -> None:
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    async def send() -> None:
        throttle = Throttle(1000.0, lambda: now, sleep)
        for _ in range(10):
            await throttle.take(500)

    asyncio.run(send())
    assert now == 4.5, "ten times half a second, the last of which is not waited for"


def test_no_limit_never_waits() -> None:
    async def send() -> None:
        throttle = Throttle(0.0, lambda: 0.0)
        await throttle.take(1 << 40)

    asyncio.run(send())
