"""Quarantine of peers that break the rules repeatedly, each time for longer.

One broken rule costs a stream or an edge. A peer that continues costs its neighbours a greeting, a keyframe and a mix
every time. So each node keeps a record of every peer that broke a rule::

    offence, offence, offence      ->  in quarantine for 60 s
    released, and one more         ->  120 s, then 240 s, ... up to an hour
    an hour without any            ->  the record is deleted

A quarantine ends only this node's own streams with the peer. Nodes do not share their records: otherwise one liar could
have honest nodes shut out.
"""

from dataclasses import dataclass

from deca_node.protocol.refusals import is_offence

PEERS_MAX = 4096
"""The most records that are kept. The oldest is dropped first."""


@dataclass(frozen=True)
class QuarantineRules:
    """After ``offences`` offences a peer is in quarantine for ``first`` seconds (0: never), and after each further
    offence for twice as long as the last time, up to ``longest`` seconds. After ``forgiven`` seconds without an offence
    the record is deleted."""

    first: float
    longest: float = 3600.0
    offences: int = 3
    forgiven: float = 3600.0


@dataclass(frozen=True)
class QuarantineEntry:
    """A peer in quarantine. ``until`` is on the clock of ``now``; ``reason`` and ``sentence`` are those of the last
    offence; ``times`` counts the peer's quarantines, this one included."""

    until: float
    reason: str
    times: int
    sentence: str


@dataclass(frozen=True)
class Quarantined:
    """A quarantined peer: when its quarantine ends (unix seconds), and the reason as a sentence."""

    until: float
    why: str


@dataclass
class _Record:
    offences: int = 0
    times: int = 0
    last: float = 0.0
    held: QuarantineEntry | None = None


class Quarantine:
    """One node's records of its peers. ``now`` is an argument and must not decrease."""

    def __init__(self, rules: QuarantineRules) -> None:
        self.rules = rules
        self._records: dict[str, _Record] = {}

    def offended(self, peer: str, reason: str, sentence: str, now: float) -> QuarantineEntry | None:
        """Record an offence. Returns the quarantine that begins with it, or None.

        During a quarantine nothing is added, since messages that were already on their way arrive late.
        """
        if not is_offence(reason) or self.held(peer, now):
            return None
        record = self._record(peer, now)
        record.offences, record.last = record.offences + 1, now
        if record.offences < self.rules.offences or self.rules.first <= 0:
            return None
        record.times += 1
        seconds = min(self.rules.first * 2 ** (record.times - 1), self.rules.longest)
        # ``forgiven`` counts from the peer's release.
        record.last = now + seconds
        record.held = QuarantineEntry(now + seconds, reason, record.times, sentence)
        return record.held

    def held(self, peer: str, now: float) -> QuarantineEntry | None:
        """The quarantine of a peer, or None if it is in none."""
        record = self._records.get(peer)
        return record.held if record and record.held and now < record.held.until else None

    def all_held(self, now: float) -> dict[str, QuarantineEntry]:
        """All peers in quarantine, by name."""
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
