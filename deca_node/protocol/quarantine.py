"""Whom to let be for a while: peers that break the rules again and again, each time for longer.

One broken rule costs a stream or an edge, and anybody may have a bad moment. A peer that goes on costs its neighbours a
greeting, a keyframe and a mix each time, for nothing. So each node keeps a record of its own::

    offence, offence, offence      ->  in quarantine for 60 s
    released, and one more         ->  120 s, then 240 s, ... up to an hour
    an hour without any            ->  all is forgotten

Only this node's own streams with the peer are concerned. Others judge for themselves, and nothing that anybody says
of a peer counts: or one liar could have the honest shut out.
"""

from dataclasses import dataclass

from deca_node.protocol.refusals import is_offence

PEERS_MAX = 4096
"""Records that are kept; beyond, the oldest goes."""


@dataclass(frozen=True)
class QuarantineRules:
    """After ``offences`` a peer is let be for ``first`` seconds (0: never), after each further one for twice as long as
    the last time, up to ``longest``. ``forgiven`` is how many seconds without an offence clear the record."""

    first: float
    longest: float = 3600.0
    offences: int = 3
    forgiven: float = 3600.0


@dataclass(frozen=True)
class QuarantineEntry:
    """A peer in quarantine: until when, in the clock of ``now``, for which last reason, how often so far, and why, in
    words."""

    until: float
    reason: str
    times: int
    sentence: str


@dataclass(frozen=True)
class Quarantined:
    """A peer that is let be until ``until`` (unix seconds), and why, in words."""

    until: float
    why: str


@dataclass
class _Record:
    offences: int = 0
    times: int = 0
    last: float = 0.0
    held: QuarantineEntry | None = None


class Quarantine:
    """One node's records of its peers. Time is an argument, and never goes back."""

    def __init__(self, rules: QuarantineRules) -> None:
        self.rules = rules
        self._records: dict[str, _Record] = {}

    def offended(self, peer: str, reason: str, sentence: str, now: float) -> QuarantineEntry | None:
        """A peer has broken a rule; what follows, if that was once too often. While it is held nothing is added: what
        was under way comes late, and is no news."""
        if not is_offence(reason) or self.held(peer, now):
            return None
        record = self._record(peer, now)
        record.offences, record.last = record.offences + 1, now
        allowed = self.rules.offences if record.times == 0 else 1
        if record.offences < allowed or self.rules.first <= 0:
            return None
        record.offences, record.times = 0, record.times + 1
        seconds = min(self.rules.first * 2 ** (record.times - 1), self.rules.longest)
        # The record is kept for as long after its release as after any other offence.
        record.last = now + seconds
        record.held = QuarantineEntry(now + seconds, reason, record.times, sentence)
        return record.held

    def held(self, peer: str, now: float) -> QuarantineEntry | None:
        """Why and until when a peer is in quarantine; None where it is welcome."""
        record = self._records.get(peer)
        return record.held if record and record.held and now < record.held.until else None

    def all_held(self, now: float) -> dict[str, QuarantineEntry]:
        """Everybody who is in quarantine."""
        found = {peer: self.held(peer, now) for peer in self._records}
        return {peer: held for peer, held in found.items() if held is not None}

    def _record(self, peer: str, now: float) -> _Record:
        record = self._records.pop(peer, None)
        if record is None or now - record.last >= self.rules.forgiven:
            record = _Record()
        self._records[peer] = record
        while len(self._records) > PEERS_MAX:
            del self._records[next(iter(self._records))]
        return record
