"""What a node has done: steps, visits of blocks, and evaluations, from the lines of its ``metrics.jsonl``.

A node adds a line when a step is done or the held-out loss is measured. A visit is the steps of one block in one round;
it is complete when a step of another visit follows, or when the node has ended. Numbers of rounds, blocks and steps
count from 1 here, as in the node's status.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deca_node.storage.jsons import UNFIT, parse

LINE_BYTES_MAX = 1 << 20
"""No line of the file is longer."""
PLACE = frozenset({"time", "kind", "node", "round", "block", "inner", "ordinal"})


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Training of one node in one block. ``done`` is the number of steps that the run has done with it.

    ``figures`` are all numbers of the last step by name, such as ``grad_norm``, ``learning_rate``,
    ``consensus_distance``, ``bytes_sent`` and ``step_seconds``; docs/ARCHITECTURE.md lists them. ``loss`` is in nats
    per token.
    """

    node: str
    round: int
    block: int
    done: int
    loss: float | None
    figures: Mapping[str, float] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Step(Trained):
    """One step. ``loss`` is that of the step's batch; it is None in a mix without a gradient."""

    time: float
    step: int


@dataclass(frozen=True, kw_only=True)
class Visit(Trained):
    """One visit of a block: the number of its ``steps``, their seconds together, and the mean of their losses."""

    steps: int
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """A measurement of the held-out loss, in nats per token, after ``done`` steps of the run.

    A classifier's loss is per record, and it has an accuracy and a macro-F1, from 0 to 1.
    """

    node: str
    time: float
    when: str
    done: int
    loss: float
    accuracy: float | None = None
    macro_f1: float | None = None


Record = Step | Visit | Evaluation


def record_of(line: bytes | str) -> Step | Evaluation | None:
    """A line of the file; None for lines of other kinds, and for a line that a crash cut."""
    try:
        facts = parse(line)
        match facts["kind"]:
            case "step":
                return _step(facts)
            case "eval":
                return _evaluation(facts)
    except UNFIT:
        pass
    return None


def read_records(path: Path) -> Iterator[Step | Evaluation]:
    """All records of a file, one at a time. A missing file has none."""
    try:
        with path.open("rb") as file:
            yield from (record for line in file if (record := record_of(line)))
    except FileNotFoundError:
        return


class Follower:
    """The records that a node adds to the file at ``path`` from now on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file, self._offset = _identity(path), _end_of_lines(path)
        self._visit: list[Step] = []

    def new(self) -> Iterator[Record]:
        """The records since the last call. A visit comes before the first step of the next one."""
        for line in self._lines():
            record = record_of(line)
            if isinstance(record, Step):
                yield from self._ended(record)
                self._visit.append(record)
            if record is not None:
                yield record

    def rest(self) -> Iterator[Record]:
        """The same after the node has ended, with the last visit."""
        yield from self.new()
        yield from self._ended(None)

    def _ended(self, following: Step | None) -> Iterator[Visit]:
        if self._visit and (following is None or _place(following) != _place(self._visit[0])):
            visit, self._visit = self._visit, []
            yield _visit(visit)

    def _lines(self) -> list[bytes]:
        """The whole lines behind those that were read. A new run begins a new file."""
        identity = _identity(self._path)
        if identity is None:
            return []
        if identity != self._file:
            self._file, self._offset = identity, 0
        with self._path.open("rb") as file:
            file.seek(self._offset)
            whole = file.read().rpartition(b"\n")
        self._offset += len(whole[0]) + len(whole[1])
        return whole[0].splitlines()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return facts.st_dev, facts.st_ino


def _end_of_lines(path: Path) -> int:
    """Where the last whole line ends. A node that starts cuts a line that a crash left unfinished."""
    try:
        with path.open("rb") as file:
            begin = max(0, file.seek(0, os.SEEK_END) - LINE_BYTES_MAX)
            file.seek(begin)
            whole = file.read().rpartition(b"\n")
    except FileNotFoundError:
        return 0
    return begin + len(whole[0]) + len(whole[1])


def _place(step: Step) -> tuple[int, int]:
    return step.round, step.block


def _visit(steps: list[Step]) -> Visit:
    last, losses = steps[-1], [step.loss for step in steps if step.loss is not None]
    return Visit(
        node=last.node,
        round=last.round,
        block=last.block,
        steps=len(steps),
        done=last.done,
        seconds=sum(step.figures.get("step_seconds", 0.0) for step in steps),
        loss=sum(losses) / len(losses) if losses else None,
        figures=last.figures,
    )


def _step(facts: Mapping[str, Any]) -> Step:
    numbers = {name: float(value) for name, value in facts.items() if name not in PLACE and _is_number(value)}
    return Step(
        node=str(facts["node"]),
        time=float(facts["time"]),
        round=int(facts["round"]) + 1,
        block=int(facts["block"]) + 1,
        step=int(facts["inner"]) + 1,
        done=int(facts["ordinal"]) + 1,
        loss=numbers.get("loss"),
        figures=numbers,
    )


def _evaluation(facts: Mapping[str, Any]) -> Evaluation:
    return Evaluation(
        node=str(facts["node"]),
        time=float(facts["time"]),
        when=str(facts["when"]),
        done=int(facts["ordinal"]),
        loss=float(facts["loss"]),
        accuracy=_optional(facts.get("accuracy")),
        macro_f1=_optional(facts.get("macro_f1")),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _optional(value: Any) -> float | None:
    return None if value is None else float(value)
