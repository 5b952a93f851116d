"""Reads ``metrics.jsonl``, which a node writes while it runs: one JSON object per line.

A report can be of a node that was killed, or of a node of a newer version. So lines of unknown kinds are ignored, and
incomplete lines are counted.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from deca_node.daemon.status.lives import Lives, counts_bytes
from deca_node.protocol.errors import DataError
from deca_node.storage.jsons import UNFIT, parse


@dataclass(frozen=True)
class StepFigures:
    """One step of one node.

    ``loss`` is the loss of the step's batch in nats per token, or None in a mix without a gradient. The two distances
    are root mean squares over the elements of the block in training: to the mean of the node and its neighbours, and to
    each neighbour. They are None if nothing was exchanged. Bytes count over all starts of the node, and ``life`` is the
    number of the start.
    """

    time: float
    round: int
    block: int
    inner: int
    ordinal: int
    loss: float | None
    consensus_distance: float | None
    disagreement: float | None
    bytes_sent: int
    bytes_received: int
    step_seconds: float
    life: int = 1


@dataclass(frozen=True)
class HeldoutFigures:
    """The mean loss over a node's own held-out text, in nats per token, before step ``ordinal``. The loss of a
    classifier is per record, and it has shares, from 0 to 1."""

    time: float
    when: str
    ordinal: int
    loss: float
    accuracy: float | None = None
    macro_f1: float | None = None


@dataclass(frozen=True)
class Metrics:
    """All metrics of one node in the order of the file. ``unreadable`` counts incomplete lines. Bytes are those of all
    starts of the node until the last line, and ``lives`` is the number of its starts."""

    steps: tuple[StepFigures, ...] = ()
    evaluations: tuple[HeldoutFigures, ...] = ()
    unreadable: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    lives: int = 1

    @property
    def done(self) -> int:
        """The number of different steps that the node did. Steps that it did again after a crash count once."""
        return len({step.ordinal for step in self.steps})

    def spans(self) -> Iterator[tuple[StepFigures, ...]]:
        """The steps in groups that follow each other without a gap. A node that was away, or that went back to a
        checkpoint, begins another group."""
        group: list[StepFigures] = []
        for step in self.steps:
            if group and step.ordinal != group[-1].ordinal + 1:
                yield tuple(group)
                group = []
            group.append(step)
        if group:
            yield tuple(group)

    def measured(self) -> Iterator[tuple[HeldoutFigures, ...]]:
        """The evaluations in groups between which the node was away, or went back to a checkpoint."""
        ends = [(span[0].ordinal, span[-1].ordinal) for span in self.spans()]
        holes = [(last, first) for (_, last), (first, _) in pairwise(ends) if first > last + 1]
        group: list[HeldoutFigures] = []
        for each in self.evaluations:
            before = group[-1].ordinal if group else each.ordinal
            if each.ordinal < before or any(last + 1 < each.ordinal and first > before for last, first in holes):
                yield tuple(group)
                group = []
            group.append(each)
        if group:
            yield tuple(group)


def read_metrics(path: Path) -> Metrics:
    """Read one node's ``metrics.jsonl``. Raises DataError if there is no such file."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"the metrics in {path} cannot be read: {error.strerror or error}") from error
    steps: list[StepFigures] = []
    evaluations: list[HeldoutFigures] = []
    unreadable, lives = 0, Lives()
    for line in lines:
        try:
            facts = parse(line)
            if counts_bytes(facts):
                lives.take(facts)
            match facts["kind"]:
                case "step":
                    steps.append(_step(facts, lives))
                case "eval":
                    evaluations.append(_evaluation(facts))
        except UNFIT:
            unreadable += 1
    return Metrics(tuple(steps), tuple(evaluations), unreadable, lives.sent, lives.received, lives.number)


def _step(facts: Mapping[str, Any], lives: Lives) -> StepFigures:
    return StepFigures(
        time=float(facts["time"]),
        round=int(facts["round"]),
        block=int(facts["block"]),
        inner=int(facts["inner"]),
        ordinal=int(facts["ordinal"]),
        loss=_optional(facts, "loss"),
        consensus_distance=_optional(facts, "consensus_distance"),
        disagreement=_optional(facts, "disagreement_rms"),
        bytes_sent=lives.sent,
        bytes_received=lives.received,
        step_seconds=float(facts["step_seconds"]),
        life=lives.number,
    )


def _evaluation(facts: Mapping[str, Any]) -> HeldoutFigures:
    return HeldoutFigures(
        time=float(facts["time"]),
        when=str(facts["when"]),
        ordinal=int(facts["ordinal"]),
        loss=float(facts["loss"]),
        accuracy=_optional(facts, "accuracy"),
        macro_f1=_optional(facts, "macro_f1"),
    )


def _optional(facts: Mapping[str, Any], name: str) -> float | None:
    value = facts.get(name)
    return None if value is None else float(value)
