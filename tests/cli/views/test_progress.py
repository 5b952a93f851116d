"""Long work is told of, on a terminal by a bar and elsewhere by a line now and then."""

import io

import pytest
from rich.console import Console
from rich.progress import Progress

from deca_node.cli.views.progress import Work


def test_without_a_terminal_long_work_has_a_line_every_thirty_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    work = Work(None, lambda: now)
    work.stage("loading the model")
    for second in range(0, 61, 10):
        now = float(second)
        work.report(second, 100)
    now = 95.0
    work.stage("judging the model")
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "info: loading the model: 30 %\ninfo: loading the model: 60 %\ninfo: judging the model\n"


def test_on_a_terminal_the_stage_and_its_share_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    screen = io.StringIO()
    with Progress(console=Console(file=screen, force_terminal=True, width=80), auto_refresh=False) as bar:
        work = Work(bar)
        work.stage("reading and tokenizing wards.jsonl")
        work.report(3, 4)
        bar.refresh()
    assert "reading and tokenizing wards.jsonl" in screen.getvalue() and "75%" in screen.getvalue()
    assert capsys.readouterr().err == ""
