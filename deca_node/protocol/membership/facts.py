"""What is known of one member, and which of two pieces of news about it is the newer.

Everybody tells everybody what they heard of whom, late, twice and in any order. So news must be ordered by what
it says itself, never by when it came::

    (boot, incarnation, state)      the greater wins;  alive < suspect < dead < left

``boot`` is drawn at every start of the process, ``incarnation`` counts what the member itself has said anew since
then: only it may raise either, and that is how it refutes those who call it dead. Whether a *greater boot* wins is
the one question that news alone cannot settle (it may be a second process under a name that is taken); see
:mod:`deca_node.protocol.membership.naming`.
"""

from dataclasses import dataclass
from enum import IntEnum
from random import Random

BOOT_MAX = 2**63 - 1
INCARNATION_MAX = 2**32 - 1


class MemberState(IntEnum):
    """How a member is; at equal boot and incarnation the greater state wins."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    LEFT = 3

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class MemberFacts:
    """One member at one moment: ``address`` is host:port, ``ready_from`` the activation from which on it counts in
    the graph (-1: not yet). They travel together: news of one is news of all."""

    name: str
    address: str
    boot: int
    incarnation: int = 0
    state: MemberState = MemberState.ALIVE
    ready_from: int = -1

    @property
    def present(self) -> bool:
        """Whether it is one of the view: alive, or suspected and not yet given up."""
        return self.state <= MemberState.SUSPECT

    def newer_than(self, other: "MemberFacts") -> bool:
        """Whether these facts win over ``other``, which are of the same name."""
        ours = (self.boot, self.incarnation, self.state)
        return ours > (other.boot, other.incarnation, other.state)


def draw_boot(unix_seconds: float, rng: Random) -> int:
    """The boot of a process that starts now: milliseconds since 1970, then 20 bits of chance.

    So a later start has the greater boot wherever clocks are right, and where they are not, two starts still differ.
    """
    return int(unix_seconds * 1000) << 20 | rng.getrandbits(20)
