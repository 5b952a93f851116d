"""The members of the run as one node knows them: who takes part, who has a live stream, and where each peer stands.

A node that was away finds its peers further on than itself. It takes the blocks that they have trained meanwhile, waits
for its turn, and goes on where they are. One peer alone cannot tell a node that it was away: at least half of the peers
that train must be ahead of it.
"""

from collections.abc import Iterable, Mapping

from deca_node.protocol.agreed.run import MATCHINGS, RunSettings
from deca_node.protocol.agreed.topology import Graph, final_graph, graph, turns
from deca_node.protocol.agreed.weights import SHARE_ONE, flush_mixes

NOT_TRAINING = -1
"""The position of a node that has not begun or is catching up."""


class Roster:
    """The peers of node ``name``. The run begins when ``wait_for`` nodes, this one included, have met (None: all of
    ``members``). A peer's position is the activation that it works on, as last heard."""

    def __init__(self, name: str, members: Iterable[str], settings: RunSettings, wait_for: int | None) -> None:
        self.up: set[str] = set()
        """Peers with a live stream."""
        self.shares: dict[str, int] = {name: SHARE_ONE}
        """The shares of this node and of all peers that it has met, in the mean that the nodes agree on."""
        self.blocks: int | None = None
        """The number of the model's blocks; None until the model is loaded."""
        self._name = name
        self._expected = frozenset(members)
        self._settings = settings
        self._ready_from = dict.fromkeys([*self._expected, name], 0)
        self._wait_for = len(self._ready_from) if wait_for is None else wait_for
        self._positions: dict[str, int] = {}
        self._met: set[str] = set()
        self._refused: set[str] = set()
        self._finished: set[str] = set()

    # --- what the node hears ------------------------------------------------------------------------

    def know(self, ready_from: Mapping[str, int]) -> None:
        """Take in the current members, each with the activation from which on it counts in the graph."""
        self._ready_from = {**ready_from, self._name: ready_from.get(self._name, 0)}

    def came(self, peer: str, position: int, share: int = SHARE_ONE) -> None:
        """A stream to the peer is open. A peer that has finished says so again on every new stream."""
        self.up.add(peer)
        self.shares[peer] = share
        self._met.add(peer)
        self._refused.discard(peer)
        self._finished.discard(peer)
        self._ready_from.setdefault(peer, 0)
        self.heard(peer, position)

    def heard(self, peer: str, position: int) -> None:
        """The peer told its position."""
        self._positions[peer] = position

    def went(self, peer: str) -> None:
        """The stream to the peer is lost."""
        self.up.discard(peer)
        self._positions.pop(peer, None)

    def disagrees(self, peer: str) -> bool:
        """The peer is of another run, and counts for nothing until it comes in agreement. Returns whether that is
        news."""
        known = peer in self._refused
        self._refused.add(peer)
        return not known

    def finished(self, peer: str) -> None:
        """The peer needs nothing more from this node."""
        self._finished.add(peer)

    # --- what follows from it -----------------------------------------------------------------------

    @property
    def members(self) -> tuple[str, ...]:
        """The names of all members that this node knows, itself included, sorted."""
        return tuple(sorted(self._ready_from))

    @property
    def gathered(self) -> bool:
        """Whether as many nodes have met as the run is to wait for."""
        return len(self._met) + 1 >= self._wait_for

    @property
    def outvoted(self) -> bool:
        """Whether half of the run disagrees with this node."""
        return 2 * len(self._refused) >= self._wait_for

    @property
    def shunned(self) -> bool:
        """Whether most of the peers that this node reaches refuse it."""
        return len(self._refused) > len(self.up)

    @property
    def outcast(self) -> bool:
        """Whether most of all members, this node included, refuse it."""
        return 2 * len(self._refused) > len(self._refused | set(self._ready_from))

    @property
    def shared(self) -> bool:
        """Whether the run is one of several nodes."""
        return self._wait_for > 1 or bool(self._met)

    @property
    def refused(self) -> frozenset[str]:
        """The peers that refuse this node, or that it does not agree with."""
        return frozenset(self._refused)

    @property
    def missing(self) -> str:
        """The members that this node has not met yet, as text; their number where their names are not known."""
        names = sorted((self._expected | set(self._ready_from)) - self._met - {self._name})
        return ", ".join(names) or f"{self._wait_for - 1 - len(self._met)} more"

    @property
    def unfinished(self) -> list[str]:
        """The peers that may still need something: those with a live stream, and members that are on their way back."""
        return sorted((self.up | set(self._ready_from)) - self._finished - self._refused - {self._name})

    @property
    def taking_part(self) -> dict[str, int]:
        """The present members that count in the graph, each with the activation from which on it does."""
        return {n: ready for n, ready in self._ready_from.items() if ready >= 0 and n not in self._refused}

    @property
    def ever(self) -> int:
        """How many members this node has known, itself included; at least as many as the run was to begin with."""
        return max(self._wait_for, len(self._met | set(self._ready_from) | {self._name}))

    @property
    def farthest(self) -> int:
        """The newest activation on which a peer works, as last heard."""
        return max(self._positions.values(), default=NOT_TRAINING)

    def behind(self, activation: int) -> bool:
        """Whether a node that is about to begin ``activation`` is left behind: at least half of the peers that train
        are past it.

        Where each node has one neighbour at a time, only that of its next activation with one counts, if it trains:
        quick pairs run ahead until they meet a slow node, and wait for it there. In the final flush all count again; a
        node that meets nobody before it is to be there in time for the flush.
        """
        training = {peer: position for peer, position in self._positions.items() if position != NOT_TRAINING}
        if training and self._settings.topology in MATCHINGS:
            met, partners = self._next_met(activation)
            if near := {peer: training[peer] for peer in partners if peer in training}:
                activation, training = met, near
        ahead = sum(position > activation for position in training.values())
        return ahead > 0 and 2 * ahead >= len(training)

    def _next_met(self, activation: int) -> tuple[int, frozenset[str]]:
        """The next activation in which this node exchanges parameters, and with whom: all peers in the final flush. An
        odd number of members leaves one of them alone at a time."""
        blocks = self.blocks or 1
        flush = self._settings.rounds_of(blocks) * blocks
        for index in range(activation, flush):
            if partners := self.graph(index)[self._name]:
                return index, partners
        return max(activation, flush), frozenset(self._positions)

    def busy(self, activation: int) -> bool:
        """Whether any peer works on ``activation``, or is past it."""
        return any(position >= activation for position in self._positions.values())

    def final_graph(self, activation: int) -> Graph:
        """The neighbours in the final flush of the members that count in this activation."""
        return final_graph(self._counting(activation), self._settings, activation)

    def _counting(self, activation: int) -> set[str]:
        names = {name for name, ready in self._ready_from.items() if 0 <= ready <= activation} - self._refused
        return names | {self._name}

    def graph(self, activation: int) -> Graph:
        """The neighbours of every member that counts in this activation. Members of another run do not count."""
        return graph(self._counting(activation), self._settings, activation, self.blocks)

    def turns(self, activation: int) -> tuple[frozenset[str], ...]:
        """This node's own neighbours in each of the graphs that take turns in an activation."""
        graphs = turns(self._counting(activation), self._settings, activation, self.blocks)
        return tuple(graph[self._name] for graph in graphs)

    def flush_mixes(self, activation: int) -> int:
        """The number of mixes after which the copies agree in the final flush, among the members of this activation."""
        given = self._settings.final_flush_mixes
        return given or flush_mixes(self.final_graph(activation), self._settings, self.shares)
