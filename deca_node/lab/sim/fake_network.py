"""A network without wires: ordered streams between pairs of nodes, and all delays from one seed.

Between two nodes there is at most one stream. Messages arrive in the order in which they were sent, or, after the
stream was cut, never. Then each end notices the loss at its own time, and later they greet each other again. The
daemon's transport promises this to the core, and the core relies on nothing else::

    greet -- PeerUp at both ends --> messages, in order --> cut: what is under way is lost
      ^                                                      |
      '-- healed, and both ends know -- PeerDown at both ends'
"""

import heapq
import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from deca_node.lab.sim.weather import Deaf, Range, Weather
from deca_node.protocol import events as e
from deca_node.protocol.node.state import NodeState


class Agenda:
    """Entries with a time, and a clock that moves only to the next entry. Entries of equal time keep their order."""

    def __init__(self) -> None:
        self.now = 0.0
        self._order = itertools.count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []

    def __len__(self) -> int:
        return len(self._due)

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do ``action`` at a time. A time in the past means now."""
        heapq.heappush(self._due, (max(when, self.now), next(self._order), action))

    def step(self) -> bool:
        """Move to the next entry and do it. Returns False if there is none."""
        if not self._due:
            return False
        self.now, _, action = heapq.heappop(self._due)
        action()
        return True


@dataclass
class _Link:
    """One pair of nodes. ``session`` counts its streams, so that messages of older streams can be told apart. ``up``
    holds the ends that believe in the stream, and ``deaf`` the ends that hear nothing. ``latest`` is when the last
    message to each end arrives. Before ``again`` there is no new stream."""

    ends: tuple[str, str]
    slowness: float
    session: int = 0
    live: bool = False
    again: float = 0.0
    deaf: set[str] = field(default_factory=set)
    up: set[str] = field(default_factory=set)
    latest: dict[str, float] = field(default_factory=dict)

    def other(self, name: str) -> str:
        return self.ends[1] if name == self.ends[0] else self.ends[0]


Deliver = Callable[[str, e.NetworkEvent, bytes], None]
"""Takes the name of the receiver, the event, and the bytes of the frame that the event names, if any."""


class FakeNetwork:
    """All streams among ``names``. ``state`` returns a node's state, for its greeting."""

    def __init__(
        self,
        names: Iterable[str],
        weather: Weather,
        agenda: Agenda,
        rng: random.Random,
        deliver: Deliver,
        state: Callable[[str], NodeState],
    ) -> None:
        self._weather = weather
        self._agenda = agenda
        self._rng = rng
        self._deliver = deliver
        self._state = state
        self._present: set[str] = set()
        pairs = itertools.combinations(sorted(names), 2)
        self._links = {pair: _Link(pair, rng.uniform(*weather.link_slowness)) for pair in pairs}
        for cut in weather.cuts:
            agenda.at(cut.at, partial(self.cut, (cut.a, cut.b), "the stream broke", cut.seconds))
        for deaf in weather.deaf:
            agenda.at(deaf.at, partial(self._deafen, deaf))

    def live(self) -> list[tuple[str, str]]:
        """The pairs whose stream is up at both ends, with no deaf end."""
        return [link.ends for link in self._links.values() if link.live and len(link.up) == 2 and not link.deaf]

    def linked(self, a: str, b: str) -> bool:
        """Whether two nodes have such a stream. A node has none to itself, not even to what it was before a crash."""
        if a == b:
            return False
        link = self._link(a, b)
        return link.live and len(link.up) == 2 and not link.deaf

    # --- coming and going ---------------------------------------------------------------------------

    def join(self, name: str) -> None:
        """Let a node greet and be greeted from now on."""
        self._present.add(name)
        for link in self._links_of(name):
            self._greet(link)

    def leave(self, name: str) -> None:
        """End a node in good order: the messages that it sent still arrive, and then its streams end."""
        self._present.discard(name)
        for link in self._links_of(name):
            if link.live:
                last = link.latest[link.other(name)]
                self._agenda.at(last, partial(self.cut, link.ends, "the peer closed its stream"))

    def vanish(self, name: str) -> None:
        """Remove a node at once. All messages on their way to it and from it are lost."""
        self._present.discard(name)
        for link in self._links_of(name):
            self.cut(link.ends, "the peer vanished")
            link.up.discard(name)

    def cut(self, ends: Iterable[str], why: str, seconds: float = 0.0) -> None:
        """Break the stream between two nodes. They greet each other again after ``seconds``, once both have noticed."""
        link = self._link(*ends)
        link.again = max(link.again, self._agenda.now + seconds)
        if not link.live:
            return
        link.live = False
        link.deaf.clear()
        notices = {end: self._agenda.now + self._draw(self._weather.notice) for end in link.ends}
        for end in link.ends:
            self._agenda.at(notices[end], partial(self._down, link, link.session, end, why))
        again = max(link.again, *notices.values()) + self._draw(self._weather.greeting)
        self._agenda.at(again, partial(self._greet, link))

    def _deafen(self, deaf: Deaf) -> None:
        link = self._link(deaf.sender, deaf.receiver)
        if link.live:
            link.deaf.add(deaf.receiver)
            self._agenda.at(self._agenda.now + deaf.seconds, partial(self._find_deaf, link, link.session))

    def _find_deaf(self, link: _Link, session: int) -> None:
        if link.session == session:
            self.cut(link.ends, "no answer over the stream")

    def _greet(self, link: _Link) -> None:
        if link.live or link.up or not self._present.issuperset(link.ends):
            return
        if self._agenda.now < link.again:
            self._agenda.at(link.again, partial(self._greet, link))
            return
        link.live = True
        link.session += 1
        states = {end: self._state(end) for end in link.ends}
        told = {end: (state.position, state.roster.shares[end]) for end, state in states.items()}
        for end in link.ends:
            link.latest[end] = self._agenda.now + self._draw(self._weather.greeting)
            hello = e.PeerUp(link.other(end), *told[link.other(end)])
            self._agenda.at(link.latest[end], partial(self._up, link, link.session, end, hello))

    def _up(self, link: _Link, session: int, end: str, hello: e.PeerUp) -> None:
        if link.live and link.session == session:
            link.up.add(end)
            self._deliver(end, hello, b"")

    def _down(self, link: _Link, session: int, end: str, why: str) -> None:
        if end in link.up and link.session == session:
            link.up.discard(end)
            self._deliver(end, e.PeerDown(link.other(end), why), b"")

    # --- messages -----------------------------------------------------------------------------------

    def send(self, sender: str, receiver: str, event: e.NetworkEvent, data: bytes = b"") -> None:
        """Send a message that the receiver takes as ``event``. Without a stream it is lost, and the sender will
        notice."""
        link = self._link(sender, receiver)
        if not link.live or sender not in link.up:
            return
        arrival = self._agenda.now + self._draw(self._weather.delay) * link.slowness
        link.latest[receiver] = max(link.latest[receiver], arrival)
        self._agenda.at(link.latest[receiver], partial(self._arrive, link, link.session, receiver, event, data))

    def _arrive(self, link: _Link, session: int, receiver: str, event: e.NetworkEvent, data: bytes) -> None:
        if link.live and link.session == session and receiver not in link.deaf:
            self._deliver(receiver, event, data)

    # --- small tools --------------------------------------------------------------------------------

    def _link(self, a: str, b: str) -> _Link:
        return self._links[(a, b) if a < b else (b, a)]

    def _links_of(self, name: str) -> list[_Link]:
        return [link for pair, link in self._links.items() if name in pair]

    def _draw(self, seconds: Range) -> float:
        return self._rng.uniform(*seconds)
