"""status, members, events and the requests, against a door behind a real socket."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deca_node.daemon.status.facts import SOCKET, PeerRow, Verb
from tests.daemon.web.fake_door import FakeDoor, RunningDoor

Deca = Callable[..., Any]
FOLDER = Path("deca-data") / "north"


@pytest.fixture
def door() -> FakeDoor:
    return FakeDoor()


@pytest.fixture
def running(deca: Deca, door: FakeDoor, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningDoor]:
    """A node below ./deca-data, the only one there."""
    monkeypatch.setenv("COLUMNS", "200")
    made = RunningDoor(FOLDER, door)
    yield made
    made.close()


@pytest.mark.usefixtures("running")
def test_status_tells_it_all(deca: Deca) -> None:
    outcome = deca("status")
    assert (outcome.code, outcome.err) == (0, "")
    for text in (
        "north, up for 1 h 1 min",
        "wards, fingerprint abababababababab",
        "visiting (waiting), waiting for updates: south",
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
def test_status_of_a_node_that_knows_little_yet(deca: Deca, door: FakeDoor) -> None:
    nothing = {"position": None, "steps_per_second": None, "train_loss": None, "heldout_loss": None, "loop_lag": None}
    door.now = FakeDoor(phase="loading", stage="", peers=(), fingerprint="", awaits="its trainer", **nothing).now
    outcome = deca("status")
    assert outcome.code == 0
    assert "loading, waiting for its trainer" in outcome.out


@pytest.mark.usefixtures("running")
def test_status_says_who_is_gone_and_why_nothing_else_stopped(deca: Deca, door: FakeDoor) -> None:
    why = "west is given up: it did not answer east, south"
    row = PeerRow(name="west", address="127.0.0.1:7003", member="dead", why=why)
    door.now = FakeDoor(peers=(row,), members={"alive": 3, "dead": 1}).now
    out = " ".join(deca("status").out.split())
    assert "gone west: given up, and nobody waits for it; visits go on among the others" in out
    assert "west at 127.0.0.1:7003: given up: it did not answer east, south" in out


@pytest.mark.usefixtures("running")
def test_words_from_others_cannot_steer_the_terminal(deca: Deca, door: FakeDoor) -> None:
    door.now = FakeDoor(warning="\x1b[2Jgone [bold]\x07").now
    out = deca("status").out
    assert "\x1b" not in out and "\x07" not in out
    assert "gone [bold]" in out


@pytest.mark.usefixtures("running")
def test_json_is_the_nodes_own(deca: Deca) -> None:
    assert json.loads(deca("status", "--json").out)["peers"][0]["name"] == "south"
    assert [row["name"] for row in json.loads(deca("members", "--json").out)] == ["north", "south"]
    assert json.loads(deca("pause", "--json").out) == {"sentence": "pause will be done"}


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_watching_ends_with_the_node(
    deca: Deca, running: RunningDoor, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
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
def test_members(deca: Deca) -> None:
    out = deca("members").out
    assert re.search(r"north +127.0.0.1:7001 +alive +activation 0 +1f +2", out)
    assert re.search(r"south +127.0.0.1:7002 +suspect +not yet +5 +0", out)


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("verb", list(Verb))
def test_requests(deca: Deca, door: FakeDoor, verb: Verb) -> None:
    assert deca(verb.value)[:2] == (0, f"{verb} will be done\n")
    door.refusal = "the run is over"
    assert deca(verb.value) == (1, "", "error: the run is over\n")
    assert door.asked == [verb, verb]


def test_events(deca: Deca, running: RunningDoor) -> None:
    running.say("round 1 is done \x1b[2J")
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO round 1 is done �\[2J\n", deca("events").out)
    assert json.loads(deca("events", "--json").out)["level"] == "info"
    assert deca("events", "--last", "0").out == ""


def test_following_events_ends_with_the_node(deca: Deca, running: RunningDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    running.say("the last one")
    said: list[str] = []

    def echo(text: str) -> None:
        said.append(text)
        running.close()

    monkeypatch.setattr("deca_node.cli.verbs.requests.click.echo", echo)
    assert deca("events", "--follow") == (0, "", "")
    assert [text.split(maxsplit=2)[2] for text in said] == ["the last one"]


# --- which node, and whether it answers ---------------------------------------------------------------


@pytest.mark.usefixtures("running")
def test_the_folder_by_flag_and_by_variable(deca: Deca, monkeypatch: pytest.MonkeyPatch) -> None:
    assert deca("stop", "--dir", str(FOLDER)).code == 0
    (Path("deca-data") / "south").mkdir()
    (Path("deca-data") / "south" / "lock").touch()
    outcome = deca("stop")
    assert outcome.code == 3
    assert outcome.err == (
        "error: there are 2 nodes below ./deca-data: deca-data/north, deca-data/south; "
        "say which with --dir or DECA_DIR\n"
    )
    monkeypatch.setenv("DECA_DIR", str(FOLDER))
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
        RunningDoor(folder, FakeDoor()).close()
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
    running = RunningDoor(deep, FakeDoor())
    assert deca("stop", "--dir", str(deep))[:2] == (0, "stop will be done\n")
    running.close()


def test_a_node_of_another_version(deca: Deca, monkeypatch: pytest.MonkeyPatch, running: RunningDoor) -> None:
    monkeypatch.setattr("deca_node.cli.client.NodeClient.get", lambda *_: b'{"format": 9}')
    outcome = deca("status")
    assert (outcome.code, "another version" in outcome.err) == (12, True)
