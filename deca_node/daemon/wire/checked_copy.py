"""Bytes copied and their checksum taken in one pass: what a chunk goes through on its way out and on its way in.

The checksum is XXH3 with 64 bits. Where the library of :mod:`deca_node.numerics.codecs.native` was built,
``checked_copy.c``
in it does the work, a fifth quicker than a checksum and a copy one after the other, and lets other threads run
meanwhile; elsewhere those two do it. This module imports no torch, since the daemon calls it.
"""

import ctypes
import os
from collections.abc import Callable
from importlib.util import find_spec

import xxhash

LIBRARY = "deca_node.numerics.codecs._codec"
CHECKSUM_BYTES = 8
LONG_BYTES = 240
"""What the compiled pass is for is longer than this; XXH3 treats shorter inputs in other ways."""

Pass = Callable[[int, int, int], int]
"""To which address, from which, how many bytes; gives their checksum."""


def load(path: str) -> Pass | None:
    """The compiled pass of a library; None where it has none."""
    try:
        function = ctypes.CDLL(path).deca_checked_copy
    except (OSError, AttributeError):
        return None
    function.restype = ctypes.c_uint64
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    return function


def load_built() -> Pass | None:
    """That of the library that was built with the package, unless ``DECA_NATIVE=0`` turns it off."""
    spec = None if os.environ.get("DECA_NATIVE") == "0" else find_spec(LIBRARY)
    return load(spec.origin) if spec and spec.origin else None


def checksum(data: bytes | memoryview) -> int:
    """XXH3 of anything."""
    return xxhash.xxh3_64_intdigest(data)


def append_checked(head: bytes, checksum_at: int, data: memoryview) -> bytes:
    """``head`` and behind it ``data``, the only copy of it. The eight bytes of head from ``checksum_at`` on take the
    checksum of data, the lowest byte first."""
    if COMPILED is None or data.readonly or len(data) <= LONG_BYTES:
        return b"".join((_stamped(head, checksum_at, checksum(data)), data))
    # A bytes object that nobody else knows yet may be written to: CPython makes them so itself.
    message: bytes = _new_bytes(None, len(head) + len(data))
    address = _address_of_bytes(message)
    source = ctypes.c_char.from_buffer(data)
    found = COMPILED(address + len(head), ctypes.addressof(source), len(data))
    ctypes.memmove(address, _stamped(head, checksum_at, found), len(head))
    return message


def copy_checked(message: bytes, start: int, to: memoryview) -> int:
    """Fill ``to`` with the bytes of ``message`` from ``start`` on; gives their checksum."""
    if start < 0 or start + len(to) > len(message):
        raise ValueError(f"{len(to)} bytes from {start} of {len(message)}")
    if COMPILED is None or len(to) <= LONG_BYTES:
        to[:] = memoryview(message)[start : start + len(to)]
        return checksum(to)
    target = ctypes.c_char.from_buffer(to)
    return COMPILED(ctypes.addressof(target), _address_of_bytes(message) + start, len(to))


def _stamped(head: bytes, at: int, found: int) -> bytes:
    return head[:at] + found.to_bytes(CHECKSUM_BYTES, "little") + head[at + CHECKSUM_BYTES :]


_new_bytes = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_char_p, ctypes.c_ssize_t)(
    ("PyBytes_FromStringAndSize", ctypes.pythonapi)
)
_address_of_bytes = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object)(("PyBytes_AsString", ctypes.pythonapi))

COMPILED = load_built()
