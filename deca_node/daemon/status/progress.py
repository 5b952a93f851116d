"""How far the run is, as log lines that have every number a person asks for::

    round 2/4  block 3/7 (layers.2)  step 17/50  38 %  loss 2.5012  held-out 2.7501  2.3 steps per second  12 min left

There is a line after every visit, and one every 30 s at least. While something else takes long, the line names it.
"""

import time
from collections.abc import Callable, Iterator, Mapping

from deca_node.daemon.logs import say
from deca_node.daemon.status.facts import Position, Status
from deca_node.daemon.status.steps import StepDone
from deca_node.protocol import events as e
from deca_node.protocol.node.phases import Phase
from deca_node.protocol.node.state import NodeState

EVERY_SECONDS = 30.0
LOOK_SECONDS = 1.0
"""The time between two looks at the node."""
WORKING = frozenset({Phase.LOADING, Phase.EVALUATING, Phase.KEEPING, Phase.SAVING})
"""Phases in which the trainer does something that takes long on a large model."""

Words = Callable[[Status], str]


class ProgressLog:
    """Writes the lines of one node. ``clock`` is monotonic."""

    def __init__(self, status: Callable[[], Status], clock: Callable[[], float] = time.monotonic) -> None:
        self._status = status
        self._clock = clock
        self._said = clock()
        self._phase, self._since = "", self._said
        self._stepped = False

    def observe(self, event: e.Event, done: StepDone | None = None) -> None:
        """Take an event after the status has taken it, and before the node does."""
        self._stepped = self._stepped or done is not None
        if isinstance(event, e.Frozen) and self._stepped:
            self._stepped = False
            self._say(progress_line)
        elif isinstance(event, e.Evaluated | e.TrainerReady):
            self._said = self._clock()  # their own log lines are new

    def look(self) -> None:
        """Write a line if none was written for long."""
        phase = self._status().phase
        if phase != self._phase:
            self._phase, self._since = phase, self._clock()
        if self._clock() - self._said < EVERY_SECONDS:
            return
        if phase == Phase.VISITING:
            self._say(progress_line)
        elif phase in WORKING and self._clock() - self._since >= EVERY_SECONDS:
            self._say(lambda status: f"still {status.doing}")

    def _say(self, words: Words) -> None:
        status = self._status()
        say(words(status), facts=progress_facts(status))
        self._said = self._clock()


def doing_words(node: NodeState, at: Position | None, remark: str) -> str:
    """What a node at this place does now, as words that follow "now" or "still". ``remark`` is the trainer's last one
    while it loads."""
    waiting = "" if node.awaits_trainer else f"waiting for {node.awaits()}"
    match node.phase:
        case Phase.LOADING:
            return remark or "starting the trainer"
        case Phase.VISITING if at:
            what = "training" if at.round <= at.rounds else "mixing"
            return f"{what} block {at.block} of {at.blocks} ({at.block_name}){waiting and f', {waiting}'}"
    return _DOING.get(node.phase, waiting)


_DOING = {
    Phase.EVALUATING: "measuring the held-out loss",
    Phase.KEEPING: "writing a checkpoint",
    Phase.SAVING: "writing the tuned model",
    Phase.STAYING: "nothing: the run is complete (deca-node stop ends the node)",
    Phase.DONE: "nothing: the run is complete",
    Phase.STOPPED: "nothing: the node was stopped",
    Phase.FAILED: "nothing: the node has failed",
}


def progress_line(status: Status) -> str:
    """Where the node stands, its losses, its pace and the time left."""
    return "  ".join(_parts(status))


def progress_facts(status: Status) -> Mapping[str, float]:
    """The numbers of such a line for programs, as far as they are known."""
    facts = {
        "loss": status.train_loss,
        "heldout_loss": status.heldout_loss,
        "consensus_distance": status.consensus_distance,
        "steps_per_second": status.steps_per_second,
        "remaining_seconds": status.remaining_seconds,
    }
    return {name: value for name, value in facts.items() if value is not None}


def pace_words(status: Status) -> Iterator[str]:
    """Steps per second and the time left, as far as they are known."""
    if status.steps_per_second:
        yield f"{status.steps_per_second:.3g} steps per second"
    if status.remaining_seconds is not None:
        yield f"{_span(status.remaining_seconds)} left"


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def _parts(status: Status) -> Iterator[str]:
    if at := status.position:
        yield _where(at)
        yield f"{100 * at.done / max(at.total, 1):.0f} %"
    if status.train_loss is not None:
        yield f"loss {status.train_loss:.4f}"
    if status.heldout_loss is not None:
        yield f"held-out {status.heldout_loss:.4f}"
    if status.heldout_accuracy is not None:
        yield f"accuracy {status.heldout_accuracy:.3f}"
    if status.consensus_distance is not None:
        yield f"consensus distance {status.consensus_distance:.2e}"
    yield from pace_words(status)


def _where(at: Position) -> str:
    place = f"round {at.round}/{at.rounds}" if at.round <= at.rounds else "final flush"
    return f"{place}  block {at.block}/{at.blocks} ({at.block_name})  step {at.step}/{at.steps}"
