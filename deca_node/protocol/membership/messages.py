"""The packets between members, and the events and commands between membership and the daemon.

A packet has a body, the facts of its sender, and rumours. So every packet is also news of its sender. Packets may be
lost, delayed, doubled and overtaken; no part of membership relies on their order.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from deca_node.protocol.agreed.identity import RunIdentity
from deca_node.protocol.agreed.stopping import NOTHING_TOLD, Heldout
from deca_node.protocol.commands import Report
from deca_node.protocol.events import DeadlinePassed
from deca_node.protocol.membership.facts import MemberFacts, MemberProgress
from deca_node.protocol.membership.rumours import Rumour

# --- bodies -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks whether ``target`` is there. No other member answers, since another process may live at the address by
    now."""

    seq: int
    target: str


@dataclass(frozen=True, slots=True)
class PingReq:
    """Asks the receiver to ping ``target`` for the sender."""

    seq: int
    target: str
    address: str


@dataclass(frozen=True, slots=True)
class Ack:
    """The sender is there (answer to Ping), or the target is there (answer to PingReq)."""

    seq: int


@dataclass(frozen=True, slots=True)
class Nack:
    """The target of the PingReq has not answered. The asker learns at least that this relay is there."""

    seq: int


@dataclass(frozen=True, slots=True)
class PushPull:
    """The sender's list of members, or a part of it. With ``wants_reply`` the sender asks for the receiver's list."""

    seq: int
    members: tuple[MemberFacts, ...]
    wants_reply: bool


@dataclass(frozen=True, slots=True)
class Gossip:
    """A packet for its rumours only."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The receiver's name is taken: its ``holder`` lives."""

    holder: MemberFacts


@dataclass(frozen=True, slots=True)
class Claim:
    """The sender claims the name that both processes have. The lesser (``rank``, ``started``) keeps it; ``started`` is
    the boot that was drawn at the start."""

    rank: int
    started: int


Body = Ping | PingReq | Ack | Nack | PushPull | Gossip | Taken | Claim


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet as it travels. ``run`` is the sender's; None from a node that does not say. ``progress`` rides along
    for people: membership neither reads nor writes it."""

    sender: MemberFacts
    body: Body
    rumours: tuple[Rumour, ...] = ()
    run: RunIdentity | None = None
    progress: tuple[MemberProgress, ...] = ()


# --- events -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Started:
    """The node listens on its address, so membership can begin."""

    seeds: tuple[str, ...]


@dataclass(frozen=True)
class PacketReceived:
    """A packet has arrived."""

    packet: Packet


@dataclass(frozen=True)
class SendFailed:
    """A packet to this address could not be sent: no process answers there."""

    address: str


@dataclass(frozen=True)
class StrangerCalled:
    """A node of another run called, and its greeting was refused. ``sentence`` says what differs."""

    name: str
    address: str
    sentence: str


@dataclass(frozen=True)
class SeedsChanged:
    """The peers file was read again, and has these seeds."""

    seeds: tuple[str, ...]


@dataclass(frozen=True)
class SetReady:
    """The node counts in the graph from this activation on."""

    activation: int


@dataclass(frozen=True)
class SetHeldout:
    """The node tells this about held-out losses."""

    heldout: Heldout


@dataclass(frozen=True)
class Leave:
    """The user takes this node out of the run for good."""


_NetworkEvent = PacketReceived | SendFailed | StrangerCalled
MembershipEvent = Started | _NetworkEvent | SeedsChanged | SetReady | SetHeldout | Leave | DeadlinePassed

# --- commands ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Send a packet to ``address``, over the stream with ``name`` if there is one. With ``name`` "" the packet is for
    the process that listens at the address now, so only a stream that was dialled to that very address may be used."""

    address: str
    name: str
    packet: Packet


@dataclass(frozen=True)
class Changed:
    """The view has changed: all members that are alive or suspected by name, this node included."""

    members: Mapping[str, MemberFacts]

    @property
    def ready_from(self) -> dict[str, int]:
        """The activation from which on each member counts in the graph; -1: not yet."""
        return {name: facts.ready_from for name, facts in self.members.items()}

    @property
    def heldout(self) -> dict[str, Heldout]:
        """What each member tells about held-out losses."""
        return {name: facts.heldout for name, facts in self.members.items() if facts.heldout != NOTHING_TOLD}

    @property
    def addresses(self) -> dict[str, str]:
        """The address of each member."""
        return {name: facts.address for name, facts in self.members.items()}


@dataclass(frozen=True)
class MemberUp:
    """A member has joined, is back, or has restarted."""

    name: str
    sentence: str


@dataclass(frozen=True)
class MemberDown:
    """A member is given up, until it is back."""

    name: str
    sentence: str


@dataclass(frozen=True)
class MemberLeft:
    """A member has left for good."""

    name: str
    sentence: str


@dataclass(frozen=True)
class NameTaken:
    """Another process holds this node's name, so this process must end. Membership has ended already."""

    sentence: str


MembershipCommand = Send | Changed | MemberUp | MemberDown | MemberLeft | NameTaken | Report
