"""What a person sees while nodes train, from what the nodes have done."""

import io
import re
import xml.etree.ElementTree as xml
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from deca_node.api.curves import POINTS_MAX, Curve, picture
from deca_node.api.notebook import NotebookProgress, in_notebook
from deca_node.api.progress import Lines, LiveTable, usual_progress
from deca_node.api.records import Evaluation, Step
from tests.daemon.web.fake_admin import FakeAdmin


def a_node(state: str = "running", name: str = "north") -> Any:
    return SimpleNamespace(name=name, state=state, look=lambda: FakeAdmin().status())


def a_step(done: int, loss: float = 2.5) -> Step:
    figures = {"bytes_sent": 2.0**20, "consensus_distance": 1e-3}
    return Step(node="north", time=1.0, round=1, block=2, step=3, done=done, loss=loss, figures=figures)


EVALUATION = Evaluation("north", 1.0, "round 1", 4, 2.25)


def test_a_line_says_place_losses_and_bytes() -> None:
    out = io.StringIO()
    lines = Lines(seconds=0.0, out=out)
    lines.take(a_node(), [a_step(4), EVALUATION])
    lines.show([a_node()])
    text = out.getvalue()
    assert text.startswith("north: round 1, block 2, step 3, ")
    for words in ("loss 2.500", "held-out loss 2.250", "distance 1.0e-03", "1.0 MiB sent", " %, ", "left"):
        assert words in text


def test_a_line_comes_only_now_and_then() -> None:
    out = io.StringIO()
    lines = Lines(seconds=3600.0, out=out)
    lines.show([a_node()])
    assert out.getvalue() == ""
    lines.end([a_node("ended")])
    assert out.getvalue() == "north: ended\n"


def test_a_table_on_a_terminal() -> None:
    out = io.StringIO()
    table = LiveTable("Both together", Console(file=out, width=120, force_terminal=True))
    table.take(a_node(), [a_step(4)])
    table.show([a_node()])
    table.end([a_node()])
    assert "Both together" in out.getvalue()
    assert "1e-03" not in out.getvalue()
    assert "1.0e-03" in out.getvalue()


def test_a_narrow_terminal_leaves_a_column_out_and_cuts_no_number() -> None:
    out = io.StringIO()
    table = LiveTable("", Console(file=out, width=80, force_terminal=False))
    node = a_node(name="hospital-north")
    table.take(node, [a_step(4, 12.3456), EVALUATION])
    table.end([node])
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in out.getvalue()
    for word in ("hospital-north", "12.346", "2.250", "1.0"):
        assert word in out.getvalue()


def test_outside_of_a_notebook_and_a_terminal_there_are_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert not in_notebook()
    assert isinstance(usual_progress(), Lines)


def test_the_notebook_shows_names_as_text() -> None:
    shown = NotebookProgress()
    bad = a_node(name="<b>north</b>")
    shown.take(bad, [a_step(1), a_step(2, 2.0), EVALUATION])
    page = shown.html([bad])
    assert "&lt;b&gt;north" in page
    assert "<b>" not in page
    assert page.count("<circle") == 1


def test_a_picture_is_sound_svg() -> None:
    drawn = picture("a < b", {"north": [(1.0, 2.0), (2.0, 1.5)]}, {"south": [(2.0, 1.0)]})
    root = xml.fromstring(drawn)
    (line, empty) = [each for each in root if each.tag.endswith("polyline")]
    assert len(line.attrib["points"].split()) == 2
    assert empty.attrib["points"] == ""
    assert [float(number) for number in re.findall(r"[\d.]+", line.attrib["points"])] != []
    assert picture("nothing", {"north": []}, {}) == ""
    assert xml.fromstring(picture("flat", {"north": [(1.0, 2.0)]}, {})) is not None


def test_a_curve_keeps_few_points_and_their_mean() -> None:
    curve = Curve()
    for x in range(10 * POINTS_MAX):
        curve.add(x, 1.0 if x % 2 else 3.0)
    curve.add(0.0, float("nan"))
    points = curve.points
    assert len(points) < POINTS_MAX
    assert all(y == pytest.approx(2.0) for _, y in points[:-1])
    assert points[-1][0] == 10 * POINTS_MAX - 1
