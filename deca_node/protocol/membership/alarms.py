"""Alarms: the times at which a member acts by itself."""

import heapq
import itertools

AlarmKey = tuple[str, str]
"""The alarm's kind, and the name, address or number that it is about."""

STALE_SHARE_MAX, STALE_MIN = 2, 64
"""The heap holds at most STALE_SHARE_MAX entries for each alarm that is set, and STALE_MIN more."""


class Alarms:
    """The alarms of one member, by key. A key has one alarm at most; setting it again moves it."""

    def __init__(self) -> None:
        self._order = itertools.count()
        self._set: dict[AlarmKey, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, AlarmKey]] = []

    def __len__(self) -> int:
        return len(self._set)

    def __contains__(self, key: AlarmKey) -> bool:
        return key in self._set

    def set(self, key: AlarmKey, when: float) -> None:
        """Let the key ring at ``when``, in the clock of ``now``."""
        entry = self._set[key] = (when, next(self._order))
        heapq.heappush(self._heap, (*entry, key))
        # An alarm that was moved or cancelled leaves a stale entry in the heap until it comes to the top, which may
        # take half a minute. A peer that is believed dead and alive by turns would fill the memory in the meantime.
        if len(self._heap) > STALE_SHARE_MAX * len(self._set) + STALE_MIN:
            self._rebuild()

    def cancel(self, key: AlarmKey) -> None:
        """Take the key's alarm back, if there is one."""
        self._set.pop(key, None)

    def next(self) -> float | None:
        """The time of the earliest alarm; None where no alarm is set."""
        while self._heap and self._set.get(self._heap[0][2]) != self._heap[0][:2]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> AlarmKey | None:
        """Take out the earliest alarm that is due; None where none is."""
        when = self.next()
        if when is None or when > now:
            return None
        key = heapq.heappop(self._heap)[2]
        del self._set[key]
        return key

    def clear(self) -> None:
        """Take all alarms back."""
        self._set.clear()
        self._heap.clear()

    def shift(self, seconds: float) -> None:
        """Move all alarms to later."""
        self._set = {key: (when + seconds, order) for key, (when, order) in self._set.items()}
        self._rebuild()

    def _rebuild(self) -> None:
        self._heap = [(when, order, key) for key, (when, order) in self._set.items()]
        heapq.heapify(self._heap)
