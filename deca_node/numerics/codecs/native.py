"""The int8, int4 and topk codecs, and mixing by them, compiled from C (codec.c, mixing.c): several times faster than in
torch, with the same bits.

:mod:`deca_node.storage.compiled` loads the library. Without a library there are no kernels here.
"""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from deca_node.numerics.codecs.kernels import CompiledFlows, Kernels
from deca_node.storage import compiled

CODECS = ("int8", "int4", "topk")


class _Flow(ctypes.Structure):
    """One flow as mixing.c lays it out; the fields are explained there."""

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
"""The arguments of each C function. An array is named by its dtype or structure and passed as a pointer and a length;
None stands for a number."""

Functions = Mapping[str, Callable[..., bool]]
"""The C functions of one codec, by verb."""


class Native(Kernels):
    """The compiled kernels of one codec in main memory."""

    def __init__(self, functions: Functions) -> None:
        self.functions = functions

    def encode(self, x: Tensor, out: Tensor) -> bool:
        return self._call("encode", x, out)

    def encode_difference(self, x: Tensor, x_hat: Tensor, out: Tensor) -> int:
        return x.numel() if self._call("encode_difference", x, x_hat, out) else 0

    def decode(self, codes: Tensor, start: int, y: Tensor) -> bool:
        return self._call("decode", codes, start, y)

    def add_difference(self, theirs: Tensor, ours: Tensor, start: int, e: Tensor) -> bool:
        return self._call("add_difference", theirs, ours, start, e)

    def measure(self, codes: Tensor, elements: int) -> tuple[float, float] | None:
        bounds = torch.empty(2)
        if not self._call("largest", codes, elements, bounds):
            return None
        largest, rms = bounds.tolist()
        return largest, rms

    def flows(self, flows: Sequence[tuple[Tensor, Tensor, Tensor]]) -> "NativeFlows | None":
        dtypes = (_CODES, _CODES, _FLOATS)
        if not all(_fits(tensor, dtype) for flow in flows for tensor, dtype in zip(flow, dtypes, strict=True)):
            return None
        return NativeFlows(self, flows)

    def _call(self, verb: str, *arguments: "Tensor | ctypes.Array[_Flow] | int") -> bool:
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
        return self.functions[verb](*raw)


class NativeFlows(CompiledFlows):
    """Flows as mixing.c takes them."""

    def __init__(self, kernels: Native, flows: Sequence[tuple[Tensor, Tensor, Tensor]]) -> None:
        self._kernels = kernels
        self._tensors = flows
        """Kept, because the C structures hold only their addresses."""
        edges = [e.data_ptr() for _, _, e in flows]
        self._flows = (_Flow * len(flows))()
        for i, flow in enumerate(flows):
            raw = [number for tensor in flow for number in (tensor.data_ptr(), tensor.numel())]
            self._flows[i] = _Flow(*raw, 0.0, edges[i] not in edges[i + 1 :])

    def mix(self, shares: Sequence[float], start: int, x: Tensor, E: Tensor, squares: Tensor) -> bool:
        for flow, share in zip(self._flows, shares, strict=True):
            flow.share = share
        return self._kernels._call("mix", self._flows, start, x, E, squares)


def load(library: ctypes.CDLL) -> dict[str, Native]:
    """The kernels in a library, by codec."""
    return {codec: Native({verb: _function(library, codec, verb) for verb in _VERBS}) for codec in CODECS}


def load_built() -> dict[str, Native]:
    """The kernels that were built with the package, by codec; none if there is no library or it is turned off."""
    library = compiled.load_built()
    return {} if library is None else load(library)


def _function(library: ctypes.CDLL, codec: str, verb: str) -> Callable[..., bool]:
    function = library[f"deca_{codec}_{verb}"]
    function.restype = ctypes.c_bool
    function.argtypes = [kind for argument in _VERBS[verb] for kind in _kinds(argument)]
    return function


def _fits(tensor: Tensor, dtype: object) -> bool:
    return tensor.is_cpu and tensor.dtype == dtype and tensor.is_contiguous()


def _kinds(argument: object) -> tuple[Any, ...]:
    return (ctypes.c_size_t,) if argument is None else (ctypes.c_void_p, ctypes.c_size_t)
