"""What travels between nodes: the names of frames and block versions, and the size of every frame.

The control plane handles names; only the data plane sees bytes. Every node computes the size of every frame of the run
beforehand, so that no node has to trust a size that a peer declares.

An update is the codec's bytes and the sender's state in five numbers. At the exchanges that carry a moment signal
(:meth:`Schedule.signals`) the signal follows::

    keyframe    codes
    update      codes | state                      20 bytes of state
                codes | state | v | m              with a signal; m only under signal = mv

A model is a list of block versions, since blocks change one at a time. A node that was away, or that joins late,
fetches from its donors the versions that it lacks. A version travels as its difference to the common start, in the
keyframe's codec. A block that was never visited is equal to the common start.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from deca_node.protocol.agreed.schedule import Schedule, Step

CHUNK_BYTES = 512 << 10
"""Payload of one message that we send. A ping waits for the one that is being handed over, so it is small: 1 MiB is
some 7 % faster for int8 on cores of its own, 2 MiB are a fifth faster where nodes share their cores, and a ping under
full load then takes more than 5 ms (docs/LOG.md)."""

CHUNK_BYTES_MAX = 2 << 20
"""Payload of the largest that we take."""

FINAL_MIXES_MAX = 10_000
"""No final flush mixes a block more often."""

STATE_BYTES = 20
"""The sender's state: five float32."""

KEYFRAME_CODEC_NAME = "int8"
"""The codec of keyframes and of deltas, whatever codec the run's updates use."""

KEYFRAME_GROUP, KEYFRAME_GROUP_BYTES = 256, 260
"""Elements in one group of that codec, and the bytes that the group takes: a code each, and a float32 scale."""


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


@dataclass(frozen=True)
class FrameSizes:
    """Bytes by block, in the blocks' order: of a keyframe, of an update without a signal, and of a signal alone."""

    keyframe_bytes: tuple[int, ...]
    update_bytes: tuple[int, ...]
    signal_bytes: tuple[int, ...]

    def nbytes(self, schedule: Schedule, kind: FrameKind, step: Step) -> int | None:
        """What the frame of this kind and step takes; None where the run has no such frame."""
        if not 0 <= step.activation < len(schedule):
            return None
        activation = schedule[step.activation]
        if kind is FrameKind.KEYFRAME:
            return self.keyframe_bytes[activation.block] if step.inner == 0 else None
        # How long a final flush is depends on who is there, on which two nodes may differ for a while.
        steps = activation.steps if activation.inner_steps else FINAL_MIXES_MAX
        if not (0 <= step.inner < steps and schedule.mixes(step)):
            return None
        signal = self.signal_bytes[activation.block] if schedule.signals(step) else 0
        return self.update_bytes[activation.block] + signal

    @property
    def largest(self) -> int:
        """The largest frame there can be."""
        updates = (update + signal for update, signal in zip(self.update_bytes, self.signal_bytes, strict=True))
        return max(*self.keyframe_bytes, *updates)


def frame_framing_bytes(activation: int, inner: int, nbytes: int) -> int:
    """What the wire adds to a frame of ``nbytes``: the fields around each chunk (proto/deca/v1/exchange.proto)."""
    return _framing_bytes(_field_bytes(activation) + _field_bytes(inner), nbytes)


@lru_cache(maxsize=4096)
def _framing_bytes(position_bytes: int, nbytes: int) -> int:
    total = 0
    for offset in range(0, nbytes, CHUNK_BYTES):
        size = min(CHUNK_BYTES, nbytes - offset)
        # Two bytes of kind, nine of checksum, the tag of the data; around it all the tag of the chunk.
        head = 2 + position_bytes + _field_bytes(offset) + _field_bytes(nbytes) + 9 + 1 + _varint_bytes(size)
        total += 1 + _varint_bytes(head + size) + head
    return total


def _field_bytes(value: int) -> int:
    """A tag and a varint; proto3 leaves zeros out."""
    return 1 + _varint_bytes(value) if value else 0


def _varint_bytes(value: int) -> int:
    return max(1, -(-value.bit_length() // 7))


@dataclass(frozen=True, order=True)
class BlockVersion:
    """A block as it was frozen at the end of an activation; ``activation`` -1 is the common start."""

    block: str
    activation: int


@dataclass(frozen=True)
class Delta:
    """A file on this node's disk with Q8(x - x0) of a block version: the codec's bytes, and nothing else."""

    version: BlockVersion
    path: str
