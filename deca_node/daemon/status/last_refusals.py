"""What each peer was last refused for, or refused this node for: remembered after it is welcome again.

A refusal is over within seconds as a rule, before anybody looks; what is shown of a peer that is up would not tell that
it had been turned away all night. So the last one of each peer is kept, with its time. Like the status book this only
watches.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.refusals import BY_PEER, Problem


@dataclass(frozen=True)
class Refusal:
    """A sentence, and when it was said, in unix seconds."""

    sentence: str
    time: float


class LastRefusals:
    """By peer. ``wall`` gives unix seconds."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._last: dict[str, Refusal] = {}

    def observe(self, event: e.Event) -> None:
        """An event, before the node takes it in."""
        match event:
            case e.PeerRefused():
                self._note(event.peer, event.sentence)
            case e.CloseReceived() if not event.orderly:
                self._note(event.peer, f"it closed its edge: {event.reason}")
            case e.PeerDown() if event.code:
                self._note(event.peer, f"it {event.sentence}")

    def perform(self, command: c.Command) -> None:
        """A command, as it is performed."""
        match command:
            case c.SendClose() if not command.orderly:
                self._note(command.peer, f"its edge was closed: {command.reason}")

    def look(self, problems: Mapping[str, Problem]) -> None:
        """Why there is no session, by peer, at this moment."""
        for peer, problem in problems.items():
            if problem.code == BY_PEER:
                self._note(peer, f"it {problem.sentence}")

    def of(self, peer: str) -> Refusal | None:
        """The last one; None where there was none."""
        return self._last.get(peer)

    def _note(self, peer: str, sentence: str) -> None:
        self._last[peer] = Refusal(sentence, self._wall())
