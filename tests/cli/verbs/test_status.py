"""``status``, against a node behind a real socket."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from deca_node.daemon.status.facts import PeerRow
from tests.daemon.web.fake_admin import FakeAdmin, RunningAdmin

Deca = Callable[..., Any]


@pytest.mark.usefixtures("running")
def test_status_tells_it_all(deca: Deca) -> None:
    outcome = deca("status")
    assert (outcome.code, outcome.err) == (0, "")
    for text in (
        "north, up for 1 h 1 min",
        "wards, fingerprint abababababababab",
        "visiting (waiting)",
        "training block 3 of 26 (layers.1), waiting for updates: south",
        "round 2/4, block 3/26 (layers.1), step 17/50; 1417 of 5278 steps, 26.8 %",
        "2 steps/s, about 32 min 10 s to go",
        "2.5000 in training, 2.7500 held out (round 1), accuracy 0.812, macro-F1 0.750",
        "at activation 28 step 0, 40 s ago",
        "0.2 / 1.1 ms (p50 / p99)",
        "2 alive, 1 suspect",
        "2 for mismatch",
    ):
        assert text in outcome.out
    assert re.search(r"south +up +open +1 +1.2 / 3.4 ms +5.0 MiB +4.0 MiB", outcome.out)
    assert re.search(r"west +refused +no neighbour", outcome.out)
    assert "west at 127.0.0.1:7003: rounds is 4 at north and 5 at west" in outcome.out
    assert "south was last refused 2 min ago: it closed its edge: north did not open it in time" in outcome.out


@pytest.mark.usefixtures("running")
def test_status_of_a_node_that_knows_little_yet(deca: Deca, door: FakeAdmin) -> None:
    nothing = {"position": None, "steps_per_second": None, "train_loss": None, "heldout_loss": None, "loop_lag": None}
    door.now = FakeAdmin(
        phase="loading", stage="", peers=(), fingerprint="", doing="starting the trainer", **nothing
    ).now
    outcome = deca("status")
    assert outcome.code == 0
    assert "starting the trainer" in outcome.out


@pytest.mark.usefixtures("running")
def test_status_says_who_is_gone_and_why_nothing_else_stopped(deca: Deca, door: FakeAdmin) -> None:
    why = "west is given up: it did not answer east, south"
    row = PeerRow(name="west", address="127.0.0.1:7003", member="dead", why=why)
    door.now = FakeAdmin(peers=(row,), members={"alive": 3, "dead": 1}).now
    out = " ".join(deca("status").out.split())
    assert "gone west: given up; training goes on among the others, and no node waits" in out
    assert "west at 127.0.0.1:7003: given up: it did not answer east, south" in out


@pytest.mark.usefixtures("running")
def test_words_from_others_cannot_steer_the_terminal(deca: Deca, door: FakeAdmin) -> None:
    door.now = FakeAdmin(warning="\x1b[2Jgone [bold]\x07").now
    out = deca("status").out
    assert "\x1b" not in out and "\x07" not in out
    assert "gone [bold]" in out


@pytest.mark.usefixtures("running")
def test_json_is_the_nodes_own(deca: Deca) -> None:
    assert json.loads(deca("status", "--json").out)["peers"][0]["name"] == "south"


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_watching_ends_with_the_node(
    deca: Deca, running: RunningAdmin, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    looks = iter((None, running.close))

    def pause(seconds: float) -> None:
        then = next(looks)
        if then:
            then()

    monkeypatch.setattr("deca_node.cli.verbs.status.time.sleep", pause)
    outcome = deca("status", "--watch", *flags)
    assert (outcome.code, outcome.err) == (0, "the node has ended\n")
    assert "north" in outcome.out


@pytest.mark.usefixtures("running")
def test_watching_ends_with_the_watcher(deca: Deca, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("deca_node.cli.verbs.status.time.sleep", interrupt)
    assert deca("status", "--watch", "--json").code == 0


@pytest.mark.usefixtures("running")
def test_callers_that_came_before_the_model_was_loaded_are_no_refusals(deca: Deca, door: FakeAdmin) -> None:
    door.now = FakeAdmin(refusals={"loading": 149, "duplicate": 2}).now
    assert "refused" not in deca("status").out.partition("peer ")[0]
