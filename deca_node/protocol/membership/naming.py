"""Whose name is it? A process under a name that another process holds is a restart, or a second process by mistake.

Facts with a greater boot are taken as true at once only if the name's holder is dead or has left. Otherwise the holder
is *challenged* first: a ping goes to its address::

    the holder answers ------------------------------> the newcomer is told Taken
    another process answers, or no process does -----> the newcomer takes the name over

Two processes that hear of each other under one name settle it between them (Claim). The lesser of (rank, boot at the
start) stays and the other ends with a sentence. So the elder stays, unless it was away and its name passed on
meanwhile. If the other process does not answer, or is known to be gone, this process raises its own boot past the
other's, so that its news win again. That also repairs a restart under a clock that went backwards.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from deca_node.protocol.membership.facts import BOOT_MAX, INCARNATION_MAX, MemberFacts
from deca_node.protocol.membership.messages import Claim, Ping, Taken
from deca_node.protocol.membership.rumours import Rumour
from deca_node.protocol.membership.view import MemberView

ESTABLISHED, RETURNED, FRESH = 0, 1, 2
"""Ranks in a Claim: an ordinary member; a member that was cut off or stood still just now; one that has just
started."""
FRESH_CHALLENGES = 2.0
RETURNED_CHALLENGES = 20.0
"""How long a process counts as fresh, or as returned: this many times the profile's ``challenge``."""


@dataclass
class _Challenge:
    seq: int
    held: MemberFacts
    rival: MemberFacts


class Naming:
    """The challenges that this node makes for other members' names, and the defence of its own name.

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
        """This node was cut off, or stood still. Its name may have passed on meanwhile."""
        self._returned_until = now + RETURNED_CHALLENGES * self._view.profile.challenge

    def rank(self, now: float) -> int:
        """This node's rank in a Claim."""
        if now < self._fresh_until:
            return FRESH
        return RETURNED if now < self._returned_until else ESTABLISHED

    def ring(self, kind: str, what: str, now: float) -> None:
        """An alarm of this part rings. The end of a name's quiet time ("quiet") needs no action."""
        if kind == "challenge":
            self.vacant(what, now)
        elif kind == "contest":
            self.uncontested(now)

    # --- other members' names -----------------------------------------------------------------------

    def challenge(self, held: MemberFacts, rival: MemberFacts, now: float) -> None:
        """``rival`` has a greater boot than ``held``, which is present: ask at the holder's address."""
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
        """A member answered a ping. If it is a holder that was challenged, its name is settled."""
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
        """No process listens at an address: names that were challenged there are vacant."""
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
        """Facts under this node's own name have come: refute them, outgrow them, or settle the name with the rival."""
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
        """Announce ``own`` facts in the next incarnation; or in a greater boot where there is no next. Refuting never
        counts that far, but another member may claim any incarnation."""
        if own.incarnation < INCARNATION_MAX:
            self._announce(replace(own, incarnation=own.incarnation + 1), now)
        else:
            self._outgrow(own, own.boot, now)

    def met_namesake(self, sender: MemberFacts, now: float) -> None:
        """Another process under this name has spoken to this node."""
        if sender.boot not in (self._view.own.boot, self._view.started):
            self._claim(sender.address, now)

    def claim_received(self, sender: MemberFacts, claim: Claim, now: float) -> None:
        """Another process claims this node's name. The one with the greater (rank, start) ends."""
        ours, theirs = (self.rank(now), self._view.started), (claim.rank, claim.started)
        if claim.started == self._view.started:
            return
        if theirs < ours:
            self._end_as_second(sender, now)
        else:
            self._claim(sender.address, now)

    def taken_received(self, holder: MemberFacts, now: float) -> None:
        """A third member says that the name's holder lives. A process that has just started believes it; any other asks
        the holder."""
        own = self._view.own
        if holder.name != own.name or holder.boot in (own.boot, self._view.started):
            return
        if self.rank(now) == FRESH:
            self._end_as_second(holder, now)
        else:
            self._claim(holder.address, now)

    def uncontested(self, now: float) -> None:
        """The other process under this name is gone, since it does not answer."""
        rival, self._rival = self._rival, None
        self._view.alarms.cancel(("contest", ""))
        if rival is not None and rival.boot > self._view.own.boot:
            self._outgrow(self._view.own, rival.boot, now)

    def _claim(self, address: str, now: float) -> None:
        self._view.call(address, Claim(self.rank(now), self._view.started))

    def _outgrow(self, own: MemberFacts, boot: int, now: float) -> None:
        if boot == BOOT_MAX:
            # There is no greater boot to announce.
            self._view.counters["boots_exhausted"] += 1
            return
        # A random step, because another process may outgrow the same boot just now, and their boots must differ.
        grown = min(boot + 1 + self._view.rng.getrandbits(20), BOOT_MAX)
        self._view.counters["boots_outgrown"] += 1
        self._announce(replace(own, boot=grown, incarnation=0), now)

    def _end_as_second(self, holder: MemberFacts, now: float) -> None:
        self._lose(
            f"the name {holder.name!r} is taken: a process at {holder.address} holds it and answers; "
            "stop that one first, or start this one under another name",
            now,
        )
