"""Offers that came early: a neighbour may begin an activation before this node does, and its keyframe waits."""

from collections.abc import Callable

from deca_node.protocol import commands as c
from deca_node.protocol import events as e


class Offers:
    """The newest early offer of every peer. ``say`` takes the release of keyframes that nobody will use."""

    def __init__(self, say: Callable[[c.Command], None]) -> None:
        self._say = say
        self._held: dict[str, e.OpenReceived] = {}

    def hold(self, offer: e.OpenReceived) -> None:
        """Keep an offer until its activation begins here; it replaces an older one of the same peer."""
        self.drop(offer.peer)
        self._held[offer.peer] = offer

    def drop(self, peer: str) -> None:
        """The stream to a peer is lost, and its offer with it."""
        replaced = self._held.pop(peer, None)
        if replaced:
            self._say(c.Release(replaced.keyframe))

    def withdrawn(self, peer: str, activation: int) -> None:
        """A peer takes its offer back: it lost patience, or will not take part."""
        offer = self._held.get(peer)
        if offer and offer.activation == activation:
            self.drop(peer)

    def waiting(self, activation: int) -> bool:
        """Whether any peer waits to open an edge for this activation."""
        return any(offer.activation == activation for offer in self._held.values())

    def due(self, activation: int) -> list[e.OpenReceived]:
        """Take out the offers for this activation and for any before it, in order of the peers' names."""
        peers = sorted(peer for peer, offer in self._held.items() if offer.activation <= activation)
        return [self._held.pop(peer) for peer in peers]

    def all(self) -> list[e.OpenReceived]:
        """Take out all offers, in order of the peers' names."""
        offers, self._held = [self._held[peer] for peer in sorted(self._held)], {}
        return offers
