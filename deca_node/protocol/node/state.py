"""What a node remembers, and what it shows of that to others."""

from collections import Counter
from collections.abc import Iterable, Mapping

from deca_node.protocol import commands as c
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Schedule, Step
from deca_node.protocol.agreed.stopping import NOTHING_TOLD, Heldout, candidate
from deca_node.protocol.agreed.topology import Graph
from deca_node.protocol.events import Evaluated
from deca_node.protocol.node.catching_up import CatchingUp
from deca_node.protocol.node.phases import NODE_PHASES, Cause, Phase
from deca_node.protocol.node.roster import NOT_TRAINING, Roster
from deca_node.protocol.node.stopping import Stopping
from deca_node.protocol.node.visits import Visits
from deca_node.protocol.visit.policy import Policy
from deca_node.protocol.visit.rules import Pace
from deca_node.protocol.visit.visit import Visit
from deca_node.protocol.visit.waits import Attempts


class NodeState:
    """The state of one node. Only :class:`~deca_node.protocol.node.node.Node` and
    :class:`~deca_node.protocol.node.ending.Ending` change it; everybody else reads it."""

    def __init__(
        self,
        name: str,
        members: Iterable[str],
        settings: RunSettings,
        policy: Policy,
        wait_for: int | None = None,
        saved_before: bool = False,
        alone: str = "",
        heldout: Heldout = NOTHING_TOLD,
    ) -> None:
        self.name = name
        self.settings = settings
        self.policy = policy
        self.saved_before = saved_before
        self.alone = alone
        """How the tuned model came to be this node's own and not the others', as a sentence; empty otherwise."""
        self.phase = Phase.LOADING
        self.deadline: float | None = None
        """When the phase waits no longer; a visit has a deadline of its own."""
        self.next = Step(0, 0)
        """The first step that is not done yet, as of the last visit's end."""
        self.evaluated_at = NOT_TRAINING
        """The activation before which the loss was last measured."""
        self.visit_began = 0.0
        """When the current visit began, or the last one."""
        self.left_out = range(0)
        """The activations that this process has left out since the run stopped early."""
        self.begun = False
        """Whether the members have gathered once; a trainer that restarts later need not wait for them."""
        self.ending = ""
        """Why the node is to end, as a sentence; empty as long as it is not."""
        self.ending_code = 0
        """The exit code of that end."""
        self.leaving = False
        self.pausing = False
        self.counters: Counter[str] = Counter()
        self.roster = Roster(name, members, settings, wait_for)
        self.visits = Visits(name, self.roster, Pace(name, settings, policy), self.counters, self.say)
        self.catching_up = CatchingUp(self.say)
        self.stopping = Stopping(name, settings, policy, self.roster, heldout, self.say)
        self.trainer_deaths = Attempts(1.0, 60.0)
        self._schedule: Schedule | None = None
        self._out: list[c.Command] = []

    # --- changes ------------------------------------------------------------------------------------

    def move(self, cause: Cause, deadline: float | None = None) -> None:
        """Go to the phase that the table names. Raises AssertionError where it names none."""
        self.phase, self.deadline = NODE_PHASES.after(self.phase, cause), deadline

    def say(self, command: c.Command) -> None:
        """Give out a command, after those given out before."""
        self._out.append(command)

    def take_commands(self) -> list[c.Command]:
        """The commands given out since the last call, in order."""
        out, self._out = self._out, []
        return out

    def plan(self, blocks: int) -> None:
        """Lay out the run's activations for a model of so many blocks."""
        self.roster.blocks = blocks
        self._schedule = Schedule(self.settings, blocks, self.roster.flush_mixes(0))

    def measured(self, event: Evaluated) -> None:
        """The held-out loss is measured, at the start, after a round or after a visit within one."""
        self.evaluated_at = self.next.activation
        if event.problem:
            self.say(c.Report("not-kept", f"the model of {event.when} is not kept: {event.problem}", "error"))
        if (number := self._round_done) is not None:
            self.stopping.measured(number, event.loss, event.tokens)
            self._judge()

    @property
    def _round_done(self) -> int | None:
        """The round that has just ended, 0 before the first; None within a round, and in the flush."""
        number, within = divmod(self.next.activation, self.schedule.blocks)
        return number if not within and number <= self.schedule.rounds else None

    @property
    def to_keep(self) -> str:
        """The folder for the model that is measured now, as a candidate for the best; empty if it is none."""
        return candidate(self._round_done) if self.stopping.on and self._round_done else ""

    def heard_losses(self, told: Mapping[str, Heldout]) -> None:
        """The present members tell this about held-out losses."""
        self.stopping.heard(told)
        self._judge()

    def _judge(self) -> None:
        """Does the run stop early? A node that is away does not know where the others are, and does not ask."""
        if self.planned and not self.catching_up.away:
            self.stopping.judge(self.next.activation, self.schedule)

    def settle_next(self) -> None:
        """Between two visits: go on with the final flush if the run has stopped early."""
        settled = self.stopping.after(self.next, self.schedule)
        if settled != self.next:
            self.left_out = range(self.next.activation, settled.activation)
            self.next = settled

    # --- what it shows ------------------------------------------------------------------------------

    @property
    def planned(self) -> bool:
        """Whether the run's activations are known, which takes the model."""
        return self._schedule is not None

    @property
    def schedule(self) -> Schedule:
        """The run's activations; only once they are ``planned``."""
        assert self._schedule is not None, "the schedule is known once the model is loaded"
        return self._schedule

    @property
    def visit(self) -> Visit | None:
        """The current visit, or the last one; None before the first, and once its trainer is lost."""
        return self.visits.current

    @property
    def active(self) -> Visit:
        """The visit to which a trainer's answer belongs."""
        assert self.visit is not None, "only a visit's commands have such answers"
        return self.visit

    @property
    def up(self) -> set[str]:
        """The peers with a live stream."""
        return self.roster.up

    @property
    def members(self) -> tuple[str, ...]:
        """The names of all members that this node knows, itself included, sorted."""
        return self.roster.members

    @property
    def position(self) -> int:
        """The activation that this node works on or is about to begin; the schedule's length once all are done;
        NOT_TRAINING before the first and while it catches up."""
        away = self.phase in (Phase.FETCHING, Phase.AWAITING_TURN)
        fresh = self.phase in (Phase.LOADING, Phase.GATHERING) and self.next == Step(0, 0)
        return NOT_TRAINING if away or fresh else self.next.activation

    @property
    def at(self) -> Step | None:
        """The next step to be done, within a visit as well; None before the model is loaded."""
        if not self.planned:
            return None
        visit = self.visit
        return visit.position if visit and visit.activation.index == self.next.activation else self.next

    def graph(self, activation: int) -> Graph:
        """The neighbours of every member that counts in this activation."""
        return self.roster.graph(activation)

    def awaits(self) -> str:
        """What this node waits for right now, as text."""
        return self._awaits_others() or f"its trainer ({self.phase})"

    @property
    def awaits_trainer(self) -> bool:
        """Whether this node waits for its own trainer and nothing else."""
        return self._awaits_others() is None

    def _awaits_others(self) -> str | None:
        match self.phase:
            case Phase.GATHERING:
                return f"peers: {self.roster.missing}"
            case Phase.LEAVING:
                return f"peers to finish: {', '.join(self.roster.unfinished)}"
            case Phase.FETCHING:
                return "donors: blocks that were trained while this node was away"
            case Phase.AWAITING_TURN:
                return f"its turn: peers train activation {self.next.activation}, this node joins at the next"
            case Phase.STAYING:
                return "nothing: the run is complete (deca-node stop ends the node)"
            case Phase.PAUSED:
                return "a request to go on (deca-node resume)"
        return self.visit.awaits() if self.phase is Phase.VISITING and self.visit else None
