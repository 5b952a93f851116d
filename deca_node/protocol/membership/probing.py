"""Is a member there? One member after the other is asked; before one is accused, other members have tried it, too.

The protocol of SWIM (Das, Gupta, Motivala: "SWIM: Scalable Weakly-consistent Infection-style Process Group
Membership Protocol", DSN 2002, sections 3.1 and 4.3), with the nacks and the local health of Lifeguard::

    ping target ---- ack -------------------------------------------> it is there
        '-- timeout --> ask k others to ping it -- ack via one ------> it is there
                             '-- end of the interval ----------------> accuse it

Targets are taken in the order of a list that is shuffled anew whenever its end is reached, so that every member is
asked within two rounds. The local health score falls by one at every answer. It rises by one at every probe that
failed, and by one for each of the k others that did not even send a nack. Only members under no suspicion are asked,
and count: the silence of the other half of a broken network says nothing about this node's health.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from deca_node.protocol.membership.facts import MemberFacts
from deca_node.protocol.membership.messages import Ack, Nack, Ping, PingReq
from deca_node.protocol.membership.view import MemberView

NACK_SHARE = 0.8
"""The share of an asked member's time after which it sends a nack."""
RELAYS_MAX = 256
"""The most pings for other members that are under way at once."""


@dataclass
class _Probe:
    seq: int
    target: MemberFacts
    relays: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class _Relay:
    """A PingReq with this ``seq``; the member ``asker`` waits for the answer."""

    asker: MemberFacts
    seq: int


class Prober:
    """Asks other members, answers them, and calls ``accuse(name, now)`` for a member that could not be reached."""

    def __init__(self, view: MemberView, accuse: Callable[[str, float], None]) -> None:
        self._view = view
        self._accuse = accuse
        self._round: list[str] = []
        self._probe: _Probe | None = None
        self._relays: dict[int, _Relay] = {}

    def add(self, name: str) -> None:
        """Put a new member at a random place of this round."""
        self._round.insert(self._view.rng.randint(0, len(self._round)), name)

    def ring(self, kind: str, what: str, now: float) -> None:
        """An alarm of this part rings."""
        match kind:
            case "probe":
                self.tick(now)
            case "indirect":
                self.ask_others()
            case "nack":
                self.say_nack(int(what))
            case _:
                self.drop_relay(int(what))

    # --- asking -------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """End the current probe, and begin the next."""
        self._conclude(now)
        view, multiplier = self._view, self._view.health.multiplier
        target = self._next_target()
        if target is not None:
            self._probe = _Probe(view.next_seq(), target)
            view.send(target, Ping(self._probe.seq, target.name))
            view.alarms.set(("indirect", ""), now + view.profile.probe_timeout * multiplier)
        view.alarms.set(("probe", ""), now + view.profile.probe_interval * multiplier)

    def ask_others(self) -> None:
        """The target did not answer in time: ask other members to try."""
        view, probe = self._view, self._probe
        view.alarms.cancel(("indirect", ""))
        if probe is None or probe.relays:
            return
        for relay in view.trusted(view.profile.indirect_probes, but=probe.target.name):
            probe.relays.add(relay.name)
            probe.silent.add(relay.name)
            view.send(relay, PingReq(probe.seq, probe.target.name, probe.target.address))

    def failed(self, address: str) -> None:
        """No process answers at an address: ask other members to try, without waiting for the timeout."""
        if self._probe is not None and self._probe.target.address == address:
            self.ask_others()

    def _next_target(self) -> MemberFacts | None:
        up = self._view.up
        if not self._round:
            self._round = sorted(up)
            self._view.rng.shuffle(self._round)
        while self._round:
            target = up.get(self._round.pop())
            if target is not None:
                return target
        return None

    def _conclude(self, now: float) -> None:
        probe, self._probe = self._probe, None
        self._view.alarms.cancel(("indirect", ""))
        if probe is None or probe.target.name not in self._view.up:
            return
        self._view.counters["probes_failed"] += 1
        trusted = [name for name in probe.silent if self._view.trusts(name)]
        self._view.health.worsen(1 + len(trusted))
        self._accuse(probe.target.name, now)

    # --- answers ------------------------------------------------------------------------------------

    def ack_received(self, sender: MemberFacts, body: Ack) -> None:
        """An answer to this node's own probe, or to a ping that it made for another member."""
        probe = self._probe
        if probe is not None and body.seq == probe.seq:
            if sender.name == probe.target.name or sender.name in probe.relays:
                self._probe = None
                self._view.alarms.cancel(("indirect", ""))
                self._view.health.recover()
            return
        relay = self._relays.get(body.seq)
        if relay is not None:
            self._end_relay(body.seq)
            self._view.send(relay.asker, Ack(relay.seq))

    def nack_received(self, sender: MemberFacts, body: Nack) -> None:
        """Another member could not reach the target either, but it hears this node."""
        if self._probe is not None and body.seq == self._probe.seq:
            self._probe.silent.discard(sender.name)

    # --- asked by others ----------------------------------------------------------------------------

    def ping_received(self, sender: MemberFacts, body: Ping) -> None:
        """Answer a ping that is for this node."""
        if body.target == self._view.own.name:
            self._view.send(sender, Ack(body.seq))

    def ping_req_received(self, sender: MemberFacts, body: PingReq, now: float) -> None:
        """Ping the target for the sender."""
        view, profile = self._view, self._view.profile
        target = view.members.get(body.target)
        if target is None or len(self._relays) >= RELAYS_MAX:
            view.counters["ping_reqs_refused"] += 1
            return
        seq = view.next_seq()
        self._relays[seq] = _Relay(sender, body.seq)
        view.send(target, Ping(seq, target.name))
        view.alarms.set(("nack", str(seq)), now + NACK_SHARE * (profile.probe_interval - profile.probe_timeout))
        view.alarms.set(("relay", str(seq)), now + (1 + profile.health_max) * profile.probe_interval)

    def say_nack(self, seq: int) -> None:
        """The target has not answered yet. If it still does, its answer is passed on."""
        relay = self._relays.get(seq)
        if relay is not None:
            self._view.send(relay.asker, Nack(relay.seq))

    def _end_relay(self, seq: int) -> None:
        self.drop_relay(seq)
        self._view.alarms.cancel(("nack", str(seq)))
        self._view.alarms.cancel(("relay", str(seq)))

    def drop_relay(self, seq: int) -> None:
        """Forget a ping for another member, which waits no longer."""
        self._relays.pop(seq, None)
