"""Refusals of this node, counted by reason, and the peers in quarantine after repeated offences.

All services share one book, since a peer that breaks the rules of one service is not trusted in another. The rules are
in :mod:`deca_node.protocol.quarantine`; this module adds the clock, the counters and the log.
"""

import datetime as dt
import time
from collections import Counter
from collections.abc import Callable, Mapping

from deca_node.daemon.logs import say
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.protocol.errors import WireError
from deca_node.protocol.quarantine import Quarantine, Quarantined, QuarantineEntry, QuarantineRules
from deca_node.protocol.refusals import SILENT, is_offence, label


class Refusals:
    """Counts refusals and keeps the quarantine. ``on_quarantine(peer, sentence)`` is called when a peer is put in
    quarantine, so that its streams can be ended. ``clock`` is monotonic, ``wall`` gives unix seconds."""

    def __init__(
        self,
        rules: QuarantineRules | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.counts: Counter[str] = Counter()
        """Refusals by reason."""
        self.quarantines = 0
        """How often any peer was put in quarantine."""
        self.on_quarantine: Callable[[str, str], None] = lambda _peer, _why: None
        self._quarantine = Quarantine(rules or QuarantineRules(first=NodeSettings.quarantine_seconds))
        self._clock = clock
        self._wall = wall

    def count(self, reason: str) -> None:
        """Count a refusal that is held against no peer."""
        if reason not in SILENT:
            self.counts[label(reason)] += 1

    def blame(self, peer: str, problem: WireError) -> None:
        """Count a refusal of what this peer sent, and hold it against the peer where it is an offence."""
        self.count(problem.reason)
        held = self._quarantine.offended(peer, problem.reason, str(problem), self._clock())
        if held is None:
            if is_offence(problem.reason):
                say(f"{peer} broke the rules ({problem.reason}): {problem}", "warning", peer=peer)
            return
        self.quarantines += 1
        why = self._said(held)
        say(f"{peer} is in quarantine {why}", "warning", peer=peer)
        self.on_quarantine(peer, f"in quarantine {why}")

    def check(self, peer: str) -> None:
        """Raise WireError("quarantined") where this peer is in quarantine."""
        if held := self._quarantine.held(peer, self._clock()):
            raise WireError("quarantined", f"{peer} is in quarantine here {self._said(held)}")

    def is_held(self, peer: str) -> bool:
        """Whether a peer is in quarantine."""
        return self._quarantine.held(peer, self._clock()) is not None

    def held(self) -> Mapping[str, Quarantined]:
        """All peers in quarantine, by name."""
        found = self._quarantine.all_held(self._clock())
        return {peer: Quarantined(self._unix(held), self._said(held)) for peer, held in found.items()}

    def _said(self, held: QuarantineEntry) -> str:
        until = dt.datetime.fromtimestamp(self._unix(held), dt.UTC).strftime("%H:%M:%S UTC")
        again = f", the {_ordinal(held.times)} time" if held.times > 1 else ""
        return f"until {until}{again}, last for {held.reason}: {held.sentence}"

    def _unix(self, held: QuarantineEntry) -> float:
        return self._wall() + held.until - self._clock()


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
