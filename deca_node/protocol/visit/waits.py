"""How long to wait for neighbours: as long as most of them take, with a margin, and never past a limit.

One slow neighbour must cost its own edge and no other node's time. So every wait is measured by the arrival with which
half of the neighbours had delivered. The next deadline is a high quantile of that over the last waits, times a margin.
A neighbour whose edge was dropped for lateness gets no edge for a while: for one activation, after the next time for
two, then four, until it has kept up for one.
"""

import math
from collections import deque
from collections.abc import Iterable

WAITS_KEPT = 200
WAITS_NEEDED = 8
"""Until this many waits were measured, the deadline is the limit."""
QUANTILE = 0.95
MARGIN = 4.0
REST_MAX = 16
"""The most activations for which a late neighbour gets no edge."""


class Attempts:
    """Pauses between attempts at something that fails, doubling from ``shortest`` to ``longest`` seconds."""

    def __init__(self, shortest: float, longest: float) -> None:
        self._shortest, self._longest = shortest, longest
        self.failed = 0

    def next(self) -> float:
        """An attempt has failed. Returns the seconds until the next."""
        self.failed += 1
        return float(min(self._shortest * 2 ** (self.failed - 1), self._longest))

    def reset(self) -> None:
        """An attempt has succeeded."""
        self.failed = 0


class WaitTimes:
    """How long one kind of wait took lately, and how long the next may take, in seconds."""

    def __init__(self, floor: float, limit: float) -> None:
        self._floor = min(floor, limit)
        self._limit = limit
        self._seen: deque[float] = deque(maxlen=WAITS_KEPT)

    def add(self, arrivals: Iterable[float], expected: int) -> None:
        """Note one wait for ``expected`` neighbours: after how many seconds each of those that delivered did so."""
        times = sorted(arrivals)
        half = (expected - 1) // 2
        if expected and half < len(times):
            self._seen.append(times[half])

    def seconds(self) -> float:
        """How long the next wait may take."""
        if len(self._seen) < WAITS_NEEDED:
            return self._limit
        rank = math.ceil(QUANTILE * len(self._seen)) - 1
        return min(max(MARGIN * sorted(self._seen)[rank], self._floor), self._limit)


class Wait:
    """One wait for neighbours: its beginning, its deadline, and the arrivals meanwhile."""

    def __init__(self) -> None:
        self.deadline: float | None = None
        self._since = 0.0
        self._arrivals: list[float] = []

    def begin(self, now: float, seconds: float, there: int = 0) -> None:
        """Wait from now on. ``there`` counts the neighbours that had delivered before."""
        self._since, self.deadline = now, now + seconds
        self._arrivals = [0.0] * there

    def arrived(self, now: float) -> None:
        """A neighbour has delivered."""
        self._arrivals.append(now - self._since)

    def end(self) -> list[float]:
        """Wait no longer. Returns the seconds until each arrival."""
        self.deadline = None
        return self._arrivals


class Rests:
    """The late neighbours that get no edge for a while; until when, in activations counted from 0."""

    def __init__(self) -> None:
        self._strikes: dict[str, int] = {}
        self._until: dict[str, int] = {}

    def late(self, peer: str, activation: int) -> int:
        """The peer's edge was dropped for lateness in this activation. Returns for how many it gets none."""
        strikes = self._strikes[peer] = self._strikes.get(peer, 0) + 1
        rest: int = min(2 ** (strikes - 1), REST_MAX)
        self._until[peer] = activation + 1 + rest
        return rest

    def kept_up(self, peer: str) -> None:
        """The peer's edge lasted to the end of an activation, which clears its record."""
        self._strikes.pop(peer, None)

    def resting(self, peer: str, activation: int) -> bool:
        """Whether the peer gets no edge in this activation."""
        return activation < self._until.get(peer, 0)
