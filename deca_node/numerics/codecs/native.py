"""The int8, int4 and topk codecs of :mod:`deca_node.numerics.codecs.formats`, and mixing by them, compiled: the same
bits, several times faster.

Installing the package builds ``codec.c`` and ``mixing.c`` where there is a C compiler, and goes on without them where
there is none; ``tools/build_native.py`` builds them into a checkout. Nothing is compiled here. The library is plain C
and knows no Python: setuptools builds it the way it builds extension modules, so the import system knows its file,
but it is ctypes that loads and calls it, which lets other threads run meanwhile.

Every function below does its work and returns True (or what it found), or returns False (None) and leaves it to
torch: where no library was built, ``DECA_NATIVE=0`` turns it off, the codec has no compiled form, a tensor is strided
or not in main memory, lengths do not fit, a number to be encoded is not finite, or codes are malformed. The last three
torch refuses with words.
"""

import ctypes
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

LIBRARY = "deca_node.numerics.codecs._codec"
"""Where the import system looks for the library."""

INTERFACE = 3
"""What ``deca_codec_interface()`` of a library that fits returns."""

CODECS = ("int8", "int4", "topk")


class _Flow(ctypes.Structure):
    """As mixing.c lays it out, which says what the fields are."""

    _fields_ = (
        ("theirs", ctypes.c_void_p),
        ("theirs_bytes", ctypes.c_size_t),
        ("ours", ctypes.c_void_p),
        ("ours_bytes", ctypes.c_size_t),
        ("e", ctypes.c_void_p),
        ("n", ctypes.c_size_t),
        ("share", ctypes.c_float),
        ("last", ctypes.c_uint32),
    )


_FLOATS, _DOUBLES, _CODES = torch.float32, torch.float64, torch.uint8
_VERBS: Mapping[str, tuple[torch.dtype | type[_Flow] | None, ...]] = {
    "encode": (_FLOATS, _CODES),
    "encode_difference": (_FLOATS, _FLOATS, _CODES),
    "decode": (_CODES, None, _FLOATS),
    "add_difference": (_CODES, _CODES, None, _FLOATS),
    "largest": (_CODES, None, _FLOATS),
    "mix": (_Flow, None, _FLOATS, _FLOATS, _DOUBLES),
}
"""The arguments of each kernel: the dtype of a tensor or what an array is of (in C a pointer and a length), or None for
a number."""

Kernels = Mapping[tuple[str, str], Callable[..., bool]]
"""C functions by codec and verb."""


def load(path: str) -> Kernels:
    """The kernels of a library. Raises OSError where it cannot be loaded or is of another version of codec.c."""
    library = ctypes.CDLL(path)
    found = library.deca_codec_interface()
    if found != INTERFACE:
        raise OSError(f"{path} has interface {found}, not {INTERFACE}")
    kernels: dict[tuple[str, str], Callable[..., bool]] = {}
    for codec in CODECS:
        for verb, arguments in _VERBS.items():
            kernel = library[f"deca_{codec}_{verb}"]
            kernel.restype = ctypes.c_bool
            kernel.argtypes = [kind for argument in arguments for kind in _kinds(argument)]
            kernels[codec, verb] = kernel
    return kernels


def load_built() -> Kernels:
    """The kernels that were built with the package; none where there is no library, or it is turned off."""
    spec = None if os.environ.get("DECA_NATIVE") == "0" else find_spec(LIBRARY)
    if spec is None or spec.origin is None:
        return {}
    try:
        return load(spec.origin)
    except OSError as error:
        warnings.warn(f"codecs run in torch, several times slower: {error}; build it again", stacklevel=2)
        return {}


def encode(codec: str, x: Tensor, out: Tensor) -> bool:
    """Encode x (float32 [n]) into ``out`` (uint8 [nbytes(n)])."""
    return _call(codec, "encode", x, out)


def encode_difference(codec: str, x: Tensor, x_hat: Tensor, out: Tensor) -> bool:
    """q = Q(x - x^) into ``out``, and x^ += q, in one pass.

    Where a difference is not finite, x^ has taken up the groups before it and none after.
    """
    return _call(codec, "encode_difference", x, x_hat, out)


def decode(codec: str, codes: Tensor, start: int, y: Tensor) -> bool:
    """Elements from ``start`` on, as many as y (float32) has, of a whole buffer of codes."""
    return _call(codec, "decode", codes, start, y)


def add_difference(codec: str, theirs: Tensor, ours: Tensor, start: int, e: Tensor) -> bool:
    """e += q_j - q_i: e (float32) holds elements from ``start`` on, the codes are whole buffers."""
    return _call(codec, "add_difference", theirs, ours, start, e)


def measure(codec: str, codes: Tensor, elements: int) -> tuple[float, float] | None:
    """A magnitude that nothing in a whole buffer of codes exceeds, and the RMS over all elements of the largest that
    each one's group may have; None where torch has to look at it."""
    bounds = torch.empty(2)
    if not _call(codec, "largest", codes, elements, bounds):
        return None
    largest, rms = bounds.tolist()
    return largest, rms


class Flows:
    """Flows for :meth:`mix`, looked at once for all slices of a block."""

    def __init__(self, table: "ctypes.Array[_Flow]", tensors: Sequence[tuple[Tensor, Tensor, Tensor]]) -> None:
        """As :meth:`of` makes it."""
        self._table = table
        self._tensors = tensors
        """Kept, since the table has their addresses only."""

    @classmethod
    def of(cls, flows: Sequence[tuple[Tensor, Tensor, Tensor]]) -> "Flows | None":
        """``flows`` are (codes q_j, codes q_i, e_ij), of the whole block each; those of one edge have the same e_ij.
        None where torch has to do it."""
        dtypes = (_CODES, _CODES, _FLOATS)
        if not all(_fits(tensor, dtype) for flow in flows for tensor, dtype in zip(flow, dtypes, strict=True)):
            return None
        edges = [e.data_ptr() for _, _, e in flows]
        table = (_Flow * len(flows))()
        for i, flow in enumerate(flows):
            raw = [number for tensor in flow for number in (tensor.data_ptr(), tensor.numel())]
            table[i] = _Flow(*raw, 0.0, edges[i] not in edges[i + 1 :])
        return cls(table, flows)

    def mix(self, codec: str, shares: Sequence[float], start: int, x: Tensor, E: Tensor, squares: Tensor) -> bool:
        """e_ij += q_j - q_i and x += E = sum of share e_ij, for as many elements from ``start`` on as x (float32) has.

        A flow with a share of 0 moves its e_ij only. E takes what x took, or has no elements. To ``squares`` (float64
        [3]) are added the sums of squares over every edge's e_ij, over the sum of these, over E.
        """
        for flow, share in zip(self._table, shares, strict=True):
            flow.share = share
        return _call(codec, "mix", self._table, start, x, E, squares)


def _call(codec: str, verb: str, *arguments: "Tensor | ctypes.Array[_Flow] | int") -> bool:
    kernel = KERNELS.get((codec, verb))
    if kernel is None:
        return False
    raw: list[int] = []
    for argument, kind in zip(arguments, _VERBS[verb], strict=True):
        if isinstance(argument, int):
            raw.append(argument)
        elif isinstance(argument, ctypes.Array):
            raw += (ctypes.addressof(argument), len(argument))
        elif _fits(argument, kind):
            raw += (argument.data_ptr(), argument.numel())
        else:
            return False
    return kernel(*raw)


def _fits(tensor: Tensor, dtype: object) -> bool:
    return tensor.is_cpu and tensor.dtype == dtype and tensor.is_contiguous()


def _kinds(argument: object) -> tuple[Any, ...]:
    return (ctypes.c_size_t,) if argument is None else (ctypes.c_void_p, ctypes.c_size_t)


KERNELS = load_built()
