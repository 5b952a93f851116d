"""Whose name is it? A process under a name that another holds is a restart, or a second one that must not be.

Facts of a greater boot are believed at once only where the name's holder is dead or has left. Otherwise the holder
is *challenged* first: whoever listens at its address is asked::

    the holder answers ------------------------------> the newcomer hears Taken
    another process answers, or nobody does ---------> the newcomer takes over

And a process that hears of another under its own name settles it with that one, eye to eye (Claim): the lesser of
(rank, boot at the start) stays, so the elder does, unless it was away and its name passed on meanwhile; the other
ends with a sentence. Where no other answers, or it is known to be gone, this one's own boot grows past the other's,
so that its news win again. That is also what repairs a restart under a clock that went backwards.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from deca_node.protocol.membership.facts import BOOT_MAX, INCARNATION_MAX, MemberFacts
from deca_node.protocol.membership.messages import Claim, Ping, Taken
from deca_node.protocol.membership.rumours import Rumour
from deca_node.protocol.membership.view import MemberView

ESTABLISHED, RETURNED, FRESH = 0, 1, 2
"""Ranks in a Claim: a member as any; one that was cut off or stood still just now; one that has just started."""
FRESH_CHALLENGES = 2.0
RETURNED_CHALLENGES = 20.0
"""How long one is fresh, or counts as returned: times the profile's ``challenge``."""


@dataclass
class _Challenge:
    seq: int
    held: MemberFacts
    rival: MemberFacts


class Naming:
    """Challenges that this node makes for others' names, and what it does for its own.

    ``accept`` takes facts as true; ``announce`` changes this node's own; ``lose`` ends this process with a sentence.
    """

    def __init__(
        self,
        view: MemberView,
        accept: Callable[[MemberFacts, float], None],
        announce: Callable[[MemberFacts, float], None],
        lose: Callable[[str, float], None],
    ) -> None:
        self._view = view
        self._accept, self._announce, self._lose = accept, announce, lose
        self._challenges: dict[str, _Challenge] = {}
        self._rival: MemberFacts | None = None
        self._fresh_until = 0.0
        self._returned_until = 0.0

    def begin(self, now: float) -> None:
        """The process has just started."""
        self._fresh_until = now + FRESH_CHALLENGES * self._view.profile.challenge

    def returned(self, now: float) -> None:
        """This node was cut off, or stood still: its name may have passed on meanwhile."""
        self._returned_until = now + RETURNED_CHALLENGES * self._view.profile.challenge

    def rank(self, now: float) -> int:
        """This node's standing in a Claim."""
        if now < self._fresh_until:
            return FRESH
        return RETURNED if now < self._returned_until else ESTABLISHED

    def ring(self, kind: str, what: str, now: float) -> None:
        """An alarm of this part; that a name was quiet for long enough ("quiet") needs nothing done."""
        if kind == "challenge":
            self.vacant(what, now)
        elif kind == "contest":
            self.uncontested(now)

    # --- other members' names -----------------------------------------------------------------------

    def challenge(self, held: MemberFacts, rival: MemberFacts, now: float) -> None:
        """``rival`` is of a greater boot than ``held``, which is present: ask at the holder's address."""
        view, name = self._view, held.name
        running = self._challenges.get(name)
        if running is not None:
            if rival.newer_than(running.rival):
                running.rival = rival
            return
        if ("quiet", name) in view.alarms:
            return
        view.counters["names_challenged"] += 1
        self._challenges[name] = _Challenge(view.next_seq(), held, rival)
        view.alarms.set(("challenge", name), now + view.profile.challenge)
        view.call(held.address, Ping(self._challenges[name].seq, name), Rumour(rival))

    def answered(self, seq: int, sender: MemberFacts, now: float) -> None:
        """Somebody answered a ping: is it a holder that was challenged?"""
        challenge = self._challenges.get(sender.name)
        if challenge is None or challenge.seq != seq:
            return
        if sender.boot != challenge.held.boot:
            self.vacant(sender.name, now)
            return
        self._end(sender.name)
        self._view.alarms.set(("quiet", sender.name), now + self._view.profile.challenge)
        if challenge.rival.present:
            self._view.call(challenge.rival.address, Taken(sender))

    def failed(self, address: str, now: float) -> None:
        """Nobody listens at an address."""
        for name in [name for name, challenge in self._challenges.items() if challenge.held.address == address]:
            self.vacant(name, now)
        if self._rival is not None and self._rival.address == address:
            self.uncontested(now)

    def vacant(self, name: str, now: float) -> None:
        """The holder is gone: the newcomer takes over."""
        challenge = self._challenges.get(name)
        if challenge is None:
            return
        self._end(name)
        held, rival = self._view.members.get(name), challenge.rival
        # A holder that was forgotten meanwhile was dead for long, and news that its rival is gone, too, are no news.
        if rival.newer_than(held) if held else rival.present:
            self._accept(rival, now)

    def _end(self, name: str) -> None:
        self._challenges.pop(name, None)
        self._view.alarms.cancel(("challenge", name))

    # --- this node's own name -----------------------------------------------------------------------

    def hear_of_self(self, facts: MemberFacts, now: float) -> None:
        """Facts under this node's own name."""
        own = self._view.own
        if facts.boot < own.boot or not facts.newer_than(own):
            return
        if facts.boot == own.boot:
            self._view.counters["refutations"] += 1
            if not facts.present or facts.state > own.state:
                self._view.health.worsen()
            self.renew(replace(own, incarnation=facts.incarnation), now)
        elif not facts.present:
            self._outgrow(own, facts.boot, now)
        elif self._rival is None:
            self._rival = facts
            self._view.alarms.set(("contest", ""), now + self._view.profile.challenge)
            self._claim(facts.address, now)

    def renew(self, own: MemberFacts, now: float) -> None:
        """This node says ``own`` of itself, anew: in the next incarnation, or in a greater boot where none is left.
        Nobody gets there by refuting; but another may claim to have heard of any."""
        if own.incarnation < INCARNATION_MAX:
            self._announce(replace(own, incarnation=own.incarnation + 1), now)
        else:
            self._outgrow(own, own.boot, now)

    def met_namesake(self, sender: MemberFacts, now: float) -> None:
        """Another process under this name has spoken to this node."""
        if sender.boot not in (self._view.own.boot, self._view.started):
            self._claim(sender.address, now)

    def claim_received(self, sender: MemberFacts, claim: Claim, now: float) -> None:
        """The one with the greater standing ends."""
        ours, theirs = (self.rank(now), self._view.started), (claim.rank, claim.started)
        if claim.started == self._view.started:
            return
        if theirs < ours:
            self._end_as_second(sender, now)
        else:
            self._claim(sender.address, now)

    def taken_received(self, holder: MemberFacts, now: float) -> None:
        """A third says that the name's holder lives. Whoever has just started believes it; others ask the holder."""
        own = self._view.own
        if holder.name != own.name or holder.boot in (own.boot, self._view.started):
            return
        if self.rank(now) == FRESH:
            self._end_as_second(holder, now)
        else:
            self._claim(holder.address, now)

    def uncontested(self, now: float) -> None:
        """The other process under this name does not answer: it is gone."""
        rival, self._rival = self._rival, None
        self._view.alarms.cancel(("contest", ""))
        if rival is not None and rival.boot > self._view.own.boot:
            self._outgrow(self._view.own, rival.boot, now)

    def _claim(self, address: str, now: float) -> None:
        self._view.call(address, Claim(self.rank(now), self._view.started))

    def _outgrow(self, own: MemberFacts, boot: int, now: float) -> None:
        if boot == BOOT_MAX:
            # Nothing is greater, so there is nothing to say.
            self._view.counters["boots_exhausted"] += 1
            return
        # By chance, because another may outgrow the same boot just now, and boots must tell processes apart.
        grown = min(boot + 1 + self._view.rng.getrandbits(20), BOOT_MAX)
        self._view.counters["boots_outgrown"] += 1
        self._announce(replace(own, boot=grown, incarnation=0), now)

    def _end_as_second(self, holder: MemberFacts, now: float) -> None:
        self._lose(
            f"the name {holder.name!r} is taken: a process at {holder.address} holds it and answers; "
            "stop that one first, or start this one under another name",
            now,
        )
