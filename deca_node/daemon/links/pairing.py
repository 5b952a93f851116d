"""Which of several streams between two nodes is kept. Both nodes may dial at once, and both must keep the same stream.

The end with the smaller name leads. It alone takes streams, one at a time: it gives the stream a new number and sends
that number in the last message of the greeting. The other end follows: it keeps the stream that was taken last, and
ends any older one, whichever end dialled it. An end that has lost its stream names that stream in its next Hello, so
that the other end lets go of it at once.
"""

from collections.abc import Iterator
from typing import NamedTuple


class StreamNumber(NamedTuple):
    """The name of one stream between two nodes: the boot of the end that took it, and a number that counts up."""

    boot: int
    number: int


NONE = StreamNumber(0, 0)


class Pair:
    """The streams to one peer, as one end sees them. ``boot`` is this node's. ``numbers`` counts up from 1; all pairs
    of a node share it, so a pair can be dropped when its peer is no longer known."""

    def __init__(self, boot: int, numbers: Iterator[int], *, leads: bool) -> None:
        self.leads = leads
        self._boot = boot
        self._numbers = numbers
        self._newest = NONE
        self._peer_boot: int | None = None
        """The boot of the peer on the live stream; None without a live stream."""
        self._closed = False

    @property
    def ended(self) -> StreamNumber:
        """The newest stream if it has ended, for the next Hello."""
        return NONE if self._peer_boot is not None else self._newest

    def outlived(self, peer_boot: int) -> bool:
        """Whether a later start of the peer holds the live stream. Boots grow if the peer's clock is right. After a
        clock was set back, the stream of the earlier start soon ends, and the new start is accepted then."""
        return self._peer_boot is not None and peer_boot < self._peer_boot

    def take(self, peer_boot: int, peer_ended: StreamNumber) -> StreamNumber | None:
        """As the leader, take the stream of this greeting. None where another stream to the same process is live and
        the peer has not seen it end."""
        if self._closed or (self._peer_boot == peer_boot and peer_ended != self._newest):
            return None
        self._newest = StreamNumber(self._boot, next(self._numbers))
        self._peer_boot = peer_boot
        return self._newest

    def follow(self, taken: StreamNumber) -> bool:
        """As the follower, keep the stream that the leader has taken. False where a newer stream is known."""
        if self._closed or (taken.boot == self._newest.boot and taken.number <= self._newest.number):
            return False
        self._newest, self._peer_boot = taken, taken.boot
        return True

    def end(self, stream: StreamNumber) -> None:
        """A stream has ended. If it was replaced by a newer one before, nothing changes."""
        if stream == self._newest:
            self._peer_boot = None

    def close(self) -> None:
        """The peer is no longer a peer: no further stream is kept."""
        self._closed = True
