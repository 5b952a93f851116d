"""One finished step as one value. The journal, the history and the status all take their numbers from it.

::

    Activated ... HalfStepped ... Mixed | HalfStepped ... Mixed | ...
    |<------- one step's seconds ------>|<- the next one's ---->|
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deca_node.daemon.status.lives import FIRST, Life
from deca_node.protocol import events as e
from deca_node.protocol.agreed.schedule import Activation, Ordinal, Step
from deca_node.protocol.node.state import NodeState

WORK = ("compute_seconds", "encode_seconds", "mix_seconds")
"""Figures with the time that the trainer worked in a step. It waited for the rest of the step."""

Traffic = Mapping[str, Mapping[str, int]]
"""Bytes since the node's start, by peer and by direction and kind, as in ``sent.update``."""


@dataclass(frozen=True, kw_only=True)
class StepDone:
    """A step that is computed and mixed.

    ``figures`` are the trainer's, by name. ``seconds`` begin with the mix before, or with the visit or the resumption
    if one of these came later. ``time`` is in unix seconds, ``clock`` on the monotonic clock. Bytes count from the
    node's start; ``life`` says what came before it.
    """

    step: Step
    activation: Activation
    ordinal: Ordinal
    figures: Mapping[str, float]
    seconds: float
    time: float
    clock: float
    sent_bytes: int
    received_bytes: int
    life: Life = FIRST

    @property
    def wait_seconds(self) -> float:
        """The part of the step in which the trainer had nothing to do."""
        return waited(self.figures, self.seconds)


class StepWatch:
    """Puts a step together from the events of one node. ``clock`` is monotonic, ``wall`` gives unix seconds."""

    def __init__(
        self,
        node: NodeState,
        traffic: Callable[[], Traffic] = dict,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        life: Life = FIRST,
    ) -> None:
        self._node = node
        self._traffic = traffic
        self._clock = clock
        self._wall = wall
        self._life = life
        self._half: dict[Step, Mapping[str, float]] = {}
        self._began = clock()

    def observe(self, event: e.Event) -> StepDone | None:
        """Take an event before the node does; the step that it finishes, if any."""
        match event:
            case e.TrainerReady() | e.Activated():
                self._half.clear()
                self._began = self._clock()
            case e.ResumeRequested():
                self._began = self._clock()
            case e.HalfStepped():
                self._half[event.step] = event.scalars
            case e.Mixed() if event.step in self._half:
                return self._done(event)
        return None

    def _done(self, event: e.Mixed) -> StepDone:
        now, began = self._clock(), self._began
        self._began = now
        schedule, traffic = self._node.schedule, self._traffic()
        return StepDone(
            step=event.step,
            activation=schedule[event.step.activation],
            ordinal=schedule.ordinal(event.step),
            # A late flow may be mixed after its step, under the same number: that is no step of its own.
            figures={**self._half.pop(event.step), **event.scalars},
            seconds=now - began,
            time=self._wall(),
            clock=now,
            sent_bytes=_total(traffic, "sent."),
            received_bytes=_total(traffic, "received."),
            life=self._life,
        )


def waited(figures: Mapping[str, float | None], seconds: float) -> float:
    """What remains of a step's ``seconds`` without the trainer's work."""
    work = [value for name in WORK if (value := figures.get(name)) is not None and math.isfinite(value)]
    return max(seconds - sum(work), 0.0)


def measured_at(node: NodeState) -> Ordinal:
    """The step, counted from the start of the run, after which a measurement of the held-out loss counts: the end of
    the visit that has just ended, or 0 before the first."""
    visit = node.visit
    return node.schedule.ordinal(Step(visit.activation.index, visit.activation.steps)) if visit else Ordinal(0)


def _total(traffic: Traffic, prefix: str) -> int:
    return sum(nbytes for kinds in traffic.values() for kind, nbytes in kinds.items() if kind.startswith(prefix))
