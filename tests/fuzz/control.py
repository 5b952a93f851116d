"""The small streams: one message, a membership packet, a session, a greeting."""

from collections import Counter, deque

from deca_node.daemon.links.conduct import Refusals
from deca_node.daemon.links.control import VERSION, ControlLinks
from deca_node.daemon.links.control_session import ControlSession, read_control
from deca_node.daemon.links.greeting import Identity
from deca_node.daemon.settings.address import parse_address
from deca_node.daemon.wire.meters import RecentSamples
from deca_node.daemon.wire.packets import decode_packet, encode_packet
from deca_node.daemon.wire_pb import control_pb2 as pb
from deca_node.daemon.wire_pb import exchange_pb2
from deca_node.protocol.membership import messages as talk
from deca_node.protocol.membership.facts import MemberFacts, MemberState
from deca_node.protocol.membership.rumours import Rumour
from tests.fuzz.decoders import Choices, Decoder, Finding, piece
from tests.fuzz.streams import NoEndpoint, Script, in_loop, live

A, B, C = (MemberFacts(name, f"{name}.example:7001", boot, 1) for name, boot in (("a", 100), ("b", 200), ("c", 300)))


def packets() -> list[talk.Packet]:
    """One for each thing that can be said, with news along."""
    rumours = (Rumour(MemberFacts("c", C.address, 300, 2, MemberState.SUSPECT, 4), "d"), Rumour(A))
    bodies: tuple[talk.Body, ...] = (
        talk.Ping(1, "a"),
        talk.PingReq(2, "c", C.address),
        talk.Ack(1),
        talk.Nack(1),
        talk.PushPull(1, (A, C), wants_reply=True),
        talk.Gossip(),
        talk.Taken(A),
        talk.Claim(2, 150),
    )
    return [talk.Packet(B, body, rumours) for body in bodies]


def packet_bytes() -> list[bytes]:
    """The same as they travel."""
    return [encode_packet(packet) for packet in packets()]


def messages() -> list[bytes]:
    """One of each kind."""
    greeting = pb.ControlFrame.Greeting(protocol=VERSION, name="b", to="a", boot=7, address=B.address)
    said = (
        pb.ControlFrame(greeting=greeting),
        pb.ControlFrame(taken=exchange_pb2.Taken(number=1)),
        pb.ControlFrame(ping=pb.ControlFrame.Ping(number=1), activation=3),
        pb.ControlFrame(pong=pb.ControlFrame.Pong(number=1), activation=3),
        pb.ControlFrame(packet=pb.ControlFrame.Packet(payload=packet_bytes()[0]), activation=-1),
        pb.ControlFrame(refusal=exchange_pb2.Refusal(reason="busy", sentence="has 1024 links")),
    )
    return [message.SerializeToString() for message in said]


_MESSAGES = messages()


def _packet(data: bytes) -> None:
    packet = decode_packet(data)
    if decode_packet(encode_packet(packet)) != packet:
        raise Finding("a packet that was taken does not come back as it went")


def _script(data: bytes) -> Script:
    choices, said = Choices(data), list[bytes]()
    while choices and len(said) < 64:
        kind = choices.number()
        said.append(choices.piece() if kind % 2 else _MESSAGES[kind // 2 % len(_MESSAGES)])
    return Script(said)


def _session(data: bytes) -> None:
    script, heard, rtt = _script(data), list[object](), RecentSamples(100)

    async def life() -> None:
        one = ControlSession(
            script,
            deque([b"packet"]),
            lambda: 5,
            heard.append,
            heard.append,
            Counter(),
            rtt,
            lambda: 0.0,
        )
        await live(one.run(), script, lambda: one.end("over"))

    in_loop(life())


def _greeting(data: bytes) -> None:
    _greet(_script(data[1:]), "a" if data[:1] < b"\x80" else "z")


def answers_to(*messages: bytes) -> list[pb.ControlFrame]:
    """What a caller that says this is answered."""
    script = Script(messages)
    _greet(script, "a")
    return [pb.ControlFrame.FromString(message) for message in script.written]


def _greet(script: Script, name: str) -> None:
    async def life() -> None:
        heard = Counter[str]()
        own = Identity(name, 1, lambda: 0, A.address)
        links = ControlLinks(
            own,
            NoEndpoint(),
            lambda *_: heard.update("p"),
            lambda *_: heard.update("g"),
            lambda *_: None,  # type: ignore[arg-type]
            Refusals(),
        )
        await live(links._answer(script), script, lambda: links.drop("b", "over"))
        for place in links._links:
            parse_address(place.address)
        await links.close()

    in_loop(life())


def _scripts() -> list[bytes]:
    known = b"".join(bytes([2 * index]) for index in range(len(_MESSAGES)))
    said = b"".join(b"\1" + piece(message) for message in _MESSAGES[2:5])
    return [bytes([4, 6, 8]), said, known, bytes([10])]


DECODERS = (
    Decoder("control message", read_control, messages),
    Decoder("membership packet", _packet, packet_bytes),
    Decoder("control session", _session, _scripts),
    Decoder("control greeting", _greeting, lambda: [b"\0" + b"\0" + script for script in _scripts()]),
)
