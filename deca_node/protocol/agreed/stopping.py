"""When does a run stop early? The members' held-out losses decide, by a rule that is the same at every node.

Every member tells the others its held-out loss after each round. A round is better than the best one before it if the
loss is lower by more than ``early_stop_gain``, in the mean over the members that measured both::

    round          0     1     2     3     4
    mean loss    3.1   2.6   2.4   2.5   2.4        early_stop_rounds = 2: round 2 is the best, and two came after it

A member that judges so announces the activation at which the run stops. That activation lies ahead of all members, so
that the news reaches them first. Of several announcements the earliest counts. All members tell it on, so it outlives
the member that made it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

ROUNDS_TOLD_MAX = 16
"""The most rounds whose losses a member tells: the newest."""

CANDIDATE = "candidate-"
"""The name of a folder with the model after a round, before the round's number."""

Losses = Mapping[str, Mapping[int, float | None]]
"""Held-out losses by member and round. None: the member measured none that it tells."""


@dataclass(frozen=True, slots=True)
class Heldout:
    """What a member tells about held-out losses: its own after its newest rounds, rounds rising; and the activation at
    which the run stops early, as far as it knows (None: not decided)."""

    losses: tuple[tuple[int, float | None], ...] = ()
    stop_at: int | None = None

    @property
    def sound(self) -> bool:
        """Whether these facts of a peer are within their limits."""
        rounds = [number for number, _ in self.losses]
        rising = rounds == sorted(set(rounds)) and len(rounds) <= ROUNDS_TOLD_MAX
        return rising and all(loss is None or math.isfinite(loss) for _, loss in self.losses)


NOTHING_TOLD = Heldout()


def best_round(losses: Losses, until: int, gain: float) -> int | None:
    """The best round up to ``until``; None if no member has told a loss."""
    best: int | None = None
    for number in range(until + 1):
        here = {name: loss for name, told in losses.items() if (loss := told.get(number)) is not None}
        if not here:
            continue
        before = {} if best is None else {name: losses[name].get(best) for name in here}
        # In the order of names, so that the sum is the same everywhere.
        gains = [loss - here[name] for name, loss in sorted(before.items()) if loss is not None]
        if best is None or not gains or math.fsum(gains) / len(gains) > gain:
            best = number
    return best


def candidate(number: int) -> str:
    """The name of the folder that holds the model after a round until the round is judged."""
    return f"{CANDIDATE}{number}"


def mean_loss(losses: Losses, number: int) -> float:
    """The mean held-out loss after a round over the members that told it; at least one must."""
    told = [loss for name in sorted(losses) if (loss := losses[name].get(number)) is not None]
    return math.fsum(told) / len(told)
