"""The requests that a donor answers, and those that it refuses."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from deca_node.daemon.settings.address import Address
from deca_node.daemon.transfer import donor as giving
from deca_node.daemon.transfer.offers import TransferError
from deca_node.daemon.transfer.pieces import PIECE_BYTES
from deca_node.daemon.wire.endpoint import Endpoint
from deca_node.daemon.wire.throttle import Throttle
from deca_node.daemon.wire_pb import transfer_pb2 as pb
from deca_node.protocol.errors import WireError
from tests.daemon.transfer.town import RUN, SIZES, VERSIONS, Town, content, read, town, whole


def request(**changes: object) -> pb.FetchRequest:
    data = content("layers.0", 5)
    asked: dict[str, object] = {
        "block": "layers.0",
        "activation": 5,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).digest(),
    }
    pieces = changes.pop("pieces", [0])
    fingerprint = changes.pop("fingerprint", RUN.fingerprint)
    return pb.FetchRequest(fingerprint=fingerprint, version=pb.Version(**(asked | changes)), pieces=pieces)  # type: ignore[arg-type]


Answer = list[pb.Piece] | tuple[grpc.StatusCode, str]


async def answer(there: Town, message: bytes) -> Answer:
    async with Endpoint(Address("127.0.0.1", 0)).channel("north", there.addresses["north"]) as channel:
        return await answer_over(channel, message)


async def answer_over(channel: Any, message: bytes) -> Answer:
    try:
        return [pb.Piece.FromString(m) async for m in channel.unary_stream(giving.FETCH)(message)]
    except grpc.aio.AioRpcError as problem:
        return problem.code(), str(problem.details())


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"block": "../../../etc/passwd"}, "NOT_FOUND"),
        ({"block": "layers.0@000005.delta"}, "NOT_FOUND"),
        ({"activation": 4}, "NOT_FOUND"),
        ({"bytes": 10**15}, "NOT_FOUND"),
        ({"sha256": b""}, "NOT_FOUND"),
        ({"pieces": []}, "INVALID_ARGUMENT"),
        ({"pieces": [3]}, "INVALID_ARGUMENT"),
        ({"pieces": [0] * (giving.REQUEST_PIECES_MAX + 1)}, "INVALID_ARGUMENT"),
        ({"fingerprint": "00"}, "FAILED_PRECONDITION"),
    ],
)
def test_only_what_is_in_the_tables_is_given(tmp_path: Path, changes: dict[str, object], code: str) -> None:
    async def scene() -> None:
        async with town(tmp_path) as there:
            await there.add("north")
            assert isinstance(await answer(there, request().SerializeToString()), list)
            refusal = await answer(there, request(**changes).SerializeToString())
            assert refusal[0] == grpc.StatusCode[code] and refusal[1], "with a sentence"
            assert there.donors["north"].served["refused"] == 1

    asyncio.run(scene())


def test_what_is_no_request_is_refused(tmp_path: Path) -> None:
    async def scene() -> None:
        async with town(tmp_path) as there:
            await there.add("north")
            assert (await answer(there, b"\xff\xff"))[0] == grpc.StatusCode.INVALID_ARGUMENT
            start = pb.FetchRequest(fingerprint=RUN.fingerprint, start=pb.StartFile(name="/etc/passwd"), pieces=[0])
            assert (await answer(there, start.SerializeToString()))[0] == grpc.StatusCode.NOT_FOUND

    asyncio.run(scene())


def test_so_many_at_a_time_and_the_others_come_again(tmp_path: Path) -> None:
    async def scene() -> None:
        async with town(tmp_path) as there:
            seen, free = asyncio.Event(), asyncio.Event()

            async def hold(passed: int) -> None:
                seen.set()
                await free.wait()

            await there.add("north", hold, fetches_max=1)
            first = asyncio.ensure_future(answer(there, request().SerializeToString()))
            await seen.wait()
            refusal = await answer(there, request().SerializeToString())
            assert refusal[0] == grpc.StatusCode.RESOURCE_EXHAUSTED and "ask again later" in str(refusal[1])
            fetcher = there.fetcher()
            second = asyncio.ensure_future(there.fetch(fetcher))
            while not fetcher.traffic["busy"]:
                await asyncio.wait({second}, timeout=0.001)
            free.set()
            assert isinstance(await first, list)
            assert read(await second) == whole()

    asyncio.run(scene())


def test_whoever_is_not_welcome_gets_nothing(tmp_path: Path) -> None:
    def verify(context: object, name: str) -> None:
        if name != "late":
            raise WireError("denied", f"{name!r} is on this node's deny-list")

    async def scene() -> None:
        async with town(tmp_path) as there:
            await there.add("north", verify=verify)
            with pytest.raises(TransferError, match="'other' is on this node's deny-list"):
                await there.fetch(there.fetcher(name="other"))
            refusal = await answer(there, request().SerializeToString())
            assert refusal[0] == grpc.StatusCode.PERMISSION_DENIED
            assert read(await there.fetch(there.fetcher())) == whole()

    asyncio.run(scene())


def test_one_stream_per_caller(tmp_path: Path) -> None:
    async def scene() -> None:
        async with town(tmp_path) as there:
            seen, free = asyncio.Event(), asyncio.Event()

            async def hold(passed: int) -> None:
                seen.set()
                await free.wait()

            await there.add("north", hold)
            async with Endpoint(Address("127.0.0.1", 0)).channel("north", there.addresses["north"]) as channel:
                first = asyncio.ensure_future(answer_over(channel, request().SerializeToString()))
                await seen.wait()
                refusal = await answer_over(channel, request().SerializeToString())
                assert refusal[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
                free.set()
                assert isinstance(await first, list)
                assert isinstance(await answer_over(channel, request().SerializeToString()), list), "the seat is free"

    asyncio.run(scene())


def test_a_donor_that_still_loads_says_so(tmp_path: Path) -> None:
    async def scene() -> None:
        async with town(tmp_path) as there:
            await there.add("north", agreement=lambda: None)
            with pytest.raises(TransferError, match="north: this node is still loading its model"):
                await there.fetch(there.fetcher())

    asyncio.run(scene())


def test_the_upload_limit_holds(tmp_path: Path) -> None:
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    async def scene() -> None:
        async with town(tmp_path) as there:
            await there.add("north", throttles=[Throttle(1e6, lambda: now, sleep)])
            await there.fetch(there.fetcher())

    asyncio.run(scene())
    total = sum(SIZES[block] for block in VERSIONS)
    assert now == pytest.approx((total - PIECE_BYTES) / 1e6), "all but the last piece were waited for"
