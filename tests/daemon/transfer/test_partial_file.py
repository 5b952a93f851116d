"""A file on its way in: pieces on the disk are checked again, and a full disk is reported."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from deca_node.daemon.transfer.partial_file import PartialFile
from deca_node.daemon.transfer.pieces import PIECE_BYTES, START, Item
from deca_node.protocol.errors import StorageError, WireError
from tests.daemon.transfer.town import (
    SIZES,
    content,
    read,
    town,
    whole,
)
from tests.storage.power_cuts import Recorder


def test_pieces_that_changed_on_the_disk_are_fetched_again(tmp_path: Path) -> None:
    item = Item(5, "layers.0", SIZES["layers.0"])
    data = content("layers.0", 5)
    pieces = [data[i : i + PIECE_BYTES] for i in range(0, len(data), PIECE_BYTES)]
    part = PartialFile(tmp_path, item, "run")
    for index in (0, 2):
        assert part.store(index, pieces[index], hashlib.sha256(pieces[index]).digest(), b"c" * 32)
    with (tmp_path / f"{item.file}.part").open("r+b") as file:
        file.seek(2 * PIECE_BYTES + 5)
        file.write(b"!!!")
    assert PartialFile(tmp_path, item, "run").missing == [1, 2]
    assert PartialFile(tmp_path, item, "another run").missing == [0, 1, 2]


def test_a_whole_that_is_not_the_promised_copy_is_thrown_away(tmp_path: Path) -> None:
    item = Item(START, "config.json", 4)
    part = PartialFile(tmp_path, item, "copy")
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


def test_no_piece_is_believed_or_fetched_twice_after_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is whole or it goes on from pieces that are right; a kill loses no piece that was stored."""
    item = Item(5, "layers.0", 2 * PIECE_BYTES + 100)
    data = bytes(index % 251 for index in range(item.nbytes))
    pieces = [data[i : i + PIECE_BYTES] for i in range(0, len(data), PIECE_BYTES)]
    copy = hashlib.sha256(data).digest()

    def store(part: PartialFile, index: int) -> None:
        part.store(index, pieces[index], hashlib.sha256(pieces[index]).digest(), copy)

    home = tmp_path / "home"
    home.mkdir()
    recorder = Recorder(home)
    with recorder.watching(monkeypatch):
        part = PartialFile(home / "incoming", item, "run")
        for index in (1, 0, 2):
            store(part, index)
            recorder.say(index)
        part.finish()
        recorder.say("whole")
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)
    for number, state in enumerate(recorder.states.values()):
        again = PartialFile(state.write(tmp_path / str(number)) / "incoming", item, "run")
        if state.killed:
            assert set(state.said) - {"whole"} <= set(again.held) | ({0, 1, 2} if again.whole else set())
        assert again.whole or "whole" not in state.said
        for index in again.missing:
            store(again, index)
        assert again.finish().read_bytes() == data
