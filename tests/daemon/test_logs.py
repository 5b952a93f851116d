"""JSON log lines name the node, its place in the run, and the peer they are about."""

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deca_node.daemon.logs import EventLog, JsonFormatter, Whereabouts, log, log_failure, say
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.frames import FrameId, FrameKind
from deca_node.protocol.agreed.schedule import Step
from tests.daemon.status.test_book import Desk


@pytest.fixture
def line() -> Iterator[Callable[[], dict[str, Any]]]:
    """The newest log line, as JSON."""
    kept = EventLog()
    level, propagate = log.level, log.propagate
    log.addHandler(kept)
    log.setLevel("DEBUG")
    log.propagate = False
    yield lambda: dict(json.loads(kept.last(1)[0]))
    log.removeHandler(kept)
    log.setLevel(level)
    log.propagate = propagate


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    whereabouts = Whereabouts(made.node.state)
    log.addFilter(whereabouts)
    yield made
    log.removeFilter(whereabouts)


def test_before_the_model_is_loaded_there_is_a_name_only(desk: Desk, line: Callable[[], dict[str, Any]]) -> None:
    say("hello")
    said = line()
    assert isinstance(said.pop("time"), float)
    assert said == {"level": "info", "message": "hello", "node": "north"}


def test_place_and_peer(desk: Desk, line: Callable[[], dict[str, Any]]) -> None:
    desk.begin()
    desk.step(0)
    desk.half_step(1)
    say("edge to south is gone", "warning", peer="south")
    said = line()
    assert (said["node"], said["peer"], said["level"]) == ("north", "south", "warning")
    position = desk.status.position
    assert position is not None
    assert (said["round"], said["block"], said["step"]) == (position.round, position.block, position.step) == (1, 1, 1)


def test_a_line_that_says_its_place_itself_keeps_it(desk: Desk, line: Callable[[], dict[str, Any]]) -> None:
    desk.begin()
    say("round 1/2  block 1/2  step 3/3", "debug", facts={"round": 1, "block": 1, "step": 3})
    assert line()["step"] == 3


def test_after_the_last_step_there_is_no_place(desk: Desk, line: Callable[[], dict[str, Any]]) -> None:
    desk.begin()
    desk.node.state.next = Step(len(desk.node.state.schedule), 0)
    say("the run is complete")
    assert "round" not in line()


def test_reports_about_an_edge_name_its_peer() -> None:
    desk = Desk()
    desk.begin()
    update = FrameId("north", FrameKind.UPDATE, 0, 0)
    commands = desk.node.handle(e.HalfStepped(Step(0, 0), update, {}), desk.now)
    commands += desk.node.handle(e.PeerDown("south", "the stream broke"), desk.now)
    (report,) = (command for command in commands if isinstance(command, c.Report))
    assert report.about == "south"


def test_names_in_other_scripts_stay_readable() -> None:
    record = logging.LogRecord("deca", logging.INFO, "", 0, "peer %s is here", ("Süd",), None)
    assert json.loads(JsonFormatter().format(record))["message"] == "peer Süd is here"


def test_the_failure_of_a_background_task_is_logged(line: Callable[[], dict[str, Any]]) -> None:
    async def fail() -> None:
        raise KeyError("lost")

    async def life() -> None:
        task = asyncio.ensure_future(fail())
        task.add_done_callback(log_failure)
        await asyncio.wait([task])

    asyncio.run(life())
    assert (line()["level"], line()["message"]) == ("error", "a task of the node failed: KeyError: 'lost'")
