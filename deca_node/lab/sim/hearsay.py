"""The members that each node knows of. News of a change reaches every node after a delay of its own.

This module replaces gossip, whose own simulator is :mod:`deca_node.lab.sim.swarm`. For a while nodes disagree about the
members and the activations from which on they count. They agree again after the news has reached all.
"""

import itertools
import random
from collections.abc import Callable, Iterable
from functools import partial

from deca_node.lab.sim.fake_network import Agenda
from deca_node.lab.sim.weather import Range
from deca_node.protocol import events as e
from deca_node.protocol.agreed.stopping import NOTHING_TOLD, Heldout

Fact = tuple[int, int | None, Heldout]
"""The number of the news, the activation from which on the member counts (None: it is gone), and what it tells of its
losses."""


class Hearsay:
    """``tell`` takes the name of a node and its news. Every member counts from activation 0 on until it announces
    another."""

    def __init__(
        self,
        names: Iterable[str],
        delay: Range,
        agenda: Agenda,
        rng: random.Random,
        tell: Callable[[str, e.MembersChanged], None],
    ) -> None:
        self._delay = delay
        self._agenda = agenda
        self._rng = rng
        self._tell = tell
        self._news = itertools.count()
        self._facts: dict[str, Fact] = dict.fromkeys(names, (0, 0, NOTHING_TOLD))
        self._views = {name: dict(self._facts) for name in self._facts}
        self._parted: set[frozenset[str]] = set()
        """Pairs between which no news pass; each has given the other up."""

    def part(self, one: Iterable[str], other: Iterable[str], at: float, seconds: float) -> None:
        """Let no news pass between two groups for a time, in which each gives the other up."""
        pairs = {frozenset(pair) for pair in itertools.product(one, other)}
        self._agenda.at(at, partial(self._cut, pairs))
        self._agenda.at(at + seconds, partial(self._heal, pairs))

    def _cut(self, pairs: set[frozenset[str]]) -> None:
        self._parted |= pairs
        for name in sorted(set().union(*pairs)):
            self._tell_view(name)

    def _heal(self, pairs: set[frozenset[str]]) -> None:
        self._parted -= pairs
        for name in sorted(set().union(*pairs)):
            self._views[name] = dict(self._facts)
            self._tell_view(name)

    def changed(self, name: str, ready_from: int | None) -> None:
        """Announce that a member counts from this activation on, or (None) is gone."""
        self._spread(name, (next(self._news) + 1, ready_from, self._facts[name][2]))

    def tells(self, name: str, heldout: Heldout) -> None:
        """Announce what a member tells about held-out losses."""
        self._spread(name, (next(self._news) + 1, self._facts[name][1], heldout))

    def _spread(self, name: str, fact: Fact) -> None:
        self._facts[name] = fact
        for observer in self._facts:
            wait = 0.0 if observer == name else self._rng.uniform(*self._delay)
            self._agenda.at(self._agenda.now + wait, partial(self._hear, observer, name, fact))

    def returned(self, name: str, heldout: Heldout) -> None:
        """Announce that a member has restarted, and what it still tells. It knows all current facts at once, and the
        others hear of it."""
        number, ready_from, _ = self._facts[name]
        self._facts[name] = (number, ready_from, heldout)
        self._views[name] = dict(self._facts)
        self.changed(name, 0)

    def told(self, name: str) -> Heldout:
        """What a member has told last. It keeps that on its disk."""
        return self._facts[name][2]

    def view(self, name: str) -> dict[str, int]:
        """The members that a node knows of, each with the activation from which on it counts."""
        known = self._views[name].items()
        near = {subject: ready for subject, (_, ready, _) in known if frozenset((name, subject)) not in self._parted}
        return {subject: ready for subject, ready in near.items() if ready is not None}

    def _hear(self, observer: str, subject: str, fact: Fact) -> None:
        apart = frozenset((observer, subject)) in self._parted
        if not apart and self._views[observer][subject][0] < fact[0]:
            self._views[observer][subject] = fact
            self._tell_view(observer)

    def _tell_view(self, observer: str) -> None:
        view = self.view(observer)
        told = {name: self._views[observer][name][2] for name in view}
        self._tell(observer, e.MembersChanged(view, {n: h for n, h in told.items() if h != NOTHING_TOLD}))
