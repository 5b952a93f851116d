"""How long small things take, as the last few hundred of them showed: round trips, and the event loop's lag."""

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
class Figures:
    """Quantiles in seconds over ``count`` samples; without any, all are NaN."""

    count: int
    p50: float
    p99: float
    max: float


class Window:
    """The last ``kept`` samples."""

    def __init__(self, kept: int) -> None:
        self._samples: deque[float] = deque(maxlen=kept)

    def add(self, seconds: float) -> None:
        """One more; the oldest makes room."""
        self._samples.append(seconds)

    def figures(self) -> Figures:
        """What the window shows."""
        ordered = sorted(self._samples)
        if not ordered:
            return Figures(0, math.nan, math.nan, math.nan)
        return Figures(len(ordered), _quantile(ordered, 0.5), _quantile(ordered, 0.99), ordered[-1])


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[math.ceil(share * len(ordered)) - 1]


class LagMeter:
    """How late the loop wakes a task that asked to be woken after a tick: what every other task waits, too."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, kept: int = TICKS_KEPT) -> None:
        self._clock = clock
        self._window = Window(kept)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to measure, on the running loop."""
        self._task = asyncio.ensure_future(self._measure())

    def close(self) -> None:
        """Measure no more."""
        if self._task:
            self._task.cancel()

    def figures(self) -> Figures:
        """Lateness in seconds over the last minute."""
        return self._window.figures()

    async def _measure(self) -> None:
        while True:
            due = self._clock() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            self._window.add(max(self._clock() - due, 0.0))
