"""What a frame measures. Every node can say it beforehand of every frame of the run, so nobody has to believe a
peer's word for it.

An update is the codec's bytes and the sender's state in five numbers; at the exchanges that carry a moment
signal (:meth:`Schedule.signals`) the signal follows::

    keyframe    codes
    update      codes | state                      20 bytes of state
                codes | state | v | m              with a signal; m only under signal = mv
"""

from dataclasses import dataclass
from functools import lru_cache

from deca_node.protocol.agreed.frames import FrameKind
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
