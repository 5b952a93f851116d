"""Every transition in the table of a node's phases is reached: for each there is a way to it, walked here.

The storms of test_cluster.py show that no other transition is ever taken: it would be an AssertionError.
"""

from collections import deque
from collections.abc import Callable

import pytest

from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.agreement import ModelFacts
from deca_node.protocol.agreed.frames import FrameId, FrameKind, FrameSizes
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.node.node import Node
from deca_node.protocol.node.phases import NODE_PHASES, Cause, Phase
from tests.defaults import default_policy
from tests.protocol.conftest import Seen

P, W = Phase, Cause

ANSWERS: dict[type, Callable[..., e.Event]] = {
    c.Activate: lambda command: e.Activated(command.activation.index),
    c.Connect: lambda command: e.Connected(command.activation),
    c.HalfStep: lambda command: e.HalfStepped(command.step, command.update),
    c.Mix: lambda command: e.Mixed(command.step),
    c.Freeze: lambda command: e.Frozen(command.activation),
    c.Evaluate: lambda command: e.Evaluated(command.when, 1.0, 1),
    c.Save: lambda command: e.Saved(command.name),
    c.Checkpoint: lambda command: e.Checkpointed(command.position, ""),
    c.Adopt: lambda command: e.Adopted(command.position),
}
DIED, REFUSED = e.TrainerFailed("killed", 11, died=True), e.TrainerFailed("out of memory", 11)
LAST = Step(4, 0)
"""The position of a node that has done all visits: two of the only round, and two of the final flush."""


class Walk:
    """Node ``a``, alone unless peer ``b`` comes, and a trainer that answers when it is told to."""

    def __init__(
        self,
        *,
        wait_for: int = 1,
        stay: bool = False,
        saved_before: bool = False,
        eval_every: str = "activation",
        alone: bool = False,
    ) -> None:
        settings = RunSettings(rounds=1, inner_steps=2, flush_mixes=0, topology="full")
        policy = default_policy(eval_every=eval_every, stay=stay, alone=alone)
        self.node = Node("a", ("a",), settings, policy, wait_for, saved_before)
        self.orders: deque[c.Command] = deque()
        self.now = 0.0

    @property
    def phase(self) -> Phase:
        return self.node.state.phase

    def hear(self, *events: e.Event) -> "Walk":
        for event in events:
            commands = self.node.handle(event, self.now)
            self.orders += [command for command in commands if type(command) in ANSWERS]
        return self

    def ready(self, position: Step = e.START) -> "Walk":
        """The trainer has loaded the model, or another trainer has."""
        self.orders.clear()
        sizes = FrameSizes(keyframe_bytes=(8, 8), update_bytes=(8, 8), signal_bytes=(0, 0), v_bytes=(0, 0))
        return self.hear(e.TrainerReady(ModelFacts("ab", ("body", "head"), (4, 4)), sizes, position))

    def obey(self) -> "Walk":
        """The trainer's answer to its oldest command."""
        command = self.orders.popleft()
        return self.hear(ANSWERS[type(command)](command))

    def until(self, phase: Phase, position: Step | None = None) -> "Walk":
        """Let the trainer work until the node is in ``phase``, at ``position``."""
        while self.phase is not phase or self.node.state.next != (position or self.node.state.next):
            self.obey()
        return self

    def ahead(self, activation: int = 1) -> "Walk":
        """Peer b comes, and is past this node."""
        return self.hear(e.PeerUp("b", activation))

    def wait(self) -> "Walk":
        """Time passes, to the next deadline."""
        deadline = self.node.next_deadline()
        assert deadline is not None
        self.now = deadline
        return self.hear(e.DeadlinePassed())


def loading() -> Walk:
    return Walk()


def gathering(position: Step = e.START, *, alone: bool = False) -> Walk:
    return Walk(wait_for=2, alone=alone).ready(position)


def evaluating() -> Walk:
    return Walk().ready()


def visiting() -> Walk:
    return evaluating().until(P.VISITING)


def keeping() -> Walk:
    return evaluating().until(P.KEEPING)


def measuring_the_end() -> Walk:
    return evaluating().until(P.EVALUATING, LAST)


def saving() -> Walk:
    return evaluating().until(P.SAVING)


def fetching() -> Walk:
    return evaluating().ahead().obey()


def awaiting_turn() -> Walk:
    """This node has taken over the first block while b works on it."""
    walk = fetching().hear(e.PeerProgress("b", 0), e.Fetched(1, ()))
    return walk.until(P.AWAITING_TURN)


def paused() -> Walk:
    return evaluating().hear(e.PauseRequested()).obey()


def leaving(*, stay: bool = False) -> Walk:
    return Walk(stay=stay).ready().until(P.SAVING).hear(e.PeerUp("b", 0)).obey()


def staying() -> Walk:
    return Walk(stay=True).ready().until(P.STAYING)


def stood() -> Walk:
    """A visit at a standstill, whose checkpoint is not written yet; the pause that led to it is over."""
    walk = visiting()
    while not isinstance(walk.orders[0], c.HalfStep):
        walk.obey()
    walk.hear(e.PauseRequested())
    while not isinstance(walk.orders[0], c.Checkpoint):
        walk.obey()
    return walk.hear(e.ResumeRequested())


def measured_before(position: Step) -> Walk:
    """All was trained and measured when the trainer died; the next one begins at ``position``."""
    return saving().hear(DIED).ready(position)


OFFER = e.OpenReceived("b", 1, 1, FrameId("b", FrameKind.KEYFRAME, 1, 0))
PAUSE, RESUME, STOP = e.PauseRequested(), e.ResumeRequested(), e.StopRequested()
PHASES: dict[Phase, Callable[[], Walk]] = {
    P.LOADING: lambda: visiting().hear(DIED),
    P.GATHERING: gathering,
    P.EVALUATING: evaluating,
    P.VISITING: visiting,
    P.KEEPING: keeping,
    P.FETCHING: fetching,
    P.AWAITING_TURN: awaiting_turn,
    P.PAUSED: paused,
    P.SAVING: saving,
    P.LEAVING: leaving,
    P.STAYING: staying,
}
WAYS: dict[tuple[Phase, Cause], Callable[[], Walk]] = {
    (P.LOADING, W.LOADED): gathering,
    (P.LOADING, W.STAY): lambda: Walk(stay=True, saved_before=True).ready(LAST),
    (P.LOADING, W.COMPLETE): lambda: Walk(saved_before=True).ready(LAST),
    (P.LOADING, W.PAUSE): lambda: visiting().hear(DIED, PAUSE).ready(),
    (P.LOADING, W.BEHIND): lambda: visiting().hear(DIED).ahead().ready(),
    (P.LOADING, W.VISIT): lambda: visiting().hear(DIED).ready(),
    (P.LOADING, W.MEASURE): lambda: measuring_the_end().hear(DIED).ready(LAST),
    (P.LOADING, W.TRAINED): lambda: measured_before(LAST),
    (P.GATHERING, W.PAUSE): lambda: gathering(Step(1, 0), alone=True).hear(PAUSE).wait(),
    (P.GATHERING, W.BEHIND): lambda: gathering().ahead(),
    (P.GATHERING, W.VISIT): lambda: gathering(Step(1, 0), alone=True).wait(),
    (P.GATHERING, W.MEASURE): lambda: gathering().hear(e.PeerUp("b", -1)),
    (P.EVALUATING, W.PAUSE): paused,
    (P.EVALUATING, W.BEHIND): fetching,
    (P.EVALUATING, W.VISIT): visiting,
    (P.EVALUATING, W.TRAINED): saving,
    (P.VISITING, W.WRITTEN): keeping,
    (P.VISITING, W.PAUSE): lambda: stood().hear(PAUSE).obey(),
    (P.VISITING, W.BEHIND): lambda: stood().ahead().obey(),
    (P.VISITING, W.VISIT): lambda: stood().obey(),
    (P.KEEPING, W.PAUSE): lambda: evaluating().until(P.KEEPING, LAST).hear(PAUSE).obey(),
    (P.KEEPING, W.BEHIND): lambda: evaluating().until(P.KEEPING, LAST).ahead(99).obey(),
    (P.KEEPING, W.VISIT): lambda: Walk(eval_every="never").ready().until(P.KEEPING).obey(),
    (P.KEEPING, W.MEASURE): lambda: keeping().obey(),
    (P.KEEPING, W.TRAINED): lambda: measured_before(Step(3, 0)).until(P.SAVING),
    (P.FETCHING, W.ADOPTED): awaiting_turn,
    (P.FETCHING, W.PAUSE): lambda: fetching().hear(PAUSE, e.FetchFailed("gone")).wait(),
    (P.FETCHING, W.BEHIND): lambda: fetching().hear(e.FetchFailed("gone")).wait(),
    (P.FETCHING, W.VISIT): lambda: fetching().hear(e.PeerDown("b", "gone"), e.FetchFailed("gone")).wait(),
    # A peer says that it is further than the run is long, and then goes.
    (P.FETCHING, W.MEASURE): lambda: (
        evaluating().until(P.KEEPING, LAST).ahead(99).obey().hear(e.FetchFailed("gone"), e.PeerDown("b", "gone")).wait()
    ),
    (P.FETCHING, W.TRAINED): lambda: (
        measuring_the_end().ahead(99).obey().hear(e.FetchFailed("gone"), e.PeerDown("b", "gone")).wait()
    ),
    (P.AWAITING_TURN, W.PAUSE): lambda: awaiting_turn().hear(PAUSE),
    (P.AWAITING_TURN, W.BEHIND): lambda: awaiting_turn().hear(e.PeerProgress("b", 3)),
    (P.AWAITING_TURN, W.VISIT): lambda: awaiting_turn().hear(OFFER),
    (P.AWAITING_TURN, W.MEASURE): lambda: fetching().hear(e.Fetched(LAST.activation, ())).until(P.EVALUATING),
    (P.AWAITING_TURN, W.TRAINED): lambda: (
        saving().hear(DIED).ahead(4).ready(Step(3, 0)).hear(e.Fetched(LAST.activation, ())).obey()
    ),
    (P.PAUSED, W.BEHIND): lambda: paused().ahead().hear(RESUME),
    (P.PAUSED, W.VISIT): lambda: paused().hear(RESUME),
    (P.PAUSED, W.MEASURE): lambda: evaluating().until(P.KEEPING, LAST).hear(PAUSE).obey().hear(RESUME),
    (P.PAUSED, W.TRAINED): lambda: measuring_the_end().hear(PAUSE).obey().hear(RESUME),
    (P.SAVING, W.SAVED): leaving,
    (P.SAVING, W.STOP): lambda: saving().hear(STOP).obey(),
    (P.LEAVING, W.STAY): lambda: leaving(stay=True).hear(e.ByeReceived("b")),
    (P.LEAVING, W.COMPLETE): lambda: leaving().hear(e.ByeReceived("b")),
    (P.KEEPING, W.STOP): lambda: keeping().hear(STOP).obey(),
    (P.VISITING, W.STOP): lambda: visiting().hear(STOP),
}
WAYS |= {(phase, W.DIED): lambda way=way: way().hear(DIED) for phase, way in PHASES.items()}
WAYS |= {(phase, W.FAIL): lambda way=way: way().hear(REFUSED) for phase, way in PHASES.items()}
WAYS = {(phase, W.STOP): lambda way=way: way().hear(STOP) for phase, way in PHASES.items()} | WAYS


@pytest.mark.parametrize("phase", PHASES)
def test_the_walks_begin_where_they_say(phase: Phase) -> None:
    assert PHASES[phase]().phase is phase


@pytest.mark.parametrize(
    ("phase", "cause"), [(phase, cause) for phase, row in NODE_PHASES.rows.items() for cause in row]
)
def test_every_transition_is_reached(phase: Phase, cause: Cause, seen: Seen) -> None:
    WAYS[phase, cause]()
    assert ("node", phase, cause) in seen


@pytest.mark.parametrize("how", ["a stop at a standstill", "a leave"])
def test_a_node_that_is_told_to_end_in_a_visit_ends_once_the_checkpoint_is_written(how: str) -> None:
    walk = stood().hear(e.LeaveRequested() if how == "a leave" else STOP)
    assert walk.phase is P.VISITING
    assert walk.obey().phase is P.STOPPED, "its run is not done"
