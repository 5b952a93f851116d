"""Pieces from several donors at once: what is lost when a donor dies, falls silent or sends damaged bytes."""

import asyncio
from pathlib import Path

import pytest

from deca_node.daemon.transfer.download import FetchLimits
from deca_node.daemon.transfer.offers import TransferError
from deca_node.daemon.transfer.pieces import PIECE_BYTES
from deca_node.storage.manifest import (
    delta_name,
)
from tests.daemon.transfer.town import (
    PIECES,
    VERSIONS,
    content,
    read,
    town,
    whole,
    write_node,
)


@pytest.mark.parametrize("copy", [0, 1], ids=["the same copy", "a copy of its own"])
def test_a_donor_killed_midway_costs_nothing_that_is_held(tmp_path: Path, copy: int) -> None:
    """Copies of two donors differ in a few bits; their pieces together make one block."""

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
            assert there.said("north", "no longer a donor")
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
            fetcher = there.fetcher(FetchLimits(pause_min=0.001, pause_max=0.002, failures_max=2))
            with pytest.raises(TransferError, match="no donor could give block embedding of activation 4"):
                await there.fetch(fetcher)
            assert fetcher.traffic["refused"] == 1 and there.said("north is not asked", "piece 1", "damaged")
            assert there.blamed == [("north", "checksum")]
            await there.add("south")
            assert read(await there.fetch(fetcher)) == whole()
            assert fetcher.traffic["bytes_resent"] == 0

    asyncio.run(scene())


def test_a_donor_that_goes_silent_is_given_up(tmp_path: Path) -> None:
    async def scene() -> None:
        async with town(tmp_path) as there:

            async def fall_silent(passed: int) -> None:
                await asyncio.Event().wait()

            await there.add("north", fall_silent)
            await there.add("south")
            fetcher = there.fetcher(FetchLimits(piece=1.0, pause_min=0.001, pause_max=0.002, failures_max=1))
            assert read(await there.fetch(fetcher)) == whole()
            assert fetcher.traffic["donors_lost"] == 1 and there.said("north", "nothing came for")

    asyncio.run(scene())
