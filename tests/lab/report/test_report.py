"""The report is one file that loads nothing, has all numbers, and escapes every text."""

import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs

from deca_node.lab.report.figures import bytes_sent, curves, heldout_loss, mean_losses, running_mean, training_loss
from deca_node.lab.report.metrics import read_metrics
from deca_node.lab.report.report import write_report
from deca_node.lab.report.result import DemoReport, NodeResult, rows
from deca_node.protocol.errors import StorageError

CHARTS = ("mean-loss", "training-loss", "heldout-loss", "consensus-distance", "bytes-sent")
ODD = '</script><b onclick="x">&'


def metrics_file(path: Path) -> Path:
    """Two rounds of three steps with a gradient, then a flush of two without."""
    lines = [{"time": 0.0, "kind": "eval", "when": "start", "loss": 5.5, "ordinal": 0}]
    for ordinal in range(8):
        step = {"time": ordinal, "kind": "step", "round": ordinal // 3, "block": 0, "inner": ordinal % 3}
        step |= {"ordinal": ordinal, "bytes_sent": 2**20 * ordinal, "bytes_received": 0, "step_seconds": 0.25}
        step |= {"consensus_distance": 1e-4, **({"loss": 5.0 - ordinal / 10} if ordinal < 6 else {})}
        lines.append(step)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def demo(metrics: Path | None, name: str = "anna", title: str = "A demo") -> DemoReport:
    nodes = (
        NodeResult(name=name, corpus=name, together=(4.111, 5.222), alone=(4.0, 6.5), metrics=metrics),
        NodeResult(name="bert", corpus="email", together=(4.111, 5.222), alone=(5.5, 5.0), metrics=metrics),
    )
    facts = (("model", f"Llama {name}"), ("codec", "int8"))
    return DemoReport(title=title, facts=facts, start=(5.0, 6.0), nodes=nodes, parameter_difference_max=1.5e-7)


@pytest.fixture
def page(tmp_path: Path) -> str:
    """A report as a browser would get it, without the drawing library."""
    return written(tmp_path, demo(metrics_file(tmp_path / "metrics.jsonl")))


def written(folder: Path, report: DemoReport) -> str:
    write_report(folder / "report.html", report)
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert get_plotlyjs() in html
    return html.replace(get_plotlyjs(), "")


class Tags(HTMLParser):
    """Collects what a browser would take for tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_numbers_facts_and_verdict_are_there(page: str) -> None:
    for text in ("A demo", "4.111", "5.222", "6.500", "1.5e-07", "int8", "Llama anna"):
        assert text in page
    assert "Every copy tuned together is better" in page


def test_every_chart_is_there(page: str) -> None:
    assert [chart for chart in CHARTS if f'id="{chart}"' not in page] == []


def test_nothing_is_loaded_from_anywhere(page: str) -> None:
    assert "http://" not in page and "https://" not in page
    assert {tag for tag, attributes in Tags(page).tags if attributes.keys() & {"src", "href"}} == set()
    assert "default-src 'none'" in page


def test_text_is_escaped(tmp_path: Path) -> None:
    plain = written(tmp_path, demo(metrics_file(tmp_path / "m"), name="anna"))
    odd = written(tmp_path, demo(metrics_file(tmp_path / "m"), name=ODD, title=ODD))
    assert [tag for tag, _ in Tags(odd).tags] == [tag for tag, _ in Tags(plain).tags]
    assert not any("onclick" in attributes for _, attributes in Tags(odd).tags)
    assert "&lt;/script&gt;" in odd


def test_without_metrics_there_are_no_curves(tmp_path: Path) -> None:
    page = written(tmp_path, demo(None))
    assert 'id="mean-loss"' in page and 'id="training-loss"' not in page


def test_a_node_that_was_killed_early_has_an_empty_row(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    report = demo(metrics_file(tmp_path / "metrics.jsonl"))
    nodes = (
        NodeResult(name="dead", corpus="xml", together=(1.0, 1.0), metrics=tmp_path / "empty.jsonl"),
        report.nodes[1],
    )
    page = written(tmp_path, DemoReport(**{**vars(report), "nodes": nodes}))
    assert re.search(r"<th>dead</th><td>0</td><td></td>", page)


def test_a_place_that_cannot_be_written_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="the report cannot be written to"):
        write_report(tmp_path / "no" / "report.html", demo(None))


def test_bars_are_the_single_models() -> None:
    [bars] = mean_losses(rows(demo(None))).data
    assert list(bars.y) == ["starting model", "anna alone", "bert alone", "anna together", "bert together"]
    assert list(bars.x) == pytest.approx([5.5, 5.25, 5.25, 4.6665, 4.6665])


def test_rounds_are_marked_and_mixes_without_gradient_are_not_drawn(tmp_path: Path) -> None:
    figure = training_loss(curves([("anna", read_metrics(metrics_file(tmp_path / "m")))]))
    assert [(note.x, note.text) for note in figure.layout.annotations] == [(0, "round 1"), (3, "round 2"), (6, "flush")]
    assert [list(line.x) for line in figure.data] == [list(range(6))] * 2


def test_running_mean() -> None:
    assert running_mean([1.0, 3.0, 5.0, 7.0], 2) == [1.0, 2.0, 4.0, 6.0]
    assert running_mean([], 2) == []


def test_a_classifier_s_shares_have_a_chart_and_other_runs_have_none(tmp_path: Path, page: str) -> None:
    path = tmp_path / "labels.jsonl"
    lines = metrics_file(path).read_text().splitlines()
    scores = {"accuracy": 0.625, "macro_f1": 0.5}
    path.write_text("\n".join([json.dumps(json.loads(lines[0]) | scores), *lines[1:]]) + "\n")
    html = written(tmp_path, demo(path))
    assert 'id="shares"' in html and 'id="shares"' not in page
    assert "loss, nats per record" in html and "loss, nats per record" not in page
    metrics = read_metrics(path)
    assert (metrics.evaluations[0].accuracy, metrics.evaluations[0].macro_f1) == (0.625, 0.5)


def test_an_absence_is_a_gap_in_every_line(tmp_path: Path) -> None:
    """The node stopped after step 2, and came back when the others had done step 5."""
    path = metrics_file(tmp_path / "m")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [line for line in lines if line["kind"] != "step" or line["ordinal"] not in (3, 4, 5)]
    evaluations = [{**lines[0], "ordinal": ordinal, "loss": 4.0} for ordinal in (3, 7)]
    path.write_text("".join(json.dumps(line) + "\n" for line in [*kept, *evaluations]))
    nodes = curves([("anna", read_metrics(path))])
    assert [list(line.x) for line in training_loss(nodes).data] == [[0, 1, 2]] * 2, "the flush has no loss"
    assert [list(line.x) for line in bytes_sent(nodes).data] == [[0, 1, 2, None, 6, 7]]
    assert [list(line.x) for line in heldout_loss(nodes).data] == [[0, 3, None, 7]]
    assert [list(line.y) for line in heldout_loss(nodes).data] == [[5.5, 4.0, None, 4.0]]


def test_four_rounds_and_the_flush_all_have_names(tmp_path: Path) -> None:
    """The testbed's run: rounds of 126 steps."""
    step = json.loads(metrics_file(tmp_path / "m").read_text().splitlines()[1])
    steps = [step | {"ordinal": ordinal, "round": ordinal // 126, "loss": 3.0} for ordinal in range(504)]
    flush = [{k: v for k, v in step.items() if k != "loss"} | {"ordinal": 504 + i, "round": 4} for i in range(56)]
    (tmp_path / "m").write_text("".join(json.dumps(line) + "\n" for line in [*steps, *flush]))
    figure = training_loss(curves([("anna", read_metrics(tmp_path / "m"))]))
    names = [note.text for note in figure.layout.annotations]
    assert names == ["round 1", "round 2", "round 3", "round 4", "flush"]


def test_names_of_rounds_do_not_overlap_on_a_phone(tmp_path: Path) -> None:
    """Thirty short rounds: all have a line, and only as many have a name as there is room for."""
    step = json.loads(metrics_file(tmp_path / "m").read_text().splitlines()[1])
    steps = [step | {"ordinal": ordinal, "round": ordinal // 4, "loss": 3.0} for ordinal in range(120)]
    flush = [{k: v for k, v in step.items() if k != "loss"} | {"ordinal": 120 + i, "round": 30} for i in range(2)]
    (tmp_path / "m").write_text("".join(json.dumps(line) + "\n" for line in [*steps, *flush]))
    figure = training_loss(curves([("anna", read_metrics(tmp_path / "m"))]))
    notes = figure.layout.annotations
    assert len(figure.layout.shapes) == 31
    assert next(note.text for note in notes if note.text) == "round 1"
    assert [note.text for note in notes if note.text][-1] == "flush"
    wide = [0.02 * len(note.text) * 120 for note in notes]
    spans = sorted((n.x - w, n.x) if n.xanchor == "right" else (n.x, n.x + w) for n, w in zip(notes, wide, strict=True))
    assert len(spans) >= 5
    assert all(left[1] <= right[0] for left, right in pairwise(spans))
    assert spans[-1][1] <= 121
