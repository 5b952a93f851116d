"""A run that fits a time, the data and the model: how many rounds, how many steps per visit, and how large steps.

::

    time  ->  steps in all  ->  steps of each block  ->  rounds x inner steps
              no more than PASSES_MAX passes for each block

A run has the same number of steps for every block. Few rounds of long visits are preferred to many of short ones, up to
the default length of a visit, since Adam's moments start anew at each visit.
"""

import math
from dataclasses import dataclass

from deca_node.protocol.agreed.run import RunSettings

PASSES_MAX = 4.0
"""Passes over the data while any one block is active. One to four are usual where all parameters are trained at once;
more of them mostly learn the records by heart."""
VISIT_MIN = 12
"""Shorter visits are mostly Adam's start: a visit is this long, even if that leaves one round only."""
LEAST = 4
"""The fewest steps of a visit."""
SEQUENCE_MIN = 64
"""Tokens. Shorter sequences hold too little for a language model to learn from."""
RATE_PARAMETERS = 1.5e9
"""The parameters of the smallest model in the paper, for which the default step size is meant."""
LONGEST_SHARE = 0.98
"""This share of the records fits a sequence; the others are divided or cut."""


@dataclass(frozen=True)
class Length:
    """The run's length: ``rounds`` of ``inner_steps`` for each of the ``blocks``, and the time that it takes."""

    rounds: int
    inner_steps: int
    blocks: int
    step_seconds: float
    pass_steps: float

    @property
    def steps(self) -> int:
        """Gradient steps of the whole run."""
        return self.rounds * self.inner_steps * self.blocks

    @property
    def seconds(self) -> float:
        """The time of these steps."""
        return self.steps * self.step_seconds

    @property
    def block_passes(self) -> float:
        """Passes over the data while any one block is active."""
        return self.rounds * self.inner_steps / self.pass_steps


def fitting_length(seconds: float, step_seconds: float, blocks: int, pass_steps: float) -> Length:
    """The longest run that takes ``seconds`` at most; ``pass_steps`` are the steps of one pass over the data.

    The shortest run has one visit of LEAST steps for each block, also where that takes longer than ``seconds``.
    """
    of_block = min(seconds / step_seconds / blocks, PASSES_MAX * pass_steps)
    longest = RunSettings.inner_steps
    if of_block >= RunSettings.rounds * longest:
        rounds = round(of_block / longest)
    else:
        rounds = max(1, min(int(of_block / VISIT_MIN), RunSettings.rounds))
    inner_steps = max(LEAST, min(longest, int(of_block / rounds)))
    return Length(rounds, inner_steps, blocks, step_seconds, pass_steps)


def fitting_sequence(lengths: list[int], limit: int | None) -> int:
    """Tokens per sequence for records of these ``lengths`` in tokens: the least power of two that holds nearly all of
    them, within the default and the model's ``limit``."""
    highest = min(RunSettings.sequence_length, limit or RunSettings.sequence_length)
    nearly_all = sorted(lengths)[int(LONGEST_SHARE * (len(lengths) - 1))]
    wanted = SEQUENCE_MIN
    while wanted < min(nearly_all, highest):
        wanted *= 2
    return min(wanted, highest)


def fitting_rate(parameters: int) -> float:
    """The step size for a model of so many parameters, to one digit: the default from RATE_PARAMETERS up, and larger by
    the square root for smaller models.

    That goes through what was measured: 5e-5 for billions (the paper), 1e-4 to 1e-3 for 134 million (docs/RESULTS.md),
    2e-3 for a million (the demo) and 4e-3 or more for 162,240 (docs/RESULTS.md).
    """
    rate = RunSettings.learning_rate * math.sqrt(max(1.0, RATE_PARAMETERS / parameters))
    return float(f"{rate:.0e}")
