"""Block versions and the start model travel from donors to a late node: real servers on loopback, one process."""

import asyncio
import contextlib
import dataclasses
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deca_node.daemon.settings.address import Address
from deca_node.daemon.transfer import donor as giving
from deca_node.daemon.transfer.donor import Donor
from deca_node.daemon.transfer.download import Waits
from deca_node.daemon.transfer.fetcher import INCOMING, Fetcher
from deca_node.daemon.transfer.offers import Offer, TransferError, check_start, read_offer
from deca_node.daemon.transfer.partial_file import Part
from deca_node.daemon.transfer.pieces import PIECE_BYTES, START, Item
from deca_node.daemon.transfer.stock import held_versions
from deca_node.daemon.wire.endpoint import Endpoint
from deca_node.daemon.wire.throttle import Throttle
from deca_node.daemon.wire_pb import transfer_pb2 as pb
from deca_node.protocol.agreed.agreement import Agreement
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.errors import StorageError, WireError
from deca_node.protocol.events import Fetched
from deca_node.storage.manifest import (
    Manifest,
    Place,
    StoredBlock,
    StoredFile,
    delta_name,
    folder_of,
    value_name,
    write_manifest,
)

RUN = Agreement({"run_name": "demo", "seed": "0", "model": "ab" * 32})
SIZES = {
    "embedding": 5 * PIECE_BYTES + 260,
    "layers.0": 3 * PIECE_BYTES,
    "layers.1": 3 * PIECE_BYTES,
    "head": 520,
    "layers.77": 260,
}
VERSIONS = {"embedding": 4, "layers.0": 5, "layers.1": 6}
"""Visited in activations 4 to 6; "head" never was."""
PIECES = 12

# Nothing is waited for in vain: who is refused asks again at once.
WAITS = Waits(describe=5.0, piece=5.0, pause_min=0.001, pause_max=0.002, failures_max=2, busy_max=1000, note=0.0)


def content(block: str, activation: int, copy: int = 0) -> bytes:
    return random.Random(f"{block}@{activation}:{copy}").randbytes(SIZES[block])


def store(path: Path, name: str, data: bytes) -> StoredFile:
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_bytes(data)
    return StoredFile(name, len(data), hashlib.sha256(data).hexdigest())


def write_node(
    path: Path,
    position: int = 7,
    versions: Mapping[str, int] = VERSIONS,
    copy: int = 0,
    claims: Mapping[str, int] | None = None,
) -> Path:
    """A node's folder with one checkpoint, as a trainer leaves it; ``claims`` are sizes that it lies about."""
    blocks = {
        block: StoredBlock(
            a, store(path, value_name(block, a), b"x"), store(path, delta_name(block, a), content(block, a, copy))
        )
        for block, a in versions.items()
    }
    for block, nbytes in (claims or {}).items():
        lie = dataclasses.replace(blocks[block].delta, bytes=nbytes)
        blocks[block] = dataclasses.replace(blocks[block], delta=lie)
    manifest = Manifest(RUN, Step(position, 0), blocks, None, Place(0, 0, 1), {}, 0.0)
    folder_of(path, manifest.position).mkdir(parents=True)
    write_manifest(folder_of(path, manifest.position), manifest)
    return path


class Gate(Throttle):
    """Stands where a limit would, and does something before a piece goes out."""

    def __init__(self, act: Callable[[int], Awaitable[None]]) -> None:
        super().__init__(0.0)
        self.act = act
        self.passed = 0

    async def take(self, nbytes: int) -> None:
        await self.act(self.passed)
        self.passed += 1


@dataclass
class Town:
    """Donors by name, each behind a server of its own, and a late node with its folder."""

    path: Path
    notes: list[str] = field(default_factory=list)
    blamed: list[tuple[str, str]] = field(default_factory=list)
    donors: dict[str, Donor] = field(default_factory=dict)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    killed: asyncio.Future[None] | None = None

    @property
    def addresses(self) -> dict[str, Address]:
        return {name: endpoint.address for name, endpoint in self.endpoints.items()}

    async def add(self, name: str, act: Callable[[int], Awaitable[None]] | None = None, **options: object) -> None:
        """A donor; ``act`` is called with the number of pieces it gave before each further one."""
        folder = self.path / name
        if not folder.exists():
            write_node(folder)
        made = {"agreement": lambda: RUN, "throttles": [Gate(act)] if act else [], **options}
        self.donors[name] = Donor(folder, lambda: 7, settings="rounds = 1\n", **made)  # type: ignore[arg-type]
        self.endpoints[name] = Endpoint(Address("127.0.0.1", 0))
        self.endpoints[name].add(*self.donors[name].handlers())
        await self.endpoints[name].start()

    async def kill(self, name: str) -> None:
        """Called from within a donor's own answer, which ends here."""
        self.killed = asyncio.ensure_future(self.endpoints[name].stop(0.01))
        await asyncio.Event().wait()

    def fetcher(self, waits: Waits = WAITS, name: str = "late") -> Fetcher:
        def note(sentence: str, level: str = "info") -> None:
            self.notes.append(sentence)

        door = Endpoint(Address("127.0.0.1", 0))

        def blame(donor: str, problem: WireError) -> None:
            self.blamed.append((donor, problem.reason))

        return Fetcher(self.path / "late", door.channel, note, waits, name, blame)

    async def fetch(self, fetcher: Fetcher, at_least: int = 1, have: Mapping[str, int] | None = None) -> Fetched:
        expected = {block: SIZES[block] for block in ("embedding", "layers.0", "layers.1", "head")}
        return await fetcher.fetch(self.addresses, at_least, have or {}, RUN, expected)

    def said(self, *words: str) -> bool:
        return any(all(word in note for word in words) for note in self.notes)


@contextlib.asynccontextmanager
async def town(path: Path) -> AsyncIterator[Town]:
    there = Town(path)
    try:
        yield there
    finally:
        await asyncio.gather(*(endpoint.stop(0.01) for endpoint in there.endpoints.values()))


def read(fetched: Fetched) -> dict[str, bytes]:
    return {delta.version.block: Path(delta.path).read_bytes() for delta in fetched.deltas}


def whole(versions: Mapping[str, int] = VERSIONS) -> dict[str, bytes]:
    return {block: content(block, activation) for block, activation in versions.items()}


# --- getting it all -----------------------------------------------------------------------------------------


def test_blocks_come_from_all_donors(tmp_path: Path) -> None:
    async def scene() -> None:
        async with town(tmp_path) as there:
            for name in ("north", "south", "west"):
                await there.add(name)
            fetcher = there.fetcher()
            fetched = await there.fetch(fetcher)
            assert fetched.activation == 7
            assert [d.version.activation for d in fetched.deltas] == [4, 5, 6]
            assert read(fetched) == whole()
            assert all(donor.served["pieces"] for donor in there.donors.values()), "nobody was idle"
            assert sum(donor.served["pieces"] for donor in there.donors.values()) == PIECES, "and nothing came twice"
            assert fetcher.traffic["bytes_resent"] == 0
            assert there.said("got", "MB")
            fetcher.clear()
            assert not (tmp_path / "late" / INCOMING).exists()

    asyncio.run(scene())


def test_what_is_here_already_is_not_fetched(tmp_path: Path) -> None:
    async def scene() -> None:
        async with town(tmp_path) as there:
            await there.add("north")
            fetched = await there.fetch(there.fetcher(), have={"embedding": 4, "layers.0": 5, "layers.1": 2})
            assert read(fetched) == {"layers.1": content("layers.1", 6)}
            assert (await there.fetch(there.fetcher(), have=VERSIONS)).deltas == ()

    asyncio.run(scene())


def test_the_target_is_what_half_of_the_donors_have_reached(tmp_path: Path) -> None:
    newer = {**VERSIONS, "embedding": 7}

    async def scene() -> None:
        write_node(tmp_path / "ahead", 8, newer)
        async with town(tmp_path) as there:
            for name in ("ahead", "north", "south"):
                await there.add(name)
            assert read(await there.fetch(there.fetcher())) == whole()
            assert (await there.fetch(there.fetcher())).activation == 7
            fetched = await there.fetch(there.fetcher(), at_least=8)
            assert (fetched.activation, read(fetched)) == (8, whole(newer))
            with pytest.raises(TransferError, match="no donor has a checkpoint of activation 9 or later"):
                await there.fetch(there.fetcher(), at_least=9)

    asyncio.run(scene())


# --- donors that fail ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("copy", [0, 1], ids=["the same copy", "a copy of its own"])
def test_a_donor_killed_midway_costs_nothing_that_is_held(tmp_path: Path, copy: int) -> None:
    """Design 5.4. Copies of two donors differ in a few bits: their pieces make a block together."""

    async def scene() -> None:
        write_node(tmp_path / "south", copy=copy)
        async with town(tmp_path) as there:
            killed = asyncio.Event()

            async def die_after_three(passed: int) -> None:
                if passed == 3:
                    killed.set()
                    await there.kill("north")

            async def wait_for_it(passed: int) -> None:
                await killed.wait()

            await there.add("north", die_after_three)
            await there.add("south", wait_for_it)
            fetcher = there.fetcher()
            fetched = await there.fetch(fetcher)
            assert fetcher.traffic["bytes_resent"] == 0
            assert fetcher.traffic["pieces"] == PIECES and fetcher.traffic["donors_lost"] == 1
            assert fetcher.traffic["bytes_from.north"] > 0, "it gave something before"
            assert there.said("north", "no donor any more")
            made_of = {b: {content(b, a, 0), content(b, a, copy)} for b, a in VERSIONS.items()}
            assert all(_pieced(data, made_of[block]) for block, data in read(fetched).items())

    asyncio.run(scene())


def _pieced(data: bytes, copies: set[bytes]) -> bool:
    """Whether every piece of ``data`` is that of one of the copies."""
    spans = [slice(start, start + PIECE_BYTES) for start in range(0, len(data), PIECE_BYTES)]
    return all(any(data[span] == copy[span] for copy in copies) for span in spans)


def test_a_damaged_piece_is_refused_and_comes_from_another(tmp_path: Path) -> None:
    async def scene() -> None:
        async with town(tmp_path) as there:
            path = tmp_path / "north" / delta_name("embedding", 4)

            async def damage(passed: int) -> None:
                if passed == 0:
                    # The whole was found right before the first piece went out; the disk fails only then.
                    path.write_bytes(content("embedding", 4, 1))

            await there.add("north", damage)
            fetcher = there.fetcher(Waits(pause_min=0.001, pause_max=0.002, failures_max=2))
            with pytest.raises(TransferError, match="nobody could give block embedding of activation 4"):
                await there.fetch(fetcher)
            assert fetcher.traffic["refused"] == 1 and there.said("north is not asked", "piece 1", "damaged")
            assert there.blamed == [("north", "checksum")]
            await there.add("south")
            assert read(await there.fetch(fetcher)) == whole()
            assert fetcher.traffic["bytes_resent"] == 0

    asyncio.run(scene())


def test_a_donor_finds_its_own_damage(tmp_path: Path) -> None:
    async def scene() -> None:
        write_node(tmp_path / "north")
        (tmp_path / "north" / delta_name("layers.0", 5)).write_bytes(content("layers.0", 5, 1))
        async with town(tmp_path) as there:
            await there.add("north")
            await there.add("south")
            fetcher = there.fetcher()
            assert read(await there.fetch(fetcher)) == whole()
            assert fetcher.traffic["refused"] == 0

    asyncio.run(scene())


def test_a_version_that_is_gone_is_replaced_by_a_newer_one(tmp_path: Path) -> None:
    """The donor trains on: what was got of other blocks is kept, and one fetch gets it all."""
    newer = {**VERSIONS, "layers.0": 7}

    async def scene() -> None:
        async with town(tmp_path) as there:

            async def train_on(passed: int) -> None:
                if passed == 1:
                    folder_of(tmp_path / "north", Step(7, 0)).rename(tmp_path / "pruned")
                    write_node(tmp_path / "north", 8, newer)
                    (tmp_path / "north" / delta_name("layers.0", 5)).unlink()

            await there.add("north", train_on)
            fetcher = there.fetcher()
            fetched = await there.fetch(fetcher)
            assert (fetched.activation, read(fetched)) == (8, whole(newer))
            assert fetcher.traffic["pieces"] == PIECES and fetcher.traffic["bytes_resent"] == 0
            assert there.said("north does not give block layers.0 of activation 5")

    asyncio.run(scene())


def test_a_version_pruned_between_describe_and_fetch_is_not_found(tmp_path: Path) -> None:
    async def scene() -> None:
        async with town(tmp_path) as there:
            await there.add("north")
            (tmp_path / "north" / delta_name("layers.0", 5)).unlink()
            fetcher = there.fetcher()
            with pytest.raises(TransferError, match=r"nobody could give block layers\.0 of activation 5"):
                await there.fetch(fetcher)
            assert there.said("north does not give block layers.0", "no more")
            await there.add("south")
            assert read(await there.fetch(fetcher)) == whole()
            assert there.donors["south"].served["pieces"] == 3, "the rest was kept"

    asyncio.run(scene())


def test_a_donor_that_goes_silent_is_given_up(tmp_path: Path) -> None:
    async def scene() -> None:
        async with town(tmp_path) as there:

            async def fall_silent(passed: int) -> None:
                await asyncio.Event().wait()

            await there.add("north", fall_silent)
            await there.add("south")
            fetcher = there.fetcher(Waits(piece=1.0, pause_min=0.001, pause_max=0.002, failures_max=1))
            assert read(await there.fetch(fetcher)) == whole()
            assert fetcher.traffic["donors_lost"] == 1 and there.said("north", "nothing came for")

    asyncio.run(scene())


# --- donors that are not believed ---------------------------------------------------------------------------


def test_donors_of_another_run_are_left_out(tmp_path: Path) -> None:
    async def scene() -> None:
        async with town(tmp_path) as there:
            await there.add("north", agreement=lambda: Agreement({**RUN.fields, "seed": "1"}))
            with pytest.raises(TransferError, match="seed is 0 at this node and 1 at north"):
                await there.fetch(there.fetcher())
            await there.add("south")
            assert read(await there.fetch(there.fetcher())) == whole()
            assert there.donors["north"].served["pieces"] == 0

    asyncio.run(scene())


def test_sizes_that_cannot_be_are_refused(tmp_path: Path) -> None:
    async def scene() -> None:
        write_node(tmp_path / "north", claims={"embedding": 10**15})
        write_node(tmp_path / "south", 8, {"layers.77": 5})
        async with town(tmp_path) as there:
            await there.add("north")
            await there.add("south")
            with pytest.raises(TransferError) as refused:
                await there.fetch(there.fetcher())
            assert "north: it says that block embedding takes 1,000,000,000,000,000 bytes" in str(refused.value)
            assert "south: it offers a block 'layers.77', which this run has not" in str(refused.value)
            assert not (tmp_path / "late").exists(), "nothing was taken for it"

    asyncio.run(scene())


@given(st.binary(max_size=300))
def test_any_bytes_are_an_offer_or_refused(message: bytes) -> None:
    with contextlib.suppress(WireError):
        assert read_offer("north", message).donor == "north"


@pytest.mark.parametrize(
    "lie",
    [
        {"fingerprint": "00"},
        {"versions": [pb.Version(block="head", activation=1, bytes=520, sha256=b"short")]},
        {"start": [pb.StartFile(name="config.json", bytes=2, sha256=b"")]},
    ],
)
def test_offers_that_contradict_themselves_are_refused(lie: dict[str, Any]) -> None:
    honest = {"fingerprint": RUN.fingerprint, "agreement": dict(RUN.fields)}
    assert read_offer("north", pb.Description(**honest).SerializeToString()).agreement == RUN
    with pytest.raises(WireError):
        read_offer("north", pb.Description(**(honest | lie)).SerializeToString())


@pytest.mark.parametrize("name", ["../config.json", "model.safetensors/..", ".ssh", "evil.py", "pytorch_model.bin", ""])
def test_a_start_model_has_no_strange_files(name: str) -> None:
    offer = Offer("north", RUN, "", 0, 0, {}, {Item(START, name, 2): b"s" * 32})
    with pytest.raises(WireError, match="as part of a model"):
        check_start(offer, 10**9)


# --- what a donor lets be done with it ------------------------------------------------------------------------


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


def test_a_donor_that_stops_hashes_no_further(tmp_path: Path) -> None:
    async def scene() -> None:
        async with town(tmp_path) as there:
            await there.add("north")
            there.donors["north"].close()
            with pytest.raises(TransferError, match="nobody could give block embedding"):
                await there.fetch(there.fetcher())

    asyncio.run(scene())


def test_what_this_node_has_itself(tmp_path: Path) -> None:
    assert held_versions(tmp_path / "nowhere") == {}
    assert held_versions(write_node(tmp_path / "here")) == VERSIONS


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


# --- after a crash ------------------------------------------------------------------------------------------


def test_a_new_process_goes_on_where_the_last_one_was(tmp_path: Path) -> None:
    async def crash(there: Town) -> None:
        """Cancelled after five pieces, the way a killed process leaves its folder."""
        fetcher = there.fetcher()
        task = asyncio.ensure_future(there.fetch(fetcher))
        while fetcher.traffic["pieces"] < 5:
            await asyncio.wait({task}, timeout=0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def scene() -> None:
        async with town(tmp_path) as there:
            stop = asyncio.Event()

            async def stall(passed: int) -> None:
                if passed >= 6:
                    await stop.wait()

            await there.add("north", stall)
            await crash(there)
            incoming = tmp_path / "late" / INCOMING
            journal = next(incoming.glob("*.journal"))
            journal.write_text(journal.read_text() + '{"piece": 0, "sha')
            stop.set()
            fetcher = there.fetcher()
            assert read(await there.fetch(fetcher)) == whole()
            assert PIECES - 6 <= fetcher.traffic["pieces"] <= PIECES - 5, "only what had not come"
            assert fetcher.traffic["bytes_resent"] == 0
            again = there.fetcher()
            assert read(await there.fetch(again)) == whole()
            assert again.traffic["pieces"] == 0, "not even when all of it is there"

    asyncio.run(scene())


def test_pieces_that_changed_on_the_disk_are_fetched_again(tmp_path: Path) -> None:
    item = Item(5, "layers.0", SIZES["layers.0"])
    data = content("layers.0", 5)
    pieces = [data[i : i + PIECE_BYTES] for i in range(0, len(data), PIECE_BYTES)]
    part = Part(tmp_path, item, "run")
    for index in (0, 2):
        assert part.store(index, pieces[index], hashlib.sha256(pieces[index]).digest(), b"c" * 32)
    with (tmp_path / f"{item.file}.part").open("r+b") as file:
        file.seek(2 * PIECE_BYTES + 5)
        file.write(b"!!!")
    assert Part(tmp_path, item, "run").missing == [1, 2]
    assert Part(tmp_path, item, "another run").missing == [0, 1, 2]


def test_a_whole_that_is_not_the_promised_copy_is_thrown_away(tmp_path: Path) -> None:
    item = Item(START, "config.json", 4)
    part = Part(tmp_path, item, "copy")
    assert part.store(0, b"{}  ", hashlib.sha256(b"{}  ").digest(), b"c" * 32)
    with pytest.raises(WireError, match="as a whole"):
        part.finish()
    assert part.missing == [0]
    for data, sha256, reason in ((b"{}", b"", "size"), (b"{}  ", b"", "checksum")):
        with pytest.raises(WireError) as refused:
            part.store(0, data, sha256, b"")
        assert refused.value.reason == reason


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    async def scene() -> None:
        async with town(tmp_path) as there:
            await there.add("north")
            monkeypatch.setattr("os.pwrite", full)
            with pytest.raises(StorageError, match="No space left on device; make room"):
                await there.fetch(there.fetcher())
            monkeypatch.undo()
            assert read(await there.fetch(there.fetcher())) == whole()

    asyncio.run(scene())


# --- the start model ----------------------------------------------------------------------------------------


def write_model(path: Path, weights: bytes) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text('{"model_type": "llama"}')
    (path / "model.safetensors").write_bytes(weights)
    (path / "tokenizer.json").write_bytes(b"")
    (path / "patients.json").write_text("private")
    (path / "modeling.py").write_text("print()")
    return path


def test_the_start_model_comes_without_anything_else(tmp_path: Path) -> None:
    weights = random.Random(0).randbytes(4 * PIECE_BYTES + 7)
    model = write_model(tmp_path / "model", weights)
    other = write_model(tmp_path / "other", weights[::-1])

    async def scene() -> None:
        async with town(tmp_path) as there:
            into = tmp_path / "mine"
            fetcher = there.fetcher()
            await there.add("north", model_folder=None)
            with pytest.raises(TransferError, match="no donor gives the start model"):
                await fetcher.fetch_start(there.addresses, into, RUN, 10**9)
            for name, folder in {"south": model, "west": model, "odd": other}.items():
                await there.add(name, model_folder=folder)
            offers, problems = await fetcher.describe(there.addresses)
            assert problems == {} and offers["south"].settings == "rounds = 1\n" and offers["south"].position == 7
            with pytest.raises(TransferError, match=r"at most 1,000 are wanted"):
                await fetcher.fetch_start(there.addresses, into, RUN, 1000)
            await fetcher.fetch_start(there.addresses, into, RUN, 10**9)
            assert {p.name for p in into.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}
            assert (into / "model.safetensors").read_bytes() == weights, "the copy that most donors have"
            assert there.donors["odd"].served["pieces"] == 0
            with pytest.raises(StorageError, match="is there already"):
                await fetcher.fetch_start(there.addresses, into, RUN, 10**9)

    asyncio.run(scene())
