"""Names of the byte buffers that travel. The control plane handles names; only the data plane sees bytes."""

from dataclasses import dataclass
from enum import StrEnum


class FrameKind(StrEnum):
    """What a frame holds."""

    KEYFRAME = "keyframe"
    """The sender's public copy at the start of an activation, as Q8(x - x0)."""
    UPDATE = "update"
    """The quantized difference q(s) of one exchange."""


@dataclass(frozen=True, order=True)
class FrameId:
    """One frame: who made it, for which activation and inner step (0 for a keyframe)."""

    sender: str
    kind: FrameKind
    activation: int
    inner: int
