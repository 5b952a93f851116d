"""The membership's state machine behind the wire: any packets from anybody, in any order, and time that passes.

What it sends is encoded as it would be, and what it keeps is measured: a member that is told lies may believe them,
but it must not fall over, nor keep more than its limits.
"""

from collections.abc import Sequence
from random import Random

from deca_node.daemon.wire.packets import decode_packet, encode_packet
from deca_node.protocol.errors import WireError
from deca_node.protocol.events import DeadlinePassed
from deca_node.protocol.membership import messages
from deca_node.protocol.membership.facts import BOOT_MAX, INCARNATION_MAX, MemberFacts, MemberState
from deca_node.protocol.membership.membership import Membership
from deca_node.protocol.membership.profiles import LAN
from deca_node.protocol.membership.rumours import Rumour
from tests.fuzz import control
from tests.fuzz.decoders import Choices, Finding, piece

NAMES = ("a", "b", "c", "d")
EVENTS_MAX = 200
HEAP_PER_ALARM = 4
"""Entries in the heap of alarms for each that is set, beyond a few."""


def drive(data: bytes) -> None:
    """One byte for what happens, and more where it has contents."""
    choices = Choices(data)
    machine = Membership(control.A, LAN, Random(1), frozenset(NAMES) if choices.number() % 4 == 0 else None)
    now, out = 0.0, list[messages.MembershipCommand]()
    out += machine.handle(messages.Started(("b.example:7001",)), now)
    for _ in range(EVENTS_MAX):
        if not choices or machine.ended:
            break
        what = choices.number() % 8
        event: messages.MembershipEvent = DeadlinePassed()
        if what == 0:
            now += choices.number() / 16
        elif what == 1:
            now = max(now, machine.next_deadline() or now)
        elif what == 2:
            event = messages.SendFailed(_address(choices.number()))
        elif what == 3:
            event = _received(choices.piece())
        else:
            event = messages.PacketReceived(_packet(choices))
        out += machine.handle(event, now)
    check(machine, out)


def check(machine: Membership, out: Sequence[messages.MembershipCommand]) -> None:
    """Whatever is to be sent can be, and nothing piles up."""
    for command in out:
        if isinstance(command, messages.Send):
            decode_packet(encode_packet(command.packet))
    alarms = machine._view.alarms
    if len(alarms._heap) > HEAP_PER_ALARM * len(alarms) + 100:
        raise Finding(f"{len(alarms._heap)} entries for {len(alarms)} alarms")
    if machine.backlog > 12 * (len(machine.members) + 2):
        raise Finding(f"a backlog of {machine.backlog} over {len(machine.members)} members")


def _received(data: bytes) -> messages.MembershipEvent:
    try:
        return messages.PacketReceived(decode_packet(data))
    except WireError:
        return DeadlinePassed()


def _packet(choices: Choices) -> messages.Packet:
    sender, count = _facts(choices), choices.number() % 4
    rumours = tuple(Rumour(_facts(choices), choices.of("", *NAMES)) for _ in range(count))
    name, seq = choices.of(*NAMES), choices.number()
    match choices.number() % 8:
        case 0:
            body: messages.Body = messages.Ping(seq, name)
        case 1:
            body = messages.PingReq(seq, name, _address(seq))
        case 2:
            body = messages.Ack(seq)
        case 3:
            body = messages.Nack(seq)
        case 4:
            members = tuple(_facts(choices) for _ in range(seq % 4))
            body = messages.PushPull(seq, members, wants_reply=bool(seq & 8))
        case 5:
            body = messages.Gossip()
        case 6:
            body = messages.Taken(_facts(choices))
        case _:
            body = messages.Claim(seq % 3, _boot(choices.number()))
    return messages.Packet(sender, body, rumours)


def _facts(choices: Choices) -> MemberFacts:
    name, numbers = choices.of(*NAMES, *(f"n{choices.number()}",)), choices.number()
    incarnation = (0, 1, 2, 3, 5, 100, INCARNATION_MAX - 1, INCARNATION_MAX)[numbers % 8]
    state = MemberState(numbers >> 3 & 3)
    return MemberFacts(str(name), _address(numbers >> 5), _boot(choices.number()), incarnation, state, numbers - 1)


def _boot(number: int) -> int:
    return (100, 200, 300, 99, 101, 0, BOOT_MAX, BOOT_MAX - 1)[number % 8]


def _address(number: int) -> str:
    return f"{NAMES[number % 4]}.example:{7001 + number % 2}"


def seeds() -> list[bytes]:
    """Packets as they come, some of them again and again, between alarms."""
    raw = [b"\3" + piece(packet) for packet in control.packet_bytes()]
    made = [
        bytes([4, b, 0, n, boot, 1, c, 0, 9, 1, 2, 3, kind]) for kind in range(8) for b, c, n, boot in ((1, 2, 1, 1),)
    ]
    return [
        b"\1" + b"\1".join(raw),
        b"\0" + b"".join(made),
        b"\1" + b"".join(packet + b"\0\x40" for packet in raw),
    ]
