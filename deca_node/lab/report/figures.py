"""The report's charts. Each function answers one question and turns plain numbers into one Plotly figure.

A node has the same colour in every chart. Backgrounds are transparent and text has no colour here: the style sheet of
the page sets both, so that one file serves light and dark screens.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate

import plotly.graph_objects as go

from deca_node.lab.report.metrics import Metrics, StepFigures
from deca_node.lab.report.result import LossRow

# Okabe and Ito's palette, which people with most kinds of colour blindness can tell apart. Black and yellow are left
# out, because each is invisible on one of the two backgrounds.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
DASHES = ("solid", "dash", "dot")
KIND_COLOURS = {"start": "#7a808a", "alone": "#b36200", "together": "#0072b2"}  # dark enough for white figures

SMOOTHING_STEPS = 16
"""Steps in the running mean of the training loss, since the loss of one batch is noisy."""

CHARACTER_SHARE = 0.02
"""The part of a chart's width that a character of a round's name takes on a phone: 6 of 300 pixels."""

HEIGHT = 340
"""Height in pixels. The width is that of the page."""


@dataclass(frozen=True)
class Curve:
    """One node's metrics, and the style of its lines."""

    name: str
    metrics: Metrics
    colour: str
    dash: str


Values = Callable[[StepFigures], float | None]


def curves(named: Iterable[tuple[str, Metrics]]) -> list[Curve]:
    """Give every node a colour. From the seventh node on the colours repeat with dashes."""
    return [
        Curve(name, metrics, COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)])
        for i, (name, metrics) in enumerate(named)
    ]


def mean_losses(table: Sequence[LossRow]) -> go.Figure:
    """Bars: the mean loss of every single model over the texts of all nodes, with a line at that of the starting
    model."""
    shown = [row for row in table if not row.average]
    bars = go.Bar(
        x=[row.mean for row in shown],
        y=[escape(row.label) for row in shown],
        orientation="h",
        marker={"color": [KIND_COLOURS[row.kind] for row in shown]},
        text=[f"{row.mean:.3f}" for row in shown],
        textposition="inside",
        insidetextanchor="end",
        textfont={"color": "white"},
        hovertemplate="%{y}: %{x:.4f}<extra></extra>",
    )
    figure = _figure("mean loss, nats per token", "", height=90 + 28 * len(shown))
    figure.add_trace(bars)
    figure.add_vline(x=shown[0].mean, line={"color": KIND_COLOURS["start"], "width": 1, "dash": "dash"})
    figure.update_yaxes(autorange="reversed", showgrid=False, ticksuffix=" ")
    figure.update_xaxes(rangemode="tozero", showgrid=True)
    return figure


def training_loss(nodes: Sequence[Curve]) -> go.Figure:
    """The loss of each batch, faint, and its running mean."""
    figure = _figure("step", _loss_unit(nodes))
    for node in nodes:
        spans = [[(step.ordinal, step.loss) for step in span if step.loss is not None] for span in node.metrics.spans()]
        smooth = [_smoothed(span) for span in spans]
        figure.add_trace(_line(node, *_apart(spans), opacity=0.2, width=1, showlegend=False, hoverinfo="skip"))
        figure.add_trace(_line(node, *_apart(smooth)))
    return _with_rounds(figure, nodes)


def heldout_loss(nodes: Sequence[Curve]) -> go.Figure:
    """The loss of each node on its own held-out text, at every measurement."""
    figure = _figure("step", _loss_unit(nodes))
    for node in nodes:
        groups = list(node.metrics.measured())
        x, y = _apart([[(each.ordinal, each.loss) for each in group] for group in groups])
        when = [name for group in groups for name in (*(escape(each.when) for each in group), "")]
        line = _line(node, x, y, mode="lines+markers", customdata=when, hovertemplate="%{customdata}: %{y:.4f}")
        figure.add_trace(line)
    return _with_rounds(figure, nodes)


def heldout_shares(nodes: Sequence[Curve]) -> go.Figure:
    """The accuracy of each classifier on its own held-out records, and its macro-F1 as a thinner line."""
    figure = _figure("step", "share")
    for node in nodes:
        groups = list(node.metrics.measured())
        x, accuracy = _apart([[(e.ordinal, e.accuracy) for e in group if e.accuracy is not None] for group in groups])
        _, f1 = _apart([[(e.ordinal, e.macro_f1) for e in group if e.macro_f1 is not None] for group in groups])
        figure.add_trace(_line(node, x, accuracy, mode="lines+markers", hovertemplate="accuracy %{y:.3f}"))
        figure.add_trace(_line(node, x, f1, width=1, showlegend=False, hovertemplate="macro-F1 %{y:.3f}"))
    figure.update_yaxes(range=[0, 1])
    return _with_rounds(figure, nodes)


def consensus_distance(nodes: Sequence[Curve]) -> go.Figure:
    """The distance of each node from the mean of itself and its neighbours, on a logarithmic scale."""
    figure = _figure("step", "RMS distance of a parameter")
    _add_lines(figure, nodes, lambda step: step.consensus_distance or None)  # a logarithmic scale has no zero
    figure.update_yaxes(type="log", exponentformat="power", dtick=1)
    return _with_rounds(figure, nodes)


def bytes_sent(nodes: Sequence[Curve]) -> go.Figure:
    """The bytes that each node has sent over all of its starts."""
    figure = _figure("step", "sent, MiB")
    _add_lines(figure, nodes, lambda step: step.bytes_sent / 2**20)
    figure.update_yaxes(rangemode="tozero")
    return _with_rounds(figure, nodes)


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """The mean of each value and up to ``width`` - 1 values before it."""
    sums = [0.0, *accumulate(values)]
    firsts = (max(0, end - width) for end in range(1, len(sums)))
    return [(sums[end] - sums[first]) / (end - first) for end, first in enumerate(firsts, start=1)]


def _loss_unit(nodes: Iterable[Curve]) -> str:
    classifies = any(each.accuracy is not None for node in nodes for each in node.metrics.evaluations)
    return f"loss, nats per {'record' if classifies else 'token'}"


def _add_lines(figure: go.Figure, nodes: Iterable[Curve], value: Values) -> None:
    for node in nodes:
        spans = [
            [(step.ordinal, y) for step in span if (y := value(step)) is not None] for span in node.metrics.spans()
        ]
        figure.add_trace(_line(node, *_apart(spans)))


def _apart(spans: Iterable[Sequence[tuple[int, float]]]) -> tuple[list[int | None], list[float | None]]:
    """The points of one line that is broken between spans: a node that was away has a gap there, and no diagonal."""
    x: list[int | None] = []
    y: list[float | None] = []
    for span in spans:
        if x and span:
            x, y = [*x, None], [*y, None]
        x += [ordinal for ordinal, _ in span]
        y += [value for _, value in span]
    return x, y


def _smoothed(span: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    means = running_mean([value for _, value in span], SMOOTHING_STEPS)
    return [(ordinal, mean) for (ordinal, _), mean in zip(span, means, strict=True)]


def _line(
    node: Curve, x: Sequence[int | None], y: Sequence[float | None], *, width: float = 2, **looks: object
) -> go.Scatter:
    line = {"color": node.colour, "dash": node.dash, "width": width}
    # Plotly reads a few HTML tags in names, so they are escaped here as on the rest of the page.
    name = escape(node.name)
    return go.Scatter(**{"x": x, "y": y, "name": name, "legendgroup": name, "mode": "lines", "line": line, **looks})


def _with_rounds(figure: go.Figure, nodes: Sequence[Curve]) -> go.Figure:
    """Thin vertical lines where rounds begin, and space for the legend, which has two or three entries per line on a
    phone."""
    figure.update_layout(height=HEIGHT + 12 * max(0, len(nodes) - 4))
    line = {"width": 1, "dash": "dot", "color": KIND_COLOURS["start"]}
    place = {"yref": "paper", "y": 1, "yanchor": "bottom", "xanchor": "left", "font_size": 11}
    starts = list(_round_starts(nodes))
    drawn = [x for trace in figure.data for x in trace.x if x is not None]
    anchors = _label_anchors(starts, max([*drawn, *(first for first, _ in starts)], default=0))
    for number, (first, label) in enumerate(starts):
        named = {"text": label, **place, "xanchor": anchors[number]} if number in anchors else None
        figure.add_vline(x=first, line=line, annotation=named)
    return figure


def _label_anchors(starts: Sequence[tuple[int, str]], last: int) -> dict[int, str]:
    """Which lines get a label, and the side of the label that stands at the line. ``starts`` are the lines' places and
    labels, and ``last`` is the chart's right end. Labels never overlap, also on the narrow screen of a phone
    (``CHARACTER_SHARE``). The last line's label comes first, since it names the flush."""
    character = CHARACTER_SHARE * max(last - min((start for start, _ in starts), default=0), 1)
    anchors: dict[int, str] = {}
    taken: list[tuple[float, float]] = []
    for number in sorted(range(len(starts)), key=lambda number: number != len(starts) - 1):
        start, label = starts[number]
        width = len(label) * character
        rightmost = start + width > last
        span = (start - width, float(start)) if rightmost else (float(start), start + width)
        if all(span[1] <= left or right <= span[0] for left, right in taken):
            anchors[number] = "right" if rightmost else "left"
            taken.append(span)
    return anchors


def _round_starts(nodes: Sequence[Curve]) -> Iterator[tuple[int, str]]:
    """The first ordinal of every round, and the name of the round. A round without gradients is the final flush."""
    steps = [step for node in nodes for step in node.metrics.steps]
    for number in sorted({step.round for step in steps}):
        of_round = [step for step in steps if step.round == number]
        trained = any(step.loss is not None for step in of_round)
        yield min(step.ordinal for step in of_round), f"round {number + 1}" if trained else "flush"


def _figure(x_title: str, y_title: str, height: int = HEIGHT) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(
        template=go.layout.Template(),
        height=height,
        margin={"l": 8, "r": 8, "t": 28, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0},
        hovermode="x",
        modebar={"bgcolor": "rgba(0,0,0,0)"},
    )
    figure.update_xaxes(title=x_title, automargin=True, showgrid=False, zeroline=False)
    figure.update_yaxes(title=y_title, automargin=True, zeroline=False)
    return figure
