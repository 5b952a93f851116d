"""The rules of a visit: the run's settings, the node's neighbours, and how long to wait for them."""

from collections.abc import Mapping
from dataclasses import dataclass

from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Schedule
from deca_node.protocol.agreed.weights import SHARE_ONE, metropolis
from deca_node.protocol.visit.policy import Policy
from deca_node.protocol.visit.waits import Rests, WaitTimes

OPEN_SECONDS_MIN = 30.0
"""The shortest wait for edges to open. Neighbours may evaluate before a visit, and some take longer than others."""


@dataclass(frozen=True)
class VisitRules:
    """The rules of one visit at node ``name``."""

    name: str
    turns: tuple[frozenset[str], ...]
    """The node's neighbours in each of the activation's graphs, which take turns. Parameters travel in the first."""
    schedule: Schedule
    shares: Mapping[str, int]
    """The shares of this node and of its peers in the mean, as they were told with the newest stream."""
    overlap: bool
    """Whether a step is computed while the updates of the one before travel."""
    late_steps: int
    """By how many exchanges an edge may be behind [D]."""
    open_waits: WaitTimes
    step_waits: WaitTimes
    rests: Rests
    farewell: float
    """Seconds that an interrupted visit waits for the other ends of its edges."""
    checkpoint_every: int
    """Steps from one checkpoint to the next; 0 writes none within the visit."""

    @property
    def near(self) -> frozenset[str]:
        """The node's neighbours in any of the activation's graphs."""
        return frozenset().union(*self.turns)

    @property
    def degree(self) -> int:
        """The most neighbours with which the node exchanges updates at one step."""
        return max(map(len, self.turns))

    def weigh(self, peer: str, degree: int) -> float:
        """w_ij of an edge to a peer that has this degree."""
        ours, theirs = (self.shares.get(name, SHARE_ONE) for name in (self.name, peer))
        return metropolis(self.degree, degree, ours, theirs)


class Pace:
    """What a node has measured over all its visits: how long neighbours take, and which of them are late."""

    def __init__(self, name: str, settings: RunSettings, policy: Policy) -> None:
        self.rests = Rests()
        self._name = name
        self._settings = settings
        self._policy = policy
        self._open_waits = WaitTimes(OPEN_SECONDS_MIN, policy.open)
        self._step_waits = WaitTimes(policy.floor, policy.step)

    def rules(
        self, turns: tuple[frozenset[str], ...], schedule: Schedule, shares: Mapping[str, int] | None = None
    ) -> VisitRules:
        """The rules of the next visit. ``shares`` are those of all nodes in the mean; None: all are equal."""
        return VisitRules(
            name=self._name,
            turns=turns,
            schedule=schedule,
            shares={} if shares is None else shares,
            overlap=self._settings.exchange == "overlap",
            late_steps=self._settings.late_steps,
            open_waits=self._open_waits,
            step_waits=self._step_waits,
            rests=self.rests,
            farewell=self._policy.farewell,
            checkpoint_every=self._policy.checkpoint_every,
        )
