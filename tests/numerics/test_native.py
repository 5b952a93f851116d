"""The compiled codecs: what torch computes, bit for bit, at every size and every extreme.

They are built from codec.c for these tests, so that no library left over from an older one is what is tested:
once as installing does it, with a version per kind of processor, and once as the plainest version alone.
"""

import math
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from deca_node.numerics import native, sparse
from deca_node.numerics.flows import KEYFRAME_CODEC, Flow, PublicCopies
from deca_node.numerics.native import Kernels
from deca_node.numerics.quantize import CACHE_ELEMENTS, CODECS, FLOAT_MAX, Codec, NotFiniteError, TopK
from deca_node.protocol.errors import WireError

ROOT = Path(__file__).resolve().parents[2]
COMPILER = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
NO_COMPILER = f"there is no C compiler {COMPILER}"

codecs = pytest.mark.parametrize("codec", [CODECS[name] for name in native.CODECS], ids=native.CODECS)

RAGGED = [0, 1, 2, 3, 31, 63, 64, 65, 127, 255, 256, 257, 320, 1000, 4096, CACHE_ELEMENTS + 77]


# --- building and switching -------------------------------------------------------------------------


def build(into: Path, flags: str = "") -> "subprocess.CompletedProcess[str]":
    """Build as a person would, with these flags for the compiler; stdout names the library."""
    command = [sys.executable, "tools/build_native.py", "--into", str(into)]
    environment = os.environ | {"CFLAGS": flags}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)


@pytest.fixture(scope="module", params=["", "-DVERSIONS="], ids=["version-per-processor", "plain-version"])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where there is a compiler, the build has to work."""
    if shutil.which(COMPILER) is None:
        pytest.skip(NO_COMPILER)
    done = build(tmp_path_factory.mktemp("native"), request.param)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def kernels(library: str) -> Kernels:
    return native.load(library)


@contextmanager
def using(kernels: Kernels) -> Iterator[list[bool]]:
    """Let the codecs use these kernels, none for torch; yields what each call of one returned."""
    returned: list[bool] = []

    def spy(kernel: Callable[..., bool]) -> Callable[..., bool]:
        def call(*raw: int) -> bool:
            returned.append(kernel(*raw))
            return returned[-1]

        return call

    before, native.KERNELS = native.KERNELS, {key: spy(kernel) for key, kernel in kernels.items()}
    try:
        yield returned
    finally:
        native.KERNELS = before


def assert_same_bits(kernels: Kernels, compute: Callable[[], Tensor]) -> Tensor:
    """The compiled code does the work, and torch comes to the same bytes (so -0.0 is not 0.0)."""
    with using(kernels) as returned:
        compiled = compute()
    assert returned and all(returned), "the compiled code left this to torch"
    with using({}):
        expected = compute()
    assert compiled.dtype == expected.dtype and compiled.numpy().tobytes() == expected.numpy().tobytes()
    return compiled


# --- examples ---------------------------------------------------------------------------------------


def noise(n: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(n, generator=torch.Generator().manual_seed(seed))


def any_floats(n: int, seed: int, exponents: tuple[int, int]) -> Tensor:
    """Random signs and digits, and biased exponents between two: 0 is denormal, 254 the largest finite."""
    rng = np.random.default_rng(seed)
    low, high = sorted(exponents)
    bits = rng.integers(0, 1 << 23, n) | rng.integers(low, high + 1, n) << 23 | rng.integers(0, 2, n) << 31
    return torch.from_numpy(bits.astype(np.uint32).view(np.float32))


def half_steps(n: int, seed: int, scale: float) -> Tensor:
    """Whole and half multiples of what becomes a scale: ties of the rounding."""
    halves = np.random.default_rng(seed).integers(-254, 255, n).astype(np.float32)
    return torch.from_numpy(halves * np.float32(scale / 2))


def any_codes(codec: Codec, n: int, seed: int) -> Tensor:
    """A buffer that passes the check: any codes but -128 and a nibble of 0, with any scales."""
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 256, codec.nbytes(n)).astype(np.uint8)
    raw[(raw & 15 == 0) | (raw & 240 == 0)] = 255
    for start in range(0, n, codec.group):
        scale = any_floats(1, seed + start, (0, 240)).abs().numpy()
        raw[codec.nbytes(start) : codec.nbytes(start) + 4] = scale.view(np.uint8)
    codes = torch.from_numpy(raw)
    if isinstance(codec, TopK):
        spread(codec, codes, n, rng)
    return codes


def spread(codec: TopK, codes: Tensor, n: int, rng: np.random.Generator) -> None:
    """Give the codes of each group other places, which have to be in order."""
    for start in range(0, n, codec.group):
        width = min(codec.group, n - start)
        count = -(-width * codec.keep // codec.group)
        row = codes[codec.nbytes(start) : codec.nbytes(start + width)]
        places = torch.from_numpy(np.sort(rng.permutation(width)[:count]))
        sparse.pack(places[None], row[4 + count :][None])


sizes, seeds = st.integers(0, 2300), st.integers(0, 2**32 - 1)
exponents = st.tuples(st.integers(0, 254), st.integers(0, 254))
extremes = st.sampled_from([0.0, -0.0, 2.0**-149, 2.0**-126, 127.5, FLOAT_MAX, -FLOAT_MAX, FLOAT_MAX / 128])
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = st.one_of(
    st.builds(any_floats, sizes, seeds, exponents),
    st.builds(half_steps, sizes, seeds, st.sampled_from([1.0, 1 / 3, 2.0**-126, 2.0**120])),
    st.lists(finite | extremes, max_size=300).map(lambda values: torch.tensor(values, dtype=torch.float32)),
)


def public_copies(codec: Codec, x_hat: Tensor) -> PublicCopies:
    """One end of no edges, at x^."""
    keyframe = torch.zeros(KEYFRAME_CODEC.nbytes(x_hat.numel()), dtype=torch.uint8)
    return PublicCopies(codec, x_hat.numel(), lambda start, stop: x_hat[start:stop], keyframe, x_hat.device)


# --- the same bits ----------------------------------------------------------------------------------


def encoded(codec: Codec, x: Tensor) -> Tensor:
    out = torch.empty(codec.nbytes(x.numel()), dtype=torch.uint8)
    codec.encode(x, out)
    return out


def after_difference(codec: Codec, x: Tensor, x_hat: Tensor) -> Tensor:
    """The codes of Q(x - x^), then x^ + q, as bytes."""
    public, out = public_copies(codec, x_hat), torch.empty(codec.nbytes(x.numel()), dtype=torch.uint8)
    public.difference(x, out)
    return torch.cat((out, public.x_hat.view(torch.uint8)))


@codecs
@given(x=vectors)
def test_codes_are_those_of_torch(codec: Codec, kernels: Kernels, x: Tensor) -> None:
    codes = assert_same_bits(kernels, lambda: encoded(codec, x))
    assert_same_bits(kernels, lambda: codec.decode(codes, 0, x.numel()))


@codecs
@given(n=sizes, seed=seeds, at=exponents, hat_at=exponents)
def test_differences_are_those_of_torch(
    codec: Codec, kernels: Kernels, n: int, seed: int, at: tuple[int, int], hat_at: tuple[int, int]
) -> None:
    # Half the range of float32, so that no difference overflows.
    x, x_hat = 0.5 * any_floats(n, seed, at), 0.5 * any_floats(n, seed + 1, hat_at)
    assert_same_bits(kernels, lambda: after_difference(codec, x, x_hat))


@codecs
@given(n=sizes, seed=seeds, data=st.data())
def test_any_slice_of_any_codes_is_read_as_torch_reads_it(
    codec: Codec, kernels: Kernels, n: int, seed: int, data: st.DataObject
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
    flows = [Flow(peer, theirs, ours) for theirs, ours in codes for peer in "ab"]
    return torch.stack([e.clone() for _, e in public.advance(flows, start, stop)])


def bound(codec: Codec, codes: Tensor, n: int) -> Tensor:
    """What the check says of a buffer."""
    return torch.tensor([codec.largest(codes, n)], dtype=torch.float64)


@codecs
@pytest.mark.parametrize("n", RAGGED)
def test_every_length_gives_the_bits_of_torch(codec: Codec, kernels: Kernels, n: int) -> None:
    x = noise(n, scale=1e-4)
    codes = assert_same_bits(kernels, lambda: encoded(codec, x))
    assert_same_bits(kernels, lambda: codec.decode(codes, 0, n))
    assert_same_bits(kernels, lambda: after_difference(codec, x, noise(n, 1)))
    assert_same_bits(kernels, lambda: advanced(codec, n, [(codes, any_codes(codec, n, 1))], 0, n))


@codecs
def test_codes_may_begin_at_any_byte(codec: Codec, kernels: Kernels) -> None:
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
    codec: Codec, kernels: Kernels, value: float, index: int
) -> None:
    x = noise(CACHE_ELEMENTS + 100)
    x[index] = value
    x[-1] = math.nan
    for attempt in (lambda: encoded(codec, x), lambda: after_difference(codec, x, noise(x.numel(), 1))):
        with using(kernels), pytest.raises(NotFiniteError) as compiled:
            attempt()
        with using({}), pytest.raises(NotFiniteError) as expected:
            attempt()
        assert (str(compiled.value), compiled.value.index) == (str(expected.value), index)


@codecs
def test_a_difference_that_overflows_is_refused(codec: Codec, kernels: Kernels) -> None:
    with using(kernels), pytest.raises(NotFiniteError, match=r"element 70 .* which is inf"):
        after_difference(codec, *(torch.zeros(100).index_fill(0, torch.tensor(70), s * FLOAT_MAX) for s in (1, -1)))


@codecs
@pytest.mark.parametrize("group", [0, 1, 2])
@pytest.mark.parametrize("scale", [math.nan, -math.nan, math.inf, -math.inf, -1.0, FLOAT_MAX])
def test_a_scale_that_no_encoder_writes_is_refused_by_the_same_error(
    codec: Codec, kernels: Kernels, group: int, scale: float
) -> None:
    elements = 2 * codec.group + 5
    codes = encoded(codec, noise(elements))
    codes[codec.nbytes(group * codec.group) :][:4] = torch.tensor([scale]).view(torch.uint8)
    with using(kernels), pytest.raises(WireError) as compiled:
        codec.largest(codes, elements, "beech")
    with using({}), pytest.raises(WireError) as expected:
        codec.largest(codes, elements, "beech")
    assert (str(compiled.value), compiled.value.reason) == (str(expected.value), "not-finite")


@given(n=st.integers(1, 2200), seed=seeds, data=st.data())
def test_places_out_of_order_are_seen_by_both(kernels: Kernels, n: int, seed: int, data: st.DataObject) -> None:
    """The compiled check refuses what torch refuses, whatever bytes stand where places should."""
    codec = CODECS["topk"]
    codes = any_codes(codec, n, seed)
    at = data.draw(st.integers(0, codes.numel() - 1))
    codes[at] = data.draw(st.integers(0, 255))
    with using({}):
        try:
            largest, rms = codec.measure(codes, n)
            expected: object = (largest, pytest.approx(rms))
        except WireError:
            expected = None
    with using(kernels):
        assert native.measure("topk", codes, n) == expected


@codecs
def test_lengths_that_do_not_fit_touch_nothing(codec: Codec, kernels: Kernels) -> None:
    """The compiled code trusts no length: a slip in Python must not become a write beyond an array."""
    name, x, codes = codec.name, noise(320), encoded(codec, noise(320))
    short, before = codes[:-1], (x.clone(), codes.clone())
    with using(kernels):
        assert not native.encode(name, x, short)
        assert not native.encode(name, x[1:], codes.repeat(2))
        assert not native.encode_difference(name, x, x[1:], codes)
        assert not native.encode_difference(name, x, noise(320), short)
        assert not native.decode(name, codes, 1, x)
        assert not native.decode(name, codes[:3], 0, x[:1])
        assert not native.decode(name, codes, -1, x[:2])
        assert not native.add_difference(name, codes, short, 0, x)
        assert not native.add_difference(name, short, codes, 0, x)
        assert native.measure(name, short, 320) is None
        assert native.measure(name, codes, 400) is None
    assert torch.equal(x, before[0]) and torch.equal(codes, before[1])


def test_what_the_compiled_code_cannot_take_is_left_to_torch(kernels: Kernels) -> None:
    x, codec = noise(600), CODECS["int8"]
    with using(kernels) as returned:
        assert not native.encode("int8", x[::2], torch.empty(codec.nbytes(300), dtype=torch.uint8))
        assert not native.encode("int8", x.double(), torch.empty(codec.nbytes(600), dtype=torch.uint8))
        assert not native.encode("int8", x.to("meta"), torch.empty(codec.nbytes(600), dtype=torch.uint8))
        assert not native.encode("bf16", x, torch.empty(1200, dtype=torch.uint8))
        assert not returned
        strided = encoded(codec, x[::2])
    assert torch.equal(strided, encoded(codec, x[::2].clone()))


# --- where the library comes from -------------------------------------------------------------------


def test_the_environment_turns_it_off(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "find_spec", lambda name: spec_from_file_location(name, library))
    assert native.load_built()
    monkeypatch.setenv("DECA_NATIVE", "0")
    assert not native.load_built()


def test_without_a_library_torch_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "LIBRARY", "deca_node.numerics._no_such_library")
    assert not native.load_built()


def test_a_library_of_another_version_is_left_alone_with_a_warning(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "find_spec", lambda name: spec_from_file_location(name, library))
    monkeypatch.setattr(native, "INTERFACE", native.INTERFACE + 1)
    with pytest.warns(UserWarning, match="has interface .* build it again"):
        assert not native.load_built()


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason=NO_COMPILER)
def test_flags_that_would_change_the_bits_fail_the_build(tmp_path: Path) -> None:
    done = build(tmp_path, "-ffast-math")
    assert done.returncode == 1
    assert "-ffast-math would change" in done.stderr and "could not be built" in done.stderr
