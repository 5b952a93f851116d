"""What two nodes say before they trust each other with a frame: who they are, and what they want to do together."""

from collections.abc import Callable
from dataclasses import dataclass

from deca_node.daemon.links.pairing import StreamNumber
from deca_node.daemon.wire import framing
from deca_node.daemon.wire.broken import StreamBrokenError
from deca_node.daemon.wire_pb import exchange_pb2 as pb
from deca_node.protocol.agreed.agreement import Agreement
from deca_node.protocol.errors import WireError

PROTOCOL_VERSION = 2
"""Of the rules in docs/PROTOCOL.md."""


@dataclass
class Identity:
    """Who this node says it is in every Hello. ``address`` is where others reach it, as HOST:PORT."""

    name: str
    boot: int
    position: Callable[[], int]
    address: str = ""


def words_of(refusal: pb.Refusal, length_max: int = 1000) -> str:
    """What a refusal says to people, cut to what a log line takes."""
    return refusal.sentence[:length_max] or "it gave no reason"


class RefusedError(Exception):
    """The other end does not want this stream; ``reason`` is its code, the message its sentence."""

    def __init__(self, refusal: pb.Refusal) -> None:
        super().__init__(words_of(refusal))
        self.reason = refusal.reason


def hello(own: Identity, to: str, agreement: Agreement, ended: StreamNumber) -> bytes:
    """The first message to ``to``; ``ended`` is the newest stream with it that lives no more."""
    said = pb.Hello(
        protocol=PROTOCOL_VERSION,
        name=own.name,
        to=to,
        boot=own.boot,
        activation=own.position(),
        agreement=dict(agreement.fields),
        ended=pb.Ended(boot=ended.boot, number=ended.number),
    )
    return pb.Frame(hello=said).SerializeToString()


def check_addressee(own: str, protocol: int, version: int, to: str) -> None:
    """Does the other end speak our language, and to us? Raises WireError."""
    if protocol != version:
        raise WireError("version", f"protocol {protocol}, this node speaks {version}")
    if to != own:
        raise WireError("address", f"meant for {to[:200]!r}, but this is {own!r}")


def read_frame(message: bytes | None, body: str) -> pb.Frame:
    """A message of the greeting. Raises RefusedError where it is a Refusal, WireError where it is anything else."""
    if message is None:
        raise StreamBrokenError("the other end closed its stream")
    frame = framing.decode(message)
    kind = "chunk" if isinstance(frame, framing.Chunk) else frame.WhichOneof("body")
    if isinstance(frame, pb.Frame) and kind == "refusal":
        raise RefusedError(frame.refusal)
    if isinstance(frame, framing.Chunk) or kind != body:
        raise WireError("unexpected", f"a {kind} instead of a {body}")
    return frame
