"""Chunks on their way out.

A chunk is hashed and framed once for all neighbours that are sent the same frame at about the same time. For a
neighbour that lags far behind the others it is made once more.
"""

from collections import OrderedDict

from deca_node.daemon.trainer.arena import FrameStore
from deca_node.daemon.wire import framing
from deca_node.protocol.agreed.frames import CHUNK_BYTES, FrameId

CHUNKS_KEPT = 8


class Chunks:
    """The chunks of the frames in ``store``. The newest few that another neighbour will need are kept."""

    def __init__(self, store: FrameStore) -> None:
        self._store = store
        self._kept: OrderedDict[tuple[FrameId, int], bytes] = OrderedDict()

    def message(self, frame: FrameId, offset: int) -> bytes:
        """The chunk of a held frame that begins at ``offset``, as a message."""
        message = self._kept.get((frame, offset))
        if message is None:
            view = self._store.view(frame)
            message = framing.encode_chunk(frame, offset, len(view), view[offset : offset + CHUNK_BYTES])
            if self._store.senders(frame) > 1:
                self._kept[frame, offset] = message
            if len(self._kept) > CHUNKS_KEPT:
                self._kept.popitem(last=False)
        return message

    def forget(self, frame: FrameId) -> None:
        """The frame's slot is free: drop its chunks. A later frame of the same name may hold other bytes."""
        for key in [key for key in self._kept if key[0] == frame]:
            del self._kept[key]
