"""How both processes keep and return memory. Each settles it once: the daemon before it has threads, the trainer before
it trains.

A daemon takes and returns buffers of half a megabyte to two, thousands of times per update; a trainer takes and returns
the activations of every step. By default glibc returns such memory to the system and asks for it again, page by page.
A full garbage collection walks through every imported module, which takes a quarter of a second with torch; it finds
nothing there, and peers wait meanwhile. While torch and transformers are imported there are hundreds of collections.
"""

import ctypes
import gc
import sys
from collections.abc import Callable

MMAP_THRESHOLD_BYTES = 32 << 20
"""Blocks smaller than this come from the heap; larger ones get a mapping of their own."""

TRIM_THRESHOLD_BYTES = 256 << 20
"""The heap keeps up to this much free memory."""

# Names of mallopt's parameters in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


COLLECT_AFTER = (50_000, 20, 20)
"""Python's thresholds (700, 10, 10) are those of small programs. With these, importing torch and transformers takes
about a sixth less time. What is not in a cycle is freed at once, whatever the thresholds."""


def collect_seldom() -> None:
    """Look for garbage in cycles less often. For the first lines of a process."""
    gc.set_threshold(*COLLECT_AFTER)


def settle_memory() -> None:
    """Reuse freed buffers, and leave everything that is loaded now out of garbage collections."""
    mallopt = _of_libc("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
        mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
    gc.collect()
    gc.freeze()


def return_memory() -> None:
    """Return free memory to the system. The threshold above keeps it otherwise, for instance after a thousand callers
    at once. It takes a few milliseconds at most."""
    malloc_trim = _of_libc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _of_libc(name: str) -> Callable[..., int] | None:
    """A function of glibc; None if the C library is another one, whose defaults then stay."""
    function: Callable[..., int] | None = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    return function
