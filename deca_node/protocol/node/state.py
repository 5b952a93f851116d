"""Where a node stands, and what it shows of that to others: the node's memory, without its transitions."""

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum

from deca_node.protocol import commands as c
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Schedule, Step
from deca_node.protocol.agreed.topology import Graph
from deca_node.protocol.node.catching_up import CatchingUp
from deca_node.protocol.node.roster import NOT_TRAINING, Roster
from deca_node.protocol.node.visits import Visits
from deca_node.protocol.visit.policy import Policy
from deca_node.protocol.visit.rules import Pace
from deca_node.protocol.visit.visit import Visit
from deca_node.protocol.visit.waits import Attempts


class Phase(StrEnum):
    """Where a node stands; the picture in :mod:`deca_node.protocol.node.node` says what leads where."""

    LOADING = "loading"
    GATHERING = "gathering"
    EVALUATING = "evaluating"
    VISITING = "visiting"
    KEEPING = "keeping"
    FETCHING = "fetching"
    AWAITING_TURN = "awaiting-turn"
    PAUSED = "paused"
    SAVING = "saving"
    LEAVING = "leaving"
    STAYING = "staying"
    DONE = "done"


class Standing:
    """One member of a run, as far as it can be looked at. What it looks like is changed by ``Node`` only."""

    def __init__(
        self,
        name: str,
        members: Iterable[str],
        settings: RunSettings,
        policy: Policy,
        wait_for: int | None = None,
        saved_before: bool = False,
    ) -> None:
        self.name = name
        self.settings = settings
        self.phase = Phase.LOADING
        self.counters: Counter[str] = Counter()
        self.next = Step(0, 0)
        """The first step that is not done yet, as of the last visit's end."""
        self._policy = policy
        self._roster = Roster(name, members, settings, wait_for)
        pace = Pace(name, settings, policy)
        self._visits = Visits(name, self._roster, pace, self.counters, self._say)
        self._catching_up = CatchingUp(self._say)
        self._trainer_deaths = Attempts(1.0, 60.0)
        self._schedule: Schedule | None = None
        self._deadline: float | None = None
        self._begun = False
        self._saved_before = saved_before
        self._ending = ""
        self._leaving = False
        self._pausing = False
        self._evaluated_at = NOT_TRAINING
        self._out: list[c.Command] = []

    def _say(self, command: c.Command) -> None:
        self._out.append(command)

    @property
    def visit(self) -> Visit | None:
        """The visit that goes on, or the last that did; None before the first, and where its trainer is lost."""
        return self._visits.current

    def next_deadline(self) -> float | None:
        """When this node waits no longer; None while it waits for no peer."""
        if self.phase is Phase.VISITING and self.visit is not None:
            return self.visit.deadline
        return self._deadline

    @property
    def up(self) -> set[str]:
        """Peers with a live stream."""
        return self._roster.up

    @property
    def members(self) -> tuple[str, ...]:
        """Who takes part, as far as this node knows, in order of their names."""
        return self._roster.members

    @property
    def position(self) -> int:
        """The activation this node works on or is about to; the schedule's length once all are done; NOT_TRAINING
        before the first and while it catches up."""
        away = self.phase in (Phase.FETCHING, Phase.AWAITING_TURN)
        fresh = self.phase in (Phase.LOADING, Phase.GATHERING) and self.next == Step(0, 0)
        return NOT_TRAINING if away or fresh else self.next.activation

    @property
    def at(self) -> Step | None:
        """The next step to be done, within a visit as well; None before the model is loaded."""
        if self._schedule is None:
            return None
        visit = self.visit
        return visit.position if visit and visit.activation.index == self.next.activation else self.next

    @property
    def schedule(self) -> Schedule:
        """The run's activations; known once the model is."""
        assert self._schedule is not None, "the schedule is known once the model is loaded"
        return self._schedule

    def graph(self, activation: int) -> Graph:
        """Who shares edges with whom in an activation, among the members that count by then."""
        return self._roster.graph(activation)

    def awaits(self) -> str:
        """What this node waits for right now, in words."""
        return self._awaits_others() or f"its trainer ({self.phase})"

    @property
    def awaits_trainer(self) -> bool:
        """Whether this node waits for its own trainer and nothing else."""
        return self._awaits_others() is None

    def _awaits_others(self) -> str | None:
        match self.phase:
            case Phase.GATHERING:
                return f"peers: {self._roster.missing}"
            case Phase.LEAVING:
                return f"peers to finish: {', '.join(self._roster.unfinished)}"
            case Phase.FETCHING:
                return "donors: blocks that were trained while this node was away"
            case Phase.AWAITING_TURN:
                return f"its turn: peers train activation {self.next.activation}, this node joins at the next"
            case Phase.STAYING:
                return "nobody: the run is complete (deca-node stop ends the node)"
            case Phase.PAUSED:
                return "somebody to let it go on (deca-node resume)"
        return self.visit.awaits() if self.phase is Phase.VISITING and self.visit else None
