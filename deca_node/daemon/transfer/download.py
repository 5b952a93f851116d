"""One attempt to download a list of files from several donors at once, each at its own pace.

One worker per donor takes pieces from the pool, asks its donor for them in one stream, and checks and writes each piece
when it comes. If a donor dies, is busy or sends bad pieces, the pieces that it has not sent go back to the pool. The
attempt is over when no worker can do more, whether or not all files are complete.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from deca_node.daemon.transfer.donor import FETCH
from deca_node.daemon.transfer.partial_file import PartialFile
from deca_node.daemon.transfer.pieces import START, Item, Pool, piece_span
from deca_node.daemon.wire.broken import BROKEN, END, in_a_line
from deca_node.daemon.wire_pb import transfer_pb2 as pb
from deca_node.protocol.errors import WireError
from deca_node.protocol.options import Note

Blame = Callable[[str, WireError], None]
"""Called with a donor that broke the rules, and the error."""

_HAS_NOT = {
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.PERMISSION_DENIED,
}


@dataclass(frozen=True)
class FetchLimits:
    """Limits of a fetch: how long to wait for a Description, for a donor that hashes the start model and for one piece;
    the pauses between attempts; how many failures and busy answers in a row are accepted; how often progress is noted.
    Times are in seconds."""

    describe: float = 10.0
    hash: float = 1800.0
    piece: float = 60.0
    pause_min: float = 0.5
    pause_max: float = 5.0
    failures_max: int = 3
    busy_max: int = 60
    note: float = 5.0

    def pause(self, attempt: int) -> float:
        """The pause before attempt 1, 2, ...: twice as long each time."""
        return min(self.pause_min * 2.0 ** (attempt - 1), self.pause_max)


@dataclass
class _DonorRecord:
    """A donor's failures and busy answers in a row, since it last sent a piece."""

    failures: int = 0
    busy: int = 0


class Download:
    """``copies`` gives the items of each donor, with the SHA-256 of its copy. ``channels`` lead to the donors, which
    know this node as ``name``.

    ``traffic`` counts ``bytes`` (also by donor, ``bytes_from.NAME``) and ``pieces`` that came, pieces that were
    ``refused``, ``bytes_resent`` that were here already, ``donors_lost`` and ``busy`` answers. ``blame`` is called for
    every donor that sent something that is refused.
    """

    def __init__(
        self,
        parts: Mapping[Item, PartialFile],
        copies: Mapping[str, Mapping[Item, bytes]],
        channels: Mapping[str, grpc.aio.Channel],
        name: str,
        fingerprint: str,
        traffic: Counter[str],
        note: Note,
        limits: FetchLimits,
        blame: Blame,
    ) -> None:
        self._parts = parts
        self._copies = copies
        self._channels = channels
        self._name = name
        self._fingerprint = fingerprint
        self._traffic = traffic
        self._note = note
        self._limits = limits
        self._blame = blame
        self._pool = Pool({item: part.missing for item, part in parts.items()}, copies)
        self._unsound: list[Item] = []
        self._stirred = asyncio.Event()
        self._over = asyncio.Event()
        self._total = sum(item.nbytes for item in parts)
        self._done = sum(part.held_bytes for part in parts.values())
        self.distrusted: set[tuple[str, Item]] = set()

    async def run(self) -> list[Item]:
        """Fetch what the donors have; returns the items that are incomplete at the end. Raises StorageError."""
        self._noted = self._now()
        try:
            for item, part in self._parts.items():
                if not part.missing:
                    await self._finish(item)
            async with asyncio.TaskGroup() as group:
                for donor in self._copies:
                    group.create_task(self._work(donor))
        except ExceptionGroup as problems:
            raise problems.exceptions[0] from None
        return self._pool.unfinished + self._unsound

    async def _work(self, donor: str) -> None:
        record = _DonorRecord()
        while self._pool.hopeful(donor):
            taken = self._pool.take(donor)
            if taken is None:
                await self._stirred.wait()
                self._stirred.clear()
                continue
            pause = await self._ask(donor, *taken, record)
            if pause:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._over.wait()

    async def _ask(self, donor: str, item: Item, pieces: Sequence[int], record: _DonorRecord) -> float:
        """Make one request; returns how many seconds to wait before the next request to this donor."""
        left = list(pieces)
        try:
            async with contextlib.aclosing(self._pieces(donor, item, pieces)) as stream:
                async for piece in stream:
                    await self._take(donor, item, left[0], piece)
                    del left[0]
                    record.failures = record.busy = 0
                    if self._pool.got(item):
                        await self._finish(item)
        except WireError as problem:
            self._distrust(donor, item, problem)
        except (*BROKEN, TimeoutError) as problem:
            return self._failed(donor, item, problem, record)
        finally:
            self._pool.put_back(donor, item, left)
            self._stir()
        return 0.0

    async def _pieces(self, donor: str, item: Item, pieces: Sequence[int]) -> AsyncGenerator[pb.Piece, None]:
        """The pieces that were asked for. Raises BROKEN, TimeoutError, and WireError for a message that is no such
        piece."""
        # Without serializers messages are bytes. The stubs require serializers.
        open_stream: Any = self._channels[donor].unary_stream
        call = open_stream(FETCH)(self._request(donor, item, pieces))
        try:
            # Read to the end of the stream: only then has the donor a free seat for the next request.
            for index in (*pieces, None):
                async with asyncio.timeout(self._limits.piece):
                    message = await call.read()
                if (message is END) != (index is None):
                    raise WireError("unexpected", "it sent more pieces, or fewer, than it was asked for")
                if index is not None:
                    yield _parsed(message)
        finally:
            call.cancel()

    def _request(self, donor: str, item: Item, pieces: Sequence[int]) -> bytes:
        request = pb.FetchRequest(name=self._name, fingerprint=self._fingerprint, pieces=pieces)
        sha256 = self._copies[donor][item]
        if item.activation == START:
            request.start.CopyFrom(pb.StartFile(name=item.name, bytes=item.nbytes, sha256=sha256))
        else:
            version = pb.Version(block=item.name, activation=item.activation, bytes=item.nbytes, sha256=sha256)
            request.version.CopyFrom(version)
        return request.SerializeToString()

    async def _take(self, donor: str, item: Item, index: int, piece: pb.Piece) -> None:
        if piece.index != index:
            raise WireError("unexpected", f"piece {piece.index} of {item} instead of {index}")
        copy = self._copies[donor][item]
        new = await asyncio.to_thread(self._parts[item].store, index, piece.data, piece.sha256, copy)
        nbytes = piece_span(item.nbytes, index)[1]
        self._traffic.update({"pieces": 1, "bytes": nbytes, f"bytes_from.{donor}": nbytes})
        self._traffic["bytes_resent"] += 0 if new else nbytes
        self._done += nbytes
        self._tell_progress()

    async def _finish(self, item: Item) -> None:
        try:
            await asyncio.to_thread(self._parts[item].finish)
        except WireError as problem:
            self._unsound.append(item)
            self._traffic["refused"] += 1
            self._note(str(problem), "warning")

    # --- what goes wrong ----------------------------------------------------------------------------

    def _failed(self, donor: str, item: Item, problem: Exception, record: _DonorRecord) -> float:
        code = problem.code() if isinstance(problem, grpc.aio.AioRpcError) else None
        if code in _HAS_NOT:
            self._note(f"{donor} does not give {item}: {in_a_line(problem)}")
            self._pool.withdraw(donor, item)
            return 0.0
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            self._traffic["busy"] += 1
            record.busy += 1
            if record.busy < self._limits.busy_max:
                return self._limits.pause(record.busy)
        record.failures += 1
        if record.busy < self._limits.busy_max and record.failures < self._limits.failures_max:
            return self._limits.pause(record.failures)
        self._traffic["donors_lost"] += 1
        self._pool.withdraw(donor)
        reason = (
            f"nothing came for {self._limits.piece:.0f} s" if isinstance(problem, TimeoutError) else in_a_line(problem)
        )
        self._note(f"{donor} is no longer a donor: {reason}", "warning")
        return 0.0

    def _distrust(self, donor: str, item: Item, problem: WireError) -> None:
        self._traffic["refused"] += 1
        self.distrusted.add((donor, item))
        self._pool.withdraw(donor, item)
        self._note(f"{donor} is not asked for {item} again: {problem}", "warning")
        self._blame(donor, problem)

    # --- waking the other workers, and progress -----------------------------------------------------

    def _stir(self) -> None:
        self._stirred.set()
        if not self._pool.unfinished:
            self._over.set()

    def _tell_progress(self) -> None:
        if self._now() - self._noted >= self._limits.note:
            self._noted = self._now()
            self._note(f"got {self._done / 1e6:,.1f} of {self._total / 1e6:,.1f} MB")

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _parsed(message: bytes) -> pb.Piece:
    piece = pb.Piece()
    try:
        piece.ParseFromString(message)
    except DecodeError:
        raise WireError("malformed", "it sent a message that is no piece") from None
    return piece
