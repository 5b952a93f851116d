"""Helpers for codec tests: build the compiled code, switch between it and torch, and make examples for both."""

import os
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from deca_node.numerics.codecs import native, table
from deca_node.numerics.codecs import places as sparse
from deca_node.numerics.codecs.base import CACHE_ELEMENTS, FLOAT_MAX, Codec
from deca_node.numerics.codecs.formats import CODECS, KEYFRAME_CODEC, TopK
from deca_node.numerics.codecs.kernels import Kernels
from deca_node.numerics.codecs.native import Native
from deca_node.numerics.codecs.table import Table
from deca_node.numerics.exchange.flows import PublicCopies

ROOT = Path(__file__).resolve().parents[3]
COMPILER = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
NO_COMPILER = f"there is no C compiler {COMPILER}"

codecs = pytest.mark.parametrize("codec", [CODECS[name] for name in native.CODECS], ids=native.CODECS)

RAGGED = [0, 1, 2, 3, 31, 63, 64, 65, 127, 255, 256, 257, 320, 1000, 4096, CACHE_ELEMENTS + 77]


# --- building and switching -------------------------------------------------------------------------


def build(into: Path, flags: str = "") -> "subprocess.CompletedProcess[str]":
    """Build the library with the tool, with these compiler flags; stdout names the library."""
    command = [sys.executable, "tools/build_native.py", "--into", str(into)]
    environment = os.environ | {"CFLAGS": flags}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)


NO_KERNELS: Table = {}
"""With these torch does all the work."""


@contextmanager
def using(kernels: Table) -> Iterator[list[bool]]:
    """Let the codecs use these kernels; yields a list of the results of all calls to C functions."""
    returned: list[bool] = []

    def spy(kernel: Callable[..., bool]) -> Callable[..., bool]:
        def call(*raw: int) -> bool:
            returned.append(kernel(*raw))
            return returned[-1]

        return call

    def spied(kernels: Kernels) -> Kernels:
        assert isinstance(kernels, Native)
        return Native({verb: spy(function) for verb, function in kernels.functions.items()})

    before, table.TABLE = table.TABLE, {key: spied(found) for key, found in kernels.items()}
    try:
        yield returned
    finally:
        table.TABLE = before


def assert_same_bits(kernels: Table, compute: Callable[[], Tensor]) -> Tensor:
    """Assert that the compiled code does the work, and that torch gives the same bytes (so -0.0 is not 0.0)."""
    with using(kernels) as returned:
        compiled = compute()
    assert returned and all(returned), "the compiled code left this to torch"
    with using(NO_KERNELS):
        expected = compute()
    assert compiled.dtype == expected.dtype and compiled.numpy().tobytes() == expected.numpy().tobytes()
    return compiled


# --- examples ---------------------------------------------------------------------------------------


def noise(n: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(n, generator=torch.Generator().manual_seed(seed))


def any_floats(n: int, seed: int, exponents: tuple[int, int]) -> Tensor:
    """Random signs and digits, with biased exponents in a range: 0 is denormal, 254 the largest finite one."""
    rng = np.random.default_rng(seed)
    low, high = sorted(exponents)
    bits = rng.integers(0, 1 << 23, n) | rng.integers(low, high + 1, n) << 23 | rng.integers(0, 2, n) << 31
    return torch.from_numpy(bits.astype(np.uint32).view(np.float32))


def half_steps(n: int, seed: int, scale: float) -> Tensor:
    """Whole and half multiples of a number that becomes the scale: the halves are ties of the rounding."""
    halves = np.random.default_rng(seed).integers(-254, 255, n).astype(np.float32)
    return torch.from_numpy(halves * np.float32(scale / 2))


def any_codes(codec: Codec, n: int, seed: int) -> Tensor:
    """A buffer that passes the check: any codes except -128 and a nibble of 0, with any scales."""
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
    """Give each group other places, in rising order."""
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
    """A node without edges, whose public copy is x^."""
    keyframe = torch.zeros(KEYFRAME_CODEC.nbytes(x_hat.numel()), dtype=torch.uint8)
    return PublicCopies(codec, x_hat.numel(), lambda start, stop: x_hat[start:stop], keyframe, x_hat.device)


def encoded(codec: Codec, x: Tensor) -> Tensor:
    out = torch.empty(codec.nbytes(x.numel()), dtype=torch.uint8)
    codec.encode(x, out)
    return out
