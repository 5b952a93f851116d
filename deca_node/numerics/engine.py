r"""One activation of one block, from thaw to freeze: one method for each thing that the trainer asks for.

::

    BlockEngine()  keyframe  connect    ( half_step  encode_update  mix ) ...   freeze
                                          \____ R times, then flush mixes ____/

The engine owns the block's vectors and works on them in slices that fit the cache and never straddle two parameters.
Between commands it keeps float32 vectors of the block's size: gradient, m, v, x^, one e_ij per neighbour, the master if
the model is not float32, and what m-signals left over if they have fewer than 8 bits. The temporary memory of a step
has the size of a slice. A block that is only mixed has no gradient and no moments, and a node without neighbours has no
x^.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from deca_node.numerics import deca
from deca_node.numerics.codecs.base import Codec, slice_elements
from deca_node.numerics.codecs.formats import CODECS, KEYFRAME_CODEC
from deca_node.numerics.device import wide
from deca_node.numerics.exchange import clipping
from deca_node.numerics.exchange.flows import FlowBytes, PublicCopies, write_keyframe
from deca_node.numerics.exchange.frames import Exchanged, FrameLayout, SenderState, moved_by_edge
from deca_node.numerics.exchange.mix import BlockMix
from deca_node.numerics.exchange.norms import Norms
from deca_node.numerics.exchange.signals import Correction, counting
from deca_node.numerics.exchange.slices import Slice, cut
from deca_node.numerics.exchange.squares import Squares, square
from deca_node.numerics.learning.decay import decays
from deca_node.numerics.model.blocks import Block, Origin
from deca_node.numerics.model.values import values_of
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import PARAMETERS, Content
from deca_node.protocol.errors import TrainerError, WireError

EngineFigures = dict[str, float]
"""Figures of one step for metrics; every ``_rms`` is over all elements of the block."""

RefusedPeers = Mapping[str, WireError]
"""Peers whose frames cannot be used, each with the reason."""


class NewEdge(NamedTuple):
    """An edge to open: the peer, its weight w_ij, and its keyframe's codes (uint8, whole buffer); None where only
    moments travel."""

    peer: str
    weight: float
    keyframe: Tensor | None


class BlockEngine:
    """The numerical state of one active block on one node."""

    def __init__(
        self,
        model: nn.Module,
        block: Block,
        origin: Origin,
        *,
        hyper: deca.Hyper,
        codec: Codec,
        gamma_c: float,
        signal: str,
        bits: int = 8,
        clip: clipping.Clip | None = None,
    ) -> None:
        """Thaw ``block``. ``origin`` reads x0, the run's common starting point: for the keyframe, once more when edges
        open, and never afterwards. ``signal`` (none, v or mv) and ``bits`` (``moment_bits``) are the run's settings.
        Without ``clip`` flows count in full."""
        self.flat = values_of(model).thaw(block)
        self.hyper = hyper
        self._decays = decays(model, self.flat.spans, hyper.weight_decay)
        self.codec = codec
        self.layout = FrameLayout(codec, block.elements, signal, bits)
        self.gamma_c = gamma_c
        self.clip = clip
        self.counts = deca.Counts()
        self.moments: deca.Moments | None = None
        self.public: PublicCopies | None = None
        self.feedback: Tensor | None = None
        """What this visit's m-signals left over (float32 [elements]); None before the first, and with 8 bits."""
        self.norms: Norms | None = None
        """The bounds on the sizes of neighbours' frames; None if any size is accepted."""
        self._origin: Origin | None = origin
        self._slices = cut(self.flat.spans, slice_elements(self.flat.master.device))
        self._gamma = 0.0
        self._unfolded = False
        self._weights: dict[str, float] = {}
        """w_ij of the open edges."""
        self._scales = torch.zeros(0)
        self._figures: EngineFigures = {}
        self._half_figures: EngineFigures = {}

    @classmethod
    def of(cls, model: nn.Module, block: Block, settings: RunSettings, origin: Origin) -> "BlockEngine":
        """An engine with the values of a run's settings."""
        settings, codec = deca.of_block(settings, block.name), CODECS[settings.codec]
        hyper = deca.Hyper.of(settings)
        told: dict[str, Any] = {"signal": settings.signal, "bits": settings.moment_bits, "gamma_c": settings.flow_share}
        return cls(model, block, origin, hyper=hyper, codec=codec, clip=clipping.Clip.of(settings), **told)

    @property
    def elements(self) -> int:
        """Elements of the block."""
        return self.flat.block.elements

    @torch.no_grad()
    def keyframe(self, out: Tensor) -> int:
        """Write Q8(x - x0) to the front of ``out`` (uint8); returns the number of bytes."""
        assert self._origin is not None, "a keyframe is written before edges open"
        nbytes = KEYFRAME_CODEC.nbytes(self.elements)
        write_keyframe(self.flat.master, self._origin, out[:nbytes])
        return nbytes

    @torch.no_grad()
    def connect(self, neighbours: Sequence[NewEdge], ours: Tensor) -> RefusedPeers:
        """Open an edge to each neighbour; ``ours`` is the keyframe that was sent to all of them.

        A neighbour whose keyframe is malformed or far too large gets no edge; it is returned with the reason.
        """
        assert self._origin is not None, "edges open once per activation"
        origin, self._origin = self._origin, None
        refused = dict(self._oversized(neighbours, ours))
        self._weights = {peer: weight for peer, weight, _ in neighbours if peer not in refused}
        if any(keyframe is not None for _, _, keyframe in neighbours):
            device = self.flat.master.device
            self.public = PublicCopies(self.codec, self.elements, origin, ours, device)
            for peer, weight, keyframe in neighbours:
                try:
                    if keyframe is not None and peer not in refused:
                        self.public.open(peer, weight, keyframe, ours)
                except WireError as problem:
                    refused[peer] = problem
                    del self._weights[peer]
        return refused

    def _oversized(self, neighbours: Sequence[NewEdge], ours: Tensor) -> RefusedPeers:
        """The neighbours whose keyframe is malformed, or too large compared with ours and the others'."""
        refused: dict[str, WireError] = {}
        if self.norms is None or all(keyframe is None for _, _, keyframe in neighbours):
            return refused
        self.norms.ours(x=KEYFRAME_CODEC.measure(ours, self.elements).rms)
        sizes = {}
        for peer, _, keyframe in neighbours:
            if keyframe is None:
                continue
            try:
                sizes[peer] = {"x": KEYFRAME_CODEC.measure(keyframe, self.elements, peer).rms}
                self.norms.take(peer, sizes[peer])
            except WireError as problem:
                refused[peer] = problem
        for peer, size in sizes.items():
            try:
                self.norms.check(peer, size)
            except WireError as problem:
                refused[peer] = problem
        for peer in refused:
            self.norms.forget(peer)
        return refused

    def drop(self, peer: str) -> None:
        """Close the edge to ``peer`` for the rest of the activation."""
        del self._weights[peer]
        if self.public is not None:
            self.public.drop(peer)

    def half_step(self, gamma: float, gradient: Callable[[], float]) -> EngineFigures:
        """One gradient, clipped if the run says so, then x_half = (1 - gamma lambda) x - gamma u in the master.

        ``gradient`` runs forward and backward passes and returns the loss. Raises TrainerError if the loss or the
        gradient is not finite; then the block is unchanged.
        """
        assert not self._unfolded, "every half step with a gradient is followed by a mix that folds"
        step = self.counts.gradients
        loss = float(self.flat.collect(gradient))
        self._check_finite("loss", loss, step)
        with torch.no_grad():
            assert self.flat.grad is not None
            grad_norm = torch.linalg.vector_norm(self.flat.grad).item()
            self._check_finite("gradient norm", grad_norm, step)
            if (share := deca.gradient_share(self.hyper, grad_norm)) < 1.0:
                self.flat.grad.mul_(share)
            self._gamma, self._unfolded = gamma, True
            self.counts = deca.half_counts(self.hyper, self.counts)
            figures = self._half_step(gamma, self.flat.grad)
        return {"loss": loss, "grad_norm": grad_norm, **figures}

    @torch.no_grad()
    def encode_update(self, out: Tensor, *, content: Content = PARAMETERS, step_seconds: float = 0.0) -> int:
        """Write an update frame to the front of ``out`` (uint8). If it carries the parameters, add its
        q = Q(x_half - x^) to x^.

        ``content`` says what it carries. ``step_seconds`` is reported to the neighbours. Returns the number of bytes.
        """
        assert self._weights, "a node without neighbours sends no updates"
        nbytes = self.layout.nbytes(content)
        parts = self.layout.split(out[:nbytes], "this node", content)
        if parts.codes is not None:
            assert self.public is not None, "parameters travel to neighbours with keyframes"
            self.public.difference(self.flat.master, parts.codes)
        SenderState.of({**self._figures, "step_seconds": step_seconds}).write(parts.state)
        if content.signal:
            assert self.moments is not None, "a flush has no moments to signal"
            if self.feedback is None and content.m and self.layout.bits < 8:
                self.feedback = torch.zeros_like(self.moments.m)
            self.layout.write_signals(self.moments, parts, self.feedback)
        if self.norms is not None:
            self.norms.ours(**self.layout.sizes(parts, "this node"))
        return nbytes

    @torch.no_grad()
    def mix(self, flows: Sequence[FlowBytes], fold: bool) -> EngineFigures:
        """Apply the flows in this order, fold h into the moments if ``fold``, and publish the parameters.

        ``flows`` hold whole update frames. The newest moment signal of each edge then corrects the folded moments;
        without a fold the signals are not used. Raises WireError if any part of a neighbour's frame is malformed; then
        the block is unchanged. The figures hold the neighbours' states too.
        """
        assert fold == self._unfolded, "h is folded once after each half step with a gradient, and only then"
        exchanged = self.check(flows)
        if self.norms is not None:
            self.norms.take_checked()
        codes = [one.flow for one in exchanged if one.flow is not None]
        correction = self._correction(exchanged if fold else ())
        sums = Squares(self.flat.master.device)
        left = self._left(codes)
        mixing = BlockMix(self.public, codes, self.gamma_c) if self.public is not None and codes else None
        folds = fold and (self.hyper.moves_moments or correction.moves_moments)
        for piece in self._slices:
            E = self._flow(piece, mixing, left)
            if folds:
                self._fold(piece, E, correction, sums)
        if fold:
            self.counts = deca.folded_counts(self.hyper, self.counts)
            self._unfolded = False
        self.flat.publish()
        # Moments that no fold changes were measured in the half step.
        figures = sums.roots() | (self._half_figures if fold and not folds else {})
        figures |= mixing.figures() if mixing is not None else {}
        self._figures |= figures
        if left is not None:
            figures |= clipping.figures([flow.peer for flow in codes], left)
        return figures | {name: value for one in exchanged for name, value in one.figures.items()}

    def mix_sound(self, flows: Sequence[FlowBytes], fold: bool) -> tuple[EngineFigures, RefusedPeers]:
        """:meth:`mix` without the flows of neighbours whose frames cannot be used.

        These neighbours lose their edges and are returned with the reasons.
        """
        refused: dict[str, WireError] = {}
        try:
            return self.mix(flows, fold), refused
        except WireError:
            # The neighbour at fault is looked for only now, so that sound frames are checked once.
            for flow in flows:
                try:
                    self.check([flow])
                except WireError as problem:
                    refused[flow.peer] = problem
        assert refused, "mix refuses no frame that is sound by itself"
        for peer in refused:
            self.drop(peer)
        return self.mix([flow for flow in flows if flow.peer not in refused], fold), refused

    def check(self, flows: Sequence[FlowBytes]) -> list[Exchanged]:
        """Split the flows' frames into parts. Raises WireError if any part of a neighbour's frame is malformed or far
        too large."""
        exchanged = self.layout.open(flows)
        if self.public is not None:
            self.public.check([one.flow for one in exchanged if one.flow is not None])
        if self.norms is not None:
            self.norms.check_all((one.peer, self.layout.sizes(one.theirs, one.peer)) for one in exchanged)
        return exchanged

    def tensors(self) -> dict[str, Tensor]:
        """The vectors that a restart needs to continue the visit, beside ``counts``: the master, and m and v if there
        are any. Not to be called between a half step and its mix.

        Edges and what signals left over are not saved: after a restart the visit continues without them.
        """
        assert not self._unfolded, "between a half step and its mix a visit cannot be saved"
        moments = self.moments._asdict() if self.moments is not None else {}
        return {"master": self.flat.master, **moments}

    @torch.no_grad()
    def restore(self, tensors: Iterable[tuple[str, Tensor]], counts: deca.Counts) -> None:
        """Continue from the results of :meth:`tensors` and ``counts``; float32 [elements] each, copied one by one."""
        held = {"master": self.flat.master}
        for name, tensor in tensors:
            if name not in held:
                held[name] = torch.empty_like(self.flat.master)
            held[name].copy_(tensor)
        if "m" in held:
            self.moments = deca.Moments(held["m"], held["v"])
        self.counts = counts
        self.flat.publish()

    def freeze(self) -> None:
        """Write the block back in the model's dtype, and free all state."""
        self.flat.freeze()
        self.moments, self.public, self._origin, self._slices = None, None, None, ()
        self.feedback = None

    # --- slice by slice -----------------------------------------------------------------------------

    def _half_step(self, gamma: float, grad: Tensor) -> EngineFigures:
        """The half step on all slices, and s of every parameter if h needs it."""
        x = self.flat.master
        if self.moments is None:
            self.moments = deca.Moments(torch.zeros_like(x), torch.zeros_like(x))
        sums, halves = Squares(x.device), Squares(x.device)
        squares = torch.zeros(len(self.flat.spans), dtype=wide(x.device), device=x.device)
        for piece in self._slices:
            here = slice(piece.start, piece.stop)
            moments = deca.Moments(*(t[here] for t in self.moments))
            decay = self._decays[piece.tensor]
            x_half, half = deca.half_step(
                self.hyper, self.counts, x[here], moments, grad[here], gamma=gamma, decay=decay
            )
            sums.add("x_step_rms", x_half - x[here])
            if self.hyper.discrepancy == "rms":
                squares[piece.tensor] += square(deca.preconditioner(self.hyper, self.counts, half))
            x[here] = x_half
            self._keep(piece, half)
            _measure(half, halves)
        sizes = [span.stop - span.start for span in self.flat.spans]
        self._scales = (squares / squares.new_tensor(sizes)).sqrt_().to(x.dtype)
        self._half_figures = halves.roots()
        return sums.roots()

    def _flow(self, piece: Slice, mixing: BlockMix | None, left: Tensor | None) -> Tensor | None:
        """Mix one slice; returns E, the sum that the flows added, or None if the fold does not need it."""
        if mixing is None:
            return None
        x, shares = self.flat.master[piece.start : piece.stop], None if left is None else left[:, piece.tensor].tolist()
        return mixing.apply(x, piece.start, shares, needs_E=self.hyper.needs_E)

    def _left(self, flows: Sequence[FlowBytes]) -> Tensor | None:
        """The share of each flow that clipping leaves, [flows, tensors]; None if flows count in full."""
        if self.clip is None or not flows:
            return None
        assert self.public is not None, "flows need open edges"
        sizes = [span.stop - span.start for span in self.flat.spans]
        distances = self.public.measure(flows, self._slices, len(sizes))
        known = (edge.distances for edge in self.public.edges.values() if edge.distances is not None)
        return self.clip.radii(known, sizes).shares(distances)

    def _correction(self, exchanged: Sequence[Exchanged]) -> Correction:
        """The correction from the signals that count of every edge; flows come in the order of their steps."""
        bits, device = self.layout.bits, self.flat.master.device
        heard = moved_by_edge(exchanged, self._weights.__getitem__)
        moved = [one for of_edge in heard for one in counting(of_edge, every_m=bits < 8)]
        more: dict[str, Any] = {"bits": bits, "heard": len(heard)}
        return Correction(moved, self.gamma_c, self.counts, device, self.hyper.epsilon, self.clip, **more)

    def _fold(self, piece: Slice, E: Tensor | None, correction: Correction, sums: Squares) -> None:
        assert self.moments is not None and self.flat.grad is not None
        here = slice(piece.start, piece.stop)
        half = deca.Moments(*(t[here] for t in self.moments))
        s = self._scales[piece.tensor]
        h = deca.discrepancy(self.hyper, self.counts, half, E, gamma=self._gamma, s=s)
        folded = deca.fold(self.hyper, self.counts, half, h, self.flat.grad[here])
        moments = correction.apply(folded, piece.start, piece.stop)
        self._keep(piece, moments)
        if h is not None:
            sums.add("h_rms", h)
        _measure(moments, sums)

    def _keep(self, piece: Slice, moments: deca.Moments) -> None:
        assert self.moments is not None
        for whole, part in zip(self.moments, moments, strict=True):
            here = whole[piece.start : piece.stop]
            # A moment that the fold did not change is there already.
            if here.data_ptr() != part.data_ptr():
                here.copy_(part)

    def _check_finite(self, what: str, value: float, step: int) -> None:
        if not math.isfinite(value):
            raise TrainerError(
                f"the {what} of block {self.flat.block.name} at inner step {step} is {value}: training has diverged; "
                "a lower learning_rate is the usual cure"
            )


def _measure(moments: deca.Moments, sums: Squares) -> None:
    sums.add("m_rms", moments.m)
    sums.add_sum("sqrt_v_rms", moments.v.sum().to(wide(moments.v.device)), moments.v.numel())
