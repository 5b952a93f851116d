"""Codecs: the error is bounded, the bytes are the documented format, and refusals name the reason."""

import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from deca_node.numerics.codecs import base
from deca_node.numerics.codecs.base import CACHE_ELEMENTS, FLOAT_MAX, FLOAT_TINY, Codec, NotFiniteError
from deca_node.numerics.codecs.formats import CODECS
from deca_node.protocol.errors import DecaError, TrainerError, WireError

codecs = pytest.mark.parametrize("codec", CODECS.values(), ids=lambda codec: codec.name)
grouped = pytest.mark.parametrize("codec", [CODECS["int8"], CODECS["int4"]], ids=lambda codec: codec.name)

RAGGED = [0, 1, 2, 3, 63, 64, 65, 127, 128, 255, 256, 257, 1000, CACHE_ELEMENTS + 321]

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = st.one_of(
    st.lists(floats, max_size=300),
    st.lists(st.floats(-1.0, 1.0, width=32), min_size=1, max_size=600),
    st.lists(st.floats(0.0, 2.0**-120, width=32), min_size=1, max_size=70),
    st.builds(lambda value, n: [value] * n, floats, st.integers(1, 300)),
)


def encoded(codec: Codec, x: Tensor) -> Tensor:
    out = torch.empty(codec.nbytes(x.numel()), dtype=torch.uint8)
    codec.encode(x, out)
    return out


def there_and_back(codec: Codec, x: Tensor) -> Tensor:
    return codec.decode(encoded(codec, x), 0, x.numel())


def noise(n: int, scale: float = 1.0, seed: int = 0) -> Tensor:
    return scale * torch.randn(n, generator=torch.Generator().manual_seed(seed))


@codecs
@given(values=vectors)
def test_the_error_of_every_group_is_within_the_contraction(codec: Codec, values: list[float]) -> None:
    x = torch.tensor(values, dtype=torch.float32)
    y = there_and_back(codec, x)
    assert y.isfinite().all()
    # Below float32's normal range an element's error is at most half the smallest scale.
    smallest = FLOAT_TINY if codec.name != "fp32" else 0.0
    for start in range(0, len(values), codec.group):
        group, error = (t[start : start + codec.group].double() for t in (x, x.double() - y.double()))
        bound = codec.contraction * group.norm().item() * (1 + 1e-6) + smallest * math.sqrt(codec.group)
        assert error.norm().item() <= bound


@codecs
@given(values=vectors)
def test_encoding_is_deterministic_and_decodes_to_finite_bounded_numbers(codec: Codec, values: list[float]) -> None:
    x = torch.tensor(values, dtype=torch.float32)
    codes = encoded(codec, x)
    assert torch.equal(codes, encoded(codec, x.clone()))
    largest = codec.largest(codes, len(values))
    assert not values or there_and_back(codec, x).abs().max().item() <= largest


@codecs
@pytest.mark.parametrize("n", RAGGED)
def test_every_length_round_trips(codec: Codec, n: int) -> None:
    x = noise(n, 1e-4)
    assert there_and_back(codec, x).shape == (n,)
    assert (there_and_back(codec, x) - x).norm() <= codec.contraction * x.norm()


@codecs
@pytest.mark.parametrize("n", [1, 700, CACHE_ELEMENTS + 321])
def test_any_slice_decodes_as_in_the_whole(codec: Codec, n: int) -> None:
    codes = encoded(codec, noise(n))
    whole = codec.decode(codes, 0, n)
    for start, stop in [(0, n), (0, 0), (n, n), (n // 3, n // 2), (n // 2, n), (n // 4 * 2, n // 4 * 3)]:
        assert torch.equal(codec.decode(codes, start, stop), whole[start:stop])


@codecs
def test_slices_at_group_boundaries_are_contiguous_bytes(codec: Codec) -> None:
    """A run of whole groups has the same bytes by itself and within the whole, so updates can be streamed."""
    x = noise(10 * 1024 + 5)
    whole = encoded(codec, x)
    for start, stop in [(0, 1024), (2048, 4096), (9216, x.numel())]:
        part = whole[codec.nbytes(start) : codec.nbytes(start) + codec.nbytes(stop - start)]
        assert torch.equal(part, encoded(codec, x[start:stop]))


def test_fp32_is_exact() -> None:
    x = torch.tensor([0.0, -0.0, 1e-45, -FLOAT_MAX, FLOAT_MAX, 1 / 3])
    assert encoded(CODECS["fp32"], x).numpy().tobytes() == x.numpy().tobytes()
    assert torch.equal(there_and_back(CODECS["fp32"], x), x)


def test_bf16_rounds_to_nearest_even_and_does_not_overflow() -> None:
    x = torch.tensor([1.0, 1.0 + 2.0**-8, 1.0 + 3 * 2.0**-8, FLOAT_MAX, -FLOAT_MAX])
    largest = torch.finfo(torch.bfloat16).max
    expected = torch.tensor([1.0, 1.0, 1.0 + 2.0**-6, largest, -largest])
    assert torch.equal(there_and_back(CODECS["bf16"], x), expected)


def test_int8_wire_format() -> None:
    """Scale, then codes; the second group has a scale of its own; little-endian."""
    x = torch.cat([torch.tensor([127.0, -127.0, 2.4, -2.6]), torch.zeros(252), torch.tensor([254.0, 4.0])])
    data = encoded(CODECS["int8"], x).numpy().tobytes()
    assert len(data) == 2 * 4 + 258
    assert struct.unpack("<f4b", data[:8]) == (1.0, 127, -127, 2, -3)
    assert data[8:260] == bytes(252)
    assert struct.unpack("<f2b", data[260:]) == (2.0, 127, 2)


def test_int4_wire_format() -> None:
    """Low nibbles hold the first half of a group, high nibbles the second; 8 stands for zero."""
    x = torch.zeros(67)
    x[0], x[32], x[31], x[64:] = 7.0, -3.0, 1.0, torch.tensor([14.0, -14.0, 4.0])
    data = encoded(CODECS["int4"], x).numpy().tobytes()
    assert len(data) == 36 + 4 + 2
    assert struct.unpack("<f", data[:4]) == (1.0,)
    assert data[4] == 15 | (5 << 4)
    assert data[5] == 8 | (8 << 4)
    assert data[35] == 9 | (8 << 4)
    assert struct.unpack("<f", data[36:40]) == (2.0,)
    assert list(data[40:]) == [15 | (10 << 4), 1 | (8 << 4)]


@codecs
def test_codes_are_written_to_unaligned_memory(codec: Codec) -> None:
    """A frame may begin at any byte of shared memory."""
    x, n = noise(321), codec.nbytes(321)
    memory = torch.frombuffer(bytearray(n + 1), dtype=torch.uint8)
    codec.encode(x, memory[1:])
    assert torch.equal(codec.decode(memory[1:], 0, 321), there_and_back(codec, x))


@grouped
@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, 1e-40, FLOAT_TINY, 1e-30, 3e-9, 1.0, -1e30])
def test_constants_survive(codec: Codec, value: float) -> None:
    """Zeros stay zeros, denormal numbers become zero, and other constants keep their value."""
    error = (there_and_back(codec, torch.full((300,), value)).double() - value).abs().max().item()
    assert error <= max(2e-7 * abs(value), FLOAT_TINY / 2)


@grouped
def test_the_largest_floats_decode_to_finite_numbers(codec: Codec) -> None:
    """FLT_MAX / q rounded up would decode to infinity, so the top code stands for slightly less there."""
    x = torch.tensor([FLOAT_MAX, -FLOAT_MAX, 0.5 * FLOAT_MAX])
    y = there_and_back(codec, x)
    assert y.isfinite().all()
    assert (y.double() - x.double()).abs().max().item() <= FLOAT_MAX / {"int8": 127, "int4": 7}[codec.name]


@grouped
def test_tiny_differences_are_kept(codec: Codec) -> None:
    """Differences near 1e-9, late in a run, keep their relative precision: scales are float32."""
    x = noise(4096, 1e-9)
    assert ((there_and_back(codec, x) - x).norm() / x.norm()).item() < codec.contraction


@grouped
def test_contraction_is_reached_by_the_worst_group(codec: Codec) -> None:
    """The worst group reaches the bound: one element at the top, the others just under half a scale."""
    q = {"int8": 127, "int4": 7}[codec.name]
    x = torch.full((codec.group,), 0.4999)
    x[0] = float(q)
    ratio = ((there_and_back(codec, x) - x).norm() / x.norm()).item()
    assert 0.99 * codec.contraction < ratio <= codec.contraction


@codecs
def test_bits_per_element_is_what_large_buffers_take(codec: Codec) -> None:
    n = 1 << 20
    assert 8 * codec.nbytes(n) / n == codec.bits_per_element


@codecs
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("index", [0, 300, CACHE_ELEMENTS + 7, CACHE_ELEMENTS + 99])
def test_what_is_not_finite_is_refused_by_name_and_index(codec: Codec, value: float, index: int) -> None:
    x = noise(CACHE_ELEMENTS + 100)
    x[index] = value
    x[-1] = math.nan
    with pytest.raises(NotFiniteError, match=rf"the {codec.name} codec refuses element {1000 + index} ") as caught:
        codec.encode(x, torch.empty(codec.nbytes(x.numel()), dtype=torch.uint8), 1000)
    assert caught.value.index == 1000 + index
    assert isinstance(caught.value, TrainerError) and isinstance(caught.value, DecaError)


@codecs
@pytest.mark.parametrize("extra", [-1, 1])
def test_a_buffer_of_the_wrong_length_is_refused(codec: Codec, extra: int) -> None:
    codes = torch.zeros(codec.nbytes(500) + extra, dtype=torch.uint8)
    with pytest.raises(WireError, match=f"beech sent {codes.numel()} bytes of {codec.name}") as caught:
        codec.largest(codes, 500, "beech")
    assert caught.value.reason == "bad-length"


@codecs
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("group", [0, 5, CACHE_ELEMENTS // 64])
def test_a_buffer_that_is_not_finite_is_refused(codec: Codec, bad: float, group: int) -> None:
    n = codec.group * (CACHE_ELEMENTS // 64) + 1
    codes = encoded(codec, noise(n))
    raw = struct.pack("<f", bad)[2:] if codec.name == "bf16" else struct.pack("<f", bad)
    at = codec.nbytes(group * codec.group)
    codes[at : at + len(raw)] = torch.tensor(list(raw), dtype=torch.uint8)
    with pytest.raises(WireError, match="finite") as caught:
        codec.largest(codes, n)
    assert caught.value.reason == "not-finite"


@grouped
@pytest.mark.parametrize("scale", [-1.0, -1e-45, FLOAT_MAX])
def test_a_scale_that_no_encoder_writes_is_refused(codec: Codec, scale: float) -> None:
    codes = encoded(codec, noise(100))
    codes[:4] = torch.tensor(list(struct.pack("<f", scale)), dtype=torch.uint8)
    with pytest.raises(WireError):
        codec.largest(codes, 100)


@grouped
@given(data=st.binary(min_size=64, max_size=64))
def test_any_bytes_that_pass_the_check_decode_to_finite_numbers(codec: Codec, data: bytes) -> None:
    """No bytes from a peer can put NaN or infinity into a node."""
    elements = {"int8": 60, "int4": 88}[codec.name]
    codes = torch.frombuffer(bytearray(data[: codec.nbytes(elements)]), dtype=torch.uint8)
    try:
        largest = codec.largest(codes, elements)
    except WireError:
        return
    decoded = codec.decode(codes, 0, elements)
    assert decoded.isfinite().all()
    assert decoded.abs().max().item() <= largest


@grouped
def test_decoding_is_one_float32_multiplication(codec: Codec) -> None:
    """The bits are the same everywhere, because decoding is only code times scale in IEEE float32."""
    x = noise(codec.group, 1e-3)
    data = encoded(codec, x).numpy()
    scale = data[:4].view("<f4")[0]
    if codec.name == "int8":
        codes = data[4:].view(np.int8).astype(np.float32)
    else:
        codes = np.concatenate([data[4:] & 15, data[4:] >> 4]).astype(np.float32) - np.float32(8)
    assert (codes * scale).tobytes() == there_and_back(codec, x).numpy().tobytes()


def test_slices_are_multiples_of_every_group() -> None:
    for device in (torch.device("cpu"), torch.device("meta")):
        assert all(base.slice_elements(device) % codec.group == 0 for codec in CODECS.values())
