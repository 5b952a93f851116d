"""Messages of the exchange stream as bytes. ``proto/deca/v1/exchange.proto`` defines the format.

Chunks are framed and parsed by hand in that format, because a protobuf library would copy their payload twice. A chunk
is the field ``Frame.chunk``: its tag, its length, its small fields, and last the tag, length and bytes of ``data``. So
the receiver can slice the payload out of the message that it has read.
"""

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from deca_node.daemon.wire.checked_copy import CHECKSUM_BYTES, append_checked, copy_checked
from deca_node.daemon.wire_pb import exchange_pb2 as pb
from deca_node.protocol.agreed.frames import CHUNK_BYTES_MAX, FrameId, FrameKind
from deca_node.protocol.errors import WireError

MESSAGE_BYTES_MAX = CHUNK_BYTES_MAX + 4096
"""The longest message that is accepted from a peer."""

_KINDS = {FrameKind.KEYFRAME: pb.FRAME_KIND_KEYFRAME, FrameKind.UPDATE: pb.FRAME_KIND_UPDATE}
_KINDS_BACK: dict[int, FrameKind] = {number: kind for kind, number in _KINDS.items()}

_VARINT, _FIXED64, _BYTES = 0, 1, 2
_CHUNK_TAG = bytes([6 << 3 | _BYTES])
_DATA_FIELD = 7


@dataclass(frozen=True)
class Chunk:
    """A piece of a frame: ``data`` belongs ``offset`` bytes into the frame's ``total`` bytes. Only :meth:`copy_to`
    compares the checksum; before that, the data is not verified."""

    kind: FrameKind
    activation: int
    inner: int
    offset: int
    total: int
    data: memoryview
    checksum: int

    def copy_to(self, place: memoryview) -> None:
        """Copy the data to its place. Raises WireError("checksum") where the checksum does not match."""
        message = self.data.obj
        assert isinstance(message, bytes)
        if copy_checked(message, len(message) - len(self.data), place) != self.checksum:
            raise WireError("checksum", f"a chunk of {len(self.data)} bytes whose checksum does not match")

    def frame(self, sender: str) -> FrameId:
        """The frame to which this chunk belongs."""
        return FrameId(sender, self.kind, self.activation, self.inner)


def encode_chunk(frame: FrameId, offset: int, total: int, data: memoryview) -> bytes:
    """One chunk as a whole ``Frame`` message. This is the only copy of ``data`` on its way out."""
    fields = b"".join(
        (
            _field(1, _KINDS[frame.kind]),
            _field(2, frame.activation),
            _field(3, frame.inner),
            _field(4, offset),
            _field(5, total),
            bytes([6 << 3 | _FIXED64]),
        )
    )
    before_data = bytes([_DATA_FIELD << 3 | _BYTES]) + _varint(len(data))
    nbytes = len(fields) + CHECKSUM_BYTES + len(before_data) + len(data)
    start = b"".join((_CHUNK_TAG, _varint(nbytes), fields))
    return append_checked(start + bytes(CHECKSUM_BYTES) + before_data, len(start), data)


def decode(message: bytes) -> Chunk | pb.Frame:
    """One message from a peer. Raises WireError("malformed" or "size") where it breaks the rules. The checksum of a
    chunk is compared later, when the chunk is copied."""
    if len(message) > MESSAGE_BYTES_MAX:
        raise WireError("size", f"a message of {len(message)} bytes; the limit is {MESSAGE_BYTES_MAX}")
    if not message:
        raise WireError("malformed", "an empty message")
    if message[:1] == _CHUNK_TAG:
        return _decode_chunk(memoryview(message))
    frame = pb.Frame()
    try:
        frame.ParseFromString(message)
    except DecodeError as problem:
        raise WireError("malformed", f"not a Frame message: {problem}") from None
    if frame.WhichOneof("body") in (None, "chunk"):
        raise WireError("malformed", "a Frame message without a known body")
    return frame


def _decode_chunk(message: memoryview) -> Chunk:
    length, at = _read_varint(message, 1)
    if at + length != len(message):
        raise WireError("malformed", f"a chunk that says it has {length} bytes and has {len(message) - at}")
    numbers = {1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 6: 0}
    while at < len(message):
        tag, at = _read_varint(message, at)
        field, kind = tag >> 3, tag & 7
        if field == _DATA_FIELD and kind == _BYTES:
            size, at = _read_varint(message, at)
            if at + size != len(message):
                raise WireError("malformed", "a chunk whose data is not its last field")
            return _checked(numbers, message[at:])
        if field == 6 and kind == _FIXED64 and at + 8 <= len(message):
            numbers[6], at = int.from_bytes(message[at : at + 8], "little"), at + 8
        elif field in numbers and field != 6 and kind == _VARINT:
            numbers[field], at = _read_varint(message, at)
        else:
            raise WireError("malformed", f"a chunk with an unknown field {field}")
    raise WireError("malformed", "a chunk without data")


def _checked(numbers: dict[int, int], data: memoryview) -> Chunk:
    if numbers[1] not in _KINDS_BACK:
        raise WireError("malformed", f"a chunk of unknown kind {numbers[1]}")
    if numbers[4] + len(data) > numbers[5]:
        raise WireError("size", f"a chunk of {len(data)} bytes at {numbers[4]} of a frame of {numbers[5]}")
    return Chunk(_KINDS_BACK[numbers[1]], numbers[2], numbers[3], numbers[4], numbers[5], data, numbers[6])


def _field(number: int, value: int) -> bytes:
    # proto3 omits zeros.
    return bytes([number << 3 | _VARINT]) + _varint(value) if value else b""


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 64:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value & (1 << 64) - 1, at
        shift += 7
    raise WireError("malformed", "a number that does not end")
