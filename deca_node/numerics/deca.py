"""The four functions of DECA in the letters of the paper: half_step, mix, discrepancy and fold.

Every node takes an Adam half step on its own data and mixes the result with its neighbours. Then it folds the change
that consensus made to the parameters back into its moments (Yuan et al., arXiv 2606.03209)::

    g   -> half_step   m_half = a1 m + (1-a1) g       v_half = a2 v + (1-a2) g*g
                       u = m^ / (sqrt(v^) + eps)      x_half = (1 - gamma lambda) x - gamma u
    e   -> mix         E = gamma_c sum_j w_ij e_ij    x+ = x_half + E
    E   -> discrepancy h, in one of the readings of ``Hyper.discrepancy``
    h   -> fold        m+ = b1 m_half + (1-b1) h      v+ = b2 v_half + (1-b2) h*h

The functions are pure and elementwise: they take and return 1-D tensors of any float dtype. Elements do not depend on
each other, so the engine calls the functions on slices that fit the cache. Numbers that are equal for all elements of a
block (how many gradients, how much bias) are Python floats in a :class:`Counts`.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from deca_node.protocol.agreed.run import RunSettings

GRADIENT_UNITS = frozenset({"precond", "rms", "trivial"})
"""Signals in units of the gradient; the other signals are parameter differences."""

GAMMA_FLOOR_SHARE = 0.01
"""The divisor of the consensus part of h is gamma, and at least this share of gamma's peak."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    """The settings that the four functions read.

    ``discrepancy`` is one of ``RunSettings``' choices, or ``decay-only`` (h = 0 while beta still decays):
    the control that tells a signal's worth from that of the decay alone.
    """

    gamma_peak: float
    alpha1: float
    alpha2: float
    epsilon: float
    discrepancy: str
    h_into: str
    h_part: str
    bias_correction: str
    beta1: float
    beta2: float
    weight_decay: float
    max_grad_norm: float
    steps_max: float = math.inf
    """In h an element of E counts for at most so many steps gamma; the mix itself is not limited."""

    @classmethod
    def of(cls, settings: RunSettings) -> "Hyper":
        """The values of a run's settings."""
        return cls(
            gamma_peak=settings.learning_rate,
            alpha1=settings.alpha1,
            alpha2=settings.alpha2,
            epsilon=settings.epsilon,
            discrepancy=settings.discrepancy,
            h_into=settings.h_into,
            h_part=settings.h_part,
            bias_correction=settings.bias_correction,
            beta1=settings.beta1,
            beta2=settings.beta2,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            steps_max=settings.clip_radius if settings.robust == "clip" else math.inf,
        )

    @property
    def into_m(self) -> bool:
        """Whether h goes into the first moment."""
        return self.discrepancy != "none" and self.h_into in ("both", "m")

    @property
    def into_v(self) -> bool:
        """Whether h*h goes into the second moment."""
        return self.discrepancy != "none" and self.h_into in ("both", "v")

    @property
    def moves_moments(self) -> bool:
        """Whether a fold changes any moment; ``none`` changes neither."""
        return self.into_m or self.into_v

    @property
    def needs_E(self) -> bool:
        """Whether h depends on E."""
        return self.discrepancy not in ("none", "decay-only")

    @property
    def h_holds_gradient(self) -> bool:
        """Whether h contains m^, so that it counts as a gradient in an exact bias correction."""
        return self.discrepancy in GRADIENT_UNITS and self.h_part == "full"


class Moments(NamedTuple):
    """First and second moment of one slice; shape [elements], the dtype of x."""

    m: Tensor
    v: Tensor


class Counts(NamedTuple):
    """How much gradient the moments hold; equal for all elements of a block.

    ``gradients`` is the number of gradients since the activation began. ``c1`` and ``c2`` are the total weights of the
    gradients in m and v, so that m^ = m / c1 and v^ = v / c2 are averages.
    """

    gradients: int = 0
    c1: float = 0.0
    c2: float = 0.0


def of_block(settings: RunSettings, block: str) -> RunSettings:
    """The settings as they hold for the block of this name: its kind may have a step size of its own."""
    scale = {"embedding": settings.embedding_lr_scale, "head": settings.head_lr_scale}.get(block, 1.0)
    return settings if scale == 1.0 else replace(settings, learning_rate=scale * settings.learning_rate)


def learning_rate(settings: RunSettings, ordinal: int, total: int) -> float:
    """The step size gamma at optimizer step ``ordinal`` of ``total``; the schedule runs through all activations.

    During the first lr_warmup_steps, or ceil(lr_warmup * total), steps gamma grows by equal amounts and reaches its
    peak on the last of them. Afterwards, with p in [0, 1) the share of the remaining steps that are done, gamma is the
    peak times 1 (constant), 1 - p (linear) or (1 + cos(pi p)) / 2 (cosine). It never reaches zero.
    """
    assert 0 <= ordinal < total, f"step {ordinal} of {total}"
    warmup = settings.lr_warmup_steps or math.ceil(settings.lr_warmup * total)
    if ordinal < warmup:
        return settings.learning_rate * (ordinal + 1) / warmup
    behind = (ordinal - warmup) / (total - warmup)
    shares = {"constant": 1.0, "linear": 1.0 - behind, "cosine": (1.0 + math.cos(math.pi * behind)) / 2.0}
    return settings.learning_rate * shares[settings.lr_schedule]


def half_counts(hyper: Hyper, counts: Counts) -> Counts:
    """The counts after one more gradient.

    Under ``bias_correction = alpha``, Adam's own, c = 1 - alpha^(r+1). Under ``exact``, c_half = alpha c + (1 - alpha),
    which accounts for what the folds did to the moments.
    """
    gradients = counts.gradients + 1
    if hyper.bias_correction == "exact":
        c1 = hyper.alpha1 * counts.c1 + (1.0 - hyper.alpha1)
        c2 = hyper.alpha2 * counts.c2 + (1.0 - hyper.alpha2)
        return Counts(gradients, c1, c2)
    return Counts(gradients, 1.0 - hyper.alpha1**gradients, 1.0 - hyper.alpha2**gradients)


def folded_counts(hyper: Hyper, half: Counts) -> Counts:
    """The counts after the fold: c+ = beta c_half + (1 - beta) k, where k = 1 if h holds a gradient.

    An h that is a parameter difference, or only the consensus part, brings no gradient (k = 0). The count of a moment
    that does not take h stays. So do both counts under ``bias_correction = alpha``, which ignores beta.
    """
    if hyper.bias_correction == "alpha":
        return half
    k = 1.0 if hyper.h_holds_gradient else 0.0
    c1, c2 = half.c1, half.c2
    if hyper.discrepancy == "trivial":
        c1, c2 = c1 - (1.0 - hyper.alpha1) * (1.0 - k), c2 - (1.0 - hyper.alpha2) * (1.0 - k)
    else:
        c1, c2 = hyper.beta1 * c1 + (1.0 - hyper.beta1) * k, hyper.beta2 * c2 + (1.0 - hyper.beta2) * k
    return Counts(half.gradients, c1 if hyper.into_m else half.c1, c2 if hyper.into_v else half.c2)


def preconditioner(hyper: Hyper, counts: Counts, half: Moments) -> Tensor:
    """D = sqrt(v^) + eps, with v^ = v_half / c2. Shape and dtype of v."""
    return (half.v / counts.c2).sqrt_().add_(hyper.epsilon)


def direction(hyper: Hyper, counts: Counts, half: Moments) -> Tensor:
    """The Adam direction u = m^ / (sqrt(v^) + eps); ``half`` and ``counts`` are those of the half step."""
    return (half.m / counts.c1).div_(preconditioner(hyper, counts, half))


def gradient_share(hyper: Hyper, norm: float) -> float:
    """min(1, max_grad_norm / norm), by which the block's gradient of this 2-norm is multiplied; 1 without a limit."""
    return hyper.max_grad_norm / norm if 0.0 < hyper.max_grad_norm < norm else 1.0


def half_step(
    hyper: Hyper, counts: Counts, x: Tensor, moments: Moments, g: Tensor, *, gamma: float, decay: float | Tensor = 0.0
) -> tuple[Tensor, Moments]:
    """x_half = (1 - gamma decay) x - gamma u, and the half moments. ``counts`` already count ``g``; ``decay`` is
    lambda where the elements decay, else 0. The decay is no part of h: h is measured from (1 - gamma decay) x."""
    m = (hyper.alpha1 * moments.m).add_(g, alpha=1.0 - hyper.alpha1)
    v = (hyper.alpha2 * moments.v).addcmul_(g, g, value=1.0 - hyper.alpha2)
    half = Moments(m, v)
    kept = x if isinstance(decay, float) and decay == 0.0 else x * (1.0 - gamma * decay)
    return kept.sub(direction(hyper, counts, half), alpha=gamma), half


def mix(
    x_half: Tensor, edges: Iterable[tuple[float, Tensor]], gamma_c: float, out: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """x+ = x_half + E with E = gamma_c sum_j w_ij e_ij; returns (x+, E). x+ goes to ``out``, which may be x_half.

    With e_ij = x_half,j - x_half,i, gamma_c = 1 and rows of W that sum to 1 this is the paper's
    x+ = sum_j w_ij x_half,j. ``edges`` yields (w_ij, e_ij) once per flow, late flows included. Each e_ij is read before
    the next is asked for, so an edge may appear again with its next value.
    """
    E: Tensor | None = None
    for w, e in edges:
        # Each product is rounded before it is added; with add's alpha that would depend on the processor.
        E = e * (gamma_c * w) if E is None else E.add_(e * (gamma_c * w))
    E = torch.zeros_like(x_half) if E is None else E
    return torch.add(x_half, E, out=out), E


def discrepancy(
    hyper: Hyper, counts: Counts, half: Moments, E: Tensor | None, *, gamma: float, s: float | Tensor = 1.0
) -> Tensor | None:
    """h, the change that consensus made to the parameters; None if h is zero (``none``, ``decay-only``).

    E is None if no flow came. Since x_half = x - gamma u and x+ = x_half + E, the change is x - x+ = gamma u - E
    measured from x (h_part = full), and -E measured from x_half (consensus)::

        paper    x+ - x                            descent  x - x+
        precond  D (x - x+) / gamma                trivial  as precond, used differently by ``fold``
        rms      s (x - x+) / gamma                s: RMS of D over the parameter tensor

    with D = sqrt(v^) + eps. In precond and rms (x - x+) / gamma is computed as u - E / max(gamma, floor), where the
    floor is 1 % of gamma's peak. So gamma -> 0 never divides by zero, and with a peak of 0 E drops out. precond is
    computed as m^ - D E / gamma, so with one node it is m^. If ``hyper.steps_max`` is finite, E counts within
    +- steps_max max(gamma, floor), so that the consensus part of h is at most steps_max D (or s).
    """
    if E is not None and hyper.steps_max < math.inf:
        bound = hyper.steps_max * _floored(hyper, gamma)
        E = E.clamp(-bound, bound)
    name, full = hyper.discrepancy, hyper.h_part == "full"
    if name in ("none", "decay-only"):
        return None
    if name in ("paper", "descent"):
        h = gamma * direction(hyper, counts, half) if full else torch.zeros_like(half.m)
        h = h if E is None else h - E
        return h.neg_() if name == "paper" else h
    if name == "rms":
        h = direction(hyper, counts, half) if full else torch.zeros_like(half.m)
        return s * (h if E is None else h - _inverse(hyper, gamma) * E)
    h = half.m / counts.c1 if full else torch.zeros_like(half.m)
    return h if E is None else h - preconditioner(hyper, counts, half) * (_inverse(hyper, gamma) * E)


def fold(hyper: Hyper, counts: Counts, half: Moments, h: Tensor | None, g: Tensor | None = None) -> Moments:
    """m+ = b1 m_half + (1-b1) h and v+ = b2 v_half + (1-b2) h*h, for the moments that ``h_into`` names.

    Under ``bias_correction = alpha`` the moments hold c = 1 - alpha^(r+1) of a gradient's weight. So a signal in
    gradient units is multiplied by that c before it is added: then with one node precond leaves m as it was. ``none``
    changes neither moment, and ``decay-only`` folds a zero. ``trivial`` needs g, the local gradient, and replaces it:
    m+ = m_half + (1-a1)(h - g), v+ = max(0, v_half + (1-a2)(h*h - g*g)).
    """
    undo = hyper.bias_correction == "alpha" and hyper.discrepancy in GRADIENT_UNITS
    k1, k2 = (counts.c1, counts.c2) if undo else (1.0, 1.0)
    m, v = half
    if hyper.discrepancy == "trivial":
        assert h is not None and g is not None, "the trivial signal replaces the gradient, so it needs it"
        m = m + (1.0 - hyper.alpha1) * (k1 * h - g) if hyper.into_m else m
        v = (v + (1.0 - hyper.alpha2) * (k2 * h * h - g * g)).clamp_min_(0.0) if hyper.into_v else v
        return Moments(m, v)
    if hyper.into_m:
        m = _weighted(hyper.beta1, m, h, k1)
    if hyper.into_v:
        v = _weighted(hyper.beta2, v, None if h is None else h * h, k2)
    return Moments(m, v)


def _weighted(beta: float, moment: Tensor, signal: Tensor | None, unit: float) -> Tensor:
    kept = beta * moment
    return kept if signal is None else kept.add_(signal, alpha=(1.0 - beta) * unit)


def _inverse(hyper: Hyper, gamma: float) -> float:
    """1 / max(gamma, floor), or 0 if both are 0."""
    bounded = _floored(hyper, gamma)
    return 1.0 / bounded if bounded > 0.0 else 0.0


def _floored(hyper: Hyper, gamma: float) -> float:
    return max(gamma, GAMMA_FLOOR_SHARE * hyper.gamma_peak)
