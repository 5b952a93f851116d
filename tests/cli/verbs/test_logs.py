"""``logs``: of a node that has ended, of one that runs, and of one that keeps no log file."""

import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deca_node.storage.log_parts import move_along
from tests.cli.conftest import NODE_FOLDER
from tests.daemon.web.fake_admin import RunningAdmin

Deca = Callable[..., Any]


def write(*lines: tuple[str, str], ago: float = 0.0, folder: Path = NODE_FOLDER) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lock").touch()
    with (folder / "node.log").open("a") as file:
        for level, message in lines:
            file.write(json.dumps({"time": time.time() - ago, "level": level, "message": message}) + "\n")


def shown(text: str) -> list[str]:
    return [line.split(maxsplit=3)[3] for line in text.splitlines()]


def test_a_node_that_has_ended(deca: Deca) -> None:
    write(("info", "round 1 is done \x1b[2J"), ("error", "out of memory"))
    code, out, _ = deca("logs")
    assert code == 0
    first, last = out.splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO round 1 is done �\[2J", first)
    assert last.endswith(" ERROR out of memory")
    assert [json.loads(line)["level"] for line in deca("logs", "--json").out.splitlines()] == ["info", "error"]


def test_lines_level_and_time(deca: Deca) -> None:
    write(("warning", "long ago"), ("info", "long ago, too"), ago=7200.0)
    move_along(NODE_FOLDER / "node.log")
    write(*[("info", f"line {number}") for number in range(60)], ("warning", "now"))
    assert len(shown(deca("logs").out)) == 50
    assert shown(deca("logs", "-n", "2").out) == ["line 59", "now"]
    assert shown(deca("logs", "--level", "warning").out) == ["long ago", "now"]
    assert len(shown(deca("logs", "--since", "1h").out)) == 61
    assert len(shown(deca("logs", "--lines", "0", "--since", "3h").out)) == 63
    assert shown(deca("logs", "--since", "90m", "--level", "warning").out) == ["now"]


def test_a_time_that_is_none(deca: Deca) -> None:
    write(("info", "here"))
    code, _, told = deca("logs", "--since", "yesterday")
    assert (code, "'yesterday' is no time as in 30m, 2h or 7d" in told) == (2, True)


def test_following_prints_new_lines_of_the_file_until_the_node_ends(
    deca: Deca, running: RunningAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(("info", "before"))
    running.say("before")
    told: list[str] = []

    def echo(text: str, **_: Any) -> None:
        told.append(text.split(maxsplit=3)[-1])
        if told == ["before"]:
            move_along(NODE_FOLDER / "node.log")
            write(("info", "after"))
            running.say("after")
        if told[-1] == "after":
            write(("info", "the last one"))
            running.close()

    monkeypatch.setattr("deca_node.cli.verbs.logs.click.echo", echo)
    assert deca("logs", "--follow").code == 0
    assert told[:3] == ["before", "after", "the last one"]


def test_following_goes_on_until_the_nodes_process_has_ended(
    deca: Deca, running: RunningAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node closes its socket first, and logs a few lines more."""
    write(("info", "before"))
    running.say("before")
    told: list[str] = []
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as node:
        (NODE_FOLDER / "lock").write_text(str(node.pid))

        def echo(text: str, **_: Any) -> None:
            told.append(text.split(maxsplit=3)[-1])
            if told[-1] == "before":
                write(("info", "after"))
                running.say("after")
            if told[-1] == "after":
                running.close()
                write(("info", "the run is complete"))
            if told[-1] == "the run is complete":
                write(("info", "to train on, begin a new run"))
            if told[-1] == "to train on, begin a new run":
                node.kill()
                node.wait()

        monkeypatch.setattr("deca_node.cli.verbs.logs.click.echo", echo)
        assert deca("logs", "--follow").code == 0
    assert told[:4] == ["before", "after", "the run is complete", "to train on, begin a new run"]


def test_following_a_node_that_has_ended_ends_at_once(deca: Deca) -> None:
    write(("info", "the last one"))
    code, out, told = deca("logs", "--follow")
    assert (code, shown(out), told) == (0, ["the last one"], "the node has ended\n")


@pytest.mark.parametrize("stale", [False, True])
def test_a_node_without_a_file_tells_what_it_has_in_memory(deca: Deca, running: RunningAdmin, stale: bool) -> None:
    if stale:
        write(("info", "of an earlier start"))
        settings = {"run": {}, "node": {"log_file": {"value": False}}}
        (NODE_FOLDER / "settings.json").write_text(json.dumps(settings))
    running.say("from memory")
    assert shown(deca("logs").out) == ["from memory"]


def test_neither_a_file_nor_a_node(deca: Deca) -> None:
    NODE_FOLDER.mkdir(parents=True)
    (NODE_FOLDER / "lock").touch()
    code, out, told = deca("logs")
    assert (code, out) == (12, "")
    assert told.startswith("error: there is no node.log in deca-data/north, and no node runs in deca-data/north; start")
