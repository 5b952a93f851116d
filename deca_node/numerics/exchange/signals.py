"""Moment-discrepancy signals: the difference between neighbours' moments, in a byte per 256 elements or in bits.

Nodes with different data have different second moments, and then their preconditioned steps have no common fixed point
(Chen et al., arXiv 2109.03194). So an update may carry a summary of its sender's moments after the half step. After the
fold both ends of an edge draw their moments together::

    v-signal   v~ = mean of v_half over each group of 256 elements of the block's vector
               float32 L, the largest log2 v~ | one byte c per group: v~ = 2^(L - 40 (255 - c) / 254), c = 0: v~ = 0
    m-signal   m~ = m_half in int8 codes; or in 4, 2 or 1 bits with error feedback f, which begins at zero in a visit:
               m~ = Q(m_half + f), f+ = m_half + f - m~

    v+ <- v+ (1 + gamma_c sum_j w_ij b(v~_j / v~_i))       b(r) = max(min(r - 1, 3), -3 r), b = 0 where v~_i = 0
    m+ <- m+ +    gamma_c sum_j w_ij (m~_j - m~_i)
    v+ <- max(v+, gamma_c sum_j w_ij (m~_j - m~_i)^2 c2 / c1^2)                     only with an m-signal

**The bounds of b.** Without bounds b(r) = r - 1 is gossip of the group means: one end gains w_ij (v~_j - v~_i) and the
other end loses as much. But a group may (nearly) never get a gradient on one node, such as the embedding of a token
that is not in the node's data. That group would take without limit and not grow, because v~_i = 0 has no shape to
scale. The richer end would lose a share of its v at every exchange, for nothing, until its steps blow up. And a ratio
of 10^16, applied to a v that has taken up a gradient meanwhile, is a v of 10^16. So an edge moves at most three times
the v of its poorer end: 3 min(v~_i, v~_j), which both ends compute alike. One end still gains as much as the other
loses. Since sum_j w_ij <= 1, v never changes by more than a factor of 4 at once.

**The floor of v.** A factor cannot change v = 0, and an m that came from a neighbour, divided by sqrt(0) + eps, is a
step of any size: m mixed without v diverges. Hence the last line: v is at least the spread of the neighbours' m around
ours, in the units of v (c1 and c2 are the bias corrections). By Jensen's inequality the square of the gain of m is at
most that sum, so an exchange adds at most 1 to m^ / sqrt(v^). If all nodes agree, v is not lifted.

**Hostile neighbours**, with ``robust = clip``. A neighbour that claims too much at every exchange would raise v by a
factor of 1 + 3 w_ij each time, in spite of the bounds. So of d signals no b counts beyond the (f+1)-th smallest or the
(f+1)-th largest of its group: then an honest neighbour is at least as far out. With fewer than 2 f + 1 signals nothing
is corrected. And (m~_j - m~_i) counts within +- clip_radius c1 (sqrt(v / c2) + eps) element by element, which is
clip_radius steps. So the last line lifts v to no more than about clip_radius^2 of itself.

**Error feedback** (``moment_bits`` below 8). As in 1-bit Adam (arXiv 2102.02888) the first moment travels with what
earlier signals left over, so that the sum of all signals is the sum of all moments but for one error. The mean over
nodes is as before: one end of an edge gains what the other loses, whatever the codes stand for. Here m itself stays at
home in full; only the differences between neighbours are coarse.

**Late edges.** Both ends compare codes of the same exchange, so a late edge is as consistent as one in time. Of several
late signals the newest counts; with error feedback each m-signal counts once, since only their sum is right. gamma_c
damps late signals as it damps late flows of x. The signals compare v, not the bias-corrected v^: at one step the
correction is the same on all nodes.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from deca_node.numerics.codecs.base import Codec, NotFiniteError, slice_elements
from deca_node.numerics.codecs.formats import CODECS
from deca_node.numerics.codecs.signs import BIT1, BIT2
from deca_node.numerics.deca import Counts, Moments
from deca_node.numerics.exchange.clipping import Clip
from deca_node.protocol.errors import WireError

V_GROUP = 256
OCTAVES = 40.0
"""The range of the v-signal: a group whose mean is further below the largest mean counts as zero."""

CODE_OCTAVES = OCTAVES / 254
"""From one code to the next: a factor of 1.115 in v, of 1.056 in the step."""

POORER_SHARE_MAX = 3.0
"""An edge moves at most so many times the v of its poorer end."""

M_CODEC = CODECS["int8"]
"""The codec of the m-signal with 8 bits, which needs no error feedback."""

FEW_BITS: Mapping[int, Codec] = {1: BIT1, 2: BIT2, 4: CODECS["int4"]}
"""Its codecs with error feedback, by ``moment_bits``."""

_HEADER = struct.Struct("<f")
_LOG2_MIN, _LOG2_MAX = -150.0, 128.0
"""The range of log2 of float32 numbers, denormals included."""


class Moved(NamedTuple):
    """The signals of one edge: its w_ij, and both ends' codes of the same exchange (uint8, whole buffers).

    A moment is None where it was not exchanged, or where a newer signal counts in its place.
    """

    weight: float
    v_theirs: Tensor | None
    v_ours: Tensor | None
    m_theirs: Tensor | None
    m_ours: Tensor | None

    def without(self, *, v: bool, m: bool) -> "Moved":
        """The same without a moment."""
        left = self._replace(v_theirs=None, v_ours=None) if v else self
        return left._replace(m_theirs=None, m_ours=None) if m else left


def counting(signals: Sequence[Moved], *, every_m: bool) -> list[Moved]:
    """What counts of the signals of one edge, in the order of their steps: the newest v, and the newest m, or with
    ``every_m`` each m."""
    kept: list[Moved] = []
    for one in signals:
        newer = {"v": one.v_ours is not None, "m": one.m_ours is not None and not every_m}
        kept = [old.without(**newer) for old in kept] + [one]
    return [one for one in kept if one.v_ours is not None or one.m_ours is not None]


# --- the codec of m ---------------------------------------------------------------------------------


def m_codec(bits: int) -> Codec:
    """The codec of the m-signal. ``bits`` is the run's setting."""
    return M_CODEC if bits == 8 else FEW_BITS[bits]


def encode_m(m: Tensor, feedback: Tensor, codec: Codec, out: Tensor) -> None:
    """m~ = Q(m + f) into ``out`` (uint8 [codec.nbytes(n)]) and f+ = m + f - m~; m and ``feedback`` are float32 [n].

    Raises NotFiniteError as the codec does; then ``feedback`` may have changed.
    """
    size = slice_elements(m.device)
    for start in range(0, m.numel(), size):
        f = feedback[start : start + size].add_(m[start : start + size])
        codes = out[codec.nbytes(start) :][: codec.nbytes(f.numel())]
        codec.encode(f, codes, start)
        f.sub_(codec.decode(codes, 0, f.numel(), f.device))


# --- the codec of v ---------------------------------------------------------------------------------


def v_nbytes(elements: int) -> int:
    """Bytes of the v-signal of so many elements: 0.4 % of their int8 codes."""
    return _HEADER.size + -(-elements // V_GROUP)


def encode_v(v: Tensor, out: Tensor) -> None:
    """Write the v-signal of ``v`` (float32 [n], not negative) into ``out`` (uint8 [v_nbytes(n)]).

    Raises NotFiniteError if a mean is NaN or infinite; above 1e36 the sum of a group overflows.
    """
    means = group_means(v)
    largest = means.amax().item()
    if not math.isfinite(largest):
        index = V_GROUP * int((~means.isfinite()).nonzero()[0])
        raise NotFiniteError("v-signal", index, largest)
    if largest <= 0.0:
        out.zero_()
        return
    top = math.log2(largest)
    out[: _HEADER.size] = torch.frombuffer(bytearray(_HEADER.pack(top)), dtype=torch.uint8)
    codes = means.log2_().sub_(top).div_(CODE_OCTAVES).add_(255.0).round_().clamp_(0.0, 255.0)
    out[_HEADER.size :] = codes.to(torch.uint8)


def check_v(codes: Tensor, elements: int, sender: str) -> None:
    """Raise WireError if ``codes`` are not a v-signal of ``elements`` numbers."""
    if codes.numel() != v_nbytes(elements):
        words = f"{sender} sent {codes.numel()} bytes of v-signal for {elements} elements"
        raise WireError("bad-length", f"{words}, which take {v_nbytes(elements)}")
    # Written so that a NaN, which fails every comparison, is refused.
    if not _LOG2_MIN <= _top(codes) <= _LOG2_MAX:
        raise WireError("not-finite", f"{sender} sent a v-signal whose largest mean is no finite number")


def decode_v(codes: Tensor, device: torch.device) -> Tensor:
    """log2 of the group means, float32 [groups] on ``device``; minus infinity for a mean that counts as zero."""
    c = codes[_HEADER.size :].to(device).float()
    logs = (c - 255.0).mul_(CODE_OCTAVES).add_(_top(codes))
    return logs.masked_fill_(c == 0.0, -math.inf)


def rms_v(codes: Tensor) -> float:
    """The root of the mean second moment over all groups: a size in units of the gradient."""
    logs = decode_v(codes, codes.device).double()
    return math.sqrt(torch.exp2(logs).mean().item()) if logs.numel() else 0.0


def group_means(v: Tensor) -> Tensor:
    """Means over groups of 256, float32 [groups]; the last group may be shorter."""
    whole = v.numel() // V_GROUP * V_GROUP
    means = v[:whole].view(-1, V_GROUP).mean(1)
    return means if whole == v.numel() else torch.cat((means, v[whole:].mean().view(1)))


def _top(codes: Tensor) -> float:
    return float(_HEADER.unpack(bytes(codes[: _HEADER.size].tolist()))[0])


# --- what the signals do ----------------------------------------------------------------------------


def bounded(r: Tensor) -> Tensor:
    """b(r) = max(min(r - 1, 3), -3 r) for ratios r >= 0, infinity included. For r in [1/4, 4] it is r - 1."""
    return torch.maximum((r - 1.0).clamp_(max=POORER_SHARE_MAX), -POORER_SHARE_MAX * r)


class Correction:
    """The correction of the folded moments by the newest signals of all edges; one for every fold.

    ``share`` is gamma_c, and ``counts`` are those of the half step. v is multiplied by ``factors`` (float32 [groups]).
    ``clip`` and ``epsilon`` limit hostile neighbours, as the module's docstring explains.
    """

    def __init__(
        self,
        moved: Sequence[Moved],
        share: float,
        counts: Counts,
        device: torch.device,
        epsilon: float,
        clip: Clip | None = None,
        *,
        bits: int = 8,
        heard: int | None = None,
    ) -> None:
        """``bits`` is the run's ``moment_bits``. ``heard`` is the number of neighbours that the signals are of; None
        if each signal is of another."""
        if clip is not None and clip.neighbours and not clip.trusts(len(moved) if heard is None else heard):
            moved = ()
        self._moved = moved
        self._codec = m_codec(bits)
        self._share = share
        self._counts = counts
        self._clip = clip
        self._epsilon = epsilon
        self._unit = counts.c2 / counts.c1**2 if moved else 0.0
        self.factors: Tensor | None = None
        of_v = [edge for edge in moved if edge.v_ours is not None]
        for edge, b in zip(of_v, self._drawn(of_v, device), strict=True):
            self.factors = torch.ones_like(b) if self.factors is None else self.factors
            self.factors.add_(b, alpha=share * edge.weight)

    @property
    def moves_moments(self) -> bool:
        """Whether there is anything to correct."""
        return bool(self._moved)

    def _drawn(self, moved: Sequence[Moved], device: torch.device) -> Sequence[Tensor]:
        """b(v~_j / v~_i) of every edge; with a clip no b counts beyond the (f+1)-th from either end."""
        found = []
        for edge in moved:
            assert edge.v_ours is not None and edge.v_theirs is not None
            ours, theirs = decode_v(edge.v_ours, device), decode_v(edge.v_theirs, device)
            found.append(bounded((theirs - ours).exp2_()).masked_fill_(ours == -math.inf, 0.0))
        if self._clip is None or not self._clip.neighbours or not found:
            return found
        if not self._clip.trusts(len(found)):
            return [torch.zeros_like(b) for b in found]
        f, ordered = self._clip.neighbours, torch.stack(found).sort(dim=0).values
        return [torch.minimum(torch.maximum(b, ordered[f]), ordered[-1 - f]) for b in found]

    def apply(self, moments: Moments, start: int, stop: int) -> Moments:
        """Elements [start, stop) of the moments after the fold, corrected."""
        if not self._moved:
            return moments
        scaled = moments
        if self.factors is not None:
            groups = self.factors[start // V_GROUP : -(-stop // V_GROUP)].repeat_interleave(V_GROUP)
            lead = start % V_GROUP
            scaled = Moments(moments.m, moments.v * groups[lead : lead + stop - start])
        if not any(edge.m_ours is not None for edge in self._moved):
            return scaled
        return self._mixed(scaled, self._reach(moments.v), start, stop)

    def _reach(self, v: Tensor) -> Tensor | None:
        """The largest difference between a neighbour's m and ours that counts; None if any difference counts.

        It is clip_radius steps of c1 (sqrt(v / c2) + eps), float32 with the shape of v.
        """
        if self._clip is None:
            return None
        steps = (v / self._counts.c2).sqrt_().add_(self._epsilon)
        return steps.mul_(self._clip.radius * self._counts.c1)

    def _mixed(self, moments: Moments, reach: Tensor | None, start: int, stop: int) -> Moments:
        m, spread = moments.m.clone(), torch.zeros_like(moments.v)
        ours: dict[int, Tensor] = {}
        for edge in self._moved:
            if edge.m_theirs is None or edge.m_ours is None:
                continue
            if id(edge.m_ours) not in ours:
                ours[id(edge.m_ours)] = self._codec.decode(edge.m_ours, start, stop, m.device)
            # Subtracted before it is scaled: so both ends' differences are opposite bit for bit.
            difference = self._codec.decode(edge.m_theirs, start, stop, m.device).sub_(ours[id(edge.m_ours)])
            if reach is not None:
                difference = torch.minimum(torch.maximum(difference, -reach), reach)
            m.add_(difference, alpha=self._share * edge.weight)
            spread.addcmul_(difference, difference, value=self._share * edge.weight * self._unit)
        return Moments(m, torch.maximum(moments.v, spread))
