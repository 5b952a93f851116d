"""News of progress reach every member, also without a link, and the newest wins."""

import dataclasses
import math
from random import Random

import pytest

from deca_node.daemon.links.hearsay import PASSED_ON_MAX, Hearsay
from deca_node.daemon.wire.packets import PACKET_BYTES_MAX, PROGRESS_MAX, decode_packet, encode_packet
from deca_node.daemon.wire_pb import membership_pb2 as pb
from deca_node.protocol.errors import WireError
from deca_node.protocol.membership import messages
from deca_node.protocol.membership.facts import MemberFacts, MemberProgress

NEWS = MemberProgress(
    name="south", boot=5, beat=2, phase="visiting", done=40, total=128, round=2, block=3, loss=2.5, heldout_loss=2.75,
    steps_per_second=3.5, sent_bytes=10, received_bytes=20, peers_up=3, page="127.0.0.1:9641",
)  # fmt: skip
SENDER = MemberFacts("north", "127.0.0.1:7001", 9)


def packet(*news: MemberProgress) -> messages.Packet:
    return messages.Packet(SENDER, messages.Ping(1, "south"), progress=news)


def test_news_travel_as_they_are_and_a_loss_that_is_no_number_is_not_told() -> None:
    bare = MemberProgress(name="west", boot=1, beat=1, phase="loading")
    assert decode_packet(encode_packet(packet(NEWS, bare))).progress == (NEWS, bare)
    diverged = dataclasses.replace(NEWS, loss=math.nan)
    assert decode_packet(encode_packet(packet(diverged))).progress == (dataclasses.replace(NEWS, loss=None),)


@pytest.mark.parametrize(
    "change", [{"name": "no name"}, {"phase": "<b>"}, {"page": "javascript:alert(1)"}, {"boot": 2**63}, {"beat": 2**63}]
)
def test_malformed_news_are_refused(change: dict[str, object]) -> None:
    message = pb.MembershipPacket.FromString(encode_packet(packet(NEWS)))
    for name, value in change.items():
        setattr(message.progress[0], name, value)
    with pytest.raises(WireError):
        decode_packet(message.SerializeToString())


def test_no_packet_has_more_news_than_there_is_room_for() -> None:
    full = encode_packet(packet(*[NEWS] * PROGRESS_MAX))
    assert len(full) < PACKET_BYTES_MAX
    with pytest.raises(WireError, match="progress of 33 members"):
        decode_packet(encode_packet(packet(*[NEWS] * (PROGRESS_MAX + 1))))


def test_a_node_of_an_earlier_version_reads_the_rest_of_the_packet() -> None:
    """It skips the field, as protobuf does with every field that it does not know."""
    plain = encode_packet(packet())
    known = pb.MembershipPacket.FromString(encode_packet(packet(NEWS)))
    known.ClearField("progress")
    assert known.SerializeToString() == plain
    assert decode_packet(plain).progress == ()


def test_the_newest_wins_and_strangers_and_this_node_itself_are_left_out() -> None:
    now = 100.0
    hearsay = Hearsay(lambda name: name != "stranger", lambda: now)
    older = dataclasses.replace(NEWS, beat=1, done=39)
    stranger, own = (dataclasses.replace(NEWS, name=name) for name in ("stranger", "north"))
    hearsay.take((NEWS, older, stranger, own), "north")
    now = 103.0
    hearsay.take((older,), "north")
    (heard,) = hearsay.all().values()
    assert (heard.progress, heard.age_seconds) == (NEWS, 3.0)
    again = dataclasses.replace(NEWS, boot=6, beat=1, done=0)
    hearsay.take((again,), "north")
    assert hearsay.all()["south"].progress == again, "a later start wins over a greater beat"


def test_news_of_a_member_that_is_forgotten_are_passed_on_no_more() -> None:
    members = {"south"}
    hearsay = Hearsay(lambda name: name in members)
    hearsay.take((NEWS,), "north")
    assert hearsay.pick() == (NEWS,)
    members.clear()
    assert hearsay.pick() == ()


def test_every_member_hears_of_every_other_though_each_packet_has_news_of_few() -> None:
    """Forty members; in a round each sends one packet to a member drawn by lot."""
    names, rng = [f"m{number}" for number in range(40)], Random(7)
    heard = {name: Hearsay(lambda _: True, lambda: 0.0) for name in names}
    for name in names:
        heard[name].own = lambda name=name: dataclasses.replace(NEWS, name=name)  # type: ignore[misc]
    for _ in range(60):
        for name in names:
            news = heard[name].pick()
            assert len(news) <= PASSED_ON_MAX + 1
            other = rng.choice([each for each in names if each != name])
            heard[other].take(news, other)
    assert [name for name in names if len(heard[name].all()) < 39] == []
