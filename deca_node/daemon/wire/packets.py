"""Membership packets as bytes. ``proto/deca/v1/membership.proto`` defines the fields.

Every incoming packet is checked here, once: names, addresses and numbers of a decoded packet are within their limits.
"""

import dataclasses
import math
import re
from collections.abc import Mapping

from google.protobuf.message import DecodeError

from deca_node.daemon.settings.address import parse_address
from deca_node.daemon.settings.peers_file import NAME
from deca_node.daemon.wire_pb import membership_pb2 as pb
from deca_node.protocol.agreed.identity import FINGERPRINT_DIGITS, WORDS_MAX, RunIdentity
from deca_node.protocol.agreed.stopping import Heldout
from deca_node.protocol.errors import WireError
from deca_node.protocol.membership import messages
from deca_node.protocol.membership.facts import BOOT_MAX, MemberFacts, MemberProgress, MemberState
from deca_node.protocol.membership.naming import FRESH
from deca_node.protocol.membership.rumours import Rumour

PACKET_BYTES_MAX = 32_768
"""The longest packet that is accepted. A packet that is sent has at most push_pull_bytes_max + rumour_bytes_max bytes,
and one more rumour, which tells the receiver what is believed of it."""
RUMOURS_MAX = 256
MEMBERS_MAX = 1024
ADDRESS_LENGTH_MAX = 270
SEQ_MAX = 2**63 - 1
PROGRESS_MAX = 32
"""The most members whose progress rides along with a packet."""
PHASE = re.compile(r"[a-z-]{1,32}")


def encode_packet(packet: messages.Packet) -> bytes:
    """One packet as bytes."""
    message = pb.MembershipPacket(
        sender=_facts_out(packet.sender),
        rumours=[pb.MemberRumour(facts=_facts_out(rumour.facts), accuser=rumour.accuser) for rumour in packet.rumours],
    )
    message.progress.extend(map(_progress_out, packet.progress))
    if packet.run is not None:
        message.run.CopyFrom(run_out(packet.run))
    match packet.body:
        case messages.Ping(seq, target):
            message.ping.CopyFrom(pb.MembershipPacket.Ping(seq=seq, target=target))
        case messages.PingReq(seq, target, address):
            message.ping_req.CopyFrom(pb.MembershipPacket.PingReq(seq=seq, target=target, address=address))
        case messages.Ack(seq):
            message.ack.CopyFrom(pb.MembershipPacket.Ack(seq=seq))
        case messages.Nack(seq):
            message.nack.CopyFrom(pb.MembershipPacket.Nack(seq=seq))
        case messages.PushPull(seq, members, wants_reply):
            listed = [_facts_out(facts) for facts in members]
            push_pull = pb.MembershipPacket.PushPull(seq=seq, members=listed, wants_reply=wants_reply)
            message.push_pull.CopyFrom(push_pull)
        case messages.Gossip():
            message.gossip.SetInParent()
        case messages.Taken(holder):
            message.taken.CopyFrom(pb.MembershipPacket.Taken(holder=_facts_out(holder)))
        case messages.Claim(rank, started):
            message.claim.CopyFrom(pb.MembershipPacket.Claim(rank=rank, started=started))
    return message.SerializeToString()


def _progress_out(told: MemberProgress) -> pb.MemberProgress:
    return pb.MemberProgress(**dataclasses.asdict(told))


def _progress_in(message: pb.MemberProgress) -> MemberProgress:
    name = _name(message.name)
    if message.boot > BOOT_MAX or max(message.beat, message.done, message.total) > SEQ_MAX:
        raise WireError("malformed", f"progress of {name} with a number that is out of bounds")
    if not PHASE.fullmatch(message.phase):
        raise WireError("malformed", f"progress of {name} with a malformed phase")
    return MemberProgress(
        name=name,
        boot=message.boot,
        beat=message.beat,
        phase=message.phase,
        done=message.done,
        total=message.total,
        round=message.round,
        block=message.block,
        loss=_number(message, "loss"),
        heldout_loss=_number(message, "heldout_loss"),
        steps_per_second=_number(message, "steps_per_second"),
        sent_bytes=message.sent_bytes,
        received_bytes=message.received_bytes,
        peers_up=message.peers_up,
        page=_address(message.page) if message.page else "",
    )


def _number(message: pb.MemberProgress, field: str) -> float | None:
    """A number that may be absent. One that is not finite counts as absent, since a loss can become so."""
    value = float(getattr(message, field)) if message.HasField(field) else math.nan
    return value if math.isfinite(value) else None


def decode_packet(data: bytes) -> messages.Packet:
    """One packet from a peer. Raises WireError("size" or "malformed") where it breaks the rules."""
    if len(data) > PACKET_BYTES_MAX:
        raise WireError("size", f"a membership packet of {len(data)} bytes; the limit is {PACKET_BYTES_MAX}")
    message = pb.MembershipPacket()
    try:
        message.ParseFromString(data)
    except DecodeError as problem:
        raise WireError("malformed", f"not a MembershipPacket: {problem}") from None
    if len(message.rumours) > RUMOURS_MAX:
        raise WireError("size", f"a membership packet with {len(message.rumours)} rumours")
    run = run_in(message.run) if message.HasField("run") else None
    if len(message.progress) > PROGRESS_MAX:
        raise WireError("size", f"a membership packet with the progress of {len(message.progress)} members")
    rumours, progress = map(_rumour_in, message.rumours), map(_progress_in, message.progress)
    return messages.Packet(_facts_in(message.sender), _body_in(message), tuple(rumours), run, tuple(progress))


def run_out(run: RunIdentity) -> pb.RunIdentity:
    """The identity of a run as a message, without the settings."""
    return pb.RunIdentity(name=run.name, fingerprint=bytes.fromhex(run.fingerprint), federation=run.federation)


def run_in(message: pb.RunIdentity, settings: Mapping[str, str] | None = None) -> RunIdentity:
    """The identity of a peer's run. Raises WireError("malformed")."""
    if len(message.fingerprint) not in (0, FINGERPRINT_DIGITS // 2):
        raise WireError("malformed", f"a run's fingerprint of {len(message.fingerprint)} bytes")
    if max(len(message.name), len(message.federation)) > WORDS_MAX:
        raise WireError("malformed", "a run with a name that is too long")
    return RunIdentity(message.name, message.fingerprint.hex(), message.federation, dict(settings or {}))


def _body_in(message: pb.MembershipPacket) -> messages.Body:
    match message.WhichOneof("body"):
        case "ping":
            return messages.Ping(_seq(message.ping.seq), _name(message.ping.target))
        case "ping_req":
            asked = message.ping_req
            return messages.PingReq(_seq(asked.seq), _name(asked.target), _address(asked.address))
        case "ack":
            return messages.Ack(_seq(message.ack.seq))
        case "nack":
            return messages.Nack(_seq(message.nack.seq))
        case "push_pull":
            return _push_pull_in(message.push_pull)
        case "gossip":
            return messages.Gossip()
        case "taken":
            return messages.Taken(_facts_in(message.taken.holder))
        case "claim":
            return _claim_in(message.claim)
        case _:
            raise WireError("malformed", "a membership packet without a known body")


def _push_pull_in(message: pb.MembershipPacket.PushPull) -> messages.PushPull:
    if len(message.members) > MEMBERS_MAX:
        raise WireError("size", f"a list of {len(message.members)} members in one packet")
    return messages.PushPull(_seq(message.seq), tuple(map(_facts_in, message.members)), message.wants_reply)


def _claim_in(message: pb.MembershipPacket.Claim) -> messages.Claim:
    if message.rank > FRESH or message.started > BOOT_MAX:
        raise WireError("malformed", f"a claim of rank {message.rank} and boot {message.started}")
    return messages.Claim(message.rank, message.started)


def _rumour_in(message: pb.MemberRumour) -> Rumour:
    return Rumour(_facts_in(message.facts), _name(message.accuser) if message.accuser else "")


def _facts_in(message: pb.MemberFacts) -> MemberFacts:
    name = _name(message.name)
    if message.boot > BOOT_MAX or message.ready_from < -1 or message.state > MemberState.LEFT:
        raise WireError("malformed", f"facts of {name} with a number that is out of bounds")
    state, heldout = MemberState(message.state), _heldout_in(message)
    if not heldout.sound:
        raise WireError("malformed", f"facts of {name} with held-out losses that are out of bounds")
    address = _address(message.address)
    return MemberFacts(name, address, message.boot, message.incarnation, state, message.ready_from, heldout)


def _heldout_in(message: pb.MemberFacts) -> Heldout:
    losses = tuple((told.round, told.loss if told.HasField("loss") else None) for told in message.losses)
    return Heldout(losses, message.stop_at if message.HasField("stop_at") else None)


def _facts_out(facts: MemberFacts) -> pb.MemberFacts:
    return pb.MemberFacts(
        name=facts.name,
        address=facts.address,
        boot=facts.boot,
        incarnation=facts.incarnation,
        state=pb.MemberState.Name(facts.state),
        ready_from=facts.ready_from,
        losses=[pb.HeldoutLoss(round=number, loss=loss) for number, loss in facts.heldout.losses],
        stop_at=facts.heldout.stop_at,
    )


def _name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise WireError("malformed", f"{name[:140]!r} is not a member's name")
    return name


def _address(address: str) -> str:
    if len(address) > ADDRESS_LENGTH_MAX:
        raise WireError("malformed", "an address that is too long")
    try:
        parse_address(address)
    except ValueError as problem:
        raise WireError("malformed", str(problem)) from None
    return address


def _seq(seq: int) -> int:
    if seq > SEQ_MAX:
        raise WireError("malformed", f"a packet with the number {seq}")
    return seq
