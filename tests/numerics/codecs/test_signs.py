"""One and two bits per number: the layout, the bound on the error, and what error feedback makes of it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from deca_node.numerics.codecs.base import Codec, NotFiniteError
from deca_node.numerics.codecs.formats import CODECS
from deca_node.numerics.codecs.signs import BIT1, BIT2
from deca_node.numerics.exchange.signals import encode_m
from deca_node.protocol.errors import WireError

LENGTHS = (1, 3, 8, 255, 256, 257, 1000, 131_079)
NUMBERS = st.lists(
    st.one_of(st.floats(-(2.0**60), 2.0**60, width=32), st.sampled_from([0.0, 1e-30])), min_size=1, max_size=600
)


def encoded(codec: Codec, x: Tensor) -> Tensor:
    out = torch.full((codec.nbytes(x.numel()),), 77, dtype=torch.uint8)
    codec.encode(x, out)
    return out


def noise(n: int) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize(("codec", "nbytes"), [(BIT1, (36, 5, 37)), (BIT2, (68, 5, 69))])
def test_a_group_is_a_scale_and_its_codes(codec: Codec, nbytes: tuple[int, int, int]) -> None:
    assert (codec.nbytes(256), codec.nbytes(3), codec.nbytes(256 + 1) - 4) == nbytes
    assert codec.bits_per_element == pytest.approx(8 * codec.nbytes(2560) / 2560)


def test_the_bytes_of_one_bit() -> None:
    """The scale is the mean magnitude, and element number b is bit b."""
    out = encoded(BIT1, torch.tensor([1.0, -3.0, 2.0, -2.0, 2.0, -2.0, 2.0, -2.0, -2.0]))
    assert out[:4].view(torch.float32).item() == 2.0
    assert out[4:].tolist() == [0b01010101, 0]
    assert BIT1.decode(out, 0, 9).tolist() == [2.0, -2.0, 2.0, -2.0, 2.0, -2.0, 2.0, -2.0, -2.0]


def test_the_bytes_of_two_bits() -> None:
    """Numbers from 1.25 times the mean on count three times: codes 1, -1, 3 and -3 with the scale that fits them."""
    out = encoded(BIT2, torch.tensor([1.0, -1.0, 3.0, -3.0]))
    assert out[:4].view(torch.float32).item() == 1.0
    assert out[4:].tolist() == [0b00_11_01_10]
    assert BIT2.decode(out, 0, 4).tolist() == [1.0, -1.0, 3.0, -3.0]


@pytest.mark.parametrize("codec", [BIT1, BIT2])
@pytest.mark.parametrize("n", LENGTHS)
def test_any_slice_decodes_alone(codec: Codec, n: int) -> None:
    out = encoded(codec, noise(n))
    whole = codec.decode(out, 0, n)
    assert whole.shape == (n,)
    for start, stop in ((0, 1), (n // 3, n), (n // 2, n // 2 + 1)):
        assert torch.equal(codec.decode(out, start, stop), whole[start:stop])


@pytest.mark.parametrize(("codec", "share"), [(BIT1, 0.603), (BIT2, 0.343)])
def test_the_error_on_normal_numbers(codec: Codec, share: float) -> None:
    """One bit leaves sqrt(1 - 2/pi) of normal numbers, two what the best two levels leave (Max, 1960)."""
    x = noise(100_000)
    left = (x - codec.decode(encoded(codec, x), 0, x.numel())).norm() / x.norm()
    assert float(left) == pytest.approx(share, abs=0.01)


@given(NUMBERS)
@pytest.mark.parametrize("codec", [BIT1, BIT2])
def test_something_of_any_group_arrives(codec: Codec, numbers: list[float]) -> None:
    """The error is smaller than the numbers by the bound, whatever they are: then feedback stays bounded."""
    x = torch.tensor(numbers, dtype=torch.float32)
    y = codec.decode(encoded(codec, x), 0, x.numel())
    for start in range(0, x.numel(), codec.group):
        part, error = x[start : start + codec.group].double(), (x - y)[start : start + codec.group].double()
        assert float(error.norm()) <= codec.contraction * float(part.norm()) * (1 + 1e-6) + 1e-30


@pytest.mark.parametrize("codec", [BIT1, BIT2])
def test_zeros_are_zero_for_all_that_is_computed(codec: Codec) -> None:
    assert codec.decode(encoded(codec, torch.zeros(300)), 0, 300).abs().max() < 1e-37


@pytest.mark.parametrize("codec", [BIT1, BIT2])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_by_place(codec: Codec, value: float) -> None:
    x = noise(1000)
    x[700] = value
    with pytest.raises(NotFiniteError, match=f"the {codec.name} codec refuses element 700"):
        encoded(codec, x)


@pytest.mark.parametrize("codec", [BIT1, BIT2])
def test_large_numbers_do_not_overflow(codec: Codec) -> None:
    found = codec.decode(encoded(codec, torch.full((256,), 3e38)), 0, 256)
    assert found.isfinite().all() and found.min() > 8e37


@pytest.mark.parametrize("codec", [BIT1, BIT2])
@pytest.mark.parametrize("scale", [math.nan, math.inf, -1.0])
def test_a_wild_scale_is_refused(codec: Codec, scale: float) -> None:
    out = encoded(codec, noise(600))
    out[:4] = torch.tensor([scale]).view(torch.uint8)
    with pytest.raises(WireError, match=f"b sent {codec.name} codes that do not stand for finite numbers"):
        codec.largest(out, 600, "b")


@pytest.mark.parametrize("codec", [BIT1, BIT2, CODECS["int4"]])
def test_the_sum_of_all_signals_is_that_of_all_moments_but_for_what_is_left(codec: Codec) -> None:
    """Error feedback: sum of m~ = sum of m - f, and f stays as large as a few moments."""
    n, rng = 5000, torch.Generator().manual_seed(7)
    feedback, told, meant = torch.zeros(n), torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    constant = torch.randn(n, generator=rng)
    for _ in range(100):
        m = constant + torch.randn(n, generator=rng)
        out = torch.empty(codec.nbytes(n), dtype=torch.uint8)
        encode_m(m, feedback, codec, out)
        told += codec.decode(out, 0, n)
        meant += m
    assert torch.allclose(told + feedback, meant, atol=1e-3)
    assert feedback.std() < 8.0 * m.std()
    assert (told / 100 - constant).std() < 0.2, "without feedback one bit would never tell how large a number is"
