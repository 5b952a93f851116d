"""The state that all parts of membership share: this node's own facts, the other members as it knows them, its alarms
and rumours, and the commands it gives out."""

import itertools
from collections import Counter
from random import Random

from deca_node.protocol.agreed.identity import RunIdentity, foreign
from deca_node.protocol.commands import Report
from deca_node.protocol.membership.alarms import Alarms
from deca_node.protocol.membership.changes import MEMBER_STATES, UNKNOWN, Change
from deca_node.protocol.membership.facts import MemberFacts, MemberState
from deca_node.protocol.membership.messages import Body, Gossip, MembershipCommand, Packet, Send
from deca_node.protocol.membership.profiles import Profile
from deca_node.protocol.membership.rumours import Rumour, Rumours
from deca_node.protocol.membership.suspicion import LocalHealth, retransmissions

REFUSED_NAMED_MAX = 64
"""The most refused names that are reported, each once. Every refusal is counted."""


class MemberView:
    """One member's view of all. ``members`` holds the other members in any state, ``up`` those of them that are
    present. Only the names in ``allowed`` are admitted (None: every name), and of nodes that say their run only those
    of ``run`` (None: any run)."""

    def __init__(
        self,
        own: MemberFacts,
        profile: Profile,
        rng: Random,
        allowed: frozenset[str] | None = None,
        run: RunIdentity | None = None,
    ) -> None:
        self.own = own
        self._allowed = allowed
        self._run = run
        self._refused: set[str] = set()
        self.profile = profile
        self.rng = rng
        self.members: dict[str, MemberFacts] = {}
        self.up: dict[str, MemberFacts] = {}
        self.health = LocalHealth(profile.health_max)
        self.alarms = Alarms()
        self.rumours = Rumours()
        self.counters: Counter[str] = Counter()
        self.out: list[MembershipCommand] = []
        self._seqs = itertools.count(1)
        self._started = own.boot

    @property
    def size(self) -> int:
        """The number of members that are present, this node included."""
        return len(self.up) + 1

    @property
    def started(self) -> int:
        """The boot that was drawn when this process started. The boot of its own facts may have grown since."""
        return self._started

    def next_seq(self) -> int:
        """A number for a question, by which its answer is recognised."""
        return next(self._seqs)

    def put(self, facts: MemberFacts) -> Change:
        """Believe these facts. Returns what they mean for the member."""
        change = MEMBER_STATES.after(self._state(facts.name), facts.state)
        self.members[facts.name] = facts
        if facts.present:
            self.up[facts.name] = facts
        else:
            self.up.pop(facts.name, None)
        return change

    def forget(self, name: str) -> None:
        """Drop all facts of a member that is dead."""
        MEMBER_STATES.after(self._state(name), UNKNOWN)
        del self.members[name]

    def _state(self, name: str) -> MemberState | None:
        return self.members[name].state if name in self.members else UNKNOWN

    def some(self, count: int) -> list[MemberFacts]:
        """At most ``count`` present members, drawn by lot."""
        names = self.rng.sample(list(self.up), min(count, len(self.up)))
        return [self.up[name] for name in names]

    def trusts(self, name: str) -> bool:
        """Whether a member is alive, and under no suspicion."""
        held = self.up.get(name)
        return held is not None and held.state is MemberState.ALIVE

    def trusted(self, count: int, but: str) -> list[MemberFacts]:
        """At most ``count`` members under no suspicion, drawn by lot, without ``but``."""
        names = [name for name in self.up if name != but and self.trusts(name)]
        return [self.up[name] for name in self.rng.sample(names, min(count, len(names)))]

    def jitter(self, seconds: float) -> float:
        """Half to one and a half times as many seconds, by chance, so that members do not act in step."""
        return seconds * self.rng.uniform(0.5, 1.5)

    # --- commands -----------------------------------------------------------------------------------

    def say(self, command: MembershipCommand) -> None:
        """Give out a command to the daemon."""
        self.out.append(command)

    def send(self, to: MemberFacts, body: Body) -> None:
        """Send to a member. A member that is believed suspected or dead is told so in the same packet, since it alone
        can refute it (Lifeguard's buddy system)."""
        held = self.members.get(to.name)
        first: tuple[Rumour, ...] = ()
        if held is not None and (held.state is not MemberState.ALIVE or held.newer_than(to)):
            first = (Rumour(held, self.own.name),)
        self.out.append(Send(to.address, to.name, self._packet(body, first)))

    def call(self, address: str, body: Body, *first: Rumour) -> None:
        """Send to the process that listens at an address now."""
        self.out.append(Send(address, "", self._packet(body, first)))

    def _packet(self, body: Body, first: tuple[Rumour, ...]) -> Packet:
        times = retransmissions(self.size, self.profile)
        rumours = first + self.rumours.take(self.profile.rumour_bytes_max, times)
        return Packet(self.own, body, rumours, self._run)

    # --- refused nodes ------------------------------------------------------------------------------

    def admits(self, name: str) -> bool:
        """Whether a node of this name may be a member. A refused name is counted, and reported the first time."""
        if self._allowed is None or name in self._allowed:
            return True
        self.counters["names_refused"] += 1
        self._refuse(name, f"{name} is not in the peers file, and the membership is static: refused")
        return False

    def foreign(self, packet: Packet) -> str | None:
        """How the run of a packet's sender differs from this member's, as a sentence; None where it does not."""
        return foreign(self._run, packet.run, self.own.name, packet.sender.name)

    def refuse_stranger(self, name: str, address: str, sentence: str) -> None:
        """Count a node of another run that has called, and report it the first time."""
        self.counters["strangers_refused"] += 1
        self._refuse(f"{name} at {address}", f"{name} at {address} is refused: {sentence}", name)

    def _refuse(self, key: str, sentence: str, about: str = "") -> None:
        if key not in self._refused and len(self._refused) < REFUSED_NAMED_MAX:
            self._refused.add(key)
            self.say(Report("refused", sentence, "warning", about or key))

    # --- rumours ------------------------------------------------------------------------------------

    def tell(self, facts: MemberFacts, now: float, accuser: str = "") -> None:
        """Begin to spread news of a member."""
        self.rumours.add(Rumour(facts, accuser))
        if ("gossip", "") not in self.alarms:
            self.alarms.set(("gossip", ""), now + self.jitter(self.profile.gossip_interval))

    def gossip(self, now: float) -> None:
        """Send the rumours that are still to be told to a few members, drawn by lot."""
        for member in self.some(self.profile.gossip_fanout):
            if self.rumours:
                self.send(member, Gossip())
        if self.rumours and self.up:
            self.alarms.set(("gossip", ""), now + self.jitter(self.profile.gossip_interval))
