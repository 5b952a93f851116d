"""Who takes part? Every member keeps a list of all, checks on the others, and passes news on like rumours.

SWIM (Das, Gupta, Motivala, DSN 2002) with Lifeguard (Dadgar et al., 2018, arXiv 1707.00788), as a state machine:
packets, failures and time go in, packets and reports come out::

    (unknown) -> ALIVE -- a probe failed --> SUSPECT -- T(C) passed --> DEAD -- a day --> (unknown)
                   |  ^------ it refutes --------'---------------------'
                   '--------- it leaves --> LEFT

:data:`deca_node.protocol.membership.changes.MEMBER_STATES` is the whole table. The parts are
:mod:`~deca_node.protocol.membership.probing` (is a member there?), :mod:`~deca_node.protocol.membership.suspicion`
(when to give up), :mod:`~deca_node.protocol.membership.rumours` (passing news on),
:mod:`~deca_node.protocol.membership.contacts` (seeds and the dead) and :mod:`~deca_node.protocol.membership.naming`
(whose name it is).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from typing import Any, ClassVar

from deca_node.protocol.agreed.identity import RunIdentity
from deca_node.protocol.events import DeadlinePassed
from deca_node.protocol.membership import messages
from deca_node.protocol.membership.alarms import AlarmKey
from deca_node.protocol.membership.changes import COMES, GOES, Change, report
from deca_node.protocol.membership.contacts import Contacts
from deca_node.protocol.membership.facts import MemberFacts, MemberState
from deca_node.protocol.membership.naming import FRESH, Naming
from deca_node.protocol.membership.probing import Prober
from deca_node.protocol.membership.profiles import Profile
from deca_node.protocol.membership.suspicion import Suspicion
from deca_node.protocol.membership.view import MemberView

FAREWELLS_MAX = 32
"""The most members to which a leaving member says goodbye itself; the others hear of it as a rumour."""


class Membership:
    """One member. ``handle`` takes an event and the time; the commands it returns are to be performed in order.
    ``next_deadline`` is when DeadlinePassed is due, in the clock of ``now``.

    With ``allowed`` the membership is static: other names are refused, and no member is ever forgotten. Nodes that say
    that they are of another run than ``run`` are refused.
    """

    def __init__(
        self,
        own: MemberFacts,
        profile: Profile,
        rng: Random,
        allowed: frozenset[str] | None = None,
        run: RunIdentity | None = None,
    ) -> None:
        self.ended = False
        self._view = MemberView(own, profile, rng, allowed, run)
        self._prober = Prober(self._view, self._accuse)
        self._contacts = Contacts(self._view, keep=allowed is not None)
        self._naming = Naming(self._view, self._accept, self._announce, self._lose)
        self._suspicions: dict[str, Suspicion] = {}
        self._had_company = False
        self._view_changed = False

    # --- events in, commands out; what it shows ------------------------------------------------------

    def handle(self, event: messages.MembershipEvent, now: float) -> list[messages.MembershipCommand]:
        """Take in one fact; returns the commands that follow from it, in order. After the end there are none."""
        if self.ended:
            return []
        self._make_up_for_sleep(now)
        self._HANDLERS[type(event)](self, event, now)
        while (key := self._view.alarms.pop_due(now)) is not None:
            self._ring(key, now)
        if self._view_changed and not self.ended:
            self._view_changed = False
            self._view.say(messages.Changed(self.view()))
        out, self._view.out = self._view.out, []
        return out

    def next_deadline(self) -> float | None:
        """When DeadlinePassed is due, in the clock of ``now``; None after the end."""
        return self._view.alarms.next()

    @property
    def own(self) -> MemberFacts:
        """This member's own facts, as it tells them."""
        return self._view.own

    @property
    def members(self) -> Mapping[str, MemberFacts]:
        """All other members that are known, in any state."""
        return self._view.members

    @property
    def counters(self) -> Mapping[str, int]:
        """The counters of this machine, by name."""
        return self._view.counters

    @property
    def backlog(self) -> int:
        """The number of alarms that are set and of rumours still to be told. It stays in proportion to the members."""
        return len(self._view.alarms) + len(self._view.rumours)

    @property
    def rumours_left(self) -> int:
        """The number of rumours still to be told. It falls to 0 on a calm network, unless nobody is there to hear."""
        return len(self._view.rumours)

    def foreign(self, packet: messages.Packet) -> str | None:
        """How the run of a packet's sender differs from this member's, as a sentence; None where it does not."""
        return self._view.foreign(packet)

    def view(self) -> dict[str, MemberFacts]:
        """All members that are alive or suspected, this one included."""
        return {self.own.name: self.own, **self._view.up}

    # --- events -------------------------------------------------------------------------------------

    def _started(self, event: messages.Started, now: float) -> None:
        view, profile = self._view, self._view.profile
        self._naming.begin(now)
        self._view_changed = True
        view.alarms.set(("probe", ""), now + view.rng.uniform(0.0, profile.probe_interval))
        view.alarms.set(("push-pull", ""), now + view.jitter(profile.push_pull_interval))
        self._contacts.set_seeds(event.seeds, now)

    def _seeds_changed(self, event: messages.SeedsChanged, now: float) -> None:
        self._contacts.set_seeds(event.seeds, now)

    def _set_ready(self, event: messages.SetReady, now: float) -> None:
        if event.activation != self.own.ready_from:
            self._naming.renew(replace(self.own, ready_from=event.activation), now)

    def _set_heldout(self, event: messages.SetHeldout, now: float) -> None:
        self._naming.renew(replace(self.own, heldout=event.heldout), now)

    def _send_failed(self, event: messages.SendFailed, now: float) -> None:
        self._view.counters["sends_failed"] += 1
        self._prober.failed(event.address)
        self._naming.failed(event.address, now)

    def _stranger_called(self, event: messages.StrangerCalled, now: float) -> None:
        self._view.refuse_stranger(event.name, event.address, event.sentence)

    def _deadline_passed(self, event: DeadlinePassed, now: float) -> None:
        """Nothing to do here: alarms that are due ring after every event."""

    def _leave(self, event: messages.Leave, now: float) -> None:
        self._farewell()

    def _packet_received(self, event: messages.PacketReceived, now: float) -> None:
        packet, sender = event.packet, event.packet.sender
        if sentence := self._view.foreign(packet):
            self._view.refuse_stranger(sender.name, sender.address, sentence)
            return
        if sender.name == self.own.name:
            self._namesake_spoke(packet, now)
            return
        if not self._view.admits(sender.name):
            return
        was_dead = self._state(sender.name) is MemberState.DEAD
        self._learn(sender, now)
        for rumour in packet.rumours:
            if not self.ended:
                self._learn(rumour.facts, now, rumour.accuser)
        if self.ended:
            return
        answered = self._BODIES[type(packet.body)](self, sender, packet.body, now)
        if was_dead and self._state(sender.name) is MemberState.ALIVE:
            self._contacts.compare(sender)
        elif not answered:
            self._tell_if_behind(sender)

    def _tell_if_behind(self, sender: MemberFacts) -> None:
        """Tell a sender that is believed dead, or whose boot is past. An answer would have told it, too."""
        held = self._view.members.get(sender.name)
        if held is not None and held.newer_than(sender):
            self._view.send(sender, messages.Gossip())

    def _namesake_spoke(self, packet: messages.Packet, now: float) -> None:
        if isinstance(packet.body, messages.Claim):
            self._naming.claim_received(packet.sender, packet.body, now)
            return
        if packet.sender.boot == self.own.boot and isinstance(packet.body, messages.PushPull):
            self._contacts.seed_answered(packet.body.seq, self.own.name)
        self._naming.met_namesake(packet.sender, now)

    # --- bodies: True where the sender was answered -------------------------------------------------

    def _ping(self, sender: MemberFacts, body: messages.Ping, now: float) -> bool:
        self._prober.ping_received(sender, body)
        return True

    def _ping_req(self, sender: MemberFacts, body: messages.PingReq, now: float) -> bool:
        self._prober.ping_req_received(sender, body, now)
        return False

    def _ack(self, sender: MemberFacts, body: messages.Ack, now: float) -> bool:
        self._prober.ack_received(sender, body)
        self._naming.answered(body.seq, sender, now)
        return False

    def _nack(self, sender: MemberFacts, body: messages.Nack, now: float) -> bool:
        self._prober.nack_received(sender, body)
        return False

    def _push_pull(self, sender: MemberFacts, body: messages.PushPull, now: float) -> bool:
        for facts in body.members:
            if self.ended:
                return True
            self._learn_from_list(facts, sender.name, now)
        if body.wants_reply:
            self._contacts.answer(sender, body.seq)
        else:
            self._contacts.seed_answered(body.seq, sender.name)
        return body.wants_reply

    def _gossip(self, sender: MemberFacts, body: messages.Gossip, now: float) -> bool:
        return False

    def _taken(self, sender: MemberFacts, body: messages.Taken, now: float) -> bool:
        self._naming.taken_received(body.holder, now)
        return True

    def _claim(self, sender: MemberFacts, body: messages.Claim, now: float) -> bool:
        # This claim is for another process, which had this address before.
        return True

    # --- news ---------------------------------------------------------------------------------------

    def _learn_from_list(self, facts: MemberFacts, source: str, now: float) -> None:
        """Learn from a whole list. The deaths in it may be long past, or be those of the other half of a broken
        network. They count as suspicions only, so that two halves that meet again do not give each other's members up
        first."""
        if facts.state is MemberState.DEAD and facts.name != self.own.name:
            self._learn(replace(facts, state=MemberState.SUSPECT), now, source)
        else:
            self._learn(facts, now)

    def _learn(self, facts: MemberFacts, now: float, accuser: str = "") -> None:
        held = self._view.members.get(facts.name)
        if held is facts and not accuser:
            return
        if facts.name == self.own.name:
            self._naming.hear_of_self(facts, now)
        elif held is None:
            self._learn_new(facts, now, accuser)
        elif facts.boot > held.boot and held.present:
            self._naming.challenge(held, facts, now)
        elif facts.state is MemberState.SUSPECT and held.boot == facts.boot and held.present:
            self._suspect(held, facts, accuser, now)
        elif facts.newer_than(held):
            self._accept(facts, now, accuser)

    def _learn_new(self, facts: MemberFacts, now: float, accuser: str) -> None:
        if facts.state is MemberState.DEAD or not self._view.admits(facts.name):
            return
        if len(self._view.members) >= self._view.profile.members_max:
            self._view.counters["members_over_limit"] += 1
            return
        self._accept(facts, now, accuser)

    def _suspect(self, held: MemberFacts, facts: MemberFacts, accuser: str, now: float) -> None:
        """Take in an accusation. The first begins the suspicion; independent ones shorten it."""
        if facts.incarnation < held.incarnation:
            return
        if held.state is MemberState.ALIVE or facts.incarnation > held.incarnation:
            self._accept(facts, now, accuser)
            return
        suspicion = self._suspicions[held.name]
        if accuser and suspicion.confirm(accuser):
            self._view.tell(held, now, accuser)
            self._view.alarms.set(("suspicion", held.name), suspicion.deadline)

    def _accuse(self, name: str, now: float) -> None:
        """This member's own probe of ``name`` failed."""
        held = self._view.up[name]
        self._suspect(held, replace(held, state=MemberState.SUSPECT), self.own.name, now)

    def _give_up(self, name: str, now: float) -> None:
        """T(C) has passed, and the suspected member has not refuted."""
        held = self._view.members[name]
        self._accept(replace(held, state=MemberState.DEAD), now, self.own.name)

    def _accept(self, facts: MemberFacts, now: float, accuser: str = "") -> None:
        """Take facts as true: act on them, and pass them on."""
        view, before = self._view, self._view.members.get(facts.name)
        if facts.present and not view.up and self._had_company:
            self._naming.returned(now)
        change = view.put(facts)
        view.tell(facts, now, accuser)
        self._had_company |= facts.present
        suspicion = self._suspicions.pop(facts.name, None)
        view.alarms.cancel(("suspicion", facts.name))
        self._contacts.settle(facts.name)
        if facts.state is MemberState.SUSPECT:
            view.counters["suspicions"] += 1
            begun = self._suspicions[facts.name] = Suspicion.begin(now, view.size, view.profile, accuser)
            view.alarms.set(("suspicion", facts.name), begun.deadline)
            self._contacts.doubt(facts.name, now)
        elif facts.state is MemberState.DEAD:
            self._contacts.bury(facts.name, now)
        self._note_change(change, before, facts, suspicion)

    def _announce(self, own: MemberFacts, now: float) -> None:
        """Change this member's own facts, and pass them on."""
        self._view_changed |= own.boot != self.own.boot or own.ready_from != self.own.ready_from
        self._view.own = own
        self._view.tell(own, now)

    # --- reports ------------------------------------------------------------------------------------

    def _note_change(
        self, change: Change, before: MemberFacts | None, facts: MemberFacts, suspicion: Suspicion | None
    ) -> None:
        if change in COMES:
            self._prober.add(facts.name)
        told = report(change, before, facts, suspicion.accusers if suspicion else ())
        if told is not None:
            self._view.say(told)
        self._view_changed |= change in COMES | GOES
        if before is not None and facts.present:
            seen = (before.address, before.boot, before.ready_from, before.heldout)
            self._view_changed |= seen != (facts.address, facts.boot, facts.ready_from, facts.heldout)

    def _state(self, name: str) -> MemberState | None:
        held = self._view.members.get(name)
        return None if held is None else held.state

    # --- the end ------------------------------------------------------------------------------------

    def _lose(self, sentence: str, now: float) -> None:
        """Another process keeps the name. This one says goodbye if it was let in, so that the other's news win
        again."""
        if self._naming.rank(now) != FRESH:
            self._farewell()
        self._end()
        self._view.say(messages.NameTaken(sentence))

    def _farewell(self) -> None:
        self._view.own = replace(self.own, state=MemberState.LEFT)
        for member in self._view.some(FAREWELLS_MAX):
            self._view.send(member, messages.Gossip())
        self._end()

    def _end(self) -> None:
        self.ended = True
        self._view.alarms.clear()

    # --- time ---------------------------------------------------------------------------------------

    def _make_up_for_sleep(self, now: float) -> None:
        """If this process stood still, the other members are not at fault. All alarms get as much time again, so that
        the answers that have piled up are heard first."""
        deadline = self._view.alarms.next()
        if deadline is None or now - deadline <= self._view.profile.oversleep:
            return
        self._view.counters["overslept"] += 1
        self._view.health.worsen()
        self._view.alarms.shift(now - deadline + self._view.profile.probe_interval)
        for suspicion in self._suspicions.values():
            suspicion.start += now - deadline + self._view.profile.probe_interval
        if now - deadline > self._view.profile.suspicion_factor * self._view.profile.probe_interval:
            self._naming.returned(now)

    def _ring(self, key: AlarmKey, now: float) -> None:
        kind, what = key
        match kind:
            case "suspicion":
                self._give_up(what, now)
            case "gossip":
                self._view.gossip(now)
            case "probe" | "indirect" | "nack" | "relay":
                self._prober.ring(kind, what, now)
            case "seed" | "doubt" | "retry" | "push-pull":
                self._contacts.ring(kind, what, now)
            case _:
                self._naming.ring(kind, what, now)

    _HANDLERS: ClassVar[dict[type, Callable[["Membership", Any, float], None]]] = {
        messages.Started: _started,
        messages.PacketReceived: _packet_received,
        messages.SendFailed: _send_failed,
        messages.StrangerCalled: _stranger_called,
        messages.SeedsChanged: _seeds_changed,
        messages.SetReady: _set_ready,
        messages.SetHeldout: _set_heldout,
        messages.Leave: _leave,
        DeadlinePassed: _deadline_passed,
    }
    _BODIES: ClassVar[dict[type, Callable[["Membership", MemberFacts, Any, float], bool]]] = {
        messages.Ping: _ping,
        messages.PingReq: _ping_req,
        messages.Ack: _ack,
        messages.Nack: _nack,
        messages.PushPull: _push_pull,
        messages.Gossip: _gossip,
        messages.Taken: _taken,
        messages.Claim: _claim,
    }
