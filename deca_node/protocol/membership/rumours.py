"""Rumours: news that ride on every packet until they have been told often enough.

A rumour told lambda * log(n + 1) times by everybody who hears it reaches all but a vanishing few (SWIM, section
4.1), and those learn it when whole lists are exchanged. The least told go first; newer news of a member replace
older; so there is at most one rumour per member, and a packet's share has a limit in bytes.
"""

from dataclasses import dataclass
from operator import attrgetter

from deca_node.protocol.membership.facts import MemberFacts

FACTS_BYTES = 48
"""What facts take on the wire beside their texts, at most: numbers, tags and lengths."""


@dataclass(frozen=True, slots=True)
class Rumour:
    """News of a member; ``accuser`` is who, independently of others, found it silent ("" where nobody did)."""

    facts: MemberFacts
    accuser: str = ""

    @property
    def nbytes(self) -> int:
        """What it takes on the wire, at most."""
        texts = (self.facts.name, self.facts.address, self.accuser)
        return FACTS_BYTES + sum(len(text.encode()) for text in texts)


@dataclass(slots=True)
class _Told:
    rumour: Rumour
    nbytes: int
    times: int = 0


class Rumours:
    """What is still to be told."""

    def __init__(self) -> None:
        self._told: dict[str, _Told] = {}

    def __len__(self) -> int:
        return len(self._told)

    def add(self, rumour: Rumour) -> None:
        """Begin to tell; an older rumour about the same member is dropped."""
        self._told[rumour.facts.name] = _Told(rumour, rumour.nbytes)

    def take(self, nbytes_max: int, times_max: int) -> tuple[Rumour, ...]:
        """What the next packet carries. What has thereby been told ``times_max`` times is done with."""
        taken, room = [], nbytes_max
        for told in sorted(self._told.values(), key=attrgetter("times")):
            if told.nbytes > room:
                break
            room -= told.nbytes
            taken.append(told.rumour)
            told.times += 1
            if told.times >= times_max:
                del self._told[told.rumour.facts.name]
        return tuple(taken)
