"""How a node's processes hold memory, set once: in the daemon before it has threads, in its trainer before it trains.

A daemon takes and returns buffers of half a megabyte or two, thousands of times per update, a trainer the activations
of every step. Out of the box glibc gives such memory back to the system and asks for it again, page by page; and a full
garbage collection walks through every module that was imported, a quarter of a second with torch, finds nothing, and
keeps the peers waiting meanwhile.
"""

import ctypes
import gc
import sys
from collections.abc import Callable

MMAP_THRESHOLD_BYTES = 32 << 20
"""Below this size memory comes from the heap, not from a mapping of its own."""

TRIM_THRESHOLD_BYTES = 256 << 20
"""The heap keeps this much free memory before it returns any."""

# Names of mallopt's parameters in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def settle_memory() -> None:
    """Keep freed buffers for the next ones, and what is loaded now out of garbage collections."""
    mallopt = _of_libc("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
        mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
    gc.collect()
    gc.freeze()


def return_memory() -> None:
    """Give what is free back to the system, as after a thousand callers at once: now and then, since the threshold
    keeps it for the buffers of updates. Takes a few milliseconds at most."""
    malloc_trim = _of_libc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _of_libc(name: str) -> Callable[..., int] | None:
    """A function of glibc; None where the C library is another one, which then does as it always does."""
    function: Callable[..., int] | None = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    return function
