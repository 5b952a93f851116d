"""A session on a stream whose peer follows a script; no sockets and no clock."""

import asyncio
import os
from collections import Counter, deque

from deca_node.daemon.links.outbox import Shared
from deca_node.daemon.links.session import FrameRules, Session
from deca_node.daemon.trainer.arena import Arena, FrameStore, shared_file
from deca_node.daemon.wire import framing
from deca_node.daemon.wire.throttle import Throttle
from deca_node.daemon.wire_pb import exchange_pb2 as pb
from deca_node.protocol import events as e
from deca_node.protocol.agreed.frames import CHUNK_BYTES, FrameId, FrameKind
from deca_node.protocol.agreed.schedule import Step

NBYTES = 2 * CHUNK_BYTES + 17
UPDATE = FrameId("south", FrameKind.UPDATE, 0, 0)
OPEN = pb.Frame(open=pb.Open(activation=0, degree=2, keyframe_bytes=NBYTES))


class Script:
    """A stream whose peer sends these messages, and those of :meth:`say`, and then hangs up. What is written to it is
    kept. A ``stalled`` peer reads nothing: the first write never returns."""

    def __init__(self, *messages: bytes, stalled: bool = False) -> None:
        self._messages: deque[bytes | None] = deque([*messages, None])
        self._stalled = stalled
        self.written: list[bytes] = []

    def say(self, *messages: pb.Frame) -> None:
        self._messages.extendleft(message.SerializeToString() for message in reversed(messages))

    async def read(self) -> bytes | None:
        await settle()
        return self._messages.popleft()

    async def write(self, message: bytes) -> None:
        await asyncio.sleep(0)
        if self._stalled:
            await asyncio.Event().wait()
        self.written.append(message)

    def frames(self) -> list[pb.Frame]:
        return [pb.Frame.FromString(message) for message in self.written]

    def bodies(self) -> list[str | None]:
        """The kinds of the messages that were written, without this node's credit."""
        bodies = [frame.WhichOneof("body") for frame in self.frames()]
        return [body for body in bodies if body != "credit"]


async def settle() -> None:
    """Let all tasks run until every one of them waits."""
    for _ in range(100):
        await asyncio.sleep(0)


class Bench:
    """A session on a script, and the events that it told."""

    def __init__(self, *messages: bytes, held_max: int = 3, slots: int = 8) -> None:
        descriptor = shared_file()
        self.store = FrameStore(Arena(descriptor, NBYTES, slots))
        os.close(descriptor)
        self.told: list[e.NetworkEvent] = []
        self.traffic: Counter[str] = Counter()
        self.script = Script(*messages)
        rules = FrameRules(nbytes, held_max)
        self.session = Session(
            "south", self.script, Shared(self.store, Throttle(0.0)), rules, self.told.append, self.traffic
        )
        self.store.on_free = self.session.freed

    def run(self) -> str:
        return asyncio.run(self.session.run())

    def update(self, inner: int) -> FrameId:
        """Queue an update of this node. The node has released it once it is queued."""
        ours = FrameId("north", FrameKind.UPDATE, 0, inner)
        self.store.reserve(ours, NBYTES)[:] = content(inner)
        self.session.send_frame(ours)
        self.store.release(ours)
        return ours

    def offer(self, activation: int) -> FrameId:
        ours = FrameId("north", FrameKind.KEYFRAME, activation, 0)
        self.store.reserve(ours, NBYTES)[:] = content(activation)
        self.session.send_open(pb.Open(activation=activation, degree=1, keyframe_bytes=NBYTES), ours)
        self.store.release(ours)
        return ours


def nbytes(kind: FrameKind, step: Step) -> int | None:
    return NBYTES if step.activation == 0 else None


def content(seed: int = 0) -> bytes:
    return bytes((i * 7 + seed) % 251 for i in range(1000)) * (NBYTES // 1000) + bytes(NBYTES % 1000)


def chunks(frame: FrameId, data: bytes) -> list[bytes]:
    view = memoryview(data)
    offsets = range(0, len(data), CHUNK_BYTES)
    return [framing.encode_chunk(frame, at, len(data), view[at : at + CHUNK_BYTES]) for at in offsets]


def credit(frames: int) -> pb.Frame:
    return pb.Frame(credit=pb.Credit(frames=frames))


CLOSE = pb.Frame(close=pb.Close(activation=0, applied=0, reason="done"))
