"""Quantiles of the newest samples, and the lag of an event loop."""

import asyncio

from deca_node.daemon.wire.meters import LagMeter, Quantiles, RecentSamples
from tests.daemon.links.fake_net import run


def test_the_quantiles_are_those_of_the_newest_samples() -> None:
    samples = RecentSamples(kept=100)
    assert samples.figures().count == 0
    for number in range(1, 201):
        samples.add(float(number))
    assert samples.figures() == Quantiles(100, 150.0, 199.0, 200.0)


def test_the_lag_of_a_loop_is_what_its_timers_wait() -> None:
    async def measure() -> Quantiles:
        loop = asyncio.get_running_loop()
        meter = LagMeter(loop.time)
        meter.start()
        await asyncio.sleep(10)
        meter.close()
        return meter.figures()

    figures = run(measure())
    assert figures.count in (499, 500) and figures.max < 1e-6
