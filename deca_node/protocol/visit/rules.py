"""What a visit is told: the run's rules, its place in the graph, and what was seen of its neighbours' pace."""

from dataclasses import dataclass

from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Schedule
from deca_node.protocol.visit.policy import Policy
from deca_node.protocol.visit.waits import Rests, Waits

OPEN_SECONDS_MIN = 30.0
"""The least an activation waits for its edges: neighbours may evaluate, and not all are equally fast at that."""


@dataclass(frozen=True)
class VisitRules:
    """``near`` are the node's neighbours in the activation's graph; ``farewell`` is how long, in seconds, a visit that
    is interrupted waits for the other ends of its edges; a checkpoint is due every ``checkpoint_every`` steps."""

    name: str
    near: frozenset[str]
    schedule: Schedule
    overlap: bool
    late_steps: int
    open_waits: Waits
    step_waits: Waits
    rests: Rests
    farewell: float
    checkpoint_every: int


class Pace:
    """What a node has learnt, over all its visits, of how long others take and of who is late."""

    def __init__(self, name: str, settings: RunSettings, policy: Policy) -> None:
        self.rests = Rests()
        self._name = name
        self._settings = settings
        self._policy = policy
        self._open_waits = Waits(OPEN_SECONDS_MIN, policy.open)
        self._step_waits = Waits(policy.floor, policy.step)

    def rules(self, near: frozenset[str], schedule: Schedule) -> VisitRules:
        """The rules of the next visit."""
        return VisitRules(
            name=self._name,
            near=near,
            schedule=schedule,
            overlap=self._settings.exchange == "overlap",
            late_steps=self._settings.late_steps,
            open_waits=self._open_waits,
            step_waits=self._step_waits,
            rests=self.rests,
            farewell=self._policy.farewell,
            checkpoint_every=self._policy.checkpoint_every,
        )
