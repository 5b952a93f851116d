"""The compiled codecs give the bits of torch, at every size and every extreme.

The library is built anew for these tests, so that a library left over from an older version is not tested: once as
installing builds it, with a version per kind of processor, and once with the plain version alone.
"""

import math
import shutil
from importlib.util import spec_from_file_location
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from deca_node.numerics.codecs import native
from deca_node.numerics.codecs.base import CACHE_ELEMENTS, FLOAT_MAX, Codec, NotFiniteError
from deca_node.numerics.codecs.formats import CODECS, KEYFRAME_CODEC
from deca_node.numerics.codecs.table import Table, kernels_of
from deca_node.numerics.exchange.flows import FlowBytes
from deca_node.protocol.errors import WireError
from deca_node.storage import compiled
from tests.numerics.codecs.compiled import (
    COMPILER,
    NO_COMPILER,
    NO_KERNELS,
    RAGGED,
    any_codes,
    any_floats,
    assert_same_bits,
    build,
    codecs,
    encoded,
    exponents,
    noise,
    public_copies,
    seeds,
    sizes,
    using,
    vectors,
)

CPU = torch.device("cpu")

# --- the same bits ----------------------------------------------------------------------------------


def after_difference(codec: Codec, x: Tensor, x_hat: Tensor) -> Tensor:
    """The codes of Q(x - x^), then x^ + q, as bytes."""
    public, out = public_copies(codec, x_hat), torch.empty(codec.nbytes(x.numel()), dtype=torch.uint8)
    public.difference(x, out)
    return torch.cat((out, public.x_hat.view(torch.uint8)))


@codecs
@given(x=vectors)
def test_codes_are_those_of_torch(codec: Codec, kernels: Table, x: Tensor) -> None:
    codes = assert_same_bits(kernels, lambda: encoded(codec, x))
    assert_same_bits(kernels, lambda: codec.decode(codes, 0, x.numel()))


@codecs
@given(n=sizes, seed=seeds, at=exponents, hat_at=exponents)
def test_differences_are_those_of_torch(
    codec: Codec, kernels: Table, n: int, seed: int, at: tuple[int, int], hat_at: tuple[int, int]
) -> None:
    # Half the range of float32, so that no difference overflows.
    x, x_hat = 0.5 * any_floats(n, seed, at), 0.5 * any_floats(n, seed + 1, hat_at)
    assert_same_bits(kernels, lambda: after_difference(codec, x, x_hat))


@codecs
@given(n=sizes, seed=seeds, data=st.data())
def test_any_slice_of_any_codes_is_read_as_torch_reads_it(
    codec: Codec, kernels: Table, n: int, seed: int, data: st.DataObject
) -> None:
    start, stop = sorted((data.draw(st.integers(0, n)), data.draw(st.integers(0, n))))
    theirs, ours = any_codes(codec, n, seed), any_codes(codec, n, seed + 1)
    assert_same_bits(kernels, lambda: codec.decode(theirs, start, stop))
    assert_same_bits(kernels, lambda: advanced(codec, n, [(theirs, ours), (ours, theirs)], start, stop))
    assert_same_bits(kernels, lambda: bound(codec, theirs, n))


def advanced(codec: Codec, n: int, codes: list[tuple[Tensor, Tensor]], start: int, stop: int) -> Tensor:
    """e_ij after flows on two edges, one after the other, of elements [start, stop)."""
    public = public_copies(codec, noise(n))
    keyframes = [encoded(KEYFRAME_CODEC, noise(n, seed)) for seed in (1, 2, 3)]
    for peer, keyframe in zip("ab", keyframes[1:], strict=True):
        public.open(peer, 0.25, keyframe, keyframes[0])
    flows = [FlowBytes(peer, theirs, ours) for theirs, ours in codes for peer in "ab"]
    return torch.stack([e.clone() for _, e in public.advance(flows, start, stop)])


def bound(codec: Codec, codes: Tensor, n: int) -> Tensor:
    """The largest magnitude that the check finds in a buffer."""
    return torch.tensor([codec.largest(codes, n)], dtype=torch.float64)


@codecs
@pytest.mark.parametrize("n", RAGGED)
def test_every_length_gives_the_bits_of_torch(codec: Codec, kernels: Table, n: int) -> None:
    x = noise(n, scale=1e-4)
    codes = assert_same_bits(kernels, lambda: encoded(codec, x))
    assert_same_bits(kernels, lambda: codec.decode(codes, 0, n))
    assert_same_bits(kernels, lambda: after_difference(codec, x, noise(n, 1)))
    assert_same_bits(kernels, lambda: advanced(codec, n, [(codes, any_codes(codec, n, 1))], 0, n))


@codecs
def test_codes_may_begin_at_any_byte(codec: Codec, kernels: Table) -> None:
    """A frame in shared memory is not aligned."""
    x, n = noise(321), codec.nbytes(321)

    def through_odd_memory() -> Tensor:
        memory = torch.zeros(n + 1, dtype=torch.uint8)
        codec.encode(x, memory[1:])
        return codec.decode(memory[1:], 3, 320)

    assert_same_bits(kernels, through_odd_memory)


# --- what is refused, and what is left to torch -----------------------------------------------------


@codecs
@pytest.mark.parametrize("value", [math.nan, -math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("index", [0, 300, CACHE_ELEMENTS + 7, CACHE_ELEMENTS + 99])
def test_what_is_not_finite_is_refused_by_the_same_error(
    codec: Codec, kernels: Table, value: float, index: int
) -> None:
    x = noise(CACHE_ELEMENTS + 100)
    x[index] = value
    x[-1] = math.nan
    for attempt in (lambda: encoded(codec, x), lambda: after_difference(codec, x, noise(x.numel(), 1))):
        with using(kernels), pytest.raises(NotFiniteError) as compiled:
            attempt()
        with using(NO_KERNELS), pytest.raises(NotFiniteError) as expected:
            attempt()
        assert (str(compiled.value), compiled.value.index) == (str(expected.value), index)


@codecs
def test_a_difference_that_overflows_is_refused(codec: Codec, kernels: Table) -> None:
    with using(kernels), pytest.raises(NotFiniteError, match=r"element 70 .* which is inf"):
        after_difference(codec, *(torch.zeros(100).index_fill(0, torch.tensor(70), s * FLOAT_MAX) for s in (1, -1)))


@codecs
@pytest.mark.parametrize("group", [0, 1, 2])
@pytest.mark.parametrize("scale", [math.nan, -math.nan, math.inf, -math.inf, -1.0, FLOAT_MAX])
def test_a_scale_that_no_encoder_writes_is_refused_by_the_same_error(
    codec: Codec, kernels: Table, group: int, scale: float
) -> None:
    elements = 2 * codec.group + 5
    codes = encoded(codec, noise(elements))
    codes[codec.nbytes(group * codec.group) :][:4] = torch.tensor([scale]).view(torch.uint8)
    with using(kernels), pytest.raises(WireError) as compiled:
        codec.largest(codes, elements, "beech")
    with using(NO_KERNELS), pytest.raises(WireError) as expected:
        codec.largest(codes, elements, "beech")
    assert (str(compiled.value), compiled.value.reason) == (str(expected.value), "not-finite")


@given(n=st.integers(1, 2200), seed=seeds, data=st.data())
def test_places_out_of_order_are_seen_by_both(kernels: Table, n: int, seed: int, data: st.DataObject) -> None:
    """The compiled check refuses a buffer if and only if torch refuses it, for any byte changed."""
    codec = CODECS["topk"]
    codes = any_codes(codec, n, seed)
    at = data.draw(st.integers(0, codes.numel() - 1))
    codes[at] = data.draw(st.integers(0, 255))
    with using(NO_KERNELS):
        try:
            largest, rms = codec.measure(codes, n)
            expected: object = (largest, pytest.approx(rms))
        except WireError:
            expected = None
    with using(kernels):
        assert kernels_of("topk", CPU).measure(codes, n) == expected


@codecs
def test_lengths_that_do_not_fit_touch_nothing(codec: Codec, kernels: Table) -> None:
    """The compiled code checks every length: an error in Python must not become a write beyond an array."""
    x, codes = noise(320), encoded(codec, noise(320))
    short, before = codes[:-1], (x.clone(), codes.clone())
    native_codec = kernels[codec.name, "cpu"]
    assert not native_codec.encode(x, short)
    assert not native_codec.encode(x[1:], codes.repeat(2))
    assert not native_codec.encode_difference(x, x[1:], codes)
    assert not native_codec.encode_difference(x, noise(320), short)
    assert not native_codec.decode(codes, 1, x)
    assert not native_codec.decode(codes[:3], 0, x[:1])
    assert not native_codec.decode(codes, -1, x[:2])
    assert not native_codec.add_difference(codes, short, 0, x)
    assert not native_codec.add_difference(short, codes, 0, x)
    assert native_codec.measure(short, 320) is None
    assert native_codec.measure(codes, 400) is None
    assert torch.equal(x, before[0]) and torch.equal(codes, before[1])


def test_what_the_compiled_code_cannot_take_is_left_to_torch(kernels: Table) -> None:
    x, codec = noise(600), CODECS["int8"]
    with using(kernels) as returned:
        int8 = kernels_of("int8", CPU)
        assert not int8.encode(x[::2], torch.empty(codec.nbytes(300), dtype=torch.uint8))
        assert not int8.encode(x.double(), torch.empty(codec.nbytes(600), dtype=torch.uint8))
        assert not int8.encode(x.to("meta"), torch.empty(codec.nbytes(600), dtype=torch.uint8))
        assert not kernels_of("bf16", CPU).encode(x, torch.empty(1200, dtype=torch.uint8))
        assert not kernels_of("int8", torch.device("meta")).encode(x, torch.empty(608, dtype=torch.uint8))
        assert not returned
        strided = encoded(codec, x[::2])
    assert torch.equal(strided, encoded(codec, x[::2].clone()))


# --- where the library comes from -------------------------------------------------------------------


def test_the_environment_turns_it_off(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "find_spec", lambda name: spec_from_file_location(name, library))
    assert native.load_built()
    monkeypatch.setenv("DECA_NATIVE", "0")
    assert not native.load_built()


def test_without_a_library_torch_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "LIBRARY", "deca_node.numerics.codecs._no_such_library")
    assert not native.load_built()


def test_a_library_of_another_version_is_left_alone_with_a_warning(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "find_spec", lambda name: spec_from_file_location(name, library))
    monkeypatch.setattr(compiled, "INTERFACE", compiled.INTERFACE + 1)
    with pytest.warns(UserWarning, match="has interface .* build it again"):
        assert not native.load_built()


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason=NO_COMPILER)
def test_flags_that_would_change_the_bits_fail_the_build(tmp_path: Path) -> None:
    done = build(tmp_path, "-ffast-math")
    assert done.returncode == 1
    assert "-ffast-math would change" in done.stderr and "could not be built" in done.stderr
