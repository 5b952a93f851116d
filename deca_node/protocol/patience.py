"""How long to wait for a neighbour: as long as others take, with a margin, and never past a limit.

One slow neighbour must cost its own edge and nobody's time. So a deadline follows what was seen: at every
wait, the arrival by which half of the neighbours had delivered; over the last waits, a high quantile of that;
times a margin. And a neighbour whose edge was dropped for lateness is let be for a while: one activation, then
two, four, and so on, until it has kept up for one.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

WAITS_KEPT = 200
WAITS_NEEDED = 8
"""Before this many waits were seen, the limit alone holds."""
QUANTILE = 0.95
MARGIN = 4.0
REST_MAX = 16
"""Activations for which a late neighbour is let be, at most."""


@dataclass(frozen=True)
class Patience:
    """How long this node waits for others, in seconds (0: for ever, for ``gather``), and how often it evaluates.

    ``open`` and ``step`` are limits; what was seen shortens them, down to ``floor``.
    """

    gather: float = 0.0
    open: float = 120.0
    step: float = 120.0
    floor: float = 2.0
    finish: float = 60.0
    eval_every: str = "round"


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
