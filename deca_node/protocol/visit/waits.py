"""How long to wait for a neighbour: as long as others take, with a margin, and never past a limit.

One slow neighbour must cost its own edge and nobody's time. So a deadline follows what was seen: at every
wait, the arrival by which half of the neighbours had delivered; over the last waits, a high quantile of that;
times a margin. And a neighbour whose edge was dropped for lateness is let be for a while: one activation, then
two, four, and so on, until it has kept up for one.
"""

import math
from collections import deque
from collections.abc import Iterable

WAITS_KEPT = 200
WAITS_NEEDED = 8
"""Before this many waits were seen, the limit alone holds."""
QUANTILE = 0.95
MARGIN = 4.0
REST_MAX = 16
"""Activations for which a late neighbour is let be, at most."""


class Attempts:
    """Pauses before the next attempt at what failed, doubling from ``shortest`` to ``longest`` seconds."""

    def __init__(self, shortest: float, longest: float) -> None:
        self._shortest, self._longest = shortest, longest
        self.failed = 0

    def next(self) -> float:
        """It failed once more; seconds until the next attempt."""
        self.failed += 1
        return float(min(self._shortest * 2 ** (self.failed - 1), self._longest))

    def reset(self) -> None:
        """It worked."""
        self.failed = 0


class Waits:
    """What one kind of wait took lately, and how long the next may take."""

    def __init__(self, floor: float, limit: float) -> None:
        self._floor = min(floor, limit)
        self._limit = limit
        self._seen: deque[float] = deque(maxlen=WAITS_KEPT)

    def add(self, arrivals: Iterable[float], expected: int) -> None:
        """One wait for ``expected`` neighbours: seconds until each delivered that did."""
        times = sorted(arrivals)
        half = (expected - 1) // 2
        if expected and half < len(times):
            self._seen.append(times[half])

    def seconds(self) -> float:
        """The deadline of the next wait."""
        if len(self._seen) < WAITS_NEEDED:
            return self._limit
        rank = math.ceil(QUANTILE * len(self._seen)) - 1
        return min(max(MARGIN * sorted(self._seen)[rank], self._floor), self._limit)


class Wait:
    """One wait for neighbours: since when, until when at most, and when those came that did."""

    def __init__(self) -> None:
        self.deadline: float | None = None
        self._since = 0.0
        self._arrivals: list[float] = []

    def begin(self, now: float, seconds: float, there: int = 0) -> None:
        """Wait from now on; ``there`` is how many need not be waited for, since they came before."""
        self._since, self.deadline = now, now + seconds
        self._arrivals = [0.0] * there

    def arrived(self, now: float) -> None:
        """One of those who are waited for has come."""
        self._arrivals.append(now - self._since)

    def end(self) -> list[float]:
        """Wait no more; returns the seconds until each came that did."""
        self.deadline = None
        return self._arrivals


class Rests:
    """Which late neighbours are let be, and until when (activations, counted from 0)."""

    def __init__(self) -> None:
        self._strikes: dict[str, int] = {}
        self._until: dict[str, int] = {}

    def late(self, peer: str, activation: int) -> int:
        """Its edge was dropped for lateness in this activation; returns for how many it is let be."""
        strikes = self._strikes[peer] = self._strikes.get(peer, 0) + 1
        rest: int = min(2 ** (strikes - 1), REST_MAX)
        self._until[peer] = activation + 1 + rest
        return rest

    def kept_up(self, peer: str) -> None:
        """Its edge lasted to the end of an activation: all is forgiven."""
        self._strikes.pop(peer, None)

    def resting(self, peer: str, activation: int) -> bool:
        """Whether no edge to this neighbour is to be opened in this activation."""
        return activation < self._until.get(peer, 0)
