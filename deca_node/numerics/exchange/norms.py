"""Whether a neighbour's frame has a plausible size. The bound is so wide that no honest node reaches it.

Adam takes steps of about gamma per element whatever the gradients are. So the blocks of all nodes move similar
distances, and their frames have similar norms: a keyframe holds the whole move of a block so far, and an update holds
one step and the pull of the neighbours. Norms are compared within one visit, during which all nodes work on the same
block, over all frames that a sender has sent since the visit began::

    size(j)       the largest norm of j's keyframe and updates so far
    reference(j)  = max( size(this node), median of size(k) over the other neighbours k, gamma of the visit )
    bound(j)      = norm_limit * min( reference(j), gamma_peak * all steps that the block has had )

The reference for j does not contain j's own frames. Of the other neighbours' sizes the lower median counts, so a
minority cannot raise it. But accepted frames pull this node along and so raise its own size. The second term of the
bound stops a peer that climbs step by step: no honest block moves farther than all steps together. With ``norm_limit``
= 1000 neighbours may differ a thousandfold. This guards against broken numbers and crude attacks. Clipping limits
frames that are wrong but within the bound.

Moment signals are in units of the gradient, which differ between nodes as their data do: one node may have memorized
its records while another has not begun to learn. So sqrt(v) and m may differ by the square of ``norm_limit``. A
v-signal within that bound changes v by a factor of 4 at most anyway (:mod:`deca_node.numerics.exchange.signals`).
"""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from deca_node.numerics import deca
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Activation, Schedule, Step
from deca_node.protocol.errors import WireError

Sizes = Mapping[str, float]
"""Norms of one frame by kind: ``x``, ``v`` and ``m``."""

WHAT = {"x": "a keyframe or update", "v": "a v-signal", "m": "an m-signal"}


@dataclass
class Norms:
    """The sizes of one visit's frames. ``limit`` is ``norm_limit``, ``step`` the largest gamma of the visit, and
    ``path`` the longest way that all steps on the block can add up to by the end of the visit."""

    limit: float
    step: float
    path: float
    _ours: dict[str, float] = field(default_factory=dict)
    _theirs: dict[str, dict[str, float]] = field(default_factory=dict)
    _checked: list[tuple[str, Sizes]] = field(default_factory=list)

    @classmethod
    def of(cls, limit: float, settings: RunSettings, schedule: Schedule, activation: Activation) -> "Norms | None":
        """The bounds of one visit; None if no frame is to be refused. ``settings`` are those of the visit's block."""
        if limit <= 0 or settings.learning_rate <= 0:
            return None
        total, steps = schedule.gradient_steps, settings.inner_steps
        first = min(schedule.gradient_ordinal(Step(activation.index, 0)), total - 1)
        last = min(first + max(activation.inner_steps, 1), total)
        step = max(deca.learning_rate(settings, ordinal, total) for ordinal in range(first, last))
        visits = min(activation.round + 1, schedule.rounds)
        return cls(limit, step, settings.learning_rate * steps * visits)

    def ours(self, **sizes: float) -> None:
        """Count a frame that this node sends."""
        _raise(self._ours, sizes)

    def take(self, peer: str, sizes: Sizes) -> None:
        """Count a frame of a neighbour that was accepted."""
        _raise(self._theirs.setdefault(peer, {}), sizes)

    def forget(self, peer: str) -> None:
        """Remove the sizes of a neighbour: they are no reference for the others any more."""
        self._theirs.pop(peer, None)

    def check(self, peer: str, sizes: Sizes) -> None:
        """Raise WireError("wild-norm" or "wild-signal") if a neighbour's frame is far too large."""
        for kind, size in sizes.items():
            bound = self.bound(peer, kind)
            # Written so that a NaN is refused.
            if bound is not None and not size <= bound:
                raise WireError(
                    "wild-norm" if kind == "x" else "wild-signal",
                    f"{peer} sent {WHAT[kind]} of norm {size:.3g}; judged by this node's frames, the other neighbours' "
                    f"frames and the steps of the run it may be {bound:.3g} at most (norm_limit = {self.limit:g})",
                )

    def check_all(self, frames: Iterable[tuple[str, Sizes]]) -> None:
        """Check several frames as :meth:`check` does; if none is refused, :meth:`take_checked` counts them."""
        self._checked = list(frames)
        for peer, sizes in self._checked:
            self.check(peer, sizes)

    def take_checked(self) -> None:
        """Count the frames that were checked last: they were accepted."""
        for peer, sizes in self._checked:
            self.take(peer, sizes)

    def bound(self, peer: str, kind: str) -> float | None:
        """The largest norm that a frame of this neighbour may have; None if there is nothing to compare it with."""
        others = [sizes[kind] for name, sizes in self._theirs.items() if name != peer and kind in sizes]
        reference = max(self._ours.get(kind, 0.0), statistics.median_low(others) if others else 0.0)
        if kind == "x":
            return self.limit * min(max(reference, self.step), self.path)
        return self.limit**2 * reference or None


def _raise(held: dict[str, float], sizes: Sizes) -> None:
    for kind, size in sizes.items():
        held[kind] = max(held.get(kind, 0.0), size)
