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
        self._facts: dict[str, tuple[int, int | None]] = dict.fromkeys(names, (0, 0))
        self._views = {name: dict(self._facts) for name in self._facts}

    def changed(self, name: str, ready_from: int | None) -> None:
        """Announce that a member counts from this activation on, or (None) is gone."""
        fact = self._facts[name] = (next(self._news) + 1, ready_from)
        for observer in self._facts:
            wait = 0.0 if observer == name else self._rng.uniform(*self._delay)
            self._agenda.at(self._agenda.now + wait, partial(self._hear, observer, name, fact))

    def returned(self, name: str) -> None:
        """Announce that a member has restarted. It knows all current facts at once, and the others hear of it."""
        self._views[name] = dict(self._facts)
        self.changed(name, 0)

    def view(self, name: str) -> dict[str, int]:
        """The members that a node knows of, each with the activation from which on it counts."""
        return {subject: ready for subject, (_, ready) in self._views[name].items() if ready is not None}

    def _hear(self, observer: str, subject: str, fact: tuple[int, int | None]) -> None:
        if self._views[observer][subject][0] < fact[0]:
            self._views[observer][subject] = fact
            self._tell(observer, e.MembersChanged(self.view(observer)))
