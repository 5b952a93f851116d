"""How an edge ends before its activation does: by our word, by the other end's, or without a word.

To *close* an edge is to say how far it was applied and to wait for the other end to say the same, so that both stop
at one flow. To *lose* it is to end it where it stands: one end may have applied flows that the other never will, and
how many at most is counted.
"""

from collections import Counter
from collections.abc import Callable, Iterable

from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.errors import WireError
from deca_node.protocol.visit.edges import NOTHING, Edge, Edges, EdgeState
from deca_node.protocol.visit.loans import Loans
from deca_node.protocol.visit.rules import VisitRules


class Closing:
    """The ends of one activation's edges at one node."""

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
        """Peers that, in a final flush, mean to mix more often than this node."""

    def tell(self, edge: Edge, reason: str) -> None:
        """Say how far an edge was applied here."""
        self._say(c.SendClose(edge.peer, self._edges.activation, edge.applied, reason))

    def part(self, edges: Iterable[Edge], reason: str) -> None:
        """Close edges though nothing is wrong with them."""
        for edge in edges:
            self.tell(edge, reason)
            self._edges.close(edge)

    def close(self, edge: Edge, reason: str) -> None:
        """Close an edge with which something is wrong."""
        self._counters["edges_dropped"] += 1
        self._warn("edge-dropped", f"edge to {edge.peer} is closed for this activation: {reason}", edge.peer)
        self.part([edge], reason)

    def close_late(self, edge: Edge, reason: str) -> None:
        """Close an edge because its other end is late, and let that be for a while."""
        rest = self._rules.rests.late(edge.peer, self._edges.activation)
        self.close(edge, f"{reason}; no edge to it for {rest} more")

    def closed_by_peer(self, peer: str, applied: int, reason: str) -> None:
        """The other end closed its edge: answer with our own last flow."""
        edge = self._edges.by_peer.get(peer)
        if edge is not None and self._edges.closed_by_peer(peer, applied):
            self._counters["edges_closed_by_peer"] += 1
            self._warn("edge-closed", f"{peer} closed its edge for this activation: {reason}", peer)
            self.tell(edge, "in answer")

    def offended(self, edge: Edge, problem: WireError) -> None:
        """The other end has broken a rule: hold it against that peer, and close the edge. What it sends until it hears
        of that adds nothing."""
        if edge.state is EdgeState.OPEN:
            self._say(c.Offence(edge.peer, problem.reason, str(problem)))
            self.close(edge, str(problem))

    def refused(self, refused: Iterable[e.Refused]) -> None:
        """The trainer found that neighbours' bytes cannot be used, and has dropped their edges: what was to be applied
        over them with that command was not."""
        for peer, reason, sentence in refused:
            self._say(c.Offence(peer, reason, sentence))
            edge = self._edges.by_peer[peer]
            self._edges.refused(edge)
            self._counters["edges_refused"] += 1
            if edge.state is not EdgeState.CLOSED:
                self.tell(edge, sentence)
            self.lose(edge, f"{peer} sent what cannot be used: {sentence}")

    def lose(self, edge: Edge, reason: str) -> None:
        """End an edge as it stands."""
        self._counters["edges_lost"] += 1
        self._warn("edge-lost", f"edge to {edge.peer} is gone for this activation: {reason}", edge.peer)
        self.forget(edge)

    def forget(self, edge: Edge) -> None:
        """The same without a word of warning."""
        self._counters["flows_uneven_max"] += self._edges.uneven_max(self._rules.late_steps)
        self._loans.release(self._edges.lose(edge))

    def abandon(self, reason: str, *, offers_sent: bool) -> None:
        """End all edges, and tell the other ends. Flows that were handed to the trainer may not have been applied,
        even over edges that have ended before."""
        offered = self._edges.offered() if offers_sent else []
        for edge in offered + self._edges.opened():
            self.tell(edge, reason)
        for edge in self._edges.by_peer.values():
            if edge.state is not EdgeState.CLOSED or (self._loans.lent and edge.applied > NOTHING):
                self.forget(edge)

    # --- after the last flow ------------------------------------------------------------------------

    def answer_late(self, peer: str, applied: int) -> None:
        """The other end closes an edge that has ended here: say how far this one went, so that it can catch up."""
        edge = self._edges.by_peer.get(peer)
        if edge is not None and edge.applied > applied:
            self.tell(edge, f"{self._rules.name} has ended this activation")

    def mixes_on(self, peer: str, *, over: bool) -> None:
        """A peer has sent an update from beyond the end of a flush. Once this end is done (``over``) it is told so,
        and need not wait for what will not come."""
        if peer not in self._mix_on:
            self._mix_on.add(peer)
            if over:
                self._say_over(peer)

    def over(self) -> None:
        """This end is done."""
        for peer in sorted(self._mix_on):
            self._say_over(peer)

    def _say_over(self, peer: str) -> None:
        edge = self._edges.by_peer.get(peer)
        if edge is not None:
            self.tell(edge, f"{self._rules.name} has mixed as often as it means to")

    def _warn(self, kind: str, sentence: str, peer: str) -> None:
        self._say(c.Report(kind, sentence, "warning", peer))
