"""Membership packets as bytes: every packet decodes to itself, and malformed bytes are refused."""

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deca_node.daemon.wire.packets import PACKET_BYTES_MAX, decode_packet, encode_packet
from deca_node.daemon.wire_pb import membership_pb2 as pb
from deca_node.protocol.agreed.identity import RunIdentity
from deca_node.protocol.agreed.stopping import ROUNDS_TOLD_MAX, Heldout
from deca_node.protocol.errors import WireError
from deca_node.protocol.membership import messages
from deca_node.protocol.membership.facts import BOOT_MAX, INCARNATION_MAX, MemberFacts, MemberState
from deca_node.protocol.membership.rumours import Rumour

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,20}", fullmatch=True)
ADDRESSES = st.sampled_from(["10.0.0.5:7001", "[2001:db8::7]:7001", "north.example:65535"])
BOOTS = st.integers(0, BOOT_MAX)
ROUNDS = st.integers(0, 2**32 - 1)
LOSSES = st.dictionaries(
    ROUNDS, st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)), max_size=ROUNDS_TOLD_MAX
)
HELDOUT = st.builds(
    lambda losses, stop: Heldout(tuple(sorted(losses.items())), stop), LOSSES, st.one_of(st.none(), ROUNDS)
)
FACTS = st.builds(
    MemberFacts,
    NAMES,
    ADDRESSES,
    BOOTS,
    st.integers(0, INCARNATION_MAX),
    st.sampled_from(MemberState),
    st.integers(-1, 2**40),
    HELDOUT,
)
SEQS = st.integers(0, 2**63 - 1)
BODIES = st.one_of(
    st.builds(messages.Ping, SEQS, NAMES),
    st.builds(messages.PingReq, SEQS, NAMES, ADDRESSES),
    st.builds(messages.Ack, SEQS),
    st.builds(messages.Nack, SEQS),
    st.builds(messages.PushPull, SEQS, st.lists(FACTS, max_size=5).map(tuple), st.booleans()),
    st.just(messages.Gossip()),
    st.builds(messages.Taken, FACTS),
    st.builds(messages.Claim, st.integers(0, 2), BOOTS),
)
RUNS = st.builds(
    RunIdentity,
    st.text(max_size=128),
    st.one_of(st.just(""), st.binary(min_size=16, max_size=16).map(bytes.hex)),
    st.text(max_size=128),
)
RUMOURS = st.lists(st.builds(Rumour, FACTS, st.one_of(st.just(""), NAMES)), max_size=5).map(tuple)


@given(st.builds(messages.Packet, FACTS, BODIES, RUMOURS, st.one_of(st.none(), RUNS)))
def test_a_packet_comes_back_as_it_went(packet: messages.Packet) -> None:
    assert decode_packet(encode_packet(packet)) == packet


@given(FACTS, NAMES)
def test_a_rumour_takes_no_more_than_it_says(facts: MemberFacts, accuser: str) -> None:
    bare = len(encode_packet(messages.Packet(facts, messages.Gossip())))
    with_rumour = len(encode_packet(messages.Packet(facts, messages.Gossip(), (Rumour(facts, accuser),))))
    assert with_rumour - bare <= Rumour(facts, accuser).nbytes


@given(st.binary(max_size=200))
def test_noise_is_refused_and_nothing_else_happens(noise: bytes) -> None:
    with contextlib.suppress(WireError):
        decode_packet(noise)


@given(st.builds(messages.Packet, FACTS, BODIES, RUMOURS), st.data())
def test_a_damaged_packet_is_refused_or_is_another_valid_one(packet: messages.Packet, data: st.DataObject) -> None:
    wire = bytearray(encode_packet(packet))
    at = data.draw(st.integers(0, len(wire) - 1))
    wire[at] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(WireError):
        decoded = decode_packet(bytes(wire))
        assert decode_packet(encode_packet(decoded)) == decoded


def told(*losses: tuple[int, float]) -> list[pb.HeldoutLoss]:
    return [pb.HeldoutLoss(round=number, loss=loss) for number, loss in losses]


def facts(**changes: object) -> pb.MemberFacts:
    return pb.MemberFacts(**({"name": "b", "address": "b:1", "boot": 1} | changes))


@pytest.mark.parametrize(
    "message",
    [
        pb.MembershipPacket(sender=facts()),
        pb.MembershipPacket(gossip=pb.MembershipPacket.Gossip()),
        pb.MembershipPacket(sender=facts(name="../b"), gossip=pb.MembershipPacket.Gossip()),
        pb.MembershipPacket(sender=facts(name="b" * 129), gossip=pb.MembershipPacket.Gossip()),
        pb.MembershipPacket(sender=facts(address="b"), gossip=pb.MembershipPacket.Gossip()),
        pb.MembershipPacket(sender=facts(address="b" * 300 + ":1"), gossip=pb.MembershipPacket.Gossip()),
        pb.MembershipPacket(sender=facts(boot=2**63), gossip=pb.MembershipPacket.Gossip()),
        pb.MembershipPacket(sender=facts(ready_from=-2), gossip=pb.MembershipPacket.Gossip()),
        pb.MembershipPacket(sender=facts(losses=told((3, 1.0), (2, 1.0))), gossip=pb.MembershipPacket.Gossip()),
        pb.MembershipPacket(sender=facts(losses=told((3, math.inf))), gossip=pb.MembershipPacket.Gossip()),
        pb.MembershipPacket(sender=facts(losses=told((3, math.nan))), gossip=pb.MembershipPacket.Gossip()),
        pb.MembershipPacket(
            sender=facts(losses=told(*((number, 1.0) for number in range(17)))), gossip=pb.MembershipPacket.Gossip()
        ),
        pb.MembershipPacket(sender=facts(), claim=pb.MembershipPacket.Claim(rank=3)),
        pb.MembershipPacket(sender=facts(), ack=pb.MembershipPacket.Ack(seq=2**63)),
        pb.MembershipPacket(sender=facts(), ping=pb.MembershipPacket.Ping(seq=1)),
        pb.MembershipPacket(sender=facts(), taken=pb.MembershipPacket.Taken()),
    ],
)
def test_what_breaks_a_rule_is_malformed(message: pb.MembershipPacket) -> None:
    with pytest.raises(WireError) as refusal:
        decode_packet(message.SerializeToString())
    assert refusal.value.reason == "malformed"


def test_an_unknown_state_is_malformed() -> None:
    known = pb.MembershipPacket(sender=facts(state=pb.MEMBER_STATE_LEFT), gossip=pb.MembershipPacket.Gossip())
    with pytest.raises(WireError):
        decode_packet(known.SerializeToString().replace(b"\x28\x03", b"\x28\x04"))


@pytest.mark.parametrize("count", [300, 40_000])
def test_too_much_is_refused_by_size(count: int) -> None:
    rumour = pb.MemberRumour(facts=facts())
    message = pb.MembershipPacket(sender=facts(), rumours=[rumour] * count, gossip=pb.MembershipPacket.Gossip())
    with pytest.raises(WireError) as refusal:
        decode_packet(message.SerializeToString())
    assert refusal.value.reason == "size"
    assert count < 1000 or len(message.SerializeToString()) > PACKET_BYTES_MAX
