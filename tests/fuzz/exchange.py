"""The large streams: one message, a whole session, a greeting. The small streams are in ``control``, relayed
ones in ``relay``."""

import os
from collections import Counter

from deca_node.daemon.links.conduct import Refusals
from deca_node.daemon.links.greeting import Identity
from deca_node.daemon.links.outbox import Shared
from deca_node.daemon.links.session import FrameRules, Session
from deca_node.daemon.links.transport import PROTOCOL_VERSION, Transport
from deca_node.daemon.settings.address import Address
from deca_node.daemon.trainer.arena import Arena, FrameStore, shared_file
from deca_node.daemon.wire import framing
from deca_node.daemon.wire.throttle import Throttle
from deca_node.daemon.wire_pb import exchange_pb2 as pb
from deca_node.protocol import events as e
from deca_node.protocol.agreed.agreement import ModelFacts, agree
from deca_node.protocol.agreed.frames import FrameId, FrameKind, FrameSizes
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Schedule
from tests.fuzz import control, relay
from tests.fuzz.decoders import Choices, Decoder, Finding, Target, piece
from tests.fuzz.streams import NoEndpoint, Script, in_loop, live

FRAME_BYTES = 40
HELD_MAX = 3
SETTINGS = RunSettings(rounds=2, inner_steps=3)
SCHEDULE = Schedule(SETTINGS, 2, 1)
SIZES = FrameSizes((FRAME_BYTES, FRAME_BYTES), (FRAME_BYTES, FRAME_BYTES), (0, 0), (0, 0))
AGREEMENT = agree(SETTINGS, ModelFacts("0" * 64, ("layers.0", "layers.1"), (10, 10)))
KEYFRAME, UPDATE = (FrameId("south", kind, 0, 0) for kind in (FrameKind.KEYFRAME, FrameKind.UPDATE))


def _store() -> FrameStore:
    descriptor = shared_file()
    store = FrameStore(Arena(descriptor, FRAME_BYTES, 8))
    os.close(descriptor)
    return store


def _chunk(frame: FrameId, offset: int = 0, data: bytes = bytes(FRAME_BYTES), total: int = FRAME_BYTES) -> bytes:
    return framing.encode_chunk(frame, offset, total, memoryview(data))


def messages() -> list[bytes]:
    """One of each kind."""
    said = (
        pb.Frame(open=pb.Open(activation=0, degree=2, keyframe_bytes=FRAME_BYTES)),
        pb.Frame(close=pb.Close(activation=0, applied=-1, reason="away")),
        pb.Frame(credit=pb.Credit(frames=3)),
        pb.Frame(bye=pb.Bye()),
        pb.Frame(taken=pb.Taken(number=1)),
        pb.Frame(refusal=pb.Refusal(reason="mismatch", sentence="the run differs")),
        pb.Frame(hello=_hello()),
    )
    return [*(frame.SerializeToString() for frame in said), _chunk(KEYFRAME), _chunk(UPDATE)]


def _hello() -> pb.Hello:
    return pb.Hello(
        protocol=PROTOCOL_VERSION, name="south", to="north", boot=7, activation=-1, agreement=dict(AGREEMENT.fields)
    )


_MESSAGES = messages()


# --- a session ---------------------------------------------------------------------------------------


def session(data: bytes) -> None:
    """A peer on a live stream. Pieces are messages as they are, or chunks whose checksum is made right; one that is
    empty lets the oldest frame go."""
    store, told = _store(), list[e.NetworkEvent]()
    script = Script(_script(Choices(data), store))
    rules = FrameRules(lambda kind, step: SIZES.nbytes(SCHEDULE, kind, step), HELD_MAX)

    async def life() -> None:
        one = Session("south", script, Shared(store, Throttle(0.0)), rules, told.append, Counter())
        store.on_free = one.freed
        await live(one.run(), script, lambda: one.end("over"))

    try:
        in_loop(life())
    finally:
        if store.held_from("south") > HELD_MAX or len(store) != store.held_from("south"):
            raise Finding(f"{len(store)} frames are held, {store.held_from('south')} of them the peer's")


def _script(choices: Choices, store: FrameStore) -> list[object]:
    said: list[object] = []
    while choices and len(said) < 64:
        match choices.number() % 4:
            case 0:
                said.append(choices.piece())
            case 1:
                said.append(_mended(choices))
            case 2:
                said.append(lambda: _release_oldest(store))
            case _:
                said.append(_MESSAGES[choices.number() % len(_MESSAGES)])
    return said


def _mended(choices: Choices) -> bytes:
    kind = FrameKind.KEYFRAME if choices.number() % 2 else FrameKind.UPDATE
    frame = FrameId("south", kind, choices.number(), choices.number())
    offset, total, data = choices.number(), choices.number(), choices.piece()
    return framing.encode_chunk(frame, offset, total, memoryview(data))


def _release_oldest(store: FrameStore) -> None:
    for frame in (KEYFRAME, UPDATE, FrameId("south", FrameKind.UPDATE, 0, 1)):
        if frame in store:
            store.release(frame)
            return


def _sessions() -> list[bytes]:
    opening, chunk = _MESSAGES[0], piece(bytes(FRAME_BYTES))
    keyframe = bytes([1, 1, 0, 0, 0, FRAME_BYTES]) + chunk
    update = bytes([1, 0, 0, 0, 0, FRAME_BYTES]) + chunk
    halves = b"".join(bytes([1, 0, 0, 1, at, FRAME_BYTES]) + piece(bytes(20)) for at in (0, 20))
    everything = b"".join(bytes([3, index]) for index in range(len(_MESSAGES)))
    return [b"\0" + piece(opening) + keyframe + b"\2" + update + halves, everything, update + b"\2" + update]


# --- a greeting --------------------------------------------------------------------------------------


def greeting(data: bytes) -> None:
    """A caller, from its Hello to the end of its session, at a node that leads and at one that follows."""
    choices = Choices(data)
    name = "a-first" if choices.number() % 2 else "north"
    said = []
    while choices and len(said) < 16:
        said.append(choices.piece() if choices.number() % 2 else _MESSAGES[choices.number() % len(_MESSAGES)])
    in_loop(_answer(name, Script(said)))


async def _answer(name: str, script: Script) -> None:
    told: list[e.NetworkEvent] = []
    transport = Transport(Identity("north", 1, lambda: 0), NoEndpoint(), told.append, Refusals())  # type: ignore[arg-type]
    rules = FrameRules(lambda kind, step: SIZES.nbytes(SCHEDULE, kind, step), HELD_MAX)
    transport.set_peers({"south": Address("south", 7001), "a-first": Address("first", 7001)})
    transport.meet(AGREEMENT, _store(), rules)
    try:
        await live(transport._answer(script), script, lambda: transport.drop("south", "over"))
    finally:
        await transport.close()
    for event in told:
        if isinstance(event, e.PeerRefused) and len(event.sentence) > 20_000:
            raise Finding(f"a peer's words make {len(event.sentence)} characters")


def _greetings() -> list[bytes]:
    hello, taken = _MESSAGES[6], _MESSAGES[4]
    other = pb.Frame(hello=pb.Hello(protocol=PROTOCOL_VERSION, name="south", to="north", agreement={"rounds": "9"}))
    scripts = ([hello, taken, _MESSAGES[0]], [hello, _MESSAGES[3]], [other.SerializeToString()])
    return [b"\0" + b"".join(b"\1" + piece(message) for message in script) for script in scripts]


def _mismatch(data: bytes) -> None:
    """A Hello whose agreement differs in every which way."""
    choices, fields = Choices(data), dict[str, str]()
    while choices:
        name, value = (choices.take(choices.number()).decode(errors="replace") for _ in range(2))
        fields[name] = value
    hello = pb.Hello(protocol=PROTOCOL_VERSION, name="south", to="north", agreement=fields)
    in_loop(_answer("north", Script([pb.Frame(hello=hello).SerializeToString()])))


TARGET = Target(
    "exchange",
    (
        Decoder("message", framing.decode, messages),
        Decoder("session", session, _sessions),
        Decoder("greeting", greeting, _greetings),
        Decoder("agreement", _mismatch, lambda: [b"\6rounds\1" + b"9" + b"\1x\1y"]),
        *control.DECODERS,
        *relay.DECODERS,
    ),
)
