"""The edges of one visit at one node: what was offered and opened, which flows were applied, what was closed.

An edge is like a tap between two copies. A flow takes from one end what it adds to the other, so both ends must apply
the same flows: each flow once, in step order, now or late. An end that closes an edge names the last flow that it has
applied, so that the other end can catch up to it or stop there::

    OFFERED --their offer--> OPEN --our close--> CLOSING --their close--> SETTLED --caught up--> CLOSED
                              '----------- their close, answered ----------->'

:data:`deca_node.protocol.visit.phases.EDGE_STATES` is the whole table. An edge that is lost is CLOSED from any state.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from deca_node.protocol.agreed.frames import FrameId
from deca_node.protocol.agreed.weights import metropolis
from deca_node.protocol.errors import WireError
from deca_node.protocol.visit.phases import EDGE_STATES, EdgeCause, EdgeState

NOTHING = -1
"""As an inner step: no flow was applied yet."""


def frames_held_max(late_steps: int) -> int:
    """The most frames of one neighbour that a node may have to hold at once.

    The node may be D + 1 exchanges behind in applying a neighbour's updates, while the neighbour goes D + 1 ahead of it
    before it closes the edge. To these 2 D + 2 updates comes the keyframe of a later activation, and one that replaces
    it.
    """
    return 2 * late_steps + 4


@dataclass
class Edge:
    """One edge, as its end at this node sees it. Inner steps stand for the flows of their exchanges."""

    peer: str
    steps: tuple[int, ...]
    """The inner steps at which updates are exchanged over this edge, as both ends have said."""
    state: EdgeState = EdgeState.OFFERED
    weight: float = 0.0
    """The mixing weight w_ij; known once the edge is open."""
    keyframe: FrameId | None = None
    """The neighbour's keyframe, until the trainer takes it."""
    arrived: list[FrameId] = field(default_factory=list)
    """The neighbour's updates that were not applied yet, in step order."""
    newest: int = NOTHING
    """The step of the neighbour's newest update."""
    applied: int = NOTHING
    """The step of the last flow that was handed to the trainer."""
    mixed: int = NOTHING
    """The step of the last flow that the trainer is known to have applied."""
    limit: int | None = None
    """The step of the last flow that will ever be applied; known once both ends have closed."""
    sent: int | None = None
    """The step of the newest own update when this end closed; no later one goes over this edge."""

    def move(self, cause: EdgeCause) -> None:
        """Go to the state that the table names. Raises AssertionError where it names none."""
        self.state = EDGE_STATES.after(self.state, cause)

    def after(self, inner: int) -> int:
        """The first exchange after ``inner``; one past the last where none follows."""
        at = bisect_right(self.steps, inner)
        return self.steps[at] if at < len(self.steps) else self.end

    def until(self, inner: int) -> int:
        """The last exchange up to ``inner``; NOTHING where there is none."""
        at = bisect_right(self.steps, inner)
        return self.steps[at - 1] if at else NOTHING

    @property
    def last(self) -> int:
        """The last step whose own update is of use to this edge, as far as is known."""
        known = [step for step in (self.sent, self.limit) if step is not None]
        return min([*known, self.end - 1])

    @property
    def end(self) -> int:
        """One past the last exchange."""
        return self.steps[-1] + 1 if self.steps else 0


class Edges:
    """The edges of one activation, to ``neighbours`` to begin with. ``degree`` is this node's degree in the
    activation's graph; ``meetings`` are the inner steps at which updates are exchanged, by neighbour. ``weigh`` gives
    w_ij for a peer and its degree; without it all shares in the mean are equal."""

    def __init__(
        self,
        activation: int,
        degree: int,
        meetings: Mapping[str, tuple[int, ...]],
        neighbours: Iterable[str],
        weigh: Callable[[str, int], float] | None = None,
    ) -> None:
        self.activation = activation
        self.degree = degree
        self._weigh = weigh or (lambda peer, its_degree: metropolis(degree, its_degree))
        self._meetings = meetings
        self._exchanges: list[int] = []
        """The inner steps whose own update is encoded."""
        self.by_peer = {peer: self._new(peer) for peer in neighbours}

    # --- opening ------------------------------------------------------------------------------------

    def offered(self) -> list[Edge]:
        """The edges whose other end has not opened yet."""
        return self._in(EdgeState.OFFERED)

    def open(self, peer: str, degree: int, keyframe: FrameId | None, steps: Collection[int] | None = None) -> bool:
        """The peer's offer has come, with the inner steps of its exchanges (None: all that this end expects). False
        where there is no edge to open: it timed out, or never was."""
        edge = self.by_peer.get(peer)
        if edge is None or edge.state is not EdgeState.OFFERED:
            return False
        edge.move(EdgeCause.THEIR_OFFER)
        edge.keyframe, edge.weight = keyframe, self._weigh(peer, degree)
        if steps is not None:
            # Ends that know different members expect different exchanges. Those that both expect take place.
            edge.steps = tuple(inner for inner in edge.steps if inner in steps)
        return True

    def is_open(self, peer: str) -> bool:
        """Whether there is an edge to the peer that is open at both ends."""
        edge = self.by_peer.get(peer)
        return edge is not None and edge.state is EdgeState.OPEN

    def offer(self, peer: str) -> None:
        """Add an edge to a neighbour that appeared while others were still opening."""
        self.by_peer.setdefault(peer, self._new(peer))

    def _new(self, peer: str) -> Edge:
        return Edge(peer, self._meetings[peer])

    def withdraw(self, peer: str) -> list[FrameId]:
        """Forget an edge that was lost while edges were opening, so that it can be offered again.

        Returns the frames that had come over it: a keyframe, and updates of a neighbour that was quicker to begin.
        """
        edge = self.by_peer.pop(peer, None)
        if edge is None:
            return []
        return ([edge.keyframe] if edge.keyframe else []) + edge.arrived

    def opened(self) -> list[Edge]:
        """The edges that are open at both ends."""
        return self._in(EdgeState.OPEN)

    def live(self) -> list[Edge]:
        """The edges over which flows may still come: open ones, and those that are being closed."""
        return self.opened() + self.closing()

    # --- steps --------------------------------------------------------------------------------------

    @property
    def encoded(self) -> int:
        """The newest inner step whose own update is encoded."""
        return self._exchanges[-1] if self._exchanges else NOTHING

    def encode(self, inner: int) -> None:
        """The own update of ``inner`` is encoded."""
        self._exchanges.append(inner)

    def arrive(self, peer: str, update: FrameId) -> bool:
        """A neighbour's update has arrived whole. False where it is of no use any more.

        Raises WireError where the update does not follow the neighbour's last: a gap or a replay.
        """
        edge = self.by_peer.get(peer)
        if edge is None or edge.state in (EdgeState.OFFERED, EdgeState.CLOSED):
            return False
        if edge.until(update.inner) != update.inner:
            # In a final flush the other end may count more members, and so mix more often.
            return False
        expected = edge.after(edge.newest)
        if update.inner != expected:
            raise WireError(
                "replay" if edge.newest != NOTHING and update.inner <= edge.newest else "out-of-order",
                f"{peer} sent the update of inner step {update.inner} of activation {self.activation}, "
                f"expected that of {expected}",
            )
        edge.newest = update.inner
        edge.arrived.append(update)
        return True

    def waiting_for(self, lag: int) -> list[Edge]:
        """The open edges without the update that the newest exchange needs, which may be ``lag`` exchanges old."""
        needed = self._exchanges[-1 - lag] if len(self._exchanges) > lag else NOTHING
        return [edge for edge in self.opened() if edge.newest < edge.until(needed)]

    def behind(self, edge: Edge) -> int:
        """By how many of this node's exchanges the edge is behind: counted from the first update of this edge that has
        not come. 0 where all have come."""
        missing = edge.after(edge.newest)
        return len(self._exchanges) - bisect_left(self._exchanges, missing) if missing < edge.end else 0

    def due_at(self, inner: int) -> list[Edge]:
        """The open edges over which the update of ``inner`` goes."""
        return [edge for edge in self.opened() if edge.until(inner) == inner]

    def lead_on(self, inner: int) -> bool:
        """Whether any open edge has an exchange at ``inner`` or after it."""
        return any(edge.end > inner for edge in self.opened())

    def uneven(self) -> list[Edge]:
        """The open edges over which the flow of the newest own update was not applied yet."""
        return [edge for edge in self.opened() if edge.applied < edge.until(self.encoded)]

    def uneven_max(self, late_steps: int) -> int:
        """How many flows, at most, one end of an edge that is lost now may have applied and the other never will.

        None before the first own update. Later at most D + 1, since neither end goes further ahead of the other.
        """
        return min(len(self._exchanges), late_steps + 1)

    def due(self) -> bool:
        """Whether any flow can be applied now."""
        return any(edge.arrived and edge.arrived[0].inner <= self._ceiling(edge) for edge in self.by_peer.values())

    def take_flows(self) -> list[tuple[Edge, FrameId]]:
        """Take out every flow that can be applied now, in step order on every edge."""
        flows = []
        for edge in self.by_peer.values():
            while edge.arrived and edge.arrived[0].inner <= self._ceiling(edge):
                update = edge.arrived.pop(0)
                edge.applied = update.inner
                flows.append((edge, update))
            if edge.state is EdgeState.SETTLED:
                self._end_if_even(edge)
        return flows

    def mixed(self) -> None:
        """The trainer has applied all flows that it was handed."""
        for edge in self.by_peer.values():
            edge.mixed = edge.applied

    def refused(self, edge: Edge) -> None:
        """The trainer has dropped this edge: it did not apply the flows that it was handed since its last answer."""
        edge.applied = edge.mixed

    def needs(self, inner: int) -> bool:
        """Whether some edge may still apply the own update of ``inner``.

        An edge that was closed needs what was sent before, and nothing since: its other end may not answer for a long
        time.
        """
        return any(edge.after(edge.applied) <= inner <= edge.last for edge in self.live())

    # --- closing ------------------------------------------------------------------------------------

    def closing(self) -> list[Edge]:
        """The edges that were closed and wait for the other end's close, or for their last flows."""
        return self._in(EdgeState.CLOSING) + self._in(EdgeState.SETTLED)

    def close(self, edge: Edge) -> None:
        """Close this end. An edge that never opened ends at once; an open one waits for the other end's close."""
        if edge.state in (EdgeState.OFFERED, EdgeState.OPEN):
            edge.move(EdgeCause.OUR_CLOSE)
            edge.sent = self.encoded

    def closed_by_peer(self, peer: str, applied: int) -> bool:
        """The other end closed after the flow of ``applied``. True where it waits for a close in answer.

        Both ends then owe the flows up to the later of their two last ones. The updates for these have arrived already,
        since streams keep their order.
        """
        edge = self.by_peer.get(peer)
        if edge is None or edge.state in (EdgeState.SETTLED, EdgeState.CLOSED):
            return False
        before = edge.state
        edge.move(EdgeCause.THEIR_CLOSE)
        if before is EdgeState.OFFERED:
            return False
        # No end can have applied a flow for which this node has not sent its own update.
        edge.limit = max(edge.applied, edge.until(min(applied, self.encoded, edge.last)))
        self._end_if_even(edge)
        return before is EdgeState.OPEN

    def lose(self, edge: Edge) -> list[FrameId]:
        """End the edge as it stands, and return the updates that were not applied. The link is gone, or the other end
        does not answer."""
        if edge.state is not EdgeState.CLOSED:
            edge.move(EdgeCause.LOST)
        frames, edge.arrived = edge.arrived, []
        return frames

    def end(self) -> list[FrameId]:
        """The visit is over: end all edges as they stand, and return the updates that were not applied."""
        return [frame for edge in self.by_peer.values() for frame in self.lose(edge)]

    def take_keyframes(self) -> list[FrameId]:
        """Take out the neighbours' keyframes, also those of edges that opened and closed again."""
        frames = [edge.keyframe for edge in self.by_peer.values() if edge.keyframe]
        for edge in self.by_peer.values():
            edge.keyframe = None
        return frames

    def leftovers(self) -> list[FrameId]:
        """Take out the updates that will never be applied, since their edges are closed."""
        frames = []
        for edge in self._in(EdgeState.CLOSED):
            frames += edge.arrived
            edge.arrived = []
        return frames

    # --- arithmetic ---------------------------------------------------------------------------------

    def _in(self, state: EdgeState) -> list[Edge]:
        return [edge for edge in self.by_peer.values() if edge.state is state]

    def _ceiling(self, edge: Edge) -> int:
        """The last inner step whose flow may be applied now."""
        if edge.state is EdgeState.OPEN:
            return self.encoded
        if edge.state is EdgeState.SETTLED and edge.limit is not None:
            return min(self.encoded, edge.limit)
        return NOTHING

    def _end_if_even(self, edge: Edge) -> None:
        if edge.limit is not None and edge.applied >= edge.limit:
            edge.move(EdgeCause.EVEN)
