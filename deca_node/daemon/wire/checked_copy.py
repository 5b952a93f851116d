"""Copies bytes and computes their checksum in one pass, for every chunk that is sent and every one that arrives.

The checksum is XXH3 with 64 bits. ``checked_copy.c`` does the work if the compiled library was built
(:mod:`deca_node.storage.compiled`). It takes a fifth less time than a checksum and a copy one after the other, and lets
other threads run meanwhile. Without the library the two run one after the other.
"""

import ctypes
from collections.abc import Callable
from typing import cast

import xxhash

from deca_node.storage import compiled

CHECKSUM_BYTES = 8
LONG_BYTES = 240
"""The compiled pass is for longer inputs only; XXH3 treats shorter inputs in other ways."""

Pass = Callable[[int, int, int], int]
"""Takes the target's address, the source's address and the number of bytes; returns the checksum."""


def compiled_pass(library: ctypes.CDLL | None) -> Pass | None:
    """The compiled pass of a library; None without a library, or if this machine's C compiler could not make it."""
    function = getattr(library, "deca_checked_copy", None)
    if function is None:
        return None
    function.restype = ctypes.c_uint64
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    return cast("Pass", function)


def checksum(data: bytes | memoryview) -> int:
    """XXH3 of bytes, in 64 bits."""
    return xxhash.xxh3_64_intdigest(data)


def append_checked(head: bytes, checksum_at: int, data: memoryview) -> bytes:
    """A message of ``head`` and ``data``, which is copied once. The eight bytes of the head from ``checksum_at`` on
    become the checksum of ``data``, lowest byte first."""
    if COMPILED is None or data.readonly or len(data) <= LONG_BYTES:
        return b"".join((_stamped(head, checksum_at, checksum(data)), data))
    # A new bytes object that no other code refers to yet may be written to: CPython does so itself.
    message: bytes = _new_bytes(None, len(head) + len(data))
    address = _address_of_bytes(message)
    source = ctypes.c_char.from_buffer(data)
    found = COMPILED(address + len(head), ctypes.addressof(source), len(data))
    ctypes.memmove(address, _stamped(head, checksum_at, found), len(head))
    return message


def copy_checked(message: bytes, start: int, to: memoryview) -> int:
    """Fill ``to`` with the bytes of ``message`` from ``start`` on; returns their checksum.

    Raises ValueError if the message does not hold so many.
    """
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

COMPILED = compiled_pass(compiled.load_built())
