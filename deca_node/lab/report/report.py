"""One HTML file that shows a whole run and loads nothing from the network.

The file begins with the answer, then shows the numbers and the curves, and explains below each what was measured and in
which unit. The drawing code (plotly.js) is inside the file, and its policy forbids it to load anything else.
"""

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from statistics import fmean, median

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from deca_node.lab.report import figures
from deca_node.lab.report.metrics import Metrics, read_metrics
from deca_node.lab.report.result import DemoReport, LossRow, best_mean, best_on, rows, verdict
from deca_node.protocol.errors import StorageError

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
STYLE = Path(__file__).with_name("report.css")
SHADE_MAX = 0.45
"""Opacity of the strongest shade in the table of losses. The text must stay readable on it."""

CAPTIONS = {
    "losses": "Mean loss over held-out text that no node trained on, in nats per token; lower is better. A row is a "
    "model, a column the text of one node. Shades compare with the starting model on the same text: green is better, "
    "orange worse. Bold is the best single model of a column. The mean counts every node's text alike. This is one "
    "run with one seed.",
    "mean": "The last column of the table: every model's mean loss over all nodes' held-out text. The dashed line is "
    "the starting model.",
    "training": f"Loss of each node's own training batches, faint, and its running mean over {figures.SMOOTHING_STEPS} "
    "steps. Dotted lines mark where a round, in which every block is trained once, begins.",
    "heldout": "Loss of each node's current copy on its own held-out text. Between two points lies one visit of every "
    "block, or the mixing without gradients that ends the run.",
    "shares": "Share of its own held-out records that each node's current copy labels correctly and, thinner, the mean "
    "F1 over the labels that occur in them.",
    "consensus": "Root mean square, over the elements of the block in training, of the distance between a node's "
    "public copy and the mean of its own and its neighbours', at every exchange; in units of the parameters. It jumps "
    "where the next block begins.",
    "bytes": "All bytes that a node has sent to its peers over all of its starts, in MiB (2^20 bytes), protocol "
    "included. A line has a gap where its node was away.",
    "nodes": "Steps are those that the node did itself; a step that it did again after a crash counts once. Starts are "
    "how often it was started in its folder. Seconds per step are the median over all steps, waiting for neighbours "
    "included. Bytes are those of all its starts. The last loss is the mean over the last steps with a gradient.",
}


def write_report(path: Path, report: DemoReport) -> None:
    """Write the report as one HTML file. Raises StorageError if it cannot be written."""
    write_page(path, report.title, _body(report))


def write_page(path: Path, title: str, body: Iterable[str]) -> None:
    """Write one HTML file that loads nothing. Raises StorageError if it cannot be written."""
    write_text(path, "\n".join([*_head(title), *body, "</body>\n</html>\n"]))


def write_text(path: Path, page: str) -> None:
    """Write a page. Raises StorageError if it cannot be written."""
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"the report cannot be written to {path}: {error.strerror or error}") from error


def _head(title: str) -> Iterator[str]:
    title = escape(title)
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{title}</title>\n<style>\n{STYLE.read_text(encoding='utf-8')}</style>"
    yield f"<script>{get_plotlyjs()}</script>\n</head>\n<body>\n<h1>{title}</h1>"


def _body(report: DemoReport) -> Iterator[str]:
    yield tiles(_results(report))
    yield from (f"<p>{escape(sentence)}</p>" for sentence in verdict(report))
    table = rows(report)
    yield _section("Loss on the held-out text of all nodes", _loss_table(report, table), "losses")
    yield _section("Mean over all texts", _drawing(figures.mean_losses(table), "mean-loss"), "mean")
    yield from curves([(node.name, read_metrics(node.metrics)) for node in report.nodes if node.metrics is not None])
    yield facts("The run", report.facts)


Tile = tuple[str, str, str]
"""A tile: its CSS class, its number, and its label."""


def _results(report: DemoReport) -> Iterator[Tile]:
    """The four most important numbers."""
    yield "", f"{report.start_mean:.3f}", "starting model, mean loss"
    if report.alone_means:
        yield "", f"{fmean(report.alone_means):.3f}", "nodes alone, mean loss"
    yield "together", f"{fmean(report.together_means):.3f}", "nodes together, mean loss"
    yield "", f"{report.parameter_difference_max:.2g}", "largest difference between final copies"


def tiles(numbers: Iterable[Tile]) -> str:
    """Large numbers side by side."""
    drawn = (
        f'<div class="tile {kind}"><b>{escape(number)}</b><span>{escape(label)}</span></div>'
        for kind, number, label in numbers
    )
    return f'<div class="tiles">{"".join(drawn)}</div>'


def curves(named: Sequence[tuple[str, Metrics]]) -> Iterator[str]:
    """The charts over steps, for the nodes that have metrics."""
    if not any(metrics.steps for _, metrics in named):
        return
    nodes = figures.curves(named)
    yield _section("Training loss", _drawing(figures.training_loss(nodes), "training-loss"), "training")
    yield _section("Held-out loss on the own text", _drawing(figures.heldout_loss(nodes), "heldout-loss"), "heldout")
    if any(each.accuracy is not None for _, metrics in named for each in metrics.evaluations):
        yield _section("Held-out accuracy and macro-F1", _drawing(figures.heldout_shares(nodes), "shares"), "shares")
    if any(step.consensus_distance for node in nodes for step in node.metrics.steps):
        drawing = _drawing(figures.consensus_distance(nodes), "consensus-distance")
        yield _section("Consensus distance", drawing, "consensus")
    yield _section("Bytes sent", _drawing(figures.bytes_sent(nodes), "bytes-sent"), "bytes")
    yield _section("The nodes", _node_table(named), "nodes")


def _section(heading: str, body: str, caption: str) -> str:
    return f'<h2>{escape(heading)}</h2>\n{body}\n<p class="caption">{escape(CAPTIONS[caption])}</p>'


def _drawing(figure: go.Figure, name: str) -> str:
    config = {"displayModeBar": False, "responsive": True}
    return str(figure.to_html(full_html=False, include_plotlyjs=False, div_id=name, default_height="", config=config))


def _loss_table(report: DemoReport, table: Sequence[LossRow]) -> str:
    columns = range(len(report.nodes))
    start = [*report.start, report.start_mean]
    best = [*(best_on(table, column) for column in columns), best_mean(table)]
    span = max(abs(loss - base) for row in table for loss, base in zip(row.losses, report.start, strict=True))
    lines = []
    for row in table:
        facts = zip([*row.losses, row.mean], start, best, strict=True)
        cells = (_loss_cell(loss, base, span, loss == low and not row.average) for loss, base, low in facts)
        group_ends = " last" if row.average or row.kind == "start" else ""
        kind = "average" if row.average else "single"
        lines.append(f'<tr class="{kind}{group_ends}"><th>{escape(row.label)}</th>{"".join(cells)}</tr>')
    return _table("losses", ["model", *(node.corpus for node in report.nodes), "mean"], lines)


def _loss_cell(loss: float, base: float, span: float, best: bool) -> str:
    """One loss, shaded by its distance below (green) or above (orange) the starting model's loss."""
    strength = SHADE_MAX * min(abs(loss - base) / span, 1.0) if span else 0.0
    classes = f"{'better' if loss < base else 'worse'}{' best' if best else ''}"
    return f'<td class="{classes}" style="--strength:{strength:.3f}">{loss:.3f}</td>'


def _node_table(named: Sequence[tuple[str, Metrics]]) -> str:
    lines = []
    for name, metrics in named:
        cells = "".join(f"<td>{cell}</td>" for cell in _node_cells(metrics))
        lines.append(f"<tr><th>{escape(name)}</th>{cells}</tr>")
    return _table("nodes", ["node", "steps", "starts", "s per step", "last loss", "sent, MiB", "received, MiB"], lines)


def _table(kind: str, columns: Sequence[str], lines: Sequence[str]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "\n".join(lines)
    return (
        f'<div class="wide"><table class="{kind}"><thead><tr>{head}</tr></thead>\n<tbody>{body}\n</tbody></table></div>'
    )


def _node_cells(metrics: Metrics) -> list[str]:
    if not metrics.steps:
        return ["0", "", "", "", "", ""]
    losses = [step.loss for step in metrics.steps if step.loss is not None][-figures.SMOOTHING_STEPS :]
    return [
        str(metrics.done),
        str(metrics.lives),
        f"{median(step.step_seconds for step in metrics.steps):.3f}",
        f"{fmean(losses):.3f}" if losses else "",
        f"{metrics.bytes_sent / 2**20:.1f}",
        f"{metrics.bytes_received / 2**20:.1f}",
    ]


def facts(heading: str, named: Iterable[tuple[str, str]]) -> str:
    """Facts of a run as lines of text, name and value."""
    lines = "\n".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in named)
    return f'<h2>{escape(heading)}</h2>\n<div class="wide"><table class="facts"><tbody>{lines}</tbody></table></div>\n'
