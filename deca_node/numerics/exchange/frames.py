"""The layout of an update frame: the codes of q(s), the sender's state and, in some steps, a moment signal.

::

    codes (codec.nbytes(n)) | state (20) [ | v-signal (4 + groups) [ | m codes (int8) ] ]

A signal has no frame of its own: it is the tail of an update. So it takes the same edges, in the same order and as late
as the update, and is applied once. Whether a frame has that tail follows from its step, and shows in its length.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from deca_node.numerics.codecs.base import FLOAT_MAX, Codec
from deca_node.numerics.deca import Moments
from deca_node.numerics.exchange import signals
from deca_node.numerics.exchange.flows import FlowBytes
from deca_node.protocol.agreed.frames import STATE_BYTES
from deca_node.protocol.errors import WireError

_STATE = struct.Struct("<5f")
assert _STATE.size == STATE_BYTES


class SenderState(NamedTuple):
    """The sender's state after its last step, for display by its neighbours; a figure that it does not know is 0.

    The figures are RMS over the block's elements of h, m, sqrt(v) and the distance to the mean of its neighbourhood,
    and the seconds from one half step to the next.
    """

    h_rms: float = 0.0
    m_rms: float = 0.0
    sqrt_v_rms: float = 0.0
    consensus_distance: float = 0.0
    step_seconds: float = 0.0

    @classmethod
    def of(cls, figures: Mapping[str, float]) -> Self:
        """The state in the figures of a step, by their names."""
        return cls(**{name: figures.get(name, 0.0) for name in cls._fields})

    def write(self, out: Tensor) -> None:
        """Write five little-endian float32 into ``out`` (uint8 [20]). Figures that overflowed become FLOAT_MAX."""
        data = _STATE.pack(*(min(max(0.0, value), FLOAT_MAX) for value in self))
        out.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))

    @classmethod
    def read(cls, data: Tensor, sender: str) -> Self:
        """The inverse of :meth:`write`. Raises WireError if a figure is negative, NaN or infinite."""
        state = cls(*_STATE.unpack(bytes(data.tolist())))
        if not all(0.0 <= value < math.inf for value in state):
            raise WireError("not-finite", f"{sender} sent a state with figures that are not finite: {tuple(state)}")
        return state


class Parts(NamedTuple):
    """The parts of one update frame, as uint8 views of it; v and m are None if there is no such signal."""

    codes: Tensor
    state: Tensor
    v: Tensor | None
    m: Tensor | None


class Exchanged(NamedTuple):
    """One edge's exchange of one step, split into parts."""

    peer: str
    theirs: Parts
    ours: Parts

    @property
    def flow(self) -> FlowBytes:
        """The codes of both frames."""
        return FlowBytes(self.peer, self.theirs.codes, self.ours.codes)

    @property
    def figures(self) -> dict[str, float]:
        """The peer's state as figures for metrics."""
        state = SenderState.read(self.theirs.state, self.peer)
        return {f"peer.{self.peer}.{name}": value for name, value in state._asdict().items()}

    def moved(self, weight: float) -> signals.Moved | None:
        """The moment signals of both ends; None if this exchange carries none."""
        theirs, ours = self.theirs, self.ours
        if theirs.v is None or ours.v is None:
            return None
        return signals.Moved(weight, theirs.v, ours.v, theirs.m, ours.m)


def signal_nbytes(elements: int, signal: str) -> int:
    """Bytes of a moment signal. ``signal`` is the run's setting: none, v or mv."""
    if signal == "none":
        return 0
    return signals.v_nbytes(elements) + (signals.M_CODEC.nbytes(elements) if signal == "mv" else 0)


@dataclass(frozen=True)
class FrameLayout:
    """The layout of one block's update frames. ``signal`` is the run's setting: none, v or mv."""

    codec: Codec
    elements: int
    signal: str

    @property
    def update_nbytes(self) -> int:
        """Bytes of an update without a signal."""
        return self.codec.nbytes(self.elements) + STATE_BYTES

    @property
    def signal_nbytes(self) -> int:
        """Bytes that a signal adds."""
        return signal_nbytes(self.elements, self.signal)

    def nbytes(self, with_signal: bool) -> int:
        """Bytes of a whole frame."""
        return self.update_nbytes + (self.signal_nbytes if with_signal else 0)

    def split(self, frame: Tensor, sender: str) -> Parts:
        """The parts of a frame (uint8). Raises WireError if no frame of this block has its length."""
        whole = frame.numel()
        if whole not in (self.nbytes(False), self.nbytes(True)):
            words = f"{sender} sent an update of {whole} bytes for {self.elements} elements"
            raise WireError(
                "bad-length", f"{words}, which take {self.nbytes(False)}, or {self.nbytes(True)} at signals"
            )
        codes, state = frame[: self.update_nbytes - STATE_BYTES], frame[: self.update_nbytes][-STATE_BYTES:]
        if whole == self.update_nbytes:
            return Parts(codes, state, None, None)
        tail, v_nbytes = frame[self.update_nbytes :], signals.v_nbytes(self.elements)
        return Parts(codes, state, tail[:v_nbytes], tail[v_nbytes:] if self.signal == "mv" else None)

    def open(self, flows: Sequence[FlowBytes]) -> list[Exchanged]:
        """Split the frames of some flows into parts. Raises WireError if a neighbour's state or signal is malformed.

        The codes are not checked here, but by :meth:`PublicCopies.check`.
        """
        # A frame of ours is split once, so that one decoding of its codes serves every edge.
        ours = {id(flow.ours): self.split(flow.ours, "this node") for flow in flows}
        exchanged = [Exchanged(flow.peer, self.split(flow.theirs, flow.peer), ours[id(flow.ours)]) for flow in flows]
        for peer, theirs, own in exchanged:
            SenderState.read(theirs.state, peer)
            if (theirs.v is None) != (own.v is None):
                raise WireError(
                    "bad-length", f"{peer} sent an update with a moment signal where ours has none, or none"
                )
            if theirs.v is not None:
                signals.check_v(theirs.v, self.elements, peer)
            if theirs.m is not None:
                signals.M_CODEC.largest(theirs.m, self.elements, peer)
        return exchanged

    def sizes(self, parts: Parts, sender: str) -> dict[str, float]:
        """The norms of a frame's parts: ``x`` of the codes, ``v`` the root of the mean second moment, ``m`` of m."""
        sizes = {"x": self.codec.measure(parts.codes, self.elements, sender).rms}
        if parts.v is not None:
            sizes["v"] = signals.rms_v(parts.v)
        if parts.m is not None:
            sizes["m"] = signals.M_CODEC.measure(parts.m, self.elements, sender).rms
        return sizes

    def write_signals(self, moments: Moments, parts: Parts) -> None:
        """Encode the moments into the signal's parts. Raises NotFiniteError."""
        if parts.v is not None:
            signals.encode_v(moments.v, parts.v)
        if parts.m is not None:
            signals.M_CODEC.encode(moments.m, parts.m)
