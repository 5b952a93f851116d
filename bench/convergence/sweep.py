"""The cells of a task, which of them is next, and how the step size of every arm is found.

Tuning walks a grid of factor 2, up and down from where the arm begins, until both neighbours of the best rate are
worse. So the best rate is never at an edge of the grid. Tuning uses its own seeds, hence other graphs and other
distributions of the text, and the validation split. The tables show the test split at the seeds 0, 1, 2, ...
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from transformers import PreTrainedModel

from bench.convergence import runs
from bench.convergence.arms import BY_NAME, Arm
from bench.convergence.cells import Book, Cell, Outcome
from bench.convergence.tasks import Task

TUNING_SEED = 100
FACTOR_MAX = 8
"""The most steps of factor 2 from the first rate."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Sweep:
    """One task's cells: made, looked up, run."""

    task: Task
    start: PreTrainedModel
    start_hash: str
    book: Book
    say: Say
    deadline: float = float("inf")
    """On the clock of :func:`time.monotonic`. No cell begins later."""

    arms: Mapping[str, Arm] = field(default_factory=lambda: BY_NAME)
    run_cell: Callable[[Cell], Outcome] | None = None
    """Runs a cell, if it is not one of the small models'."""
    nodes: int = 8

    def cell(self, arm: Arm, seed: int, rate: float) -> Cell:
        """The cell of an arm at a seed and a step size."""
        return Cell(
            task=self.task.name,
            digest=self.task.digest,
            start=self.start_hash,
            method=arm.method,
            seed=seed,
            learning_rate=rate,
            nodes=self.nodes,
            settings=tuple(sorted(arm.settings.items())),
        )

    def outcome(self, arm: Arm, seed: int, rate: float) -> Outcome:
        """The outcome: from its line, or from a run now. Raises OutOfTimeError if it is too late to run."""
        cell = self.cell(arm, seed, rate)
        found = self.book.get(cell)
        if found is not None:
            return found
        if time.monotonic() > self.deadline:
            raise OutOfTimeError
        outcome = self.run_cell(cell) if self.run_cell else runs.run(cell, self.task, self.start)
        self.book.add(cell, outcome, datetime.now(UTC).isoformat(timespec="seconds"))
        self.say(
            f"{self.task.name:9} {arm.name:16} seed {seed:3} rate {rate:.1e}  validation {outcome.validation:.4f}  "
            f"test {outcome.test:.4f}  {outcome.cpu_seconds:.0f} s of CPU"
        )
        return outcome

    def rate(self, arm: Arm) -> float:
        """The arm's step size: that of the arm it is like, or the best on the factor-2 grid."""
        if arm.like:
            return self.rate(self.arms[arm.like])
        return best_on_grid(arm.rate, lambda rate: self.outcome(arm, TUNING_SEED, rate).validation)

    def finish(self, arms: Sequence[str], seeds: Sequence[int]) -> None:
        """Run the missing cells of these arms one after the other. An arm's own number of seeds is the limit."""
        for arm in (self.arms[name] for name in arms):
            rate = self.rate(arm)
            for seed in seeds:
                if seed < arm.seeds:
                    self.outcome(arm, seed, rate)


class OutOfTimeError(Exception):
    """The time is over. All finished cells are recorded."""


def best_on_grid(first: float, loss: Callable[[float], float]) -> float:
    """The rate first * 2^k with the least loss, such that both of its neighbours are worse."""
    best = 0
    losses: dict[int, float] = {}

    def at(k: int) -> float:
        if k not in losses:
            losses[k] = loss(first * 2.0**k)
        return losses[k]

    while abs(best) < FACTOR_MAX:
        near = min((best, best + 1, best - 1), key=at)
        if near == best:
            break
        best = near
    return first * 2.0**best


def rates(sweep: Sweep, arms: Sequence[Arm]) -> Iterator[tuple[str, float]]:
    """The step sizes of all arms whose tuning is finished."""
    without_time = replace(sweep, deadline=-1.0)
    for arm in arms:
        try:
            yield arm.name, without_time.rate(arm)
        except OutOfTimeError:
            continue
