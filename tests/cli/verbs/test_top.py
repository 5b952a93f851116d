"""``deca-node top``: its keys, and a node behind a real socket."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deca_node.cli.verbs.top import View, obey
from deca_node.cli.views.rates import ORDERS
from tests.cli.views.test_rates import LATER
from tests.daemon.web.fake_admin import FakeAdmin, RunningAdmin
from tests.patience import PATIENCE_SECONDS

Deca = Callable[..., Any]
FOLDER = Path("deca-data") / "north"


@pytest.fixture
def door(deca: Deca, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAdmin]:
    """A node that has sent 2 MiB more at the second look, two seconds later."""
    monkeypatch.setenv("COLUMNS", "160")
    fake = FakeAdmin()
    running = RunningAdmin(FOLDER, fake)

    def pass_time(_seconds: float) -> None:
        fake.now = LATER

    monkeypatch.setattr("deca_node.cli.verbs.top.time.sleep", pass_time)
    yield fake
    running.close()


def test_keys() -> None:
    view = View("name", False)
    assert obey(view, "r") and (view.sort, view.reverse) == ("rtt", False)
    assert obey(view, "r") and (view.sort, view.reverse) == ("rtt", True)
    assert obey(view, "R") and (view.sort, view.reverse) == ("rtt", False)
    assert obey(view, "?") and (view.sort, view.reverse) == ("rtt", False)
    assert not obey(view, "q")
    assert len({order.key for order in ORDERS.values()} | {"q", "R"}) == len(ORDERS) + 2


@pytest.mark.usefixtures("door")
def test_once(deca: Deca) -> None:
    outcome = deca("top", "--once", "--sort", "state")
    assert (outcome.code, outcome.err) == (0, "")
    doing = "training block 3 of 26 (layers.1), waiting for updates: south"
    assert f"north: 26.8 %, 2 steps/s; 1 of 2 peers up; {doing}" in " ".join(outcome.out.split())
    assert re.search(r"south +up +suspect +open +1 +1.2 ms +512.0 KiB/s +1.0 MiB/s", outcome.out)
    assert outcome.out.index("west") < outcome.out.index("1.0 MiB/s")
    assert "state ▲" in outcome.out


@pytest.mark.usefixtures("door")
def test_json(deca: Deca) -> None:
    found = json.loads(deca("top", "--json", "--sort", "out").out)
    assert (found["name"], found["awaits"]) == ("north", "updates: south")
    assert [(row["name"], row["sent_bytes_per_second"]) for row in found["peers"]] == [("south", 2**20), ("west", 0.0)]


@pytest.mark.usefixtures("door")
def test_live_in_a_terminal() -> None:
    """On a real terminal: keys are read without Enter, q ends it, and the terminal is as it was."""
    ours, its = pty.openpty()
    before = termios.tcgetattr(its)
    program = str(Path(sys.executable).with_name("deca-node"))
    with subprocess.Popen([program, "top"], stdin=its, stdout=its, stderr=its) as child:
        text = heard(ours, "peer ▲")
        os.write(ours, b"r")
        text += heard(ours, "rtt ▼")
        os.write(ours, b"q")
        assert child.wait(PATIENCE_SECONDS) == 0
    assert "south" in text and "west" in text
    assert termios.tcgetattr(its) == before
    for end in (ours, its):
        os.close(end)


def heard(terminal: int, wanted: str) -> str:
    """Everything up to this text."""
    text = ""
    while wanted not in text:
        ready, _, _ = select.select([terminal], [], [], PATIENCE_SECONDS)
        assert ready, f"waited for {wanted!r} after {text[-500:]!r}"
        text += os.read(terminal, 1 << 16).decode(errors="replace")
    return text


def test_no_node(deca: Deca) -> None:
    assert deca("top", "--dir", "nowhere") == (12, "", "error: there is no folder nowhere\n")
