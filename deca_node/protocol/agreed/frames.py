"""What travels between nodes: the names of frames and block versions, and the size of every frame.

The control plane handles names; only the data plane sees bytes. Every node computes the size of every frame of the run
beforehand, so that no node has to trust a size that a peer declares.

An update is the codec's bytes and the sender's state in five numbers. At the exchanges that carry a moment signal
(:meth:`Schedule.signals`) the signal follows. If moments have a cadence of their own (``moments_every``), some updates
carry no codes::

    keyframe    codes
    update      codes | state                      20 bytes of state
                codes | state | v | m              with a signal; m only under signal = mv
                        state | v | m              moments alone; v not at every signal (v_every)

A model is a list of block versions, since blocks change one at a time. A node that was away, or that joins late,
fetches from its donors the versions that it lacks. A version travels as its difference to the common start, in the
keyframe's codec. A block that was never visited is equal to the common start.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from deca_node.protocol.agreed.run import FINAL_MIXES_MAX
from deca_node.protocol.agreed.schedule import Schedule, Step

CHUNK_BYTES = 512 << 10
"""Payload of one message that this node sends. Chunks are small because a ping waits for the chunk that is being sent.
Chunks of 1 MiB are some 7 % faster for int8 if every node has its own cores, and 2 MiB are a fifth faster if nodes
share cores, but then a ping under full load takes more than 5 ms (docs/LOG.md)."""

CHUNK_BYTES_MAX = 2 << 20
"""Largest payload of one message that this node accepts."""

STATE_BYTES = 20
"""Bytes of the sender's state: five float32."""

KEYFRAME_CODEC_NAME = "int8"
"""The codec of keyframes and of deltas, whatever codec the run's updates use."""

KEYFRAME_GROUP, KEYFRAME_GROUP_BYTES = 256, 260
"""Elements in one group of that codec, and the bytes that the group takes: a code each, and a float32 scale."""


class FrameKind(StrEnum):
    """The contents of a frame."""

    KEYFRAME = "keyframe"
    """The sender's public copy at the start of an activation, as Q8(x - x0)."""
    UPDATE = "update"
    """The quantized difference q(s) of one exchange."""


@dataclass(frozen=True, order=True)
class FrameId:
    """The name of one frame: its sender, its activation and its inner step (0 for a keyframe)."""

    sender: str
    kind: FrameKind
    activation: int
    inner: int


@dataclass(frozen=True)
class FrameSizes:
    """Sizes in bytes, by block: of a keyframe, of an update without a signal, of a whole signal alone, and of v's part
    of that signal."""

    keyframe_bytes: tuple[int, ...]
    update_bytes: tuple[int, ...]
    signal_bytes: tuple[int, ...]
    v_bytes: tuple[int, ...]

    def nbytes(self, schedule: Schedule, kind: FrameKind, step: Step) -> int | None:
        """The size of the frame of this kind and step, or None if the run has no such frame."""
        if not 0 <= step.activation < len(schedule):
            return None
        activation = schedule[step.activation]
        if kind is FrameKind.KEYFRAME:
            return self.keyframe_bytes[activation.block] if step.inner == 0 else None
        # The length of the final flush depends on the members, about which two nodes may disagree for a while.
        steps = activation.steps if activation.inner_steps else FINAL_MIXES_MAX
        if not (0 <= step.inner < steps and schedule.mixes(step)):
            return None
        block, content = activation.block, schedule.content(step)
        update = self.update_bytes[block] if content.parameters else STATE_BYTES
        m = self.signal_bytes[block] - self.v_bytes[block]
        return update + content.v * self.v_bytes[block] + content.m * m

    @property
    def largest(self) -> int:
        """The size of the largest frame."""
        updates = (update + signal for update, signal in zip(self.update_bytes, self.signal_bytes, strict=True))
        return max(*self.keyframe_bytes, *updates)


def frame_framing_bytes(activation: int, inner: int, nbytes: int) -> int:
    """The bytes that the wire adds to a frame of ``nbytes``: the fields around each chunk (exchange.proto)."""
    return _framing_bytes(_field_bytes(activation) + _field_bytes(inner), nbytes)


@lru_cache(maxsize=4096)
def _framing_bytes(position_bytes: int, nbytes: int) -> int:
    total = 0
    for offset in range(0, nbytes, CHUNK_BYTES):
        size = min(CHUNK_BYTES, nbytes - offset)
        # Two bytes of kind, nine of checksum, and the tag of the data. The tag of the chunk is around them.
        head = 2 + position_bytes + _field_bytes(offset) + _field_bytes(nbytes) + 9 + 1 + _varint_bytes(size)
        total += 1 + _varint_bytes(head + size) + head
    return total


def _field_bytes(value: int) -> int:
    """A tag and a varint. proto3 omits zeros."""
    return 1 + _varint_bytes(value) if value else 0


def _varint_bytes(value: int) -> int:
    return max(1, -(-value.bit_length() // 7))


@dataclass(frozen=True, order=True)
class BlockVersion:
    """A block as it was frozen at the end of an activation. ``activation`` is -1 for the common start."""

    block: str
    activation: int


@dataclass(frozen=True)
class Delta:
    """A file on this node's disk that holds Q8(x - x0) of a block version: only the codec's bytes."""

    version: BlockVersion
    path: str
