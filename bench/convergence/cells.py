"""One cell: a method, a task, a seed and the settings it was run with; what came of it; and the file that keeps both.

A cell's key is a hash of everything that decides its outcome but the machine's arithmetic, so that a line in the
file answers for the cell for ever: a sweep that is stopped goes on, and one that is extended does what is new.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RECIPE = 1
"""Raised when the same cell would come out differently: then every line is of the past, and none is used."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Everything that a run is told. ``settings`` are those of :class:`RunSettings` in which it differs from
    ``COMMON``, and the method's own (rank, width)."""

    task: str
    digest: str
    """Of the task's text, as this machine has it."""

    start: str
    """Of the start model's parameters."""

    method: str
    """How a step is taken: deca, decay-only, isolated, centralized, lora, adapter or decaf."""

    seed: int
    learning_rate: float
    nodes: int = 8
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def key(self) -> str:
        """16 hexadecimal digits."""
        text = json.dumps([RECIPE, dataclasses.asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of it. Losses are means over nodes, each on the text of all domains, in nats per token."""

    validation: float
    test: float
    test_by_node: tuple[float, ...]
    mean_model: float
    """Test loss of the mean of all nodes' models; that of the start model where a method has no such mean."""

    accuracy: float | None = None
    f1: float | None = None
    curve: tuple[tuple[int, float], ...] = ()
    """(steps, validation loss on a part of the text) at the start and after every visit."""

    consensus: tuple[float, ...] = ()
    """RMS distance to the mean over all trained elements after every visit, before its flush; the last is after the
    run's final flush."""

    bytes_sent: int = 0
    """By all nodes together, frames and keyframes."""

    bytes_per_step: float = 0.0
    """By one node to one neighbour, per step with a gradient; keyframes and the visits' mixes count, the final flush
    does not."""

    state_mib: float = 0.0
    """Of one node: parameters and all that training keeps beside them, at its largest."""

    cpu_seconds: float = 0.0
    diverged: str = ""
    """Why the run ended early; the losses are infinite then."""

    extra: dict[str, float] = field(default_factory=dict)


class Book:
    """The cells that are done, in one file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._outcomes: dict[str, tuple[Cell, Outcome, str]] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._remember(json.loads(line))

    def get(self, cell: Cell) -> Outcome | None:
        """What is written down of this cell."""
        found = self._outcomes.get(cell.key)
        return found[1] if found else None

    def add(self, cell: Cell, outcome: Outcome, date: str) -> None:
        """Write it down, as one line."""
        entry = {"date": date, "cell": dataclasses.asdict(cell), "outcome": dataclasses.asdict(outcome)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, separators=(",", ":")) + "\n")
        self._remember(json.loads(json.dumps(entry)))

    def __iter__(self) -> Iterator[tuple[Cell, Outcome, str]]:
        return iter(self._outcomes.values())

    def _remember(self, entry: dict[str, Any]) -> None:
        cell = Cell(**entry["cell"] | {"settings": tuple((name, value) for name, value in entry["cell"]["settings"])})
        raw = entry["outcome"]
        tuples = {"test_by_node": tuple(raw["test_by_node"]), "consensus": tuple(raw["consensus"])}
        curve = tuple((steps, loss) for steps, loss in raw["curve"])
        self._outcomes[cell.key] = cell, Outcome(**raw | tuples | {"curve": curve}), entry["date"]
