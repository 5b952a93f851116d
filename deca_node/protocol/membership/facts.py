"""What is known of one member, and which of two facts about it is the newer.

Facts travel from member to member. They arrive late, twice and in any order, so their order must follow from what they
say and not from when they came::

    (boot, incarnation, state)      the greater wins;  alive < suspect < dead < left

``boot`` is drawn at every start of the process. ``incarnation`` counts how often the member has renewed its own facts
since then. Only the member itself may raise either; by raising them it refutes that it is dead. A *greater boot* may be
that of a second process under a name that is taken; :mod:`deca_node.protocol.membership.naming` decides whether it
wins.
"""

from dataclasses import dataclass
from enum import IntEnum
from random import Random

BOOT_MAX = 2**63 - 1
INCARNATION_MAX = 2**32 - 1


class MemberState(IntEnum):
    """The state of a member. At equal boot and incarnation the greater state wins."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    LEFT = 3

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class MemberFacts:
    """One member at one moment. ``address`` is host:port. ``ready_from`` is the activation from which on the member
    counts in the graph (-1: not yet). All of it travels together."""

    name: str
    address: str
    boot: int
    incarnation: int = 0
    state: MemberState = MemberState.ALIVE
    ready_from: int = -1

    @property
    def present(self) -> bool:
        """Whether the member is in the view: alive, or suspected and not yet given up."""
        return self.state <= MemberState.SUSPECT

    def newer_than(self, other: "MemberFacts") -> bool:
        """Whether these facts win over ``other`` facts of the same name."""
        ours = (self.boot, self.incarnation, self.state)
        return ours > (other.boot, other.incarnation, other.state)


def draw_boot(unix_seconds: float, rng: Random) -> int:
    """The boot of a process that starts now: milliseconds since 1970, then 20 bits of chance.

    A later start has the greater boot if clocks are right. If they are wrong, two starts still differ.
    """
    return int(unix_seconds * 1000) << 20 | rng.getrandbits(20)
