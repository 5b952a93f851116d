"""What came of a soak as figures, and as sentences about the promises that were broken."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

LOSS_PERCENT = 2.0
DISTANCE = 1e-3
"""Largest difference between two copies of a parameter at the end."""
MIB_PER_HOUR, MIB = 32.0, 16.0
"""Memory is flat if it grows no faster, or in the whole soak by no more."""
SETTLING_SECONDS = 120.0
"""So long from its first step a process does not count: it is still taking the memory that it needs."""


class Sample(NamedTuple):
    """The resident memory of a process in bytes, at a time in seconds."""

    name: str
    role: str
    pid: int
    time: float
    rss: int


@dataclass(frozen=True)
class Course:
    """One run of the four nodes: per node its last held-out loss, the steps that some node did, how many steps were
    done again, the largest difference between two copies, and how long the run took."""

    losses: Mapping[str, float]
    steps: frozenset[int]
    redone: int
    distance: float
    seconds: float

    @property
    def loss(self) -> float:
        """The mean over the nodes."""
        return fmean(self.losses.values()) if self.losses else math.nan


@dataclass
class Outcome:
    """The figures of a soak, as they are written to its JSON file."""

    minutes: float
    seed: int
    happened: dict[str, int]
    starts: int
    steps: int
    steps_lost: int
    steps_redone: int
    loss: float
    loss_undisturbed: float
    loss_percent: float
    distance: float
    memory: dict[str, dict[str, float]]
    broken: list[str] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write the JSON file."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    def sentences(self) -> list[str]:
        """The same for people."""
        happened = ", ".join(f"{count} x {kind}" for kind, count in sorted(self.happened.items()))
        told = [
            f"soak of {self.minutes:.1f} minutes with seed {self.seed}: {happened}; {self.starts} starts of nodes",
            f"steps: {self.steps:,} of the run, {self.steps_lost:,} that no node did, {self.steps_redone:,} done again",
            f"held-out loss {self.loss:.4f}, undisturbed {self.loss_undisturbed:.4f}: {self.loss_percent:+.2f} %; "
            f"copies differ by {self.distance:.1e} at most",
            *(
                f"memory of {what}: {found['mib']:.0f} MiB, {found['mib_per_hour']:+.1f} MiB per hour"
                for what, found in sorted(self.memory.items())
            ),
        ]
        return told + ([f"BROKEN: {sentence}" for sentence in self.broken] or ["every promise was kept"])


def outcome(
    calm: Course,
    soaked: Course,
    samples: Sequence[Sample],
    *,
    seed: int,
    happened: Mapping[str, int],
    starts: int,
    troubles: Iterable[str],
) -> Outcome:
    """Put the figures together and judge them."""
    memory = memory_by_role(samples)
    percent = 100.0 * (soaked.loss / calm.loss - 1.0)
    found = Outcome(
        minutes=soaked.seconds / 60.0,
        seed=seed,
        happened=dict(happened),
        starts=starts,
        steps=len(calm.steps),
        steps_lost=len(calm.steps - soaked.steps),
        steps_redone=soaked.redone,
        loss=soaked.loss,
        loss_undisturbed=calm.loss,
        loss_percent=percent,
        distance=soaked.distance,
        memory=memory,
        broken=list(troubles),
    )
    if found.steps_lost:
        found.broken.append(f"{found.steps_lost:,} steps of the run were done by no node")
    if not abs(percent) <= LOSS_PERCENT:
        found.broken.append(f"the loss is {percent:+.2f} % off; allowed are {LOSS_PERCENT:g} %")
    if not soaked.distance <= DISTANCE:
        found.broken.append(f"copies differ by {soaked.distance:.1e}; allowed are {DISTANCE:g}")
    for what, grown in memory.items():
        growth = grown["mib_per_hour"] * found.minutes / 60.0
        if grown["mib_per_hour"] > MIB_PER_HOUR and growth > MIB:
            found.broken.append(f"the memory of {what} grew by {growth:.0f} MiB, {grown['mib_per_hour']:.0f} per hour")
    return found


def memory_by_role(samples: Iterable[Sample]) -> dict[str, dict[str, float]]:
    """For daemons and for trainers: the largest memory in MiB, and by how much it grew per hour.

    The slope is that of all processes of a role together, each around its own mean.
    """
    lives: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    for sample in samples:
        lives[sample.role, sample.pid].append(sample)
    found: dict[str, dict[str, float]] = {}
    for role in sorted({role for role, _ in lives}):
        settled = [
            [sample for sample in life if sample.time >= life[0].time + SETTLING_SECONDS]
            for (of, _), life in lives.items()
            if of == role
        ]
        product = square = 0.0
        for life in filter(None, settled):
            time, rss = fmean(sample.time for sample in life), fmean(sample.rss for sample in life)
            product += sum((sample.time - time) * (sample.rss - rss) for sample in life)
            square += sum((sample.time - time) ** 2 for sample in life)
        largest = max(sample.rss for (of, _), life in lives.items() if of == role for sample in life)
        slope = product / square * 3600.0 / 2**20 if square else 0.0
        found[role] = {"mib": largest / 2**20, "mib_per_hour": slope}
    return found


def redone(steps: Iterable[Mapping[str, Any]]) -> int:
    """How many lines of a node's metrics.jsonl are of steps that it had done before."""
    ordinals = [record["ordinal"] for record in steps]
    return len(ordinals) - len(set(ordinals))
