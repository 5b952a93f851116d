"""One cell: a method, a task, a seed and settings; its outcome; and the file that keeps both.

The key of a cell is a hash of everything that determines its outcome, except for the machine's arithmetic. So a line in
the file remains valid: a sweep that was stopped continues, and one that is extended runs only new cells.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RECIPE = 1
"""To be raised when the same cell would give another outcome. Then all lines are obsolete, and none is used."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The complete input of a run. ``settings`` are those fields of :class:`RunSettings` that differ from ``COMMON``,
    and the method's own settings (rank, width)."""

    task: str
    digest: str
    """Hash of the task's text on this machine."""

    start: str
    """Hash of the start model's parameters."""

    method: str
    """The kind of training: deca, decay-only, isolated, centralized, lora, adapter or decaf."""

    seed: int
    learning_rate: float
    nodes: int = 8
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def key(self) -> str:
        """The key: 16 hexadecimal digits."""
        text = json.dumps([RECIPE, dataclasses.asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a cell. Losses are means over nodes, each on the text of all domains, in nats per token."""

    validation: float
    test: float
    test_by_node: tuple[float, ...]
    mean_model: float
    """Test loss of the mean of all nodes' models, or of the start model if the method has no such mean."""

    accuracy: float | None = None
    f1: float | None = None
    curve: tuple[tuple[int, float], ...] = ()
    """(steps, validation loss on a part of the text), at the start and after every visit."""

    consensus: tuple[float, ...] = ()
    """RMS distance to the mean over all trained elements after every visit, before its flush. The last value is after
    the final flush of the run."""

    bytes_sent: int = 0
    """Bytes of all nodes together, in updates and keyframes."""

    bytes_per_step: float = 0.0
    """Bytes of one node to one neighbour, per step with a gradient. Keyframes and mixes of visits count, the final
    flush does not."""

    state_mib: float = 0.0
    """Memory of one node at its peak: parameters and all state of training."""

    cpu_seconds: float = 0.0
    diverged: str = ""
    """Why the run ended early. The losses are infinite then."""

    extra: dict[str, float] = field(default_factory=dict)


class Book:
    """The finished cells, in one file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._outcomes: dict[str, tuple[Cell, Outcome, str]] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._remember(json.loads(line))

    def get(self, cell: Cell) -> Outcome | None:
        """The recorded outcome of this cell."""
        found = self._outcomes.get(cell.key)
        return found[1] if found else None

    def add(self, cell: Cell, outcome: Outcome, date: str) -> None:
        """Record an outcome as one line."""
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
