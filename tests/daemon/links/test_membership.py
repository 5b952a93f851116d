"""The membership on a real event loop's clock: packets go in and out, deadlines pass, and news are passed on."""

import random

from deca_node.daemon.links.conduct import Refusals
from deca_node.daemon.links.membership import Swim
from deca_node.daemon.wire.packets import decode_packet, encode_packet
from deca_node.protocol.membership import messages
from deca_node.protocol.membership.facts import MemberFacts
from deca_node.protocol.membership.membership import Membership
from deca_node.protocol.membership.profiles import PROFILES
from tests.daemon.links.fake_net import run, until

SOUTH = MemberFacts("south", "south:1", 7, ready_from=0)
HELLO = encode_packet(messages.Packet(SOUTH, messages.PushPull(1, (), True)))


class Node:
    """North's membership. What it sends and what it tells is kept."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, messages.Packet]] = []
        self.views: list[set[str]] = []
        self.book = Refusals()
        own = MemberFacts("north", "north:1", 5, ready_from=0)
        membership = Membership(own, PROFILES["lan"], random.Random(0), None)
        self.swim = Swim(membership, self._send, self, self.book)

    def _send(self, name: str, address: str, payload: bytes) -> None:
        self.sent.append((name, address, decode_packet(payload)))

    def view_changed(self, view: messages.Changed) -> None:
        self.views.append(set(view.members))

    def name_taken(self, sentence: str) -> None:
        raise AssertionError(sentence)


def test_a_packet_makes_a_member_and_silence_ends_it() -> None:
    async def live() -> None:
        north = Node()
        north.swim.tell(messages.Started(()))
        north.swim.packet("south", HELLO)
        assert "south" in north.views[-1]
        assert [(name, address) for name, address, _ in north.sent if name] == [("south", "south:1")], "the answer"
        await until(lambda: "south" in north.swim.lost, 120.0)
        assert "south" not in north.views[-1]
        north.swim.packet("south", encode_packet(messages.Packet(SOUTH, messages.Gossip())))
        north.swim.close()

    run(live())


def test_a_malformed_packet_and_one_in_another_name_are_only_counted() -> None:
    async def live() -> None:
        north = Node()
        north.swim.tell(messages.Started(()))
        north.swim.packet("south", b"\xff")
        north.swim.packet("west", HELLO)
        assert north.book.counts == {"malformed": 1, "forged": 1}
        assert north.views == [{"north"}] and not north.swim.membership.members
        north.swim.close()

    run(live())
