"""Results from lines of JSON: each arm's outcomes by seed, and differences between arms seed by seed.

A seed determines the graph, the nodes' texts and the order of the batches, in the same way for every arm. So two arms
are compared seed by seed: most of the difference between seeds is common to both and cancels.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import NamedTuple

from bench.convergence.arms import BY_NAME, Arm
from bench.convergence.cells import Book, Cell, Outcome
from bench.convergence.sweep import TUNING_SEED, best_on_grid

BEYOND = 2.0
"""A difference is beyond the spread if its mean is so many standard errors and no seed contradicts it."""


class Spread(NamedTuple):
    """Mean and sample standard deviation over seeds. With a single seed the deviation is unknown, and NaN."""

    mean: float
    deviation: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of at least one value."""
        return cls(mean(values), stdev(values) if len(values) > 1 else math.nan, len(values))

    def __str__(self) -> str:
        spread = "" if math.isnan(self.deviation) else f" ± {self.deviation:.4f}"
        return f"{self.mean:.4f}{spread}"


class Difference(NamedTuple):
    """One arm minus another, seed by seed."""

    by_seed: tuple[float, ...]
    share: float
    """The mean difference as a share of the other arm's mean."""

    @property
    def spread(self) -> Spread:
        return Spread.of(self.by_seed)

    @property
    def clear(self) -> bool:
        """Whether the difference is beyond the spread over seeds."""
        same_sign = all(d > 0 for d in self.by_seed) or all(d < 0 for d in self.by_seed)
        spread = self.spread
        return (
            same_sign and spread.count >= 3 and abs(spread.mean) > BEYOND * spread.deviation / math.sqrt(spread.count)
        )


@dataclass(frozen=True)
class Results:
    """One task's outcomes at each arm's own step size. ``by_arm``: arm, seed, outcome."""

    task: str
    digest: str
    rates: Mapping[str, float]
    by_arm: Mapping[str, Mapping[int, Outcome]]
    dates: tuple[str, str]
    cells: int

    def has(self, *names: str) -> bool:
        """Whether all these arms have outcomes."""
        return all(self.by_arm.get(name) for name in names)

    def spread(self, name: str, of: Callable[[Outcome], float]) -> Spread:
        """The spread of one figure over the seeds of an arm."""
        return Spread.of([of(outcome) for outcome in self.by_arm[name].values()])

    def difference(self, name: str, other: str, of: Callable[[Outcome], float] = lambda o: o.test) -> Difference:
        """``name`` minus ``other``, over the seeds of both. There must be at least one."""
        ours, theirs = self.by_arm[name], self.by_arm[other]
        seeds = sorted(set(ours) & set(theirs))
        differences = tuple(of(ours[s]) - of(theirs[s]) for s in seeds)
        return Difference(differences, mean(differences) / mean(of(theirs[s]) for s in seeds))


def summarize(
    task: str, book: Book, rates: Mapping[str, float] | None = None, arms: Mapping[str, Arm] = BY_NAME
) -> Results | None:
    """The book's results of the task, on the text that most of its lines have. None if there are no lines.

    ``rates`` are the arms' step sizes, if tuning was done elsewhere.
    """
    lines = [line for line in book if line[0].task == task]
    if not lines:
        return None
    kinds = [(cell.digest, cell.start) for cell, _, _ in lines]
    kind = max(set(kinds), key=kinds.count)
    lines = [line for line in lines if (line[0].digest, line[0].start) == kind]
    outcomes = {identity(cell): outcome for cell, outcome, _ in lines}
    found = {arm.name: (rates or {}).get(arm.name) or tuned(arm, outcomes, arms) for arm in arms.values()}
    chosen = {name: rate for name, rate in found.items() if rate}
    seeds = sorted({cell.seed for cell, _, _ in lines} - {TUNING_SEED})
    by_arm = {
        name: {s: outcomes[key] for s in seeds if (key := (*facts(arms[name]), s, rate)) in outcomes}
        for name, rate in chosen.items()
    }
    dates = sorted(date for _, _, date in lines)
    return Results(task, kind[0], chosen, by_arm, (dates[0][:10], dates[-1][:10]), len(lines))


Identity = tuple[object, ...]


def facts(arm: Arm) -> Identity:
    """The fields that tell an arm's cells from those of others."""
    return arm.method, tuple(sorted(arm.settings.items()))


def identity(cell: Cell) -> Identity:
    """The same fields of a cell, with its seed and step size."""
    return cell.method, cell.settings, cell.seed, cell.learning_rate


def tuned(arm: Arm, outcomes: Mapping[Identity, Outcome], arms: Mapping[str, Arm] = BY_NAME) -> float | None:
    """The step size that tuning found, or None if tuning is not finished."""
    if arm.like:
        return tuned(arms[arm.like], outcomes, arms)
    try:
        return best_on_grid(arm.rate, lambda rate: outcomes[*facts(arm), TUNING_SEED, rate].validation)
    except KeyError:
        return None
