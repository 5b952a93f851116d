"""The result of a run of several nodes, and the sentences that follow from it.

Does a model that was tuned together serve the texts of all nodes better than any model that one node could tune alone?
The answer is computed from the losses, whichever way it falls.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rich import box
from rich.table import Table
from rich.text import Text

Losses = tuple[float, ...]
"""Mean held-out losses of one model in nats per token: one number per node, over that node's text."""


TERMINAL_COLUMNS_MAX = 6
"""With more nodes than this, a table of all losses is wider than a terminal."""


@dataclass(frozen=True, kw_only=True)
class NodeResult:
    """One node: its own text, and the losses of its final models over the held-out texts of all nodes.

    ``alone`` is None if there was no run without exchange. ``metrics`` is the node's ``metrics.jsonl``.
    """

    name: str
    corpus: str
    together: Losses
    alone: Losses | None = None
    metrics: Path | None = None


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """The contents of a report. All losses are over the nodes' held-out texts, in the order of ``nodes``.

    ``facts`` are lines of text about the run, name and value. ``parameter_difference_max`` is the largest absolute
    difference in any parameter between the final checkpoints of two nodes.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    start: Losses
    nodes: tuple[NodeResult, ...]
    parameter_difference_max: float

    def __post_init__(self) -> None:
        models = [self.start, *(node.together for node in self.nodes), *self._alone]
        if not self.nodes or any(len(losses) != len(self.nodes) for losses in models):
            raise ValueError("every model needs one loss per node, and there must be a node")

    @property
    def _alone(self) -> list[Losses]:
        return [node.alone for node in self.nodes if node.alone is not None]

    @property
    def start_mean(self) -> float:
        """The starting model's loss over the texts of all nodes."""
        return fmean(self.start)

    @property
    def together_means(self) -> list[float]:
        """The loss of each jointly tuned copy over the texts of all nodes."""
        return [fmean(node.together) for node in self.nodes]

    @property
    def alone_means(self) -> list[float]:
        """The loss of each model tuned alone over the texts of all nodes. Empty if some node has no such model."""
        return [fmean(losses) for losses in self._alone] if len(self._alone) == len(self.nodes) else []


@dataclass(frozen=True)
class LossRow:
    """One model, or the mean of several, in the table of losses. ``kind``: start, alone or together."""

    label: str
    kind: str
    losses: Losses
    average: bool = False

    @property
    def mean(self) -> float:
        """The mean over the texts of all nodes, each with the same weight."""
        return fmean(self.losses)


def rows(report: DemoReport) -> list[LossRow]:
    """The table of losses: the starting model, every node alone and their mean, every node together and their mean."""
    alone = [LossRow(f"{node.name} alone", "alone", node.alone) for node in report.nodes if node.alone is not None]
    together = [LossRow(f"{node.name} together", "together", node.together) for node in report.nodes]
    table = [LossRow("starting model", "start", report.start)]
    for group, label in ((alone, "mean alone"), (together, "mean together")):
        if group:
            table += [*group, LossRow(label, group[0].kind, _column_means(group), average=True)]
    return table


def best_on(table: Sequence[LossRow], column: int) -> float:
    """The lowest loss of a single model on one node's text."""
    return min(row.losses[column] for row in table if not row.average)


def best_mean(table: Sequence[LossRow]) -> float:
    """The lowest loss of a single model over the texts of all nodes."""
    return min(row.mean for row in table if not row.average)


def verdict(report: DemoReport) -> list[str]:
    """The answer in sentences: the comparison, the nodes that lose by it, and whether the copies agree."""
    losses = [*report.start, *report.together_means, *report.alone_means]
    if not all(map(math.isfinite, losses)):
        return ["A final model has no finite loss: training diverged in this run, and nothing can be compared."]
    return [*_comparison(report), *_own_text(report), _agreement(report.parameter_difference_max)]


def result_table(report: DemoReport) -> Table:
    """The table of losses for a terminal, with the lowest of each column in bold. With many nodes it has only the
    means."""
    table = Table(box=box.SIMPLE_HEAD, title="Held-out loss, nats per token (lower is better)")
    table.add_column("model", no_wrap=True)
    columns = range(len(report.nodes)) if len(report.nodes) <= TERMINAL_COLUMNS_MAX else range(0)
    for column in columns:
        table.add_column(Text(report.nodes[column].corpus), justify="right")
    table.add_column("mean", justify="right")
    table_rows = rows(report)
    for row in table_rows:
        cells = [_cell(row.losses[column], best_on(table_rows, column)) for column in columns]
        label = Text(row.label, style="italic" if row.average else "")
        last_of_group = row.average or row.kind == "start"
        table.add_row(label, *cells, _cell(row.mean, best_mean(table_rows)), end_section=last_of_group)
    return table


def _cell(loss: float, best: float) -> Text:
    return Text(f"{loss:.3f}", style="bold green" if loss == best else "")


def _column_means(group: Sequence[LossRow]) -> Losses:
    return tuple(fmean(column) for column in zip(*(row.losses for row in group), strict=True))


def _comparison(report: DemoReport) -> list[str]:
    start, together, alone = report.start_mean, report.together_means, report.alone_means
    reached = f"Over the held-out text of all {len(report.nodes)} nodes, the models tuned together reach "
    reached += f"{fmean(together):.3f} nats per token on average; the starting model has {start:.3f}"
    if not alone:
        better = "lowered" if fmean(together) < start else "did not lower"
        return [f"{reached}.", f"Training together {better} the loss; nodes alone were not run."]
    reached += f", and nodes alone reach {fmean(alone):.3f} (the best of them {min(alone):.3f})."
    return [reached, _beaten(start, together, alone)]


def _beaten(start: float, together: Sequence[float], alone: Sequence[float]) -> str:
    if fmean(together) >= start:
        return "Training together did not improve on the starting model in this run."
    if len(alone) == 1:
        return "With one node there is no joint training: the models together and alone are the same."
    if max(together) < min(alone):
        return "Every copy tuned together is better than every model tuned alone, and no text has left its node."
    if fmean(together) < fmean(alone):
        return "Training together is better than training alone on average, but not in every pair of models."
    return "Training together is no better than training alone in this run."


def _own_text(report: DemoReport) -> list[str]:
    """Compare the two models of each node on its own text, since the common model may be worse there."""
    if not report.alone_means or len(report.nodes) < 2:
        return []
    pairs = [(node.together[i], node.alone[i]) for i, node in enumerate(report.nodes) if node.alone is not None]
    ahead = sum(alone < together for together, alone in pairs)
    if ahead == 0:
        return ["Even on its own text, no node would have done better alone."]
    gap = fmean(together - alone for together, alone in pairs)
    return [
        f"On its own text, {ahead} of {len(pairs)} nodes would have done better alone; averaged over all nodes, "
        f"the own-text loss is {abs(gap):.3f} {'higher' if gap > 0 else 'lower'} together."
    ]


def _agreement(difference: float) -> str:
    if not math.isfinite(difference):
        return "The final copies cannot be compared: a parameter is not finite."
    if difference == 0:
        return "The nodes' final copies are equal in every parameter."
    return f"The nodes' final copies differ by at most {difference:.2g} in any parameter."
