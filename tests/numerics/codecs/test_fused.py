"""The kernels for CUDA give the bits of the torch code. Triton's interpreter runs them here where there is no GPU.

Triton takes a gigabyte, so these tests are slow ones, and are skipped where it is not installed.
"""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deca_node.numerics.codecs import fused, table
from deca_node.numerics.codecs.base import FLOAT_MAX, FLOAT_TINY, Codec, NotFiniteError
from deca_node.numerics.codecs.formats import CODECS, Int4, Int8
from deca_node.numerics.exchange import flows
from deca_node.numerics.exchange.flows import FlowBytes, PublicCopies
from tests.numerics.codecs.compiled import any_codes, any_floats, half_steps, public_copies

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")]

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
KERNELS = {(name, DEVICE.type): kernels for name, kernels in fused.CODECS.items()}
TABLE = table.TABLE
codecs = pytest.mark.parametrize("codec", [CODECS["int8"], CODECS["int4"]], ids=lambda codec: codec.name)
few = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 2**32 - 1)
exponents = st.tuples(st.integers(0, 254), st.integers(0, 254))


ROOT = Path(__file__).resolve().parents[3]

COMPILE = """
import json, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from deca_node.numerics.codecs import triton_kernels

name, capability, types, constants = json.loads(sys.argv[1])
kernel = getattr(triton_kernels, name)
places = {(kernel.arg_names.index(constant),): value for constant, value in constants.items()}
source = ASTSource(kernel, types | dict.fromkeys(constants, "constexpr"), places)
done = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"enable_fp_fusion": False})
print(done.asm["ptx"])
"""


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare the kernels with torch alone: without the C code, and in Triton's interpreter if there is no GPU."""
    pytest.importorskip("triton", reason="Triton is not installed; on Linux: pip install triton")
    monkeypatch.setattr(table, "TABLE", {})
    torch.set_num_threads(1)


if not torch.cuda.is_available():
    # Triton reads the variable when it is imported, which happens at the first kernel.
    os.environ["TRITON_INTERPRET"] = "1"


class Both:
    """Does the same work twice: with the kernels, and in torch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch

    def difference(self, codec: Codec, x: Tensor, x_hat: Tensor) -> list[Tensor]:
        """The codes and x^ of both."""
        found = []
        for on in (True, False):
            self._patch.setattr(table, "TABLE", KERNELS if on else {})
            public, out = moved(public_copies(codec, x_hat)), torch.zeros(codec.nbytes(x.numel()), dtype=torch.uint8)
            public.difference(x.to(DEVICE), out)
            found.append(torch.cat((out, public.x_hat.cpu().view(torch.uint8))))
        return found

    def absorbed(self, codec: Codec, n: int, flow: FlowBytes, start: int, stop: int) -> list[Tensor]:
        """The e of both."""
        found = []
        for on in (True, False):
            self._patch.setattr(table, "TABLE", KERNELS if on else {})
            public = moved(public_copies(codec, torch.zeros(n)))
            generator = torch.Generator().manual_seed(n)
            public.edges[flow.peer] = flows.EdgeDifference(0.5, torch.randn(n, generator=generator).to(DEVICE))
            found += [e.cpu().view(torch.uint8).clone() for _, e in public.advance([flow], start, stop)]
        return found


def moved(public: PublicCopies) -> PublicCopies:
    public.x_hat = public.x_hat.to(DEVICE)
    return public


@pytest.fixture(scope="module")
def both() -> Both:
    return Both(pytest.MonkeyPatch())


def noise(n: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(n, generator=torch.Generator().manual_seed(seed))


def assert_same(found: list[Tensor]) -> None:
    kernels, expected = found
    assert kernels.numpy().tobytes() == expected.numpy().tobytes()


@codecs
@pytest.mark.parametrize("n", [1, 63, 64, 65, 255, 256, 257, 2048, 5000])
def test_every_length(codec: Codec, both: Both, n: int) -> None:
    assert_same(both.difference(codec, noise(n), noise(n, 1)))
    flow = FlowBytes("a", any_codes(codec, n, 2), any_codes(codec, n, 3))
    assert_same(both.absorbed(codec, n, flow, 0, n))


@few
@codecs
@given(n=st.integers(1, 900), seed=seeds, at=exponents, hat_at=exponents)
def test_any_differences(
    codec: Codec, both: Both, n: int, seed: int, at: tuple[int, int], hat_at: tuple[int, int]
) -> None:
    assert_same(both.difference(codec, 0.5 * any_floats(n, seed, at), 0.5 * any_floats(n, seed + 1, hat_at)))


@few
@codecs
@given(n=st.integers(1, 900), seed=seeds, scale=st.sampled_from([1.0, 1 / 3, FLOAT_TINY, 2.0**120]))
def test_ties_are_rounded_to_even(codec: Codec, both: Both, n: int, seed: int, scale: float) -> None:
    assert_same(both.difference(codec, half_steps(n, seed, scale), torch.zeros(n)))


@codecs
@pytest.mark.parametrize("value", [0.0, -0.0, 2.0**-149, FLOAT_TINY, FLOAT_MAX, -FLOAT_MAX, FLOAT_MAX / 128])
def test_extremes(codec: Codec, both: Both, value: float) -> None:
    assert_same(both.difference(codec, torch.full((600,), value), torch.zeros(600)))


@few
@codecs
@given(n=st.integers(1, 900), seed=seeds, data=st.data())
def test_any_slice_of_any_codes(codec: Codec, both: Both, n: int, seed: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, n - 1))
    stop = data.draw(st.integers(start + 1, n))
    flow = FlowBytes("a", any_codes(codec, n, seed), any_codes(codec, n, seed + 1))
    assert_same(both.absorbed(codec, n, flow, start, stop))


@codecs
@pytest.mark.parametrize("value", [math.nan, -math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("index", [0, 300, 599])
def test_what_is_not_finite_is_refused_by_name_and_index(
    codec: Codec, monkeypatch: pytest.MonkeyPatch, value: float, index: int
) -> None:
    monkeypatch.setattr(table, "TABLE", KERNELS)
    x = noise(600)
    x[index] = value
    public, out = moved(public_copies(codec, noise(600, 1))), torch.zeros(codec.nbytes(600), dtype=torch.uint8)
    with pytest.raises(NotFiniteError, match=f"refuses element {index} of this block, which is"):
        public.difference(x.to(DEVICE), out)


def test_kernels_are_what_is_tested(both: Both) -> None:
    assert fused._load() is not None
    both._patch.setattr(table, "TABLE", KERNELS)
    x = noise(600).to(DEVICE)
    out = torch.zeros(CODECS["int8"].nbytes(600), dtype=torch.uint8)
    assert table.kernels_of("int8", DEVICE).encode_difference(x, torch.zeros_like(x), out) == 512
    assert table.kernels_of("fp32", DEVICE).encode_difference(x, torch.zeros_like(x), out) == 0
    assert table.kernels_of("topk", DEVICE).encode_difference(x, torch.zeros_like(x), out) == 0
    assert not table.kernels_of("bf16", DEVICE).add_difference(out, out, 0, x)


def test_the_table_has_the_kernels_for_cuda() -> None:
    """The kernels were made with the constants of the formats."""
    cuda = torch.device("cuda")
    for name, kernels in fused.CODECS.items():
        codec = CODECS[name]
        assert isinstance(codec, Int4 | Int8)
        assert TABLE[name, "cuda"] is kernels
        assert (kernels._group, kernels._q, kernels._row_bytes) == (codec.group, codec.q, codec.nbytes(codec.group))
    assert ("topk", cuda.type) not in TABLE


@codecs
def test_a_block_of_several_launches(codec: Codec, both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "SLICE_ELEMENTS", 512)
    assert_same(both.difference(codec, noise(1700), noise(1700, 1)))
    monkeypatch.setattr(table, "TABLE", KERNELS)
    x, out = noise(1700).to(DEVICE), torch.zeros(codec.nbytes(1700), dtype=torch.uint8)
    x[1200] = math.nan
    assert table.kernels_of(codec.name, DEVICE).encode_difference(x, torch.zeros_like(x), out) == 1024


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("group", "q"), [(256, 127), (64, 7)])
@pytest.mark.parametrize("name", ["encode_difference", "add_difference"])
def test_the_machine_code_rounds_every_operation_to_nearest(name: str, group: int, q: int, capability: int) -> None:
    """The kernels compiled for an A100 and an H100, without a GPU, have no fused multiply-add, no approximate division,
    and do not flush denormals to zero. The interpreter computes with NumPy and would not notice any of these."""
    floats, integers = dict.fromkeys(("x", "x_hat", "scales"), "*fp32"), {"bad": "*i32", "groups": "i32"}
    types: dict[str, str] = {**floats, "codes": "*u8", **integers}
    constants: dict[str, int] = {"GROUP": group, "Q": q, "PACKED": q == 7, "ROWS": 2048 // group}
    if name == "add_difference":
        types = {"scales_j": "*fp32", "codes_j": "*u8", "scales_i": "*fp32", "codes_i": "*u8"}
        types |= {"nbytes": "i32", "start": "i32", "e": "*fp32", "n": "i32"}
        constants = {"GROUP": group, "PACKED": q == 7, "BLOCK": 2048}
    job = json.dumps([name, capability, types, constants])
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, job], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    floating = set(re.findall(r"\b((?:fma|mad|mul|add|sub|div|rcp)\.[a-z0-9.]*f32)\b", done.stdout))
    expected = {"add.rn.f32", "sub.rn.f32", "mul.rn.f32", "div.rn.f32"}
    assert floating and floating <= expected
    assert ".ftz" not in done.stdout
