"""``events``, against a node behind a real socket."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.daemon.web.fake_admin import RunningAdmin

Deca = Callable[..., Any]


def test_events(deca: Deca, running: RunningAdmin) -> None:
    running.say("round 1 is done \x1b[2J")
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO round 1 is done �\[2J\n", deca("events").out)
    assert json.loads(deca("events", "--json").out)["level"] == "info"
    assert deca("events", "--last", "0").out == ""


def test_following_events_ends_with_the_node(
    deca: Deca, running: RunningAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.say("the last one")
    said: list[str] = []

    def echo(text: str) -> None:
        said.append(text)
        running.close()

    monkeypatch.setattr("deca_node.cli.verbs.events.click.echo", echo)
    assert deca("events", "--follow") == (0, "", "")
    assert [text.split(maxsplit=2)[2] for text in said] == ["the last one"]
