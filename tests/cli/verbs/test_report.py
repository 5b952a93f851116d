"""``deca-node report``: from the folders of one or several nodes to one file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from tests.lab.report.test_report import CHARTS, metrics_file

Deca = Callable[..., Any]


def node(name: str, **agreed: str) -> Path:
    """A folder as a node leaves it."""
    folder = Path("deca-data") / name
    folder.mkdir(parents=True)
    (folder / "lock").touch()
    metrics_file(folder / "metrics.jsonl")
    record = {"fingerprint": "f" * 64, "agreement": {"run_name": "wards", "rounds": "2", **agreed}}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def page(path: Path) -> str:
    return path.read_text(encoding="utf-8").replace(get_plotlyjs(), "")


def test_the_only_node(deca: Deca) -> None:
    folder = node("north")
    assert deca("report") == (0, f"Report: {folder / 'report.html'}\n", "")
    html = page(folder / "report.html")
    for text in ("Run wards: 1 node", "5.500", "first held-out loss", "steps done", "f" * 64):
        assert text in html
    assert [chart for chart in CHARTS[1:] if f'id="{chart}"' not in html] == []
    assert "http://" not in html and "https://" not in html


def test_several_nodes_and_where_they_differ(deca: Deca) -> None:
    folders = (node("north"), node("south", rounds="3", run_name="<b>odd"))
    assert deca("report", *map(str, folders), "--out", "both.html").code == 0
    html = page(Path("both.html"))
    assert "2 (north), 3 (south)" in html
    assert "<b>odd" not in html


def test_a_node_that_was_killed_while_it_began(deca: Deca) -> None:
    folder = node("north")
    (folder / "run.json").write_text("{")
    assert deca("report", str(folder)).code == 0


def test_nothing_to_report(deca: Deca) -> None:
    folder = node("north")
    (folder / "metrics.jsonl").write_text("")
    outcome = deca("report", str(folder))
    assert (outcome.code, "has not trained yet" in outcome.err) == (6, True)
    assert deca("report", "nowhere").code == 6


def test_the_comparison_leaves_the_report_of_the_first_node_as_it_is(deca: Deca) -> None:
    folders = (node("north"), node("south"))
    assert deca("report", str(folders[0])).code == 0
    own = (folders[0] / "report.html").read_bytes()
    outcome = deca("report", *map(str, folders))
    assert outcome == (0, f"Report: {Path('deca-data') / 'comparison.html'}\n", "")
    assert (folders[0] / "report.html").read_bytes() == own
    assert deca("report", str(folders[0]), "-o", "mine.html").out == "Report: mine.html\n"


def test_a_node_that_was_stopped_is_not_complete_and_its_first_life_counts(deca: Deca) -> None:
    folders = (node("north"), node("south"))
    (folders[0] / "final").mkdir()
    stopped = {"phase": "stopped", "time": 1000.0, "position": {"done": 40, "total": 128}}
    (folders[1] / "page.json").write_text(json.dumps({"status": stopped}))
    again = json.loads((folders[1] / "metrics.jsonl").read_text().splitlines()[-1]) | {"ordinal": 8, "bytes_sent": 0}
    with (folders[1] / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(again) + "\n")
    assert deca("report", *map(str, folders), "-o", "both.html").code == 0
    html = page(Path("both.html"))
    assert "<th>north</th><td>complete</td>" in html
    assert "<th>south</th><td>stopped at 40 of 128 steps, last heard of at" in html
    assert "<b>14.0</b>" in html, "7 MiB by each node, though the counter of one fell to 0"
    assert "<th>south</th><td>9</td><td>2</td>" in html
