"""Who fetches which piece from whom: a file is cut into pieces, and whoever is idle takes the next ones.

Think of boxes to be carried by several people: each begins with a box that nobody carries yet, and who is done
early helps with the rest of another's. What somebody drops goes back to the heap, for the others. Nothing here
waits or touches a file.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from deca_node.protocol.agreed.frames import KEYFRAME_GROUP_BYTES

PIECE_BYTES = 4096 * KEYFRAME_GROUP_BYTES
"""One piece: 4096 whole groups of the keyframe's codec (2^20 elements), so that every piece stands by itself
and pieces of two donors' copies of a block version can be put together. It fits into one message."""

RUN_PIECES_MAX = 16
"""Pieces that one request asks for: enough to hide its round trip, few enough to leave work for faster donors."""

START = -1
"""The activation of the start model's files."""


@dataclass(frozen=True, order=True)
class Item:
    """A file to be had: a block version's delta, or with activation START a file of the start model."""

    activation: int
    name: str
    nbytes: int

    @property
    def file(self) -> str:
        """What the file is called on this node's disk."""
        return self.name if self.activation == START else f"{self.name}@{self.activation:06d}.delta"

    def __str__(self) -> str:
        return self.name if self.activation == START else f"block {self.name} of activation {self.activation}"


def piece_count(nbytes: int) -> int:
    """How many pieces a file has; an empty one has none."""
    return -(-nbytes // PIECE_BYTES)


def piece_span(nbytes: int, index: int) -> tuple[int, int]:
    """Where a piece begins, and how many bytes it has; the last one is shorter."""
    start = index * PIECE_BYTES
    return start, min(PIECE_BYTES, nbytes - start)


@dataclass
class _Heap:
    waiting: deque[int]
    carried: int = 0
    carriers: set[str] = field(default_factory=set)


class Pool:
    """Pieces still to be had, and who has them to give.

    ``missing`` gives each item's pieces, the most urgent item first; ``sources`` the items of each donor.
    Every piece taken must be either ``got`` or part of what is ``put back``.
    """

    def __init__(self, missing: Mapping[Item, Sequence[int]], sources: Mapping[str, Iterable[Item]]) -> None:
        self._heaps = {item: _Heap(deque(pieces)) for item, pieces in missing.items() if pieces}
        self._sources = {donor: self._heaps.keys() & set(items) for donor, items in sources.items()}

    def take(self, donor: str) -> tuple[Item, tuple[int, ...]] | None:
        """Pieces for a donor to send next; None where it has none that are waiting.

        An item that fewer others carry comes first, so that an item is shared out only at the end.
        """
        able = self._sources[donor]
        choice = [item for item, heap in self._heaps.items() if heap.waiting and item in able]
        if not choice:
            return None
        item = min(choice, key=lambda i: len(self._heaps[i].carriers))
        heap = self._heaps[item]
        others = sum(1 for items in self._sources.values() if item in items) - 1
        # Shorter and shorter towards the end: nobody should wait for the slowest to finish a long run.
        count = len(heap.waiting) if others == 0 else max(1, len(heap.waiting) // (2 * (others + 1)))
        pieces = tuple(heap.waiting.popleft() for _ in range(min(count, RUN_PIECES_MAX)))
        heap.carried += len(pieces)
        heap.carriers.add(donor)
        return item, pieces

    def got(self, item: Item) -> bool:
        """A piece has arrived; whether it was the item's last."""
        heap = self._heaps[item]
        heap.carried -= 1
        if heap.waiting or heap.carried:
            return False
        del self._heaps[item]
        return True

    def put_back(self, donor: str, item: Item, pieces: Sequence[int]) -> None:
        """The request ended; ``pieces`` of it did not come. They are the next to be taken, by anybody."""
        if item in self._heaps:
            heap = self._heaps[item]
            heap.carried -= len(pieces)
            heap.waiting.extendleft(reversed(pieces))
            heap.carriers.discard(donor)

    def withdraw(self, donor: str, item: Item | None = None) -> None:
        """This donor cannot give an item any more, or nothing at all."""
        self._sources[donor] -= {item} if item else set(self._heaps)

    def hopeful(self, donor: str) -> bool:
        """Whether there is, or may be again, something that this donor can send."""
        return any(item in self._sources[donor] for item in self._heaps)

    @property
    def unfinished(self) -> list[Item]:
        """Items of which pieces are missing."""
        return list(self._heaps)
