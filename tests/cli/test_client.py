"""The node that a verb asks: which one is meant, and whether it answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deca_node.daemon.status.facts import SOCKET
from tests.cli.conftest import NODE_FOLDER
from tests.daemon.web.fake_admin import FakeAdmin, RunningAdmin

Deca = Callable[..., Any]


@pytest.mark.usefixtures("running")
def test_the_folder_by_flag_and_by_variable(deca: Deca, monkeypatch: pytest.MonkeyPatch) -> None:
    assert deca("stop", "--dir", str(NODE_FOLDER)).code == 0
    (Path("deca-data") / "south").mkdir()
    (Path("deca-data") / "south" / "lock").touch()
    outcome = deca("stop")
    assert outcome.code == 3
    assert outcome.err == (
        "error: there are 2 nodes below ./deca-data: deca-data/north, deca-data/south; "
        "say which with --dir or DECA_DIR\n"
    )
    monkeypatch.setenv("DECA_DIR", str(NODE_FOLDER))
    assert deca("stop").code == 0


def test_no_node_anywhere(deca: Deca) -> None:
    outcome = deca("status")
    assert (outcome.code, outcome.err) == (
        3,
        "error: there is no node's folder below ./deca-data; say where it is with --dir or DECA_DIR\n",
    )


@pytest.mark.parametrize("left", [None, SOCKET, "final"])
def test_no_node_runs(deca: Deca, tmp_path: Path, left: str | None) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    if left == SOCKET:
        RunningAdmin(folder, FakeAdmin()).close()
        (folder / SOCKET).touch()
    elif left == "final":
        (folder / "final").mkdir()
    outcome = deca("pause", "--dir", str(folder))
    advice = f"start it with deca-node start --dir {folder}"
    done = f"its run is complete, and the tuned model is in {folder / 'final'}"
    assert outcome.code == 12
    assert outcome.err.startswith(f"error: no node runs in {folder}")
    assert (done if left == "final" else advice) in outcome.err


def test_no_such_folder(deca: Deca) -> None:
    assert deca("status", "--dir", "nowhere") == (12, "", "error: there is no folder nowhere\n")


def test_a_folder_deeper_than_sockets_may_be(deca: Deca, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 80) / ("e" * 80)
    running = RunningAdmin(deep, FakeAdmin())
    assert deca("stop", "--dir", str(deep))[:2] == (0, "stop will be done\n")
    running.close()


def test_a_node_of_another_version(deca: Deca, monkeypatch: pytest.MonkeyPatch, running: RunningAdmin) -> None:
    monkeypatch.setattr("deca_node.api.client.NodeClient.get", lambda *_: b'{"format": 9}')
    outcome = deca("status")
    assert (outcome.code, "another version" in outcome.err) == (12, True)
