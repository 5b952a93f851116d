"""Every decoder takes its own valid messages, and survives what is made of them: damaged, cut, doubled, mixed, odd."""

import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deca_node.daemon.links.control_session import MESSAGE_BYTES_MAX, read_control
from deca_node.daemon.transfer.offers import read_offer
from deca_node.daemon.wire import framing
from deca_node.daemon.wire.packets import PACKET_BYTES_MAX, decode_packet
from deca_node.daemon.wire_pb import transfer_pb2
from deca_node.protocol.errors import WireError
from tests.fuzz.decoders import Decoder, survive
from tests.fuzz.targets import TARGETS

DECODERS = {f"{name}: {decoder.name}": decoder for name, make in TARGETS.items() for decoder in make().decoders}
EXAMPLES = 15
SLOW = {"storage: config.json": 4, "storage: tokenizer.json": 6, "settings: certificate request": 6}
"""Decoders that build a model or sign a certificate, and the examples that they get."""

ODD = (
    b"\xff" * 9,
    b"\x00" * 9,
    b"\x80" * 10 + b"\x01",
    b"9" * 400,
    b"1e999",
    b"NaN",
    b"[" * 2000,
    b'{"a":' * 500,
    b"\n",
)
"""What stands for a number without an end, one that is too large, and a structure that is too deep."""


@st.composite
def damage(draw: Callable[[st.SearchStrategy], object], seeds: list[bytes]) -> bytes:
    """A valid message, and up to four things that happened to it."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        upto = min(len(data), at + draw(st.integers(0, 40)))
        match draw(st.integers(0, 5)):
            case 0 if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 1:
                del data[at:upto]
            case 2:
                data[at:at] = data[at:upto]
            case 3:
                data[at:upto] = draw(st.sampled_from(ODD))
            case 4:
                data[at:at] = draw(st.binary(max_size=12))
            case _:
                data[at:] = draw(st.sampled_from(seeds))[at:]
    return bytes(data)


@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)
def test_it_takes_what_is_valid(decoder: Decoder) -> None:
    """Else nothing that follows would reach what lies behind the first check."""
    taken = [survive(decoder, seed) for seed in decoder.seeds()]
    assert any(taken)


@pytest.mark.parametrize("name", DECODERS)
def test_it_survives_what_is_not(name: str) -> None:
    decoder, examples = DECODERS[name], SLOW.get(name, EXAMPLES)
    seeds = list(decoder.seeds())

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(damage(seeds) | st.binary(max_size=200))
    def survives(data: bytes) -> None:
        survive(decoder, data)

    survives()


NUMBER = b"\xff" * 9 + b"\x01"
"""2^64 - 1 as protobuf writes it."""

LIES = {
    "a chunk that says it is endless": (framing.decode, b"\x32" + NUMBER + b"\x3a" + NUMBER),
    "a frame that says it is endless": (framing.decode, b"\x32\x0e\x28" + NUMBER + b"\x3a\x00\x00"),
    "a frame with an endless field": (framing.decode, b"\x0a\xff\xff\xff\xff\x07" + b"x" * 50),
    "a control message beyond the limit": (read_control, b"\x22" + b"\xff" * MESSAGE_BYTES_MAX),
    "a packet beyond the limit": (decode_packet, b"\x0a" + b"\xff" * PACKET_BYTES_MAX),
    "a packet full of empty rumours": (decode_packet, b"\x12\x00" * (PACKET_BYTES_MAX // 2)),
    "an offer of endless files": (
        lambda data: read_offer("south", data),
        transfer_pb2.Description(start=[transfer_pb2.StartFile(name="x", bytes=2**64 - 1)]).SerializeToString(),
    ),
}


@pytest.mark.parametrize(("decode", "data"), LIES.values(), ids=LIES)
def test_sizes_that_are_only_said_take_no_memory(decode: Callable[[bytes], object], data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            decode(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
