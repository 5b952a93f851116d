"""Quantiles of the newest measurements: round trips, and the lag of the event loop."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

TICK_SECONDS = 0.02
TICKS_KEPT = 3000
"""A minute of ticks."""


@dataclass(frozen=True)
class Quantiles:
    """Quantiles in seconds over ``count`` samples. Without samples all are NaN."""

    count: int
    p50: float
    p99: float
    max: float


class RecentSamples:
    """Holds the newest ``kept`` samples, in seconds."""

    def __init__(self, kept: int) -> None:
        self._samples: deque[float] = deque(maxlen=kept)

    def add(self, seconds: float) -> None:
        """Add a sample. Beyond ``kept`` the oldest goes."""
        self._samples.append(seconds)

    def figures(self) -> Quantiles:
        """The quantiles of the samples."""
        ordered = sorted(self._samples)
        if not ordered:
            return Quantiles(0, math.nan, math.nan, math.nan)
        return Quantiles(len(ordered), _quantile(ordered, 0.5), _quantile(ordered, 0.99), ordered[-1])


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[math.ceil(share * len(ordered)) - 1]


class LagMeter:
    """Measures how late the event loop wakes a task after a tick. Every other task waits as long."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, kept: int = TICKS_KEPT) -> None:
        self._clock = clock
        self._samples = RecentSamples(kept)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to measure on the running loop."""
        self._task = asyncio.ensure_future(self._measure())

    def close(self) -> None:
        """Stop measuring."""
        if self._task:
            self._task.cancel()

    def figures(self) -> Quantiles:
        """Lateness in seconds over the last minute."""
        return self._samples.figures()

    async def _measure(self) -> None:
        while True:
            due = self._clock() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            self._samples.add(max(self._clock() - due, 0.0))
