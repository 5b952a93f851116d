"""Rumours: news that ride on other packets until they have been told often enough.

If every member that hears a rumour tells it lambda * log(n + 1) times, it reaches nearly all members (SWIM, section
4.1); the rest learn it when whole lists are exchanged. The least told rumours go first. Newer news of a member replace
older, so there is at most one rumour per member. A packet's share of rumours has a limit in bytes.
"""

from dataclasses import dataclass
from operator import attrgetter

from deca_node.protocol.agreed.stopping import Heldout
from deca_node.protocol.membership.facts import MemberFacts

FACTS_BYTES = 48
"""The most bytes that facts take on the wire beside their texts and held-out losses: numbers, tags and lengths."""
LOSS_BYTES, STOP_BYTES = 17, 6
"""The most bytes that the held-out loss of a round takes on the wire, and the activation at which the run stops."""


def heldout_bytes(heldout: Heldout) -> int:
    """The most bytes that these facts take on the wire; 0 if there are none."""
    return LOSS_BYTES * len(heldout.losses) + (STOP_BYTES if heldout.stop_at is not None else 0)


@dataclass(frozen=True, slots=True)
class Rumour:
    """News of a member. ``accuser`` is the member that found it silent by its own probe; "" without one."""

    facts: MemberFacts
    accuser: str = ""

    @property
    def nbytes(self) -> int:
        """The most bytes that the rumour takes on the wire."""
        texts = (self.facts.name, self.facts.address, self.accuser)
        return FACTS_BYTES + heldout_bytes(self.facts.heldout) + sum(len(text.encode()) for text in texts)


@dataclass(slots=True)
class _Told:
    rumour: Rumour
    nbytes: int
    times: int = 0


class Rumours:
    """The rumours that are still to be told."""

    def __init__(self) -> None:
        self._told: dict[str, _Told] = {}

    def __len__(self) -> int:
        return len(self._told)

    def add(self, rumour: Rumour) -> None:
        """Add a rumour; an older one about the same member is dropped."""
        self._told[rumour.facts.name] = _Told(rumour, rumour.nbytes)

    def take(self, nbytes_max: int, times_max: int) -> tuple[Rumour, ...]:
        """Take rumours of at most ``nbytes_max`` for the next packet. One that was taken ``times_max`` times is
        dropped."""
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
