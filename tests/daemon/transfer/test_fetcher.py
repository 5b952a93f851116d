"""A fetch as a whole: what is fetched, from which donors, and how a fetch goes on after a crash."""

import asyncio
import random
import socket
from pathlib import Path

import pytest

from deca_node.daemon.settings.address import Address
from deca_node.daemon.transfer.download import FetchLimits
from deca_node.daemon.transfer.fetcher import INCOMING
from deca_node.daemon.transfer.offers import TransferError
from deca_node.daemon.transfer.pieces import PIECE_BYTES
from deca_node.protocol.agreed.agreement import Agreement
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.errors import StorageError
from deca_node.storage.manifest import (
    delta_name,
    folder_of,
)
from tests.daemon.transfer.town import (
    PIECES,
    RUN,
    VERSIONS,
    Town,
    content,
    read,
    town,
    whole,
    write_node,
)


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


def test_a_version_that_is_gone_is_replaced_by_a_newer_one(tmp_path: Path) -> None:
    """The donor goes on training. Pieces of other blocks are kept, and one fetch gets everything."""
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
            with pytest.raises(TransferError, match=r"no donor could give block layers\.0 of activation 5"):
                await there.fetch(fetcher)
            assert there.said("north does not give block layers.0", "no longer has")
            await there.add("south")
            assert read(await there.fetch(fetcher)) == whole()
            assert there.donors["south"].served["pieces"] == 3, "the rest was kept"

    asyncio.run(scene())


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
            assert "south: it offers a block 'layers.77', which this run does not have" in str(refused.value)
            assert not (tmp_path / "late").exists(), "nothing was taken for it"

    asyncio.run(scene())


def test_a_new_process_goes_on_where_the_last_one_was(tmp_path: Path) -> None:
    async def crash(there: Town) -> None:
        """Cancel a fetch after five pieces: the folder is as a killed process leaves it."""
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
            with pytest.raises(TransferError, match=r"the limit is 1,000"):
                await fetcher.fetch_start(there.addresses, into, RUN, 1000)
            await fetcher.fetch_start(there.addresses, into, RUN, 10**9)
            assert {p.name for p in into.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}
            assert (into / "model.safetensors").read_bytes() == weights, "the copy that most donors have"
            assert there.donors["odd"].served["pieces"] == 0
            with pytest.raises(StorageError, match="exists already"):
                await fetcher.fetch_start(there.addresses, into, RUN, 10**9)

    asyncio.run(scene())


def test_the_first_offer_does_not_wait_for_members_that_are_mute(tmp_path: Path) -> None:
    async def scene() -> None:
        async with town(tmp_path) as there, asyncio.timeout(FetchLimits().describe):
            with socket.create_server(("127.0.0.1", 0)) as mute:
                nowhere = Address("127.0.0.1", mute.getsockname()[1])
                fetcher = there.fetcher(FetchLimits())
                await there.add("north")
                offer, problems = await fetcher.describe_first({"mute": nowhere, **there.addresses})
                assert (offer and offer.donor, problems) == ("north", {})

            offer, problems = await fetcher.describe_first({"gone": nowhere})
            assert offer is None and list(problems) == ["gone"]

    asyncio.run(scene())
