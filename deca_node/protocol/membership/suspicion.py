"""How long a silent member is suspected before it is given up, and how a member notices that it is slow itself.

Two ideas of Lifeguard (Dadgar, Phillips, Currey: "Lifeguard: Local Health Awareness for More Accurate Failure
Detection", 2018, arXiv 1707.00788), as arithmetic without clock or network:

- *LHA-Suspicion* (section IV-B): a lone accuser is more likely at fault than the accused. So suspicion begins long,
  and shrinks with every other member that accuses the same one independently::

      T(C) = max(Min, Max - (Max - Min) * log(C + 1) / log(K + 1))
      Min = alpha * max(1, log10 n) * probe interval,   Max = beta * Min

- *LHA-Probe* (section IV-A): a member whose probes fail in ways that are rare is itself slow. It counts such failures.
  The more it has counted, the longer its probes wait.
"""

import math
from dataclasses import dataclass, field

from deca_node.protocol.membership.profiles import Profile


def suspicion_min(size: int, profile: Profile) -> float:
    """The least suspicion, in seconds, in a group of ``size`` members."""
    return profile.suspicion_factor * max(1.0, math.log10(max(size, 1))) * profile.probe_interval


def suspicion_seconds(confirmations: int, expected: int, least: float, most: float) -> float:
    """T(C) above, in seconds; ``expected`` is K. Where no other member could confirm (K = 0) it is ``least``."""
    if expected <= 0:
        return least
    share = math.log(confirmations + 1) / math.log(expected + 1)
    return max(least, most - (most - least) * share)


def retransmissions(size: int, profile: Profile) -> int:
    """How often a member passes a rumour on in a group of ``size``: lambda * log10(n + 1), SWIM section 4.1."""
    return math.ceil(profile.retransmit_factor * math.log10(size + 1))


@dataclass
class Suspicion:
    """The suspicion of one member since ``start``. The first accuser is not a confirmation."""

    start: float
    least: float
    most: float
    expected: int
    accusers: set[str] = field(default_factory=set)

    @classmethod
    def begin(cls, now: float, size: int, profile: Profile, accuser: str) -> "Suspicion":
        """A suspicion that begins now. ``size`` counts the accused, too. Neither it nor the accuser can confirm."""
        least = suspicion_min(size, profile)
        expected = min(profile.confirmations, size - 2)
        return cls(now, least, least * profile.suspicion_stretch, expected, {accuser})

    def confirm(self, accuser: str) -> bool:
        """One more accusation. True if it shortens the wait, and so is to be passed on."""
        if accuser in self.accusers or len(self.accusers) > self.expected:
            return False
        self.accusers.add(accuser)
        return True

    @property
    def deadline(self) -> float:
        """When the accused is given up, in the clock of ``now``."""
        confirmations = len(self.accusers) - 1
        return self.start + suspicion_seconds(confirmations, self.expected, self.least, self.most)


class LocalHealth:
    """The score of LHA-Probe: 0 is healthy. :mod:`deca_node.protocol.membership.probing` raises and lowers it."""

    def __init__(self, score_max: int) -> None:
        self.score = 0
        self._score_max = score_max

    @property
    def multiplier(self) -> int:
        """The factor of probe interval and timeout."""
        return self.score + 1

    def worsen(self, points: int = 1) -> None:
        """This many things have failed that rarely fail."""
        self.score = min(self.score + points, self._score_max)

    def recover(self) -> None:
        """A probe was answered."""
        self.score = max(self.score - 1, 0)
