"""What members say to each other, and what passes between membership and the daemon around it.

A packet is one thing said (its body), by somebody (``sender``: its own facts, so every packet is also news of its
sender), with rumours along. Packets may be lost, delayed, doubled and overtaken; nothing here relies on order.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from deca_node.protocol.commands import Report
from deca_node.protocol.events import DeadlinePassed
from deca_node.protocol.membership.facts import MemberFacts
from deca_node.protocol.membership.rumours import Rumour

# --- bodies -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there? Only ``target`` answers: at its address another process may live by now."""

    seq: int
    target: str


@dataclass(frozen=True, slots=True)
class PingReq:
    """Please try ``target`` for me."""

    seq: int
    target: str
    address: str


@dataclass(frozen=True, slots=True)
class Ack:
    """I am there (answer to Ping); the target is there (answer to PingReq)."""

    seq: int


@dataclass(frozen=True, slots=True)
class Nack:
    """I tried the target of your PingReq and heard nothing, but you and I hear each other."""

    seq: int


@dataclass(frozen=True, slots=True)
class PushPull:
    """All, or a part of all, that the sender knows; with ``wants_reply`` it asks for the same."""

    seq: int
    members: tuple[MemberFacts, ...]
    wants_reply: bool


@dataclass(frozen=True, slots=True)
class Gossip:
    """Nothing but the rumours along."""


@dataclass(frozen=True, slots=True)
class Taken:
    """You cannot have your name: its holder lives."""

    holder: MemberFacts


@dataclass(frozen=True, slots=True)
class Claim:
    """Your name is mine. The lesser (``rank``, ``started``) keeps it; ``started`` is the boot drawn at the start."""

    rank: int
    started: int


Body = Ping | PingReq | Ack | Nack | PushPull | Gossip | Taken | Claim


@dataclass(frozen=True, slots=True)
class Packet:
    """What travels."""

    sender: MemberFacts
    body: Body
    rumours: tuple[Rumour, ...] = ()


# --- what membership hears --------------------------------------------------------------------------


@dataclass(frozen=True)
class Started:
    """The node listens: begin."""

    seeds: tuple[str, ...]


@dataclass(frozen=True)
class PacketReceived:
    """A packet came in."""

    packet: Packet


@dataclass(frozen=True)
class SendFailed:
    """What was to go to this address could not: nobody answers there."""

    address: str


@dataclass(frozen=True)
class SeedsChanged:
    """The peers file was read again."""

    seeds: tuple[str, ...]


@dataclass(frozen=True)
class SetReady:
    """From this activation on the node counts in the graph."""

    activation: int


@dataclass(frozen=True)
class Leave:
    """The user takes this node out for good."""


MembershipEvent = Started | PacketReceived | SendFailed | SeedsChanged | SetReady | Leave | DeadlinePassed

# --- what membership asks for -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Send a packet to ``address``, over the stream with ``name`` if there is one. With ``name`` "" it is meant for
    whoever listens at the address now, so no stream may be used but one that was dialled to that very address."""

    address: str
    name: str
    packet: Packet


@dataclass(frozen=True)
class Changed:
    """The view has changed: everybody alive or suspected by name, this node included."""

    members: Mapping[str, MemberFacts]

    @property
    def ready_from(self) -> dict[str, int]:
        """From which activation on each of them counts; -1: not yet."""
        return {name: facts.ready_from for name, facts in self.members.items()}

    @property
    def addresses(self) -> dict[str, str]:
        """Where each of them is."""
        return {name: facts.address for name, facts in self.members.items()}


@dataclass(frozen=True)
class MemberUp:
    """A member has come, or come back."""

    name: str
    sentence: str


@dataclass(frozen=True)
class MemberDown:
    """A member is given up, until it shows itself."""

    name: str
    sentence: str


@dataclass(frozen=True)
class MemberLeft:
    """A member has left for good."""

    name: str
    sentence: str


@dataclass(frozen=True)
class NameTaken:
    """Another process holds this node's name: this one must end. Membership has ended already."""

    sentence: str


MembershipCommand = Send | Changed | MemberUp | MemberDown | MemberLeft | NameTaken | Report
