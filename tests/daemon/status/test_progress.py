"""The lines of a run say where it stands, how good it is, how fast it goes and how long it will take."""

import io
import logging

import pytest
from rich.console import Console

from deca_node.daemon.logs import log
from deca_node.daemon.status.progress import ProgressLog, progress_line
from deca_node.daemon.terminal import TerminalBar, bar_wanted, bar_words
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from tests.daemon.status.test_book import READY, Desk
from tests.daemon.web.fake_admin import STATUS


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(log, "propagate", True)
    caplog.set_level(logging.INFO, "deca")
    return caplog


def watched() -> tuple[Desk, ProgressLog]:
    desk = Desk()
    return desk, ProgressLog(lambda: desk.status, lambda: desk.now)


def test_a_line_has_every_number() -> None:
    assert progress_line(STATUS) == (
        "round 2/4  block 3/26 (layers.1)  step 17/50  27 %  loss 2.5000  held-out 2.7500  accuracy 0.812  "
        "consensus distance 1.25e-04  2 steps per second  32 min left"
    )


def test_a_visit_that_ends_has_a_line_at_once(lines: pytest.LogCaptureFixture) -> None:
    desk, progress = watched()
    desk.begin()
    desk.step(0)
    desk.step(1)
    progress.observe(e.Mixed(desk.node.state.next, {}), desk.steps.observe(e.Activated(0)))
    progress.observe(e.Frozen(0))
    assert lines.messages == [], "no step has ended yet"
    desk.half_step(2, loss=2.5)
    done = desk.steps.observe(e.Mixed(desk.node.state.at, {}))
    assert done is not None
    progress.observe(e.Mixed(done.step, {}), done)
    progress.observe(e.Frozen(0))
    (line,) = lines.messages
    assert line.startswith("round 1/2  block 1/2 (embedding)  step 2/4  10 %  loss 2.9000  held-out 3.5000")
    assert "0.5 steps per second" in line and line.endswith("left")


def test_a_long_visit_has_a_line_every_thirty_seconds(lines: pytest.LogCaptureFixture) -> None:
    desk, progress = watched()
    desk.begin()
    desk.step(0)
    progress.look()
    assert lines.messages == []
    desk.now += 30.0
    progress.look()
    progress.look()
    desk.now += 29.0
    progress.look()
    assert [line.split("  ")[0] for line in lines.messages] == ["round 1/2"]
    desk.now += 1.0
    progress.look()
    assert len(lines.messages) == 2


def test_loading_that_takes_long_is_told_with_what_it_does(lines: pytest.LogCaptureFixture) -> None:
    desk, progress = watched()
    assert desk.status.doing == "starting the trainer"
    desk.book.remark("reading and tokenizing wards.jsonl")
    progress.look()
    desk.now += 31.0
    progress.look()
    assert lines.messages == ["still reading and tokenizing wards.jsonl"]
    desk.book.perform(c.RestartTrainer(1.0))
    assert desk.status.doing == "starting the trainer"


def test_what_a_node_does_is_told_in_words() -> None:
    desk = Desk()
    desk.tell(READY)
    assert desk.status.doing == "waiting for peers: south"
    desk.tell(e.PeerUp("south", -1))
    assert desk.status.doing == "measuring the held-out loss"
    desk.tell(e.Evaluated("start", 3.5, 100))
    assert desk.status.doing == "training block 1 of 2 (embedding)"
    desk.tell(e.Activated(0))
    assert desk.status.doing.startswith("training block 1 of 2 (embedding), waiting for ")
    desk.tell(e.TrainerFailed("out of memory", 11))
    assert desk.status.doing == "nothing: the node has failed"


def test_the_bar_is_for_terminals_and_leaves_log_lines_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not bar_wanted("json")
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert not bar_wanted("text")
    screen, long = io.StringIO(), "a line of [brackets] " * 10
    handler = logging.StreamHandler(screen)
    monkeypatch.setattr(log, "handlers", [handler])
    monkeypatch.setattr(log, "propagate", False)
    monkeypatch.setattr(log, "level", logging.INFO)
    monkeypatch.setenv("TERM", "xterm")
    bar = TerminalBar(Console(file=screen, force_terminal=True, width=80, highlight=False))
    bar.open()
    bar.draw(STATUS)
    log.info("%s", long)
    bar.close()
    assert log.handlers == [handler]
    assert long in screen.getvalue() and "27 %" in screen.getvalue()
    assert "loss 2.500, held-out 2.750, 2 steps per second, 32 min left" in screen.getvalue()


def test_before_there_is_a_pace_the_bar_says_what_is_done() -> None:
    desk = Desk()
    desk.book.remark("reading and tokenizing /a/very/long/path/to/some/records/of/a/ward.jsonl")
    assert bar_words(desk.status) == "reading and tokenizing /a/very/long/path/to/some/records/of…"
