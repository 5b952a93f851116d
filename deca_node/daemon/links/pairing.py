"""Of all streams between two nodes, which one is theirs? Both may dial at once, and both must keep the same.

The end with the smaller name leads: it alone takes a stream, one at a time, gives it a number that it has not
used before, and says so in the last message of the greeting. The other follows: what was taken last is the
stream, and an older one is over, whoever dialled which. An end that has lost its stream says in its Hello which
one that was, so that the other does not wait for a dead one to be found out.
"""

from collections.abc import Iterator
from typing import NamedTuple


class StreamNumber(NamedTuple):
    """One stream between two nodes: the boot of the end that took it, and a number that counts up."""

    boot: int
    number: int


NONE = StreamNumber(0, 0)


class Pair:
    """The streams to one peer, as one end sees them. ``boot`` is our own; ``numbers`` counts up from 1, and all pairs
    of a node draw from the same: so a pair may be forgotten with its peer."""

    def __init__(self, boot: int, numbers: Iterator[int], *, leads: bool) -> None:
        self.leads = leads
        self._boot = boot
        self._numbers = numbers
        self._newest = NONE
        self._peer_boot: int | None = None
        """Of the peer on the live stream; None where none lives."""
        self._closed = False

    @property
    def ended(self) -> StreamNumber:
        """What our Hello says: the newest stream, if it lives no more."""
        return NONE if self._peer_boot is not None else self._newest

    def outlived(self, peer_boot: int) -> bool:
        """Whether a later start of the peer holds the live stream: boots grow, wherever clocks are right. Where one was
        set back, the stream of the start before it soon ends, and then nothing stands in the way."""
        return self._peer_boot is not None and peer_boot < self._peer_boot

    def take(self, peer_boot: int, peer_ended: StreamNumber) -> StreamNumber | None:
        """The leader takes the stream that it has just been greeted on. None where another one lives: one to the
        same process, which has not seen it end."""
        if self._closed or (self._peer_boot == peer_boot and peer_ended != self._newest):
            return None
        self._newest = StreamNumber(self._boot, next(self._numbers))
        self._peer_boot = peer_boot
        return self._newest

    def follow(self, taken: StreamNumber) -> bool:
        """The leader has taken a stream. False where a newer one is known: this one is over."""
        if self._closed or (taken.boot == self._newest.boot and taken.number <= self._newest.number):
            return False
        self._newest, self._peer_boot = taken, taken.boot
        return True

    def end(self, stream: StreamNumber) -> None:
        """A stream has ended; one that was replaced by a newer one changes nothing."""
        if stream == self._newest:
            self._peer_boot = None

    def close(self) -> None:
        """The peer is no peer any more: no end keeps a stream from now on."""
        self._closed = True
