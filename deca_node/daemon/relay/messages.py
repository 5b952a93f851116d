"""The messages of a relayed connection (proto/deca/v1/relay.proto)."""

from typing import Any

from google.protobuf.message import DecodeError

from deca_node.daemon.wire.broken import StreamBrokenError
from deca_node.daemon.wire_pb import exchange_pb2
from deca_node.daemon.wire_pb import relay_pb2 as pb
from deca_node.protocol.errors import WireError

VERSION = 1
"""The version of the rules for relayed connections in docs/PROTOCOL.md."""
SERVICE = "deca.v1.Relay"
METHOD = f"/{SERVICE}/Carry"

DATA_BYTES_MAX = 128 << 10
"""The data of one message. A relay holds one message per direction, beside what gRPC buffers."""
MESSAGE_BYTES_MAX = DATA_BYTES_MAX + 64
SENTENCE_LENGTH_MAX = 500


def ask(own: str, to: str, *, waits: bool) -> bytes:
    """The first message of an end: it waits for ``to``, or calls it."""
    return _out(ask=pb.RelayFrame.Ask(protocol=VERSION, name=own, to=to, waits=waits))


def refusal(problem: WireError, own: str) -> bytes:
    """The relay joins nobody with the caller, and says why."""
    return _out(refusal=exchange_pb2.Refusal(reason=problem.reason, sentence=str(problem), name=own))


def data(payload: bytes) -> bytes:
    """Bytes of the relayed connection, at most ``DATA_BYTES_MAX``."""
    return _out(data=payload)


def _out(**body: Any) -> bytes:
    return pb.RelayFrame(**body).SerializeToString()


JOINED = _out(joined=pb.RelayFrame.Joined())
END = _out(end=pb.RelayFrame.End())


def read(message: bytes | None, *bodies: str) -> pb.RelayFrame:
    """A message with one of these bodies. Raises StreamBrokenError at the stream's end, and WireError for any other
    message; a refusal's reason is that of the refusal."""
    if message is None:
        raise StreamBrokenError("the other end closed its stream")
    if len(message) > MESSAGE_BYTES_MAX:
        raise WireError("size", f"a relayed message of {len(message)} bytes; the limit is {MESSAGE_BYTES_MAX}")
    frame = pb.RelayFrame()
    try:
        frame.ParseFromString(message)
    except DecodeError as problem:
        raise WireError("malformed", f"not a RelayFrame: {problem}") from None
    found = frame.WhichOneof("body")
    if found == "refusal" and "refusal" not in bodies:
        raise WireError(frame.refusal.reason, frame.refusal.sentence[:SENTENCE_LENGTH_MAX] or "it gave no reason")
    if found not in bodies:
        raise WireError("unexpected", f"a {found} instead of a {' or '.join(bodies)}")
    return frame
