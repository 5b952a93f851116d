"""Chunks on their way out are made once for all neighbours."""

import os

from deca_node.daemon.trainer.arena import Arena, FrameStore, shared_file
from deca_node.daemon.wire import framing
from deca_node.daemon.wire.chunks import Chunks
from deca_node.protocol.agreed.frames import CHUNK_BYTES, FrameId, FrameKind

NBYTES = 2 * CHUNK_BYTES + 17
UPDATE = FrameId("south", FrameKind.UPDATE, 0, 0)


def content(seed: int = 0) -> bytes:
    return bytes((i * 7 + seed) % 251 for i in range(1000)) * (NBYTES // 1000) + bytes(NBYTES % 1000)


def chunks(frame: FrameId, data: bytes) -> list[bytes]:
    view = memoryview(data)
    offsets = range(0, len(data), CHUNK_BYTES)
    return [framing.encode_chunk(frame, at, len(data), view[at : at + CHUNK_BYTES]) for at in offsets]


def test_a_frame_for_several_neighbours_is_framed_once_and_never_for_another_under_its_name() -> None:
    descriptor = shared_file()
    store = FrameStore(Arena(descriptor, NBYTES, 2))
    os.close(descriptor)
    made = Chunks(store)
    store.on_free = made.forget
    store.reserve(UPDATE, NBYTES)[:] = content(1)
    for _ in range(2):
        store.hold(UPDATE)
    first = made.message(UPDATE, CHUNK_BYTES)
    assert first == chunks(UPDATE, content(1))[1]
    assert made.message(UPDATE, CHUNK_BYTES) is first
    for _ in range(2):
        store.unhold(UPDATE)
    store.release(UPDATE)
    store.reserve(UPDATE, NBYTES)[:] = content(2)
    assert made.message(UPDATE, CHUNK_BYTES) == chunks(UPDATE, content(2))[1]
    assert made.message(UPDATE, 0) is not made.message(UPDATE, 0), "nobody else will want it"
