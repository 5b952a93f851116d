"""The layout of an update frame: the codes of q(s), the sender's state and, in some steps, a moment signal.

::

    [ codes (codec.nbytes(n)) | ] state (20) [ | v-signal (4 + groups) ] [ | m codes ]

A signal has no frame of its own: it is the tail of an update. So it takes the same edges, in the same order and as late
as the update, and is applied once. Which parts a frame has follows from its step (:meth:`Schedule.content`).
"""

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from deca_node.numerics.codecs.base import FLOAT_MAX, Codec
from deca_node.numerics.deca import Moments
from deca_node.numerics.exchange import signals
from deca_node.numerics.exchange.flows import FlowBytes
from deca_node.protocol.agreed.frames import STATE_BYTES
from deca_node.protocol.agreed.schedule import Content
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
    """The parts of one update frame, as uint8 views of it; None for what the frame does not carry."""

    codes: Tensor | None
    state: Tensor
    v: Tensor | None
    m: Tensor | None


class Exchanged(NamedTuple):
    """One edge's exchange of one step, split into parts."""

    peer: str
    theirs: Parts
    ours: Parts

    @property
    def flow(self) -> FlowBytes | None:
        """The codes of both frames; None if this exchange carries moments alone."""
        if self.theirs.codes is None or self.ours.codes is None:
            return None
        return FlowBytes(self.peer, self.theirs.codes, self.ours.codes)

    @property
    def figures(self) -> dict[str, float]:
        """The peer's state as figures for metrics."""
        state = SenderState.read(self.theirs.state, self.peer)
        return {f"peer.{self.peer}.{name}": value for name, value in state._asdict().items()}

    def moved(self, weight: float) -> signals.Moved | None:
        """The moment signals of both ends; None if this exchange carries none."""
        theirs, ours = self.theirs, self.ours
        if ours.v is None and ours.m is None:
            return None
        return signals.Moved(weight, theirs.v, ours.v, theirs.m, ours.m)


def moved_by_edge(exchanged: Sequence[Exchanged], weight: Callable[[str], float]) -> list[list[signals.Moved]]:
    """The moment signals of each edge that carried any, in the order of their steps. ``weight`` gives w_ij by peer."""
    found: dict[str, list[signals.Moved]] = {}
    for one in exchanged:
        moved = one.moved(weight(one.peer))
        if moved is not None:
            found.setdefault(one.peer, []).append(moved)
    return list(found.values())


@dataclass(frozen=True)
class FrameLayout:
    """The layout of one block's update frames. ``signal`` (none, v or mv) and ``bits`` (``moment_bits``) are the run's
    settings."""

    codec: Codec
    elements: int
    signal: str
    bits: int = 8

    @property
    def update_nbytes(self) -> int:
        """Bytes of an update without a signal."""
        return self.codec.nbytes(self.elements) + STATE_BYTES

    @property
    def signal_nbytes(self) -> int:
        """Bytes that a whole signal adds."""
        return self.nbytes(self.content(True)) - self.update_nbytes

    @property
    def v_nbytes(self) -> int:
        """Bytes of the part of v in a signal."""
        return signals.v_nbytes(self.elements) if self.signal != "none" else 0

    @property
    def m_codec(self) -> Codec:
        """The codec of the part of m in a signal."""
        return signals.m_codec(self.bits)

    def content(self, with_signal: bool) -> Content:
        """The content of a frame with the parameters, without a signal or with a whole one."""
        return Content(True, with_signal and self.signal != "none", with_signal and self.signal == "mv")

    def nbytes(self, content: Content) -> int:
        """Bytes of a whole frame."""
        return sum(self._part_bytes(content))

    def _part_bytes(self, content: Content) -> tuple[int, int, int, int]:
        """Bytes of the codes, the state, v and m."""
        codes = self.codec.nbytes(self.elements) if content.parameters else 0
        m = self.m_codec.nbytes(self.elements) if content.m else 0
        return codes, STATE_BYTES, self.v_nbytes if content.v else 0, m

    def split(self, frame: Tensor, sender: str, content: Content | None = None) -> Parts:
        """The parts of a frame (uint8) with this content. Without ``content`` the frame has the parameters, and its
        length tells whether a whole signal follows. Raises WireError if it has another length."""
        whole = frame.numel()
        allowed = [content] if content is not None else [self.content(False), self.content(True)]
        found = next((one for one in allowed if self.nbytes(one) == whole), None)
        if found is None:
            words = f"{sender} sent an update of {whole} bytes for {self.elements} elements"
            sizes = f"{self.nbytes(allowed[0])}" + "".join(f", or {self.nbytes(one)} at signals" for one in allowed[1:])
            raise WireError("bad-length", f"{words}, which take {sizes}")
        codes, state, v, m = frame.split(self._part_bytes(found))
        return Parts(codes if found.parameters else None, state, v if found.v else None, m if found.m else None)

    def open(self, flows: Sequence[FlowBytes]) -> list[Exchanged]:
        """Split the frames of some flows into parts. Raises WireError if a neighbour's state or signal is malformed.

        The codes are not checked here, but by :meth:`PublicCopies.check`.
        """
        # A frame of ours is split once, so that one decoding of its codes serves every edge.
        ours = {id(flow.ours): self.split(flow.ours, "this node", flow.content) for flow in flows}
        exchanged = [
            Exchanged(flow.peer, self.split(flow.theirs, flow.peer, flow.content), ours[id(flow.ours)])
            for flow in flows
        ]
        for peer, theirs, own in exchanged:
            SenderState.read(theirs.state, peer)
            if (theirs.v is None) != (own.v is None):
                raise WireError(
                    "bad-length", f"{peer} sent an update with a moment signal where ours has none, or none"
                )
            if theirs.v is not None:
                signals.check_v(theirs.v, self.elements, peer)
            if theirs.m is not None:
                self.m_codec.largest(theirs.m, self.elements, peer)
        return exchanged

    def sizes(self, parts: Parts, sender: str) -> dict[str, float]:
        """The norms of a frame's parts: ``x`` of the codes, ``v`` the root of the mean second moment, ``m`` of m."""
        sizes = {}
        if parts.codes is not None:
            sizes["x"] = self.codec.measure(parts.codes, self.elements, sender).rms
        if parts.v is not None:
            sizes["v"] = signals.rms_v(parts.v)
        if parts.m is not None:
            sizes["m"] = self.m_codec.measure(parts.m, self.elements, sender).rms
        return sizes

    def write_signals(self, moments: Moments, parts: Parts, feedback: Tensor | None = None) -> None:
        """Encode the moments into the signal's parts; ``feedback`` is what earlier m-signals left over, which is
        renewed. Raises NotFiniteError."""
        if parts.v is not None:
            signals.encode_v(moments.v, parts.v)
        if parts.m is not None:
            if feedback is None:
                self.m_codec.encode(moments.m, parts.m)
            else:
                signals.encode_m(moments.m, feedback, self.m_codec, parts.m)
