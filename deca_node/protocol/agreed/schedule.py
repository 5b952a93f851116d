r"""The order in which blocks are trained. All nodes work on the same block at a time.

A run is a sequence of activations (visits of one block). Each of its ``rounds`` visits every block in the agreed
order. A last round, the flush, mixes every block without gradients until all copies agree::

    round 0              round 1              ...  flush
    [b0][b1][b2]...      [b0][b1][b2]...           [b0][b1][b2]...
     \__ one activation: R inner steps with a gradient, then a few mixes without
"""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple, NewType

from deca_node.protocol.agreed.run import RunSettings

Round = NewType("Round", int)
BlockNumber = NewType("BlockNumber", int)
Ordinal = NewType("Ordinal", int)
"""Position of a step in the whole run, counting from 0."""


@dataclass(frozen=True, order=True)
class Step:
    """One inner step of one activation, ordered by time. ``activation`` counts visits from 0."""

    activation: int
    inner: int


class Content(NamedTuple):
    """What the update of a step carries beside its sender's state: the codes of the parameters, and a signal of each
    moment."""

    parameters: bool
    v: bool = False
    m: bool = False

    @property
    def signal(self) -> bool:
        """Whether any moment is carried."""
        return self.v or self.m


PARAMETERS = Content(parameters=True)
"""The content of an update without a signal."""


@dataclass(frozen=True)
class Activation:
    """One visit of one block: ``inner_steps`` steps with a gradient, then ``flush_mixes`` without."""

    index: int
    round: Round
    block: BlockNumber
    inner_steps: int
    flush_mixes: int

    @property
    def steps(self) -> int:
        """Inner steps and flush mixes together."""
        return self.inner_steps + self.flush_mixes


class Schedule:
    """The activations of a run by their index, and the positions of steps."""

    def __init__(self, settings: RunSettings, blocks: int, final_flush_mixes: int) -> None:
        self._settings = settings
        self.blocks = blocks
        self.rounds = settings.rounds_of(blocks)
        """The rounds with gradients [T], without the final flush."""
        self._final_flush_mixes = final_flush_mixes
        self._orders = [self._order(r) for r in range(self.rounds)] + [list(range(blocks))]

    def __len__(self) -> int:
        return (self.rounds + 1) * self.blocks

    def __getitem__(self, index: int) -> Activation:
        if not 0 <= index < len(self):
            raise IndexError(f"activation {index} of {len(self)}")
        round_, position = divmod(index, self.blocks)
        block = BlockNumber(self._orders[round_][position])
        if round_ == self.rounds:
            return Activation(index, Round(round_), block, 0, self._final_flush_mixes)
        return Activation(index, Round(round_), block, self._settings.inner_steps, self._settings.flush_mixes)

    @property
    def gradient_steps(self) -> int:
        """Optimizer steps of the whole run on one node: T * B * R."""
        return self.rounds * self.blocks * self._settings.inner_steps

    def gradient_ordinal(self, step: Step) -> int:
        """The number of optimizer steps before ``step``. The learning-rate schedule runs over it."""
        return step.activation * self._settings.inner_steps + step.inner

    def ordinal(self, step: Step) -> Ordinal:
        """The position of ``step`` in the run, flush mixes included."""
        per_activation = self._settings.inner_steps + self._settings.flush_mixes
        trained = self.rounds * self.blocks
        if step.activation < trained:
            return Ordinal(step.activation * per_activation + step.inner)
        return Ordinal(trained * per_activation + (step.activation - trained) * self._final_flush_mixes + step.inner)

    def mixes(self, step: Step) -> bool:
        """Whether ``step`` exchanges updates: with parameters, with a moment signal, or with both."""
        return self.parameters(step) or self.signals(step)

    def parameters(self, step: Step) -> bool:
        """Whether the parameters travel at ``step``: at every tau-th step, the last with a gradient and flush mixes."""
        activation = self[step.activation]
        if step.inner >= activation.inner_steps - 1:
            return True
        return (step.inner + 1) % self._settings.mix_every == 0

    def signals(self, step: Step) -> bool:
        """Whether the update of ``step`` carries a moment signal: at the first exchange of a visit and every N-th
        after it; or at every step of ``moments_every``, from the first on. The last exchange with a gradient carries
        none, since the moments end after it, and flush mixes carry none."""
        settings = self._settings
        if settings.signal == "none" or step.inner >= self[step.activation].inner_steps - 1:
            return False
        if settings.moments_every:
            return step.inner % settings.moments_every == 0
        return self.parameters(step) and step.inner // settings.mix_every % settings.signal_every == 0

    def turn(self, step: Step) -> int:
        """Which of the activation's graphs an update of ``step`` takes, counted on and on: the first one (0) where the
        parameters travel, and for moment signals alone each time the next. Graphs take turns in
        :func:`deca_node.protocol.agreed.topology.turns`."""
        if self.parameters(step) or not self._settings.moments_every:
            return 0
        return step.inner // self._settings.moments_every

    def meetings(self, activation: Activation, turns: Sequence[Collection[str]]) -> dict[str, tuple[int, ...]]:
        """The inner steps at which a node exchanges updates with each neighbour. ``turns`` are its neighbours in each
        of the activation's graphs."""
        meetings: dict[str, list[int]] = {peer: [] for near in turns for peer in near}
        for inner in range(activation.steps):
            step = Step(activation.index, inner)
            if self.mixes(step):
                for peer in turns[self.turn(step) % len(turns)]:
                    meetings[peer].append(inner)
        return {peer: tuple(meetings[peer]) for peer in sorted(meetings) if meetings[peer]}

    def met(self, activation: Activation, turns: Sequence[frozenset[str]]) -> tuple[frozenset[str], ...]:
        """``turns`` without the neighbours that a visit is too short to meet."""
        meetings = self.meetings(activation, turns)
        return tuple(near & meetings.keys() for near in turns)

    def content(self, step: Step) -> Content:
        """What the update of ``step`` carries. The step is one that exchanges."""
        if not self.signals(step):
            return PARAMETERS
        settings = self._settings
        number = step.inner // (settings.moments_every or settings.mix_every * settings.signal_every)
        v = number % settings.v_every == 0 if settings.v_every else number == 0
        return Content(self.parameters(step), v, settings.signal == "mv")

    def _order(self, round_: int) -> list[int]:
        order = list(range(self.blocks))
        if self._settings.block_order == "backward":
            order.reverse()
        elif self._settings.block_order == "shuffled":
            rng = random.Random(f"{self._settings.seed}:block-order:{round_}")
            order.sort(key=lambda _: rng.random())
        return order
