"""Where frames lie: one piece of shared memory cut into slots, seen by the daemon and by its trainer.

The daemon keeps the books (which frame lies in which slot), the trainer only follows them; so codes pass
between the network's process and the GPU's without a copy through a pipe. The memory is anonymous: it is
gone when both processes are, however they end.
"""

import heapq
import mmap
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from deca_node.protocol.agreed.frames import FrameId
from deca_node.protocol.errors import StorageError

PAGE_BYTES = 4096


def shared_file() -> int:
    """A descriptor of an anonymous file that child processes can inherit."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("deca-frames", 0)
    descriptor, path = tempfile.mkstemp(prefix="deca-frames-")
    Path(path).unlink()
    return descriptor


class Arena:
    """``slots`` buffers of ``slot_bytes`` each over the file ``descriptor``."""

    def __init__(self, descriptor: int, slot_bytes: int, slots: int) -> None:
        self.slot_bytes = -(-max(slot_bytes, 1) // PAGE_BYTES) * PAGE_BYTES
        self.slots = slots
        size = self.slot_bytes * slots
        if os.fstat(descriptor).st_size < size:
            os.ftruncate(descriptor, size)
        self._memory = memoryview(mmap.mmap(descriptor, size))

    def slot(self, index: int, nbytes: int) -> memoryview:
        """The first ``nbytes`` of a slot, writable."""
        if not 0 <= index < self.slots or not 0 <= nbytes <= self.slot_bytes:
            raise ValueError(f"slot {index} of {self.slots}, {nbytes} bytes of {self.slot_bytes}")
        start = index * self.slot_bytes
        return self._memory[start : start + nbytes]


class FrameStore:
    """The books over an arena: frames by name. A slot is free again once its frame was released and
    nobody is sending it any more. ``kept_free`` slots are never given to what comes in from peers."""

    def __init__(self, arena: Arena, kept_free: int = 0) -> None:
        self._arena = arena
        self._kept_free = kept_free
        self._free = list(range(arena.slots))
        self._slots: dict[FrameId, tuple[int, int]] = {}
        self._holds: Counter[FrameId] = Counter()
        self._held_from: Counter[str] = Counter()
        self._released: set[FrameId] = set()
        self.on_free: Callable[[FrameId], None] = lambda _: None
        """Called whenever a frame's slot is free again."""

    def reserve(self, frame: FrameId, nbytes: int) -> memoryview:
        """A slot for a new frame. Raises StorageError where all are taken."""
        if frame in self._slots:
            raise StorageError(f"{frame} is already held")
        if not self._free:
            raise StorageError(f"no slot is free for {frame}; {self._arena.slots} frames are held")
        # The lowest free slot first, so that pages which were never needed stay untouched.
        slot = heapq.heappop(self._free)
        self._slots[frame] = (slot, nbytes)
        self._held_from[frame.sender] += 1
        return self._arena.slot(slot, nbytes)

    def has_room(self) -> bool:
        """Whether one more frame may come in from a peer."""
        return len(self._free) > self._kept_free

    def view(self, frame: FrameId) -> memoryview:
        """The bytes of a held frame."""
        return self._arena.slot(*self._slots[frame])

    def slot(self, frame: FrameId) -> tuple[int, int]:
        """Where a frame lies: slot and size in bytes."""
        return self._slots[frame]

    def __contains__(self, frame: FrameId) -> bool:
        return frame in self._slots and frame not in self._released

    def __len__(self) -> int:
        return len(self._slots)

    def held_from(self, sender: str) -> int:
        """How many frames of one sender are held."""
        return self._held_from[sender]

    def hold(self, frame: FrameId) -> None:
        """Somebody is sending this frame: keep its slot even if it is released meanwhile."""
        self._holds[frame] += 1

    def senders(self, frame: FrameId) -> int:
        """How many are sending this frame, or are about to."""
        return self._holds[frame]

    def unhold(self, frame: FrameId) -> None:
        """That sending is over."""
        self._holds[frame] -= 1
        if self._holds[frame] <= 0:
            del self._holds[frame]
            if frame in self._released:
                self._let_go(frame)

    def release(self, frame: FrameId) -> None:
        """The core needs this frame no more."""
        if frame in self._slots:
            if self._holds[frame]:
                self._released.add(frame)
            else:
                self._let_go(frame)

    def _let_go(self, frame: FrameId) -> None:
        slot, _ = self._slots.pop(frame)
        self._released.discard(frame)
        self._held_from[frame.sender] -= 1
        if not self._held_from[frame.sender]:
            del self._held_from[frame.sender]
        heapq.heappush(self._free, slot)
        self.on_free(frame)
