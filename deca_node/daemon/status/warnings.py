"""The warnings that hold now. A warning ends when its cause does, so the page does not show old ones for ever; the log
and the events keep them.

::

    edge-lost, edge-dropped, edge-closed    until the next visit, which opens edges anew, or until the peer is back
    fetch-failed                            until the missing blocks are taken over
    nobody, refused                         until a peer, or that peer, is up
    checkpoint-failed                       until a checkpoint is written
    trainer-died                            until a trainer is ready
    any other                               until the node ends
"""

from deca_node.protocol import commands as c
from deca_node.protocol import events as e

KEPT_MAX = 100


class Warnings:
    """The warnings of one node, by their code and the peer that they are about."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], str] = {}

    @property
    def newest(self) -> str:
        """The newest warning that holds; empty if there is none."""
        return next(reversed(self._open.values()), "")

    def perform(self, report: c.Report) -> None:
        """Take a report when it is logged."""
        if report.level not in ("warning", "error"):
            return
        self._open.pop((report.kind, report.about), None)
        self._open[report.kind, report.about] = report.sentence
        if len(self._open) > KEPT_MAX:
            del self._open[next(iter(self._open))]

    def observe(self, event: e.Event) -> None:
        """Take an event: some warnings end with it."""
        self._open = {key: sentence for key, sentence in self._open.items() if not _ends(*key, event)}


def _ends(kind: str, about: str, event: e.Event) -> bool:
    match event:
        case e.PeerUp():
            return kind == "nobody" or (about == event.peer and kind in _OF_A_PEER)
        case e.Activated():
            return kind in _OF_A_VISIT
        case e.Adopted():
            return kind == "fetch-failed"
        case e.Checkpointed():
            return kind == "checkpoint-failed"
        case e.TrainerReady():
            return kind == "trainer-died"
    return False


_OF_A_VISIT = frozenset({"edge-lost", "edge-dropped", "edge-closed"})
_OF_A_PEER = _OF_A_VISIT | {"refused"}
