"""The network's answers to the node, when the disk fails."""

import asyncio
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deca_node.daemon.network import Network
from deca_node.daemon.transfer import fetcher
from deca_node.protocol import events as e


def test_a_fetch_that_fails_in_any_way_is_answered(tmp_path: Path) -> None:
    """The node waits for an answer, and asks again after a pause. Without one it would wait for ever."""
    told: list[e.Event] = []

    async def fetch(*_: Any) -> e.Fetched:
        raise OSError(5, "Input/output error")

    network: Any = SimpleNamespace(
        _agreement=object(),
        _directory=tmp_path,
        _addresses={},
        _tell=told.append,
        fetcher=SimpleNamespace(traffic=Counter(), fetch=fetch),
    )
    asyncio.run(Network._fetch(network, 0, {}))
    assert told == [e.FetchFailed("[Errno 5] Input/output error")]


def test_files_that_cannot_be_deleted_keep_no_fetch_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old.part").touch()

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    fetcher._remove_all_but(tmp_path, set())
    assert (tmp_path / "old.part").exists()
