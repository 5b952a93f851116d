"""Is what a neighbour sent of a size that it may have come by? A bound so wide that no honest node meets it.

Adam takes steps of about gamma per element whatever the gradients are, so nodes of one run move alike, and so do
their frames: a keyframe holds the way that a block has gone, an update a step and what the neighbours pulled. Norms are
compared within one visit, where everybody works on the same block, over all frames of a sender since it began::

    size(j)       the largest norm of j's keyframe and updates so far
    reference(j)  = max( size(this node), median of size(k) over the other neighbours k, gamma of the visit )
    bound(j)      = norm_limit * min( reference(j), gamma_peak * all steps that the block has had )

What j itself sent is in no reference of j's, and of the others' the lower median is taken, so a minority moves
nothing. But what was let in pulls this node along, and with it its own size; the second term of the bound is there so
that nobody climbs step by step: nobody can have gone farther than all steps together. With ``norm_limit`` = 1000
neighbours may differ a thousandfold. This is a guard against broken numbers and crude attacks; what is within the bound
and wrong is for clipping to limit.

Moment signals are in units of the gradient, which differ between nodes as their data do: one has learned its records by
heart while another has not begun. So sqrt(v) and m may differ by the square of ``norm_limit``. A v-signal within that
moves v by a factor of 4 at most anyway (:mod:`deca_node.numerics.exchange.signals`).
"""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from deca_node.numerics import deca
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Activation, Schedule, Step
from deca_node.protocol.errors import WireError

Sizes = Mapping[str, float]
"""Norms of one sender's frame by kind: ``x``, ``v`` and ``m``."""

WHAT = {"x": "a keyframe or update", "v": "a v-signal", "m": "an m-signal"}


@dataclass
class Norms:
    """The sizes of one visit's frames. ``limit`` is ``norm_limit``; ``step`` the largest gamma of the visit, ``path``
    the most that all steps which the block has had by its end come to."""

    limit: float
    step: float
    path: float
    _ours: dict[str, float] = field(default_factory=dict)
    _theirs: dict[str, dict[str, float]] = field(default_factory=dict)
    _checked: list[tuple[str, Sizes]] = field(default_factory=list)

    @classmethod
    def of(cls, limit: float, settings: RunSettings, schedule: Schedule, activation: Activation) -> "Norms | None":
        """Those of one visit; None where nothing is to be refused."""
        if limit <= 0 or settings.learning_rate <= 0:
            return None
        total, steps = schedule.gradient_steps, settings.inner_steps
        first = min(schedule.gradient_ordinal(Step(activation.index, 0)), total - 1)
        last = min(first + max(activation.inner_steps, 1), total)
        step = max(deca.learning_rate(settings, ordinal, total) for ordinal in range(first, last))
        visits = min(activation.round + 1, settings.rounds)
        return cls(limit, step, settings.learning_rate * steps * visits)

    def ours(self, **sizes: float) -> None:
        """What this node sends."""
        _raise(self._ours, sizes)

    def take(self, peer: str, sizes: Sizes) -> None:
        """What a neighbour sent was taken."""
        _raise(self._theirs.setdefault(peer, {}), sizes)

    def forget(self, peer: str) -> None:
        """What this neighbour sent is no measure for the others."""
        self._theirs.pop(peer, None)

    def check(self, peer: str, sizes: Sizes) -> None:
        """Raise WireError("wild-norm" or "wild-signal") where a neighbour's frame is far too large."""
        for kind, size in sizes.items():
            bound = self.bound(peer, kind)
            # Written so that a NaN is refused.
            if bound is not None and not size <= bound:
                raise WireError(
                    "wild-norm" if kind == "x" else "wild-signal",
                    f"{peer} sent {WHAT[kind]} of norm {size:.3g}; going by this node's own, the other neighbours' and "
                    f"the steps of the run it may be {bound:.3g} at most (norm_limit = {self.limit:g})",
                )

    def check_all(self, frames: Iterable[tuple[str, Sizes]]) -> None:
        """The same for several; what :meth:`take_checked` takes, if none of them is refused."""
        self._checked = list(frames)
        for peer, sizes in self._checked:
            self.check(peer, sizes)

    def take_checked(self) -> None:
        """The frames that were checked last were taken."""
        for peer, sizes in self._checked:
            self.take(peer, sizes)

    def bound(self, peer: str, kind: str) -> float | None:
        """How large a frame of this neighbour may be; None where there is nothing to compare it with."""
        others = [sizes[kind] for name, sizes in self._theirs.items() if name != peer and kind in sizes]
        reference = max(self._ours.get(kind, 0.0), statistics.median_low(others) if others else 0.0)
        if kind == "x":
            return self.limit * min(max(reference, self.step), self.path)
        return self.limit**2 * reference or None


def _raise(held: dict[str, float], sizes: Sizes) -> None:
    for kind, size in sizes.items():
        held[kind] = max(held.get(kind, 0.0), size)
