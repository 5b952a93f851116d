"""Who is there? The members of the run, those among them with a live stream, and where each of these is."""

from collections.abc import Iterable, Mapping

from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.topology import Graph, graph
from deca_node.protocol.agreed.weights import flush_mixes
from deca_node.protocol.node.progress import Progress


class Company:
    """What one node knows of the others. The run begins when ``wait_for`` nodes, this one included, have met."""

    def __init__(self, name: str, members: Iterable[str], settings: RunSettings, wait_for: int | None) -> None:
        self.up: set[str] = set()
        self.progress = Progress()
        self._name = name
        self._expected = frozenset(members)
        self._settings = settings
        self._ready_from = dict.fromkeys([*self._expected, name], 0)
        self._wait_for = len(self._ready_from) if wait_for is None else wait_for
        self._met: set[str] = set()
        self._refused: set[str] = set()
        self._finished: set[str] = set()

    # --- what is heard ------------------------------------------------------------------------------

    def know(self, ready_from: Mapping[str, int]) -> None:
        """These are the members now, each with the activation from which on it counts."""
        self._ready_from = {**ready_from, self._name: ready_from.get(self._name, 0)}

    def came(self, peer: str, activation: int) -> None:
        """There is a stream to a peer. One that had finished says so again; another may have come back in its place."""
        self.up.add(peer)
        self._met.add(peer)
        self._refused.discard(peer)
        self._finished.discard(peer)
        self._ready_from.setdefault(peer, 0)
        self.progress.heard(peer, activation)

    def went(self, peer: str) -> None:
        """The stream to a peer is lost."""
        self.up.discard(peer)
        self.progress.gone(peer)

    def disagrees(self, peer: str) -> None:
        """A peer is of another run."""
        self._refused.add(peer)

    def finished(self, peer: str) -> None:
        """A peer needs nothing more."""
        self._finished.add(peer)

    # --- what follows -------------------------------------------------------------------------------

    @property
    def members(self) -> tuple[str, ...]:
        """Who takes part, as far as is known, in order of their names."""
        return tuple(sorted(self._ready_from))

    @property
    def gathered(self) -> bool:
        """Whether as many have met as the run was to wait for."""
        return len(self._met) + 1 >= self._wait_for

    @property
    def outvoted(self) -> bool:
        """Whether half of the run disagrees with this node."""
        return 2 * len(self._refused) >= self._wait_for

    @property
    def missing(self) -> str:
        """Who has not been met yet, in words."""
        names = sorted((self._expected | set(self._ready_from)) - self._met - {self._name})
        return ", ".join(names) or f"{self._wait_for - 1 - len(self._met)} more"

    @property
    def unfinished(self) -> list[str]:
        """Who may still need something: peers with a live stream, and members that are on their way back."""
        return sorted((self.up | set(self._ready_from)) - self._finished - {self._name})

    def graph(self, activation: int) -> Graph:
        """Who shares edges with whom in an activation, among the members that count by then."""
        names = {name for name, ready in self._ready_from.items() if 0 <= ready <= activation} | {self._name}
        return graph(names, self._settings, activation)

    def near(self, activation: int) -> frozenset[str]:
        """This node's own neighbours in an activation."""
        return self.graph(activation)[self._name]

    def flush_mixes(self, activation: int) -> int:
        """How many mixes make the copies agree in the final flush; it depends on who is there."""
        return self._settings.final_flush_mixes or flush_mixes(self.graph(activation), self._settings)
