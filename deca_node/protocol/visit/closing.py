"""How an edge ends before its activation does: closed by this end, closed by the other end, or lost.

To *close* an edge is to say up to which flow it was applied and to wait for the other end to say the same, so that both
stop at one flow. To *lose* it is to end it as it stands. One end may then have applied flows that the other never will;
the most that there can be is counted.
"""

from collections import Counter
from collections.abc import Callable, Iterable

from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.errors import WireError
from deca_node.protocol.visit.edges import NOTHING, Edge, Edges
from deca_node.protocol.visit.loans import Loans
from deca_node.protocol.visit.phases import EdgeState
from deca_node.protocol.visit.rules import VisitRules

ANSWERS = "in answer"
STOPS = "stops for now"
FLUSHED = "has mixed as often as it means to"
ENDED = "has ended this activation"
ORDERLY = (ANSWERS, STOPS, FLUSHED, ENDED)
"""How the reasons of orderly closings end. A Close carries no code: the other end knows an orderly one by these words.
They are a part of the protocol (docs/PROTOCOL.md); nodes of other versions send them as well."""


def is_orderly(reason: str) -> bool:
    """Whether a Close with this reason says that nothing is wrong with the edge."""
    return not reason or reason.endswith(ORDERLY)


class Closing:
    """Ends the edges of one visit at one node, and tells the other ends and the log."""

    def __init__(
        self,
        edges: Edges,
        loans: Loans,
        rules: VisitRules,
        counters: Counter[str],
        say: Callable[[c.Command], None],
    ) -> None:
        self._edges = edges
        self._loans = loans
        self._rules = rules
        self._counters = counters
        self._say = say
        self._mix_on: set[str] = set()
        """Peers that mix more often than this node in a final flush, since they count more members."""

    def tell(self, edge: Edge, reason: str, *, orderly: bool = False) -> None:
        """Tell the other end up to which flow the edge was applied here."""
        self._say(c.SendClose(edge.peer, self._edges.activation, edge.applied, reason, orderly))

    def stop(self, edges: Iterable[Edge]) -> None:
        """Close edges in good order, because this node stops for now."""
        for edge in edges:
            self.tell(edge, f"{self._rules.name} {STOPS}", orderly=True)
            self._edges.close(edge)

    def close(self, edge: Edge, reason: str) -> None:
        """Close an edge with which something is wrong, and warn."""
        self._counters["edges_dropped"] += 1
        self._warn("edge-dropped", f"edge to {edge.peer} is closed for this activation: {reason}", edge.peer)
        self.tell(edge, reason)
        self._edges.close(edge)

    def close_late(self, edge: Edge, reason: str) -> None:
        """Close an edge because its other end is late, and open no edge to that peer for a while."""
        rest = self._rules.rests.late(edge.peer, self._edges.activation)
        self.close(edge, f"{reason}; no edge to it for {rest} more activation{'s' if rest > 1 else ''}")

    def closed_by_peer(self, peer: str, applied: int, reason: str) -> None:
        """The other end has closed: answer with the last flow of this end, where an answer is due.

        An answer to an edge that this end has not closed is one to an earlier edge of this activation, which ended as
        this node's trainer died. The offer that opened this edge was of that time, too, so its other end is gone.
        """
        edge = self._edges.by_peer.get(peer)
        if edge is not None and edge.state is EdgeState.OPEN and reason == ANSWERS:
            self.lose(edge, f"{peer} has closed it since before this node's trainer began anew")
            return
        if edge is not None and self._edges.closed_by_peer(peer, applied):
            self._counters["edges_closed_by_peer"] += 1
            self._warn("edge-closed", f"{peer} closed its edge for this activation: {reason}", peer)
            self.tell(edge, ANSWERS, orderly=True)

    def offended(self, edge: Edge, problem: WireError) -> None:
        """The other end has broken a rule: report the offence and close the edge. Further offences of this peer, before
        it hears of the close, add nothing."""
        if edge.state is EdgeState.OPEN:
            self._say(c.Offence(edge.peer, problem.reason, str(problem)))
            self.close(edge, str(problem))

    def refused(self, refused: Iterable[e.Refused]) -> None:
        """The trainer cannot use these neighbours' frames and has dropped their edges: it has not applied the flows
        that came with its last command."""
        for peer, reason, sentence in refused:
            self._say(c.Offence(peer, reason, sentence))
            edge = self._edges.by_peer[peer]
            self._edges.refused(edge)
            self._counters["edges_refused"] += 1
            if edge.state is not EdgeState.CLOSED:
                self.tell(edge, sentence)
            self.lose(edge, f"{peer} sent a frame that cannot be used: {sentence}")

    def lose(self, edge: Edge, reason: str) -> None:
        """End an edge as it stands, and warn."""
        self._counters["edges_lost"] += 1
        self._warn("edge-lost", f"edge to {edge.peer} is gone for this activation: {reason}", edge.peer)
        self.forget(edge)

    def forget(self, edge: Edge) -> None:
        """End an edge as it stands, without a warning."""
        self._counters["flows_uneven_max"] += self._edges.uneven_max(self._rules.late_steps)
        self._loans.release(self._edges.lose(edge))

    def abandon(self, reason: str, *, offers_sent: bool) -> None:
        """End all edges, and tell the other ends. The trainer may not have applied the flows that it was handed last;
        that concerns edges that have ended before, too."""
        offered = self._edges.offered() if offers_sent else []
        for edge in offered + self._edges.opened():
            self.tell(edge, reason)
        for edge in self._edges.by_peer.values():
            if edge.state is not EdgeState.CLOSED or (self._loans.lent and edge.applied > NOTHING):
                self.forget(edge)

    # --- after the last flow ------------------------------------------------------------------------

    def answer_late(self, peer: str, applied: int, reason: str) -> None:
        """The other end closes an edge that has ended here. Tell it up to which flow this end went, so that it can
        catch up; or count the flows that it never will apply, as in :meth:`closed_by_peer`."""
        edge = self._edges.by_peer.get(peer)
        if edge is None or edge.applied <= applied:
            return
        if reason == ANSWERS and edge.sent is None:
            self._counters["flows_uneven_max"] += sum(applied < step <= edge.applied for step in edge.steps)
            self._warn("edge-lost", f"{peer} had closed its edge before this node's trainer began anew", peer)
        else:
            self.tell(edge, f"{self._rules.name} {ENDED}", orderly=True)

    def mixes_on(self, peer: str, *, over: bool) -> None:
        """A peer has sent an update from beyond the end of this node's flush. Once this node is done (``over``) the
        peer is told, so that it does not wait for updates that will not come."""
        if peer not in self._mix_on:
            self._mix_on.add(peer)
            if over:
                self._say_over(peer)

    def over(self) -> None:
        """This node is done with the activation: tell the peers that mix on."""
        for peer in sorted(self._mix_on):
            self._say_over(peer)

    def _say_over(self, peer: str) -> None:
        edge = self._edges.by_peer.get(peer)
        if edge is not None:
            self.tell(edge, f"{self._rules.name} {FLUSHED}", orderly=True)

    def _warn(self, kind: str, sentence: str, peer: str) -> None:
        self._say(c.Report(kind, sentence, "warning", peer))
