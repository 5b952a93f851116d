"""How the daemon's own process holds memory, set once before it has threads.

A node takes and returns buffers of a megabyte or two, thousands of times per update. Out of the box glibc gives such
memory back to the system and asks for it again, page by page; and a full garbage collection walks through every
module that was imported, finds nothing, and keeps the peers waiting meanwhile.
"""

import ctypes
import gc
import sys

MMAP_THRESHOLD_BYTES = 32 << 20
"""Below this size memory comes from the heap, not from a mapping of its own."""

TRIM_THRESHOLD_BYTES = 256 << 20
"""The heap keeps this much free memory before it returns any."""

# Names of mallopt's parameters in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def settle_memory() -> None:
    """Keep freed buffers for the next ones, and what is loaded now out of garbage collections."""
    if sys.platform == "linux":
        # Other C libraries have no mallopt, or one that does nothing: then all stays as it was.
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
            mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
    gc.collect()
    gc.freeze()
