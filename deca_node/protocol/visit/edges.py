"""One activation's edges at one node: what was offered, opened, has arrived, was applied, was closed.

An edge is a tap between two copies. What one end adds the other takes, so both must turn it the same
number of times: flows are applied once each, in step order, now or late, and an edge that is closed
names the last flow it applied, so that the other end can catch up to it or stop there::

    OFFERED --their offer--> OPEN --close sent--> CLOSING --their close--> SETTLED --caught up--> CLOSED
       |                      |  '---------- their close (answered) ------->'                       ^
       '------ timed out -----+------------------------- link lost --------------------------------'
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from deca_node.protocol.agreed.frames import FrameId
from deca_node.protocol.agreed.weights import metropolis
from deca_node.protocol.errors import WireError

NOTHING = -1
"""As an inner step: no flow was applied yet."""


def frames_held_max(late_steps: int) -> int:
    """How many frames of one neighbour a node may have to hold at once.

    It may be D + 1 exchanges behind in applying a neighbour's updates, while the neighbour goes D + 1 ahead of it
    before closing the edge; beside these 2D + 2 there is the keyframe of a later activation, and one that replaces it.
    """
    return 2 * late_steps + 4


class EdgeState(StrEnum):
    """Where an edge stands; the picture above says what leads where."""

    OFFERED = "offered"
    OPEN = "open"
    CLOSING = "closing"
    SETTLED = "settled"
    CLOSED = "closed"


@dataclass
class Edge:
    """One edge of this activation. ``applied`` is the last inner step whose flow was handed to the trainer here,
    ``mixed`` the last that it is known to have applied; ``limit`` the last that will ever be, once both ends named
    theirs."""

    peer: str
    state: EdgeState = EdgeState.OFFERED
    weight: float = 0.0
    keyframe: FrameId | None = None
    arrived: list[FrameId] = field(default_factory=list)
    newest: int = NOTHING
    applied: int = NOTHING
    mixed: int = NOTHING
    limit: int | None = None


class Edges:
    """The edges of one activation. ``mix_steps`` are its inner steps at which updates are exchanged."""

    def __init__(self, activation: int, degree: int, mix_steps: tuple[int, ...], neighbours: Iterable[str]) -> None:
        self.activation = activation
        self.degree = degree
        self._position = {inner: i for i, inner in enumerate(mix_steps)}
        self._mix_steps = mix_steps
        self.by_peer = {peer: Edge(peer) for peer in neighbours}
        self.encoded = NOTHING
        """The newest inner step whose own update is encoded."""

    # --- opening ------------------------------------------------------------------------------------

    def offered(self) -> list[Edge]:
        """Edges whose other end has not opened yet."""
        return self._in(EdgeState.OFFERED)

    def open(self, peer: str, degree: int, keyframe: FrameId) -> bool:
        """Their offer has come. False where there is no edge to open: it timed out, or never was."""
        edge = self.by_peer.get(peer)
        if edge is None or edge.state is not EdgeState.OFFERED:
            return False
        edge.state, edge.keyframe = EdgeState.OPEN, keyframe
        edge.weight = metropolis(self.degree, degree)
        return True

    def offer(self, peer: str) -> None:
        """Add an edge to a neighbour that appeared while others were still opening."""
        self.by_peer.setdefault(peer, Edge(peer))

    def withdraw(self, peer: str) -> list[FrameId]:
        """Forget an edge that was lost before its activation began, so that it can be offered again; returns
        the frames that had come over it: a keyframe, and updates of a neighbour that was quicker to begin."""
        edge = self.by_peer.pop(peer, None)
        if edge is None:
            return []
        return ([edge.keyframe] if edge.keyframe else []) + edge.arrived

    def opened(self) -> list[Edge]:
        """Edges that are open at both ends."""
        return self._in(EdgeState.OPEN)

    def live(self) -> list[Edge]:
        """Edges over which something may still flow: open ones, and those that are being closed."""
        return self.opened() + self.closing()

    # --- steps --------------------------------------------------------------------------------------

    def arrive(self, peer: str, update: FrameId) -> bool:
        """A neighbour's update has come whole. False where it is of no use any more.

        Raises WireError where it is not the one that follows the last: a gap or a replay.
        """
        edge = self.by_peer.get(peer)
        if edge is None or edge.state in (EdgeState.OFFERED, EdgeState.CLOSED):
            return False
        if update.inner not in self._position:
            # In a final flush the other end may count more members, and so mean to mix more often.
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
        """Open edges that have not yet brought the update that step ``inner`` needs; ``lag`` exchanges late is fine."""
        needed = self._position[inner] - lag
        return [e for e in self._in(EdgeState.OPEN) if self._index(e.newest) < needed]

    def behind(self, edge: Edge, inner: int) -> int:
        """How many exchanges ``edge`` is behind the one at ``inner``."""
        return self._position[inner] - self._index(edge.newest)

    def uneven(self) -> list[Edge]:
        """Open edges that have not applied the last own update."""
        return [e for e in self._in(EdgeState.OPEN) if e.applied < self.encoded]

    def uneven_max(self, late_steps: int) -> int:
        """Of an edge that is lost now, how many flows may one end have applied and the other never will? None
        before the first own update; later no more than D + 1, since neither end goes further ahead of the other."""
        return min(self._index(self.encoded), late_steps) + 1

    def due(self) -> bool:
        """Whether any flow can be applied now."""
        return any(edge.arrived and edge.arrived[0].inner <= self._ceiling(edge) for edge in self.by_peer.values())

    def take_flows(self) -> list[tuple[Edge, FrameId]]:
        """Every flow that can be applied now, each once, in step order on every edge."""
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
        """The trainer has applied what it was given."""
        for edge in self.by_peer.values():
            edge.mixed = edge.applied

    def refused(self, edge: Edge) -> None:
        """The trainer has dropped this edge: the flows that it was given since its last answer were not applied."""
        edge.applied = edge.mixed

    def needed_from(self) -> int:
        """The first own update that some edge may still apply; older ones can be let go."""
        return min((self._after(e.applied) for e in self.live()), default=self._after(self.encoded))

    # --- closing ------------------------------------------------------------------------------------

    def closing(self) -> list[Edge]:
        """Edges that were closed here and wait for the other end's word, or for their last flows."""
        return self._in(EdgeState.CLOSING) + self._in(EdgeState.SETTLED)

    def close(self, edge: Edge) -> None:
        """Close our end. An edge that never opened is closed at once; an open one waits for the other end's word."""
        if edge.state is EdgeState.OFFERED:
            edge.state = EdgeState.CLOSED
        elif edge.state is EdgeState.OPEN:
            edge.state = EdgeState.CLOSING

    def closed_by_peer(self, peer: str, applied: int) -> bool:
        """The other end closed after ``applied``; True where it waits for our own close in answer.

        Both ends then owe the flows up to the later of the two, and what they need for it has arrived:
        streams keep their order.
        """
        edge = self.by_peer.get(peer)
        if edge is None or edge.state in (EdgeState.SETTLED, EdgeState.CLOSED):
            return False
        if edge.state is EdgeState.OFFERED:
            edge.state = EdgeState.CLOSED
            return False
        answer = edge.state is EdgeState.OPEN
        edge.state = EdgeState.SETTLED
        # Nobody can have applied a flow for which our own update was never made.
        edge.limit = max(edge.applied, min(applied, self.encoded))
        self._end_if_even(edge)
        return answer

    def lose(self, edge: Edge) -> list[FrameId]:
        """The link is gone, or the other end does not answer: end the edge as it stands; returns what it still held."""
        edge.state = EdgeState.CLOSED
        frames, edge.arrived = edge.arrived, []
        return frames

    def end(self) -> list[FrameId]:
        """Nothing will flow any more over any edge: end them all as they stand, and return what they still held."""
        return [frame for edge in self.by_peer.values() for frame in self.lose(edge)]

    def take_keyframes(self) -> list[FrameId]:
        """Give the neighbours' keyframes away: those of open edges, and of edges that opened and closed again."""
        frames = [edge.keyframe for edge in self.by_peer.values() if edge.keyframe]
        for edge in self.by_peer.values():
            edge.keyframe = None
        return frames

    def leftovers(self) -> list[FrameId]:
        """Updates that arrived past their edge's limit."""
        frames = []
        for edge in self._in(EdgeState.CLOSED):
            frames += edge.arrived
            edge.arrived = []
        return frames

    # --- arithmetic ---------------------------------------------------------------------------------

    def _in(self, state: EdgeState) -> list[Edge]:
        return [e for e in self.by_peer.values() if e.state is state]

    def _index(self, inner: int) -> int:
        return NOTHING if inner == NOTHING else self._position[inner]

    def _after(self, inner: int) -> int:
        index = self._index(inner) + 1
        return self._mix_steps[index] if index < len(self._mix_steps) else self._mix_steps[-1] + 1

    def _ceiling(self, edge: Edge) -> int:
        if edge.state is EdgeState.OPEN:
            return self.encoded
        if edge.state is EdgeState.SETTLED and edge.limit is not None:
            return min(self.encoded, edge.limit)
        return NOTHING

    def _end_if_even(self, edge: Edge) -> None:
        if edge.limit is not None and edge.applied >= edge.limit:
            edge.state = EdgeState.CLOSED
