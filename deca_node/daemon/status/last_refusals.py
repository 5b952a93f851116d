"""The last refusal of each peer, by this node or by the peer, kept after the peer is welcome again.

A refusal is usually over within seconds, before anybody looks at the status. Without this record, the status of a peer
that is up would not show that it was refused all night.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.refusals import BY_PEER, Problem


@dataclass(frozen=True)
class Refusal:
    """The reason as a sentence, and the time in unix seconds."""

    sentence: str
    time: float


class LastRefusals:
    """The last refusal by peer. ``wall`` gives unix seconds."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._last: dict[str, Refusal] = {}

    def observe(self, event: e.Event) -> None:
        """Take an event before the node does."""
        match event:
            case e.PeerRefused():
                self._note(event.peer, event.sentence)
            case e.CloseReceived() if not event.orderly:
                self._note(event.peer, f"it closed its edge: {event.reason}")
            case e.PeerDown() if event.code:
                self._note(event.peer, f"it {event.sentence}")

    def perform(self, command: c.Command) -> None:
        """Take a command when it is performed."""
        match command:
            case c.SendClose() if not command.orderly:
                self._note(command.peer, f"its edge was closed: {command.reason}")

    def look(self, problems: Mapping[str, Problem]) -> None:
        """Why there is no session, by peer, at this moment."""
        for peer, problem in problems.items():
            if problem.code == BY_PEER:
                self._note(peer, f"it {problem.sentence}")

    def of(self, peer: str) -> Refusal | None:
        """The last refusal of a peer; None if there was none."""
        return self._last.get(peer)

    def _note(self, peer: str, sentence: str) -> None:
        self._last[peer] = Refusal(sentence, self._wall())
