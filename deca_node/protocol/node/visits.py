"""Which visit does a message belong to? Every message over an edge names an activation.

It belongs to the current visit, to the visit before it, which still gives answers, or to a visit that has not begun
here. An offer for such a visit waits; everything else is let go.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable

from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.schedule import Activation, Schedule, Step
from deca_node.protocol.node.roster import Roster
from deca_node.protocol.visit.rules import Pace
from deca_node.protocol.visit.visit import Visit


class Offers:
    """The newest early offer of every peer: a neighbour may begin an activation before this node does, and its keyframe
    waits here. ``say`` takes the Release of keyframes that will not be used."""

    def __init__(self, say: Callable[[c.Command], None]) -> None:
        self._say = say
        self._held: dict[str, e.OpenReceived] = {}

    def hold(self, offer: e.OpenReceived) -> None:
        """Keep an offer until its activation begins here; it replaces an older one of the same peer."""
        self.drop(offer.peer)
        self._held[offer.peer] = offer

    def drop(self, peer: str) -> None:
        """Let the peer's offer go, as when its stream is lost."""
        replaced = self._held.pop(peer, None)
        if replaced and replaced.keyframe:
            self._say(c.Release(replaced.keyframe))

    def withdrawn(self, peer: str, activation: int) -> None:
        """The peer takes back its offer for this activation: its patience is over, or it will not take part."""
        offer = self._held.get(peer)
        if offer and offer.activation == activation:
            self.drop(peer)

    def waiting(self, activation: int) -> bool:
        """Whether any peer waits to open an edge for this activation."""
        return any(offer.activation == activation for offer in self._held.values())

    def due(self, activation: int) -> list[e.OpenReceived]:
        """Take out the offers for this activation and for any before it, in order of the peers' names."""
        peers = sorted(peer for peer, offer in self._held.items() if offer.activation <= activation)
        return [self._held.pop(peer) for peer in peers]

    def all(self) -> list[e.OpenReceived]:
        """Take out all offers, in order of the peers' names."""
        offers, self._held = [self._held[peer] for peer in sorted(self._held)], {}
        return offers


class Visits:
    """A node's visits, one after the other. ``current`` is the visit that is under way, or the last one."""

    def __init__(
        self, name: str, roster: Roster, pace: Pace, counters: Counter[str], say: Callable[[c.Command], None]
    ) -> None:
        self.current: Visit | None = None
        self.offers = Offers(say)
        self._before: Visit | None = None
        self._flows_before = 0
        self._flushes = 0
        self._flushes_alone = 0
        self._name = name
        self._roster = roster
        self._pace = pace
        self._counters = counters
        self._say = say

    def begin(self, schedule: Schedule, position: Step, now: float) -> None:
        """Begin a visit; or resume one in the middle of its steps, without edges."""
        planned = schedule[position.activation]
        if not planned.inner_steps:
            planned = dataclasses.replace(planned, flush_mixes=self._roster.flush_mixes(planned.index))
        turns = schedule.met(planned, self._roster.turns(planned.index))
        rules = self._pace.rules(turns, schedule, self._roster.shares)
        wanted = sorted(self._edges_wanted(planned, rules.near))
        visit = Visit(rules, planned, wanted, self._counters, self._say, inner=position.inner)
        self._before, self.current = self.current, visit
        self._flows_before = self._counters["flows_applied"]
        if position.inner:
            for offer in self.offers.due(planned.index):
                self.decline(offer, f"resumes activation {planned.index} without edges")
            visit.proceed(now)

    def frozen(self) -> None:
        """The current visit has ended, and its block is written back."""
        assert self.current is not None
        self.current.ended()
        if not self.current.activation.inner_steps:
            self._flushes += 1
            self._flushes_alone += self._counters["flows_applied"] == self._flows_before

    @property
    def left_alone(self) -> str:
        """Whether no other node took part in the final flush of a block, as a sentence; empty where one did in each.
        Only the final flush makes the copies agree."""
        if not self._flushes_alone:
            return ""
        return f"no other node took part in the final flush of {self._flushes_alone} of {self._flushes} blocks"

    def forget(self) -> None:
        """Forget all visits, since the trainer no longer holds their blocks."""
        self.current = self._before = None

    def adopted(self) -> None:
        """The trainer holds blocks of donors instead: forget all visits, and how they went."""
        self.forget()
        self._flushes = self._flushes_alone = 0

    def _edges_wanted(self, activation: Activation, near: Iterable[str]) -> set[str]:
        """The neighbours to open an edge to: those that are up, without late ones that get no edge for a while. In the
        final flush those get one, too, since a member that is left out there keeps a copy of its own."""
        flush, rests, up = activation.inner_steps == 0, self._pace.rests, self._roster.up
        return {peer for peer in near if peer in up and (flush or not rests.resting(peer, activation.index))}

    # --- what comes over edges ----------------------------------------------------------------------

    def activated(self, event: e.Activated, now: float) -> None:
        """The block is thawed: open edges, first those whose offers were waiting."""
        assert self.current is not None
        self.current.activated(now)
        for offer in self.offers.due(event.activation):
            self.take_offer(offer, now)
        self.current.connect_if_open()

    def take_offer(self, offer: e.OpenReceived, now: float) -> None:
        """Open the edge; or decline it, since it timed out here or its activation is past. An offer that is repeated,
        as after streams that broke one upon the other, changes nothing."""
        for visit in self._of(offer.activation):
            if visit.take_offer(offer, now):
                visit.connect_if_open()
                return
            if visit.edges.is_open(offer.peer):
                self._let_go(offer)
                return
        self.decline(offer, "opens no edge for this activation any more")

    def decline(self, offer: e.OpenReceived, why: str) -> None:
        """Release the offer's keyframe, and tell the other end that there is no edge."""
        self._counters["offers_declined"] += 1
        self._let_go(offer)
        self._say(c.SendClose(offer.peer, offer.activation, -1, f"{self._name} {why}"))

    def _let_go(self, offer: e.OpenReceived) -> None:
        if offer.keyframe:
            self._say(c.Release(offer.keyframe))

    def decline_all(self, why: str) -> None:
        """Decline all offers that wait."""
        for offer in self.offers.all():
            self.decline(offer, why)

    def update_received(self, event: e.UpdateReceived, now: float) -> None:
        """A neighbour's update has arrived whole."""
        visits = self._of(event.update.activation)
        if visits:
            visits[0].update_received(event, now)
        else:
            self._counters["updates_unused"] += 1
            self._say(c.Release(event.update))

    def close_received(self, event: e.CloseReceived, now: float) -> None:
        """A neighbour has closed its end of an edge, or takes back its offer."""
        self.offers.withdrawn(event.peer, event.activation)
        for visit in self._of(event.activation):
            visit.close_received(event, now)

    def _of(self, activation: int) -> list[Visit]:
        return [visit for visit in (self.current, self._before) if visit and visit.activation.index == activation]
