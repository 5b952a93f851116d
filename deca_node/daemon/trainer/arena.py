"""Shared memory for frames, cut into slots. The daemon and its trainer both map it.

The daemon records which frame is in which slot, and tells the trainer. So a frame passes between the two processes
without a copy through a pipe. The memory is anonymous: the system frees it when both processes have ended, in whatever
way they end.
"""

import heapq
import mmap
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from deca_node.protocol.agreed.frames import FrameId
from deca_node.protocol.errors import StorageError, TrainerError

PAGE_BYTES = 4096


def shared_file() -> int:
    """The descriptor of an anonymous file, which child processes can inherit. Raises TrainerError."""
    try:
        if hasattr(os, "memfd_create"):
            return os.memfd_create("deca-frames", 0)
        descriptor, path = tempfile.mkstemp(prefix="deca-frames-")
        Path(path).unlink()
    except OSError as problem:
        raise _no_memory(problem) from None
    return descriptor


class Arena:
    """``slots`` buffers of at least ``slot_bytes`` bytes each, in the file ``descriptor``. Raises TrainerError if the
    system does not give the memory."""

    def __init__(self, descriptor: int, slot_bytes: int, slots: int) -> None:
        self.slot_bytes = -(-max(slot_bytes, 1) // PAGE_BYTES) * PAGE_BYTES
        self.slots = slots
        size = self.slot_bytes * slots
        try:
            if os.fstat(descriptor).st_size < size:
                os.ftruncate(descriptor, size)
            self._memory = memoryview(mmap.mmap(descriptor, size))
        except OSError as problem:
            raise _no_memory(problem) from None

    def slot(self, index: int, nbytes: int) -> memoryview:
        """The first ``nbytes`` of a slot, writable."""
        if not 0 <= index < self.slots or not 0 <= nbytes <= self.slot_bytes:
            raise ValueError(f"slot {index} of {self.slots}, {nbytes} bytes of {self.slot_bytes}")
        start = index * self.slot_bytes
        return self._memory[start : start + nbytes]


class FrameStore:
    """Records which frame is in which slot of an arena.

    A slot is free again when its frame was released and no session is sending it. Frames from peers leave ``kept_free``
    slots free.
    """

    def __init__(self, arena: Arena, kept_free: int = 0) -> None:
        self._arena = arena
        self._kept_free = kept_free
        self._free = list(range(arena.slots))
        self._slots: dict[FrameId, tuple[int, int]] = {}
        self._holds: Counter[FrameId] = Counter()
        self._held_from: Counter[str] = Counter()
        self._released: set[FrameId] = set()
        self.on_free: Callable[[FrameId], None] = lambda _: None
        """Called each time a frame's slot becomes free."""

    def reserve(self, frame: FrameId, nbytes: int) -> memoryview:
        """Take a slot for a new frame; returns its memory. Raises StorageError if no slot is free."""
        if frame in self._slots:
            raise StorageError(f"{frame} is already held")
        if not self._free:
            raise StorageError(f"no slot is free for {frame}; {self._arena.slots} frames are held")
        # The lowest free slot first, so that most pages of the arena are never touched.
        slot = heapq.heappop(self._free)
        self._slots[frame] = (slot, nbytes)
        self._held_from[frame.sender] += 1
        return self._arena.slot(slot, nbytes)

    def has_room(self) -> bool:
        """Whether a peer may send one more frame."""
        return len(self._free) > self._kept_free

    def view(self, frame: FrameId) -> memoryview:
        """The bytes of a held frame."""
        return self._arena.slot(*self._slots[frame])

    def slot(self, frame: FrameId) -> tuple[int, int]:
        """The slot of a held frame, and the frame's size in bytes."""
        return self._slots[frame]

    def __contains__(self, frame: FrameId) -> bool:
        return frame in self._slots and frame not in self._released

    def __len__(self) -> int:
        return len(self._slots)

    def held_from(self, sender: str) -> int:
        """The number of frames held from one sender."""
        return self._held_from[sender]

    def hold(self, frame: FrameId) -> None:
        """A session begins to send this frame: keep its slot until :meth:`unhold`, even if the frame is released."""
        self._holds[frame] += 1

    def senders(self, frame: FrameId) -> int:
        """The number of sessions that hold this frame to send it."""
        return self._holds[frame]

    def unhold(self, frame: FrameId) -> None:
        """A session has sent this frame, or gives it up."""
        self._holds[frame] -= 1
        if self._holds[frame] <= 0:
            del self._holds[frame]
            if frame in self._released:
                self._let_go(frame)

    def release(self, frame: FrameId) -> None:
        """The node needs this frame no more."""
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


def _no_memory(problem: OSError) -> TrainerError:
    return TrainerError(f"the system gives no shared memory for frames: {problem.strerror}; raise the memory limits")
