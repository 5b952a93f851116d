"""What a node has to give: it is checked before it is given."""

import asyncio
from pathlib import Path

import pytest

from deca_node.daemon.transfer.offers import TransferError
from deca_node.daemon.transfer.stock import held_versions
from deca_node.storage.manifest import (
    delta_name,
)
from tests.daemon.transfer.town import (
    VERSIONS,
    content,
    read,
    town,
    whole,
    write_node,
)


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


def test_a_donor_that_stops_hashes_no_further(tmp_path: Path) -> None:
    async def scene() -> None:
        async with town(tmp_path) as there:
            await there.add("north")
            there.donors["north"].close()
            with pytest.raises(TransferError, match="no donor could give block embedding"):
                await there.fetch(there.fetcher())

    asyncio.run(scene())


def test_what_this_node_has_itself(tmp_path: Path) -> None:
    assert held_versions(tmp_path / "nowhere") == {}
    assert held_versions(write_node(tmp_path / "here")) == VERSIONS
