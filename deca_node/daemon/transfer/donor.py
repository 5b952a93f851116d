"""Answers the requests of late nodes for block versions and the start model, without slowing down training.

There are limits: a few callers at a time, one stream per caller, and an upload limit within that of the node. Files are
read and hashed in threads. A caller beyond the limits is told to ask again later.
"""

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from deca_node.daemon.transfer.pieces import START, Item, piece_count, piece_span
from deca_node.daemon.transfer.stock import Stock, StockFile, StockReader
from deca_node.daemon.wire.endpoint import Context, Handler, Verify
from deca_node.daemon.wire.throttle import Throttle
from deca_node.daemon.wire_pb import transfer_pb2 as pb
from deca_node.protocol.agreed.agreement import Agreement
from deca_node.protocol.errors import WireError
from deca_node.storage.manifest import DamagedError

PROTOCOL_VERSION = 1
SERVICE = "deca.v1.Transfer"
DESCRIBE = f"/{SERVICE}/Describe"
FETCH = f"/{SERVICE}/Fetch"

FETCHES_MAX = 4
DESCRIBES_MAX = 16
REQUEST_PIECES_MAX = 64
NAME_LENGTH_MAX = 200
WRITE_SECONDS_MAX = 60.0
"""A caller that takes no piece for this long loses its seat."""

Result = TypeVar("Result")
Request = TypeVar("Request", pb.DescribeRequest, pb.FetchRequest)


class Donor:
    """Gives files from the node's folder ``directory`` and, where it is set, from ``model_folder``.

    ``position`` gives the activation on which the node works, ``agreement`` the agreement (None while the node loads).
    ``settings`` are the run's settings as TOML. Before a piece goes out its bytes are taken from each of ``throttles``,
    in this order. ``verify`` checks every caller as it does for a Hello (None: every caller is welcome).

    ``served`` counts ``pieces``, ``bytes`` and ``refused`` requests.
    """

    def __init__(
        self,
        directory: Path,
        position: Callable[[], int],
        agreement: Callable[[], Agreement | None],
        settings: str,
        model_folder: Path | None = None,
        throttles: Sequence[Throttle] = (),
        verify: Verify | None = None,
        fetches_max: int = FETCHES_MAX,
    ) -> None:
        self._reader = StockReader(directory, model_folder)
        self._position = position
        self._agreement = agreement
        self._settings = settings
        self._throttles = throttles
        self._verify = verify
        self._fetches = _Seats(fetches_max)
        self._describes = _Seats(DESCRIBES_MAX)
        self._hashing = asyncio.Lock()
        self._jobs: dict[object, asyncio.Task[Any]] = {}
        self.served: Counter[str] = Counter()

    def handlers(self) -> tuple[Handler, ...]:
        """The handlers for :meth:`Endpoint.add`."""
        # Without serializers messages are bytes. The stubs require serializers.
        unary, stream = (
            cast(Any, f) for f in (grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler)
        )
        methods = {"Describe": unary(self._describe), "Fetch": stream(self._fetch)}
        return (grpc.method_handlers_generic_handler(SERVICE, methods),)

    def close(self) -> None:
        """Stop giving, and abandon hashing that is under way. Open streams end with the server."""
        self._reader.close()

    # --- what this node has -------------------------------------------------------------------------

    async def _describe(self, message: bytes, context: Context) -> bytes:
        request = await self._admitted(pb.DescribeRequest(), message, context)
        agreement = await self._agreed(context)
        async with self._seat(self._describes, context):
            stock = await asyncio.to_thread(self._reader.stock)
            self._reader.forget_all_but(stock)
            start = await self._start(context) if request.start else {}
        return self._description(agreement, stock, start).SerializeToString()

    def _description(self, agreement: Agreement, stock: Stock, start: "dict[Item, StockFile]") -> pb.Description:
        return pb.Description(
            protocol=PROTOCOL_VERSION,
            run_name=agreement.fields.get("run_name", ""),
            fingerprint=agreement.fingerprint,
            agreement=dict(agreement.fields),
            settings=self._settings,
            position=self._position(),
            boundary=stock.boundary,
            versions=[
                pb.Version(block=item.name, activation=item.activation, bytes=item.nbytes, sha256=stored.sha256)
                for item, stored in stock.deltas.items()
            ],
            shares_start=self._reader.shares_start,
            start=[pb.StartFile(name=i.name, bytes=i.nbytes, sha256=stored.sha256) for i, stored in start.items()],
            time=time.time(),
        )

    async def _start(self, context: Context) -> dict[Item, StockFile]:
        try:
            return dict(await self._once("start", self._reader.start))
        except OSError as problem:
            await self._refuse(context, grpc.StatusCode.DATA_LOSS, f"the start model cannot be read: {problem}")

    # --- giving pieces ------------------------------------------------------------------------------

    async def _fetch(self, message: bytes, context: Context) -> None:
        request = await self._admitted(pb.FetchRequest(), message, context)
        agreement = await self._agreed(context)
        if request.fingerprint != agreement.fingerprint:
            sentence = f"this node takes part in the run {agreement.fingerprint[:12]}, not {request.fingerprint[:12]!r}"
            await self._refuse(context, grpc.StatusCode.FAILED_PRECONDITION, sentence)
        async with self._seat(self._fetches, context):
            item, stored = await self._asked_for(request, context)
            await self._check_pieces(item, request.pieces, context)
            with await self._opened(item, stored, context) as file:
                sums = await self._sums(item, stored, context)
                for index in request.pieces:
                    await self._give(file.fileno(), item, index, sums[index], context)

    async def _give(self, file: int, item: Item, index: int, sha256: bytes, context: Context) -> None:
        start, nbytes = piece_span(item.nbytes, index)
        data = await asyncio.to_thread(os.pread, file, nbytes, start)
        for throttle in self._throttles:
            await throttle.take(len(data))
        message = pb.Piece(index=index, sha256=sha256, data=data).SerializeToString()
        async with asyncio.timeout(WRITE_SECONDS_MAX):
            await context.write(message)
        self.served["pieces"] += 1
        self.served["bytes"] += len(data)

    async def _asked_for(self, request: pb.FetchRequest, context: Context) -> tuple[Item, StockFile]:
        """The item that the request names. Requests are looked up in this node's own tables and used for nothing
        else."""
        if request.WhichOneof("item") == "version":
            version = request.version
            item, sha256 = Item(version.activation, version.block, version.bytes), version.sha256
            stored = (await asyncio.to_thread(self._reader.stock)).deltas.get(item)
        else:
            item, sha256 = Item(START, request.start.name, request.start.bytes), request.start.sha256
            stored = (await self._start(context)).get(item)
        if stored is None or stored.sha256 != sha256:
            await self._refuse(context, grpc.StatusCode.NOT_FOUND, f"this node has no such copy of {_brief(item)}")
        return item, stored

    async def _opened(self, item: Item, stored: StockFile, context: Context) -> Any:
        """The open file. It may be deleted from now on without harm to this request."""
        try:
            return await asyncio.to_thread(stored.path.open, "rb")
        except OSError:
            await self._refuse(context, grpc.StatusCode.NOT_FOUND, f"this node no longer has {item}")

    async def _sums(self, item: Item, stored: StockFile, context: Context) -> tuple[bytes, ...]:
        try:
            return await self._once((item, stored), self._reader.sums, item, stored)
        except DamagedError as problem:
            await self._refuse(context, grpc.StatusCode.DATA_LOSS, str(problem))
        except OSError:
            await self._refuse(context, grpc.StatusCode.NOT_FOUND, f"this node no longer has {item}")

    async def _once(self, key: object, work: Callable[..., Result], *args: object) -> Result:
        """Hash something: one job at a time, and one job for all callers that wait for the same result. It goes on if a
        caller leaves."""

        async def job() -> Result:
            async with self._hashing:
                return await asyncio.to_thread(work, *args)

        def done(task: "asyncio.Task[Result]") -> None:
            del self._jobs[key]
            if not task.cancelled():
                task.exception()  # marks it as read: it may be that no caller waits any more

        if key not in self._jobs:
            self._jobs[key] = asyncio.create_task(job())
            self._jobs[key].add_done_callback(done)
        return cast(Result, await asyncio.shield(self._jobs[key]))

    # --- refusing -----------------------------------------------------------------------------------

    async def _admitted(self, request: Request, message: bytes, context: Context) -> Request:
        try:
            request.ParseFromString(message)
        except DecodeError:
            await self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "the request is malformed")
        try:
            if self._verify:
                self._verify(context, request.name[:NAME_LENGTH_MAX])
        except WireError as problem:
            await self._refuse(context, grpc.StatusCode.PERMISSION_DENIED, str(problem))
        return request

    async def _agreed(self, context: Context) -> Agreement:
        agreement = self._agreement()
        if agreement is None:
            await self._refuse(context, grpc.StatusCode.UNAVAILABLE, "this node is still loading its model")
        return agreement

    async def _check_pieces(self, item: Item, pieces: Sequence[int], context: Context) -> None:
        if not 0 < len(pieces) <= REQUEST_PIECES_MAX or max(pieces) >= piece_count(item.nbytes):
            sentence = f"ask for 1 to {REQUEST_PIECES_MAX} of the {piece_count(item.nbytes)} pieces of {item}"
            await self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, sentence)

    @contextlib.asynccontextmanager
    async def _seat(self, seats: "_Seats", context: Context) -> AsyncIterator[None]:
        caller = _caller(context)
        if not seats.take(caller):
            sentence = "this node serves as many callers as it may, or this caller already; ask again later"
            await self._refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, sentence)
        try:
            yield
        finally:
            seats.leave(caller)

    async def _refuse(self, context: Context, code: grpc.StatusCode, sentence: str) -> NoReturn:
        self.served["refused"] += 1
        await context.abort(code, sentence)


class _Seats:
    """Limits how many callers are served at a time. A caller takes at most one seat."""

    def __init__(self, seats: int) -> None:
        self.seats = seats
        self._taken: set[str] = set()

    def take(self, caller: str) -> bool:
        if caller in self._taken or len(self._taken) >= self.seats:
            return False
        self._taken.add(caller)
        return True

    def leave(self, caller: str) -> None:
        self._taken.discard(caller)


def _caller(context: Context) -> str:
    """The caller: the names in its certificate, or its connection where there is no certificate."""
    identities = context.peer_identities()
    return " ".join(sorted(i.decode(errors="replace") for i in identities)) if identities else str(context.peer())


def _brief(item: Item) -> str:
    """An item as the caller named it, cut to a safe length."""
    return repr(str(item)[:200])
