"""Relayed connections: one message, and a caller of the member that relays."""

from deca_node.daemon.relay import messages
from deca_node.daemon.relay.carrier import Carrier
from deca_node.protocol.errors import WireError
from tests.fuzz.decoders import Choices, Decoder, piece
from tests.fuzz.streams import Script, in_loop, live


def _seeds() -> list[bytes]:
    asks = [messages.ask("b", "c", waits=waits) for waits in (True, False)]
    refusal = messages.refusal(WireError("busy", "relays 8 pairs already"), "a")
    return [*asks, refusal, messages.JOINED, messages.data(b"bytes"), messages.END]


def _request(data: bytes) -> None:
    choices = Choices(data)
    said = [choices.piece() for _ in range(1 + choices.number() % 3)]

    async def life() -> None:
        carrier = Carrier("a", 1, [], lambda *_: None, {"b", "c"}.__contains__)
        script = Script(said)
        await live(carrier.answer(script), script, lambda: _release(carrier))
        assert not carrier.relayed()

    in_loop(life())


def _release(carrier: Carrier) -> None:
    """As gRPC does where a caller that waits goes away."""
    for waiter in list(carrier._waiting.values()):
        waiter.over.set_result(None)


DECODERS = (
    Decoder("relayed message", lambda data: messages.read(data, "ask", "joined", "data", "end"), _seeds),
    Decoder("relay request", _request, lambda: [b"\0" + piece(seed) for seed in _seeds()]),
)
