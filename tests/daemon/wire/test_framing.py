"""Messages of the exchange stream: framing by hand equals protobuf's, and malformed bytes are refused."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deca_node.daemon.wire import framing
from deca_node.daemon.wire_pb import exchange_pb2 as pb
from deca_node.protocol.agreed.frames import FrameId, FrameKind
from deca_node.protocol.errors import WireError

NUMBERS = st.integers(0, 2**32 - 1)
FRAMES = st.builds(FrameId, st.just("a"), st.sampled_from(FrameKind), NUMBERS, NUMBERS)


def taken(message: bytes) -> bytes | pb.Frame:
    """A message as its receiver sees it: the data of a chunk after the copy, or the decoded frame."""
    body = framing.decode(message)
    if isinstance(body, pb.Frame):
        return body
    place = bytearray(len(body.data))
    body.copy_to(memoryview(place))
    return bytes(place)


@given(FRAMES, st.integers(0, 2**40), st.integers(0, 2**40), st.binary(max_size=300))
def test_a_chunk_is_what_protobuf_would_have_written(frame: FrameId, offset: int, more: int, data: bytes) -> None:
    total = offset + len(data) + more
    message = framing.encode_chunk(frame, offset, total, memoryview(data))
    parsed = pb.Frame.FromString(message)
    assert parsed.WhichOneof("body") == "chunk"
    chunk = parsed.chunk
    assert (chunk.activation, chunk.inner, chunk.offset, chunk.total) == (frame.activation, frame.inner, offset, total)
    assert chunk.data == data
    # Protobuf leaves an empty data field out; the framing by hand always writes it.
    if data:
        assert parsed.SerializeToString(deterministic=True) == message
    back = framing.decode(message)
    assert isinstance(back, framing.Chunk)
    assert back.frame("a") == frame
    assert (back.offset, back.total, bytes(back.data)) == (offset, total, data)
    assert taken(message) == data


@given(FRAMES, st.binary(min_size=1, max_size=400), st.data())
def test_a_flipped_bit_is_never_taken_for_the_data(frame: FrameId, data: bytes, draw: st.DataObject) -> None:
    message = bytearray(framing.encode_chunk(frame, 0, len(data), memoryview(data)))
    at = draw.draw(st.integers(len(message) - len(data), len(message) - 1))
    message[at] ^= 1 << draw.draw(st.integers(0, 7))
    with pytest.raises(WireError) as caught:
        taken(bytes(message))
    assert caught.value.reason == "checksum"


@given(st.binary(max_size=300))
def test_any_bytes_are_decoded_or_refused(message: bytes) -> None:
    with contextlib.suppress(WireError):
        assert isinstance(framing.decode(message), framing.Chunk | pb.Frame)


@given(FRAMES, st.binary(max_size=100), st.integers(0, 120))
def test_a_message_cut_anywhere_is_refused(frame: FrameId, data: bytes, cut: int) -> None:
    message = framing.encode_chunk(frame, 0, len(data), memoryview(data))
    if cut < len(message):
        with pytest.raises(WireError):
            framing.decode(message[:cut])


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "malformed"),
        (pb.Frame().SerializeToString() + b"\x7a\x00", "malformed"),
        (pb.Frame(chunk=pb.Chunk(offset=5, total=6, data=b"xy")).SerializeToString(), "malformed"),
        (
            pb.Frame(chunk=pb.Chunk(kind=pb.FRAME_KIND_UPDATE, offset=5, total=6, data=b"xy")).SerializeToString(),
            "size",
        ),
        (pb.Frame(chunk=pb.Chunk(kind=pb.FRAME_KIND_UPDATE, total=2, data=b"xy")).SerializeToString(), "checksum"),
    ],
)
def test_every_refusal_has_its_reason(message: bytes, reason: str) -> None:
    with pytest.raises(WireError) as caught:
        taken(message)
    assert caught.value.reason == reason
