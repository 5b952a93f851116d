"""The edges of one visit at one node: what was offered and opened, which flows were applied, what was closed.

An edge is like a tap between two copies. A flow takes from one end what it adds to the other, so both ends must apply
the same flows: each flow once, in step order, now or late. An end that closes an edge names the last flow that it has
applied, so that the other end can catch up to it or stop there::

    OFFERED --their offer--> OPEN --our close--> CLOSING --their close--> SETTLED --caught up--> CLOSED
                              '----------- their close, answered ----------->'

:data:`deca_node.protocol.visit.phases.EDGE_STATES` is the whole table. An edge that is lost is CLOSED from any state.
"""

from collections.abc import Iterable
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

    def move(self, cause: EdgeCause) -> None:
        """Go to the state that the table names. Raises AssertionError where it names none."""
        self.state = EDGE_STATES.after(self.state, cause)


class Edges:
    """The edges of one activation, to ``neighbours`` to begin with. ``degree`` is this node's degree in the
    activation's graph; ``mix_steps`` are the inner steps at which updates are exchanged."""

    def __init__(self, activation: int, degree: int, mix_steps: tuple[int, ...], neighbours: Iterable[str]) -> None:
        self.activation = activation
        self.degree = degree
        self.by_peer = {peer: Edge(peer) for peer in neighbours}
        self.encoded = NOTHING
        """The newest inner step whose own update is encoded."""
        self._position = {inner: i for i, inner in enumerate(mix_steps)}
        self._mix_steps = mix_steps

    # --- opening ------------------------------------------------------------------------------------

    def offered(self) -> list[Edge]:
        """The edges whose other end has not opened yet."""
        return self._in(EdgeState.OFFERED)

    def open(self, peer: str, degree: int, keyframe: FrameId) -> bool:
        """The peer's offer has come. False where there is no edge to open: it timed out, or never was."""
        edge = self.by_peer.get(peer)
        if edge is None or edge.state is not EdgeState.OFFERED:
            return False
        edge.move(EdgeCause.THEIR_OFFER)
        edge.keyframe, edge.weight = keyframe, metropolis(self.degree, degree)
        return True

    def offer(self, peer: str) -> None:
        """Add an edge to a neighbour that appeared while others were still opening."""
        self.by_peer.setdefault(peer, Edge(peer))

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

    def arrive(self, peer: str, update: FrameId) -> bool:
        """A neighbour's update has arrived whole. False where it is of no use any more.

        Raises WireError where the update does not follow the neighbour's last: a gap or a replay.
        """
        edge = self.by_peer.get(peer)
        if edge is None or edge.state in (EdgeState.OFFERED, EdgeState.CLOSED):
            return False
        if update.inner not in self._position:
            # In a final flush the other end may count more members, and so mix more often.
            return False
        expected = self._after(edge.newest)
        if update.inner != expected:
            raise WireError(
                "replay" if edge.newest != NOTHING and update.inner <= edge.newest else "out-of-order",
                f"{peer} sent the update of inner step {update.inner} of activation {self.activation}, "
                f"expected that of {expected}",
            )
        edge.newest = update.inner
        edge.arrived.append(update)
        return True

    def waiting_for(self, inner: int, lag: int) -> list[Edge]:
        """The open edges without the update that step ``inner`` needs, which may be ``lag`` exchanges old."""
        needed = self._position[inner] - lag
        return [edge for edge in self.opened() if self._index(edge.newest) < needed]

    def behind(self, edge: Edge, inner: int) -> int:
        """By how many exchanges the edge's newest update is behind the exchange at ``inner``."""
        return self._position[inner] - self._index(edge.newest)

    def uneven(self) -> list[Edge]:
        """The open edges over which the flow of the newest own update was not applied yet."""
        return [edge for edge in self.opened() if edge.applied < self.encoded]

    def uneven_max(self, late_steps: int) -> int:
        """How many flows, at most, one end of an edge that is lost now may have applied and the other never will.

        None before the first own update. Later at most D + 1, since neither end goes further ahead of the other.
        """
        return min(self._index(self.encoded), late_steps) + 1

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

    def needed_from(self) -> int:
        """The first own update that some edge may still apply; older ones can be released."""
        return min((self._after(edge.applied) for edge in self.live()), default=self._after(self.encoded))

    # --- closing ------------------------------------------------------------------------------------

    def closing(self) -> list[Edge]:
        """The edges that were closed and wait for the other end's close, or for their last flows."""
        return self._in(EdgeState.CLOSING) + self._in(EdgeState.SETTLED)

    def close(self, edge: Edge) -> None:
        """Close this end. An edge that never opened ends at once; an open one waits for the other end's close."""
        if edge.state in (EdgeState.OFFERED, EdgeState.OPEN):
            edge.move(EdgeCause.OUR_CLOSE)

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
        # No end can have applied a flow for which this node has not made its own update yet.
        edge.limit = max(edge.applied, min(applied, self.encoded))
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

    def _index(self, inner: int) -> int:
        return NOTHING if inner == NOTHING else self._position[inner]

    def _after(self, inner: int) -> int:
        """The inner step of the exchange that follows ``inner``; one past the last where none follows."""
        index = self._index(inner) + 1
        return self._mix_steps[index] if index < len(self._mix_steps) else self._mix_steps[-1] + 1

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
