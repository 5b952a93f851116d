"""How a file is cut into pieces, and which donor is asked for which pieces.

Imagine several people who carry heaps of boxes. Each begins with a heap that no other carries yet, and one who is done
early helps with another heap. A box that is dropped goes back to its heap. Nothing in this module waits or reads a
file.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from deca_node.protocol.agreed.frames import KEYFRAME_GROUP_BYTES

PIECE_BYTES = 4096 * KEYFRAME_GROUP_BYTES
"""One piece: 4096 whole groups of the keyframe's codec (2^20 elements). So every piece can be decoded by itself, and
pieces of two donors' copies of one block version can be combined. A piece fits into one message."""

RUN_PIECES_MAX = 16
"""The most pieces in one request: enough to hide the round trip, few enough to leave work for faster donors."""

START = -1
"""The activation of the start model's files."""


@dataclass(frozen=True, order=True)
class Item:
    """A file that donors may have: the delta of a block version, or with activation START a file of the start model."""

    activation: int
    name: str
    nbytes: int

    @property
    def file(self) -> str:
        """The file's name on this node's disk."""
        return self.name if self.activation == START else f"{self.name}@{self.activation:06d}.delta"

    def __str__(self) -> str:
        return self.name if self.activation == START else f"block {self.name} of activation {self.activation}"


def piece_count(nbytes: int) -> int:
    """How many pieces a file has. An empty file has none."""
    return -(-nbytes // PIECE_BYTES)


def piece_span(nbytes: int, index: int) -> tuple[int, int]:
    """Where a piece begins, and how many bytes it has. The last piece is shorter."""
    start = index * PIECE_BYTES
    return start, min(PIECE_BYTES, nbytes - start)


@dataclass
class _Heap:
    waiting: deque[int]
    carried: int = 0
    carriers: set[str] = field(default_factory=set)


class Pool:
    """The pieces that are still missing, and the donors that have them.

    ``missing`` gives the missing pieces of each item, the most urgent item first; ``sources`` gives the items of each
    donor. Every piece that was taken must be reported by :meth:`got` or given back by :meth:`put_back`.
    """

    def __init__(self, missing: Mapping[Item, Sequence[int]], sources: Mapping[str, Iterable[Item]]) -> None:
        self._heaps = {item: _Heap(deque(pieces)) for item, pieces in missing.items() if pieces}
        self._sources = {donor: self._heaps.keys() & set(items) for donor, items in sources.items()}

    def take(self, donor: str) -> tuple[Item, tuple[int, ...]] | None:
        """The pieces to ask a donor for next; None where no piece waits that it has.

        An item that fewer donors are sending comes first, so that donors share one item only towards the end.
        """
        able = self._sources[donor]
        choice = [item for item, heap in self._heaps.items() if heap.waiting and item in able]
        if not choice:
            return None
        item = min(choice, key=lambda i: len(self._heaps[i].carriers))
        heap = self._heaps[item]
        others = sum(1 for items in self._sources.values() if item in items) - 1
        # Requests get shorter towards the end, so that the download does not wait for a slow donor's long request.
        count = len(heap.waiting) if others == 0 else max(1, len(heap.waiting) // (2 * (others + 1)))
        pieces = tuple(heap.waiting.popleft() for _ in range(min(count, RUN_PIECES_MAX)))
        heap.carried += len(pieces)
        heap.carriers.add(donor)
        return item, pieces

    def got(self, item: Item) -> bool:
        """A piece has arrived. Returns whether it was the last one of its item."""
        heap = self._heaps[item]
        heap.carried -= 1
        if heap.waiting or heap.carried:
            return False
        del self._heaps[item]
        return True

    def put_back(self, donor: str, item: Item, pieces: Sequence[int]) -> None:
        """A request has ended, and these ``pieces`` did not come. They are the next ones to be taken, by any donor."""
        if item in self._heaps:
            heap = self._heaps[item]
            heap.carried -= len(pieces)
            heap.waiting.extendleft(reversed(pieces))
            heap.carriers.discard(donor)

    def withdraw(self, donor: str, item: Item | None = None) -> None:
        """This donor can no longer give an item, or without ``item`` nothing at all."""
        self._sources[donor] -= {item} if item else set(self._heaps)

    def hopeful(self, donor: str) -> bool:
        """Whether there is something that this donor can send, or may be later, if another donor fails."""
        return any(item in self._sources[donor] for item in self._heaps)

    @property
    def unfinished(self) -> list[Item]:
        """The items of which pieces are missing."""
        return list(self._heaps)
