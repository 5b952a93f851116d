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

from deca_node.protocol.agreed.stopping import NOTHING_TOLD, Heldout

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
    counts in the graph (-1: not yet). ``heldout`` is what it tells about held-out losses. All of it travels
    together."""

    name: str
    address: str
    boot: int
    incarnation: int = 0
    state: MemberState = MemberState.ALIVE
    ready_from: int = -1
    heldout: Heldout = NOTHING_TOLD

    @property
    def present(self) -> bool:
        """Whether the member is in the view: alive, or suspected and not yet given up."""
        return self.state <= MemberState.SUSPECT

    def newer_than(self, other: "MemberFacts") -> bool:
        """Whether these facts win over ``other`` facts of the same name."""
        ours = (self.boot, self.incarnation, self.state)
        return ours > (other.boot, other.incarnation, other.state)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberProgress:
    """How far a member is in the run, by its own word. It is shown to people, and nothing follows from it.

    ``beat`` grows with every telling of one start of the member. ``done`` and ``total`` count steps, ``round`` and
    ``block`` count from 1; all are 0 before the model is loaded. None: not known, or not told.
    """

    name: str
    boot: int
    beat: int
    phase: str
    done: int = 0
    total: int = 0
    round: int = 0
    block: int = 0
    loss: float | None = None
    heldout_loss: float | None = None
    steps_per_second: float | None = None
    sent_bytes: int = 0
    received_bytes: int = 0
    peers_up: int = 0
    page: str = ""
    """The address of its page, host:port; empty if it has none for others."""

    def newer_than(self, other: "MemberProgress | None") -> bool:
        """Whether this was told after ``other``."""
        return other is None or (self.boot, self.beat) > (other.boot, other.beat)


def draw_boot(unix_seconds: float, rng: Random) -> int:
    """The boot of a process that starts now: milliseconds since 1970, then 20 bits of chance.

    A later start has the greater boot if clocks are right. If they are wrong, two starts still differ.
    """
    return int(unix_seconds * 1000) << 20 | rng.getrandbits(20)
