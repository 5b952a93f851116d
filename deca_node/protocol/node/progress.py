"""Who is where? What a node knows of its peers' positions, and what follows from it for its own.

A node that was away finds its peers further on than it is itself. It does not run after them through what they have
done already: it takes the blocks from them, waits for its turn, and goes on where they are. Whether it *was* away is
not for one peer to say: half of those that train must be ahead.
"""

NOT_TRAINING = -1
"""The position of a node that has not begun or is catching up."""


class Progress:
    """The activation that every peer with a live stream works on, as last heard."""

    def __init__(self) -> None:
        self._at: dict[str, int] = {}

    def heard(self, peer: str, activation: int) -> None:
        """A peer said where it is."""
        self._at[peer] = activation

    def gone(self, peer: str) -> None:
        """The stream to a peer is lost."""
        self._at.pop(peer, None)

    def of(self, peer: str) -> int:
        """Where a peer is; NOT_TRAINING also where nothing is known."""
        return self._at.get(peer, NOT_TRAINING)

    def behind(self, activation: int) -> bool:
        """Whether a node that is about to begin ``activation`` is left behind: half of those that train are past it."""
        training = [at for at in self._at.values() if at != NOT_TRAINING]
        ahead = sum(at > activation for at in training)
        return ahead > 0 and 2 * ahead >= len(training)

    def busy(self, activation: int) -> bool:
        """Whether any peer works on ``activation``, or is past it."""
        return any(at >= activation for at in self._at.values())
