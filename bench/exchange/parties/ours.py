"""This project: its Transport and Session over grpc.aio, its shared memory, its codecs.

The trainer's work in a node (encode an update, absorb the neighbour's) runs here on a thread of its own, and the
daemon's work (send, receive) on the loop. Both are in one process, but neither makes the other wait. ``option`` names
the codec. With ``+mix`` numbers are not only decoded, as with the other contestants, but mixed into ours.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import uvloop

from bench.exchange import content, party
from bench.exchange.party import Job
from bench.exchange.trust import FEDERATION, files_of
from deca_node.daemon.links.conduct import Refusals
from deca_node.daemon.links.greeting import Identity
from deca_node.daemon.links.session import FrameRules
from deca_node.daemon.links.transport import Transport
from deca_node.daemon.security.credentials import NodeCredentials
from deca_node.daemon.security.doorman import Doorman, NameLists
from deca_node.daemon.settings.address import Address
from deca_node.daemon.trainer.arena import Arena, FrameStore, shared_file
from deca_node.daemon.wire.endpoint import Endpoint
from deca_node.numerics.codecs.base import CACHE_ELEMENTS, Codec
from deca_node.numerics.codecs.formats import CODECS
from deca_node.numerics.codecs.table import kernels_of
from deca_node.process.memory import settle_memory
from deca_node.process.priority import answer_promptly
from deca_node.protocol import events as e
from deca_node.protocol.agreed.agreement import Agreement
from deca_node.protocol.agreed.frames import FrameId, FrameKind

HELD_MAX = 4
CPU = torch.device("cpu")


class Codes:
    """The trainer's part: our numbers to a frame, and a neighbour's frame to numbers."""

    def __init__(self, job: Job, codec: Codec) -> None:
        self._codec = codec
        self._own = torch.from_numpy(content.read(job.contents[job.party]))
        self._ours = torch.empty(0, dtype=torch.uint8)
        self._arrived = {peer: torch.zeros_like(self._own) for peer in job.neighbours}
        self.nbytes = codec.nbytes(job.elements)

    def prepare(self, frame: memoryview) -> None:
        """Do nothing, since the buffers are reused."""

    def encode(self, frame: memoryview) -> None:
        """Our numbers as codes."""
        self._ours = torch.frombuffer(frame, dtype=torch.uint8)
        self._codec.encode(self._own, self._ours)

    def absorb(self, peer: int, frame: memoryview) -> None:
        """Check a neighbour's codes, and decode them."""
        theirs, elements = torch.frombuffer(frame, dtype=torch.uint8), self._own.numel()
        self._codec.largest(theirs, elements)
        if not kernels_of(self._codec.name, CPU).decode(theirs, 0, self._arrived[peer]):
            for start in range(0, elements, CACHE_ELEMENTS):
                stop = min(start + CACHE_ELEMENTS, elements)
                self._arrived[peer][start:stop] = self._codec.decode(theirs, start, stop)

    def arrived(self, peer: int, frame: memoryview) -> content.Floats:
        """The decoded numbers of a neighbour."""
        numbers: content.Floats = self._arrived[peer].numpy()
        return numbers


class Mixed(Codes):
    """The whole work of a trainer: e += q_j - q_i, and x moves by its share of e."""

    def __init__(self, job: Job, codec: Codec) -> None:
        super().__init__(job, codec)
        self._x = torch.zeros_like(self._own)
        self._squares = torch.zeros(3, dtype=torch.float64)

    def prepare(self, frame: memoryview) -> None:
        """Restart at zero."""
        for difference in self._arrived.values():
            difference.zero_()

    def absorb(self, peer: int, frame: memoryview) -> None:
        """Check a neighbour's codes, and mix."""
        theirs, e = torch.frombuffer(frame, dtype=torch.uint8), self._arrived[peer]
        self._codec.largest(theirs, e.numel())
        flows = self._codec.flows([(theirs, self._ours, e)], CPU)
        share, no_E = 0.5 / len(self._arrived), torch.empty(0)
        done = flows is not None and flows.mix([share], 0, self._x, no_E, self._squares)
        assert done, "mixing is measured compiled; build it with tools/build_native.py"

    def arrived(self, peer: int, frame: memoryview) -> content.Floats:
        """A neighbour's numbers: ours as they were sent, plus the difference."""
        ours = self._codec.decode(self._ours, 0, self._own.numel())
        numbers: content.Floats = ours.add_(self._arrived[peer]).numpy()
        return numbers


class RawBytes:
    """fp32: frames are the numbers themselves. Ours are in shared memory from the start, and theirs stay there, as in
    the buffers of other contestants that send float32."""

    def __init__(self, job: Job) -> None:
        self._path = job.contents[job.party]
        self.nbytes = 4 * job.elements

    def prepare(self, frame: memoryview) -> None:
        """Before the exchange, put our numbers where they are sent from."""
        frame[:] = content.read(self._path).data.cast("B")

    def encode(self, frame: memoryview) -> None:
        """Do nothing, since the numbers are there."""

    def absorb(self, peer: int, frame: memoryview) -> None:
        """Do nothing, since the numbers are there."""

    def arrived(self, peer: int, frame: memoryview) -> content.Floats:
        """A neighbour's numbers."""
        return np.frombuffer(frame, np.float32)


class Ours:
    """One node: its end of a stream to every neighbour."""

    def __init__(self, job: Job, loop: asyncio.AbstractEventLoop) -> None:
        self._job = job
        self._loop = loop
        codec, _, mix = job.option.partition("+")
        self._codes: Codes | RawBytes = (
            RawBytes(job) if codec == "fp32" else (Mixed if mix else Codes)(job, CODECS[codec])
        )
        self._inner = 0
        self._ours: FrameId | None = None
        self._theirs: dict[int, FrameId] = {}
        self._events: asyncio.Queue[e.NetworkEvent]
        self._run(self._start())
        self.facts = {name: version(name) for name in ("grpcio", "torch", "uvloop")}

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _start(self) -> None:
        job = self._job
        self._events = asyncio.Queue()
        arena = Arena(shared_file(), self._codes.nbytes, (HELD_MAX + 1) * (len(job.neighbours) + 1))
        self._store = FrameStore(arena)
        peers = {name(peer): Address(*job.peers[peer]) for peer in job.neighbours}
        address = Address(*job.peers[job.party])
        if job.certificates:
            files = files_of(Path(job.certificates), name(job.party))
            credentials, doorman = NodeCredentials(files), Doorman(FEDERATION, NameLists(None, None), lambda *_: None)
            self._endpoint = Endpoint(address, credentials.for_endpoint(), doorman.verify)
        else:
            self._endpoint = Endpoint(address)
        identity = Identity(name(job.party), job.party, lambda: -1)
        self._transport = Transport(identity, self._endpoint, self._events.put_nowait, Refusals())
        await self._endpoint.start()
        self._transport.set_peers(peers)
        rules = FrameRules(lambda *_: self._codes.nbytes, HELD_MAX)
        self._transport.meet(Agreement({}), self._store, rules)
        for _ in job.neighbours:
            assert isinstance(event := await self._events.get(), e.PeerUp), event

    def prepare(self) -> None:
        """Free the frames of the last exchange, and take one for the next."""
        self._run(self._prepare())

    async def _prepare(self) -> None:
        for frame in (self._ours, *self._theirs.values()):
            if frame:
                self._store.release(frame)
        self._theirs.clear()
        self._inner += 1
        self._ours = FrameId(name(self._job.party), FrameKind.UPDATE, 0, self._inner)
        self._codes.prepare(self._store.reserve(self._ours, self._codes.nbytes))

    def exchange(self) -> None:
        """Encode once, send to all, and absorb each update when it arrives."""
        self._run(self._exchange())

    async def _exchange(self) -> None:
        assert self._ours
        await asyncio.to_thread(self._codes.encode, self._store.view(self._ours))
        for peer in self._job.neighbours:
            self._transport.send_frame(name(peer), self._ours)
        for _ in self._job.neighbours:
            event = await self._events.get()
            assert isinstance(event, e.UpdateReceived), event
            self._theirs[int(event.peer)] = event.update
            await asyncio.to_thread(self._codes.absorb, int(event.peer), self._store.view(event.update))

    def check(self) -> float:
        """The largest error of the neighbours' updates."""
        return max(
            content.error([self._codes.arrived(peer, self._store.view(frame))], [self._job.contents[peer]])
            for peer, frame in self._theirs.items()
        )

    def close(self) -> None:
        """End the streams and the server."""
        self._run(self._close())

    async def _close(self) -> None:
        await self._transport.close()
        await self._endpoint.stop()


def name(party: int) -> str:
    """The name of a party."""
    return str(party)


def main() -> None:
    """Run the loop on the main thread, as in a node, and without pauses, since one end may have received everything
    while it still has something to send. A thread beside it takes the parent's commands."""
    settle_memory()
    # As in a trainer.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    answer_promptly()
    # For the codec, whatever the number of cores.
    torch.set_num_threads(1)
    loop = uvloop.new_event_loop()

    def obey() -> None:
        try:
            party.main(lambda job: Ours(job, loop))
        finally:
            loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=obey)
    thread.start()
    loop.run_forever()
    thread.join()


if __name__ == "__main__":
    main()
