"""What a person sees while nodes train: a table on a terminal, a line per node now and then elsewhere.

In a notebook :mod:`deca_node.api.notebook` shows the table and the curves in the cell.
"""

import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from deca_node.api.curves import Curve
from deca_node.api.records import Evaluation, Record, Step
from deca_node.daemon.status.facts import Status

if TYPE_CHECKING:
    from rich.table import Table

    from deca_node.api.node import Node

LINE_SECONDS = 30.0
LOOK_SECONDS, DRAW_SECONDS = 1.0, 0.5
HEADINGS = ("node", "round", "block", "step", "done", "loss", "held-out", "distance", "MiB sent", "left")
FORMS = (
    "round {}",
    "block {}",
    "step {}",
    "{}",
    "loss {}",
    "held-out loss {}",
    "distance {}",
    "{} MiB sent",
    "{} left",
)
"""The words of a line, in the order of the columns after the name."""
WIDE = {"distance": 90}
"""Columns that a terminal of fewer characters has no room for."""


class Progress(Protocol):
    """A display of several nodes."""

    def take(self, node: "Node", records: Sequence[Record]) -> None:
        """Take what one node has done since the last call."""

    def show(self, nodes: Sequence["Node"]) -> None:
        """Show all nodes as they are now; called five times a second."""

    def end(self, nodes: Sequence["Node"]) -> None:
        """Show the end."""


class Course:
    """One node's course so far: its newest step and evaluation, its curves, and its status, asked once a second."""

    def __init__(self) -> None:
        self.step: Step | None = None
        self.evaluation: Evaluation | None = None
        self.losses, self.heldout = Curve(), Curve()
        self._status: Status | None = None
        self._looked = 0.0

    def take(self, records: Iterable[Record]) -> None:
        """Take new records."""
        for record in records:
            match record:
                case Step():
                    self.step = record
                    if record.loss is not None:
                        self.losses.add(record.done, record.loss)
                case Evaluation():
                    self.evaluation = record
                    self.heldout.add(record.done, record.loss)

    def cells(self, node: "Node") -> tuple[str, ...]:
        """The row of the node under HEADINGS."""
        status, step = self._look(node), self.step
        at = status.position if status else None
        total, figures = (at.total if at else None), (step.figures if step else {})
        left = status.remaining_seconds if status and node.state == "running" else None
        place = ("", "", "") if step is None else (str(step.round), str(step.block), str(step.step))
        if step is None:
            done = status.phase if status else "starting" if node.state == "running" else node.state
        else:
            done = f"{100 * step.done / total:.0f} %" if total else ""
        return (
            node.name,
            *place,
            done,
            _number(step.loss if step else None, ".3f"),
            _number(self.evaluation.loss if self.evaluation else None, ".3f"),
            _number(figures.get("consensus_distance"), ".1e"),
            "" if step is None else f"{figures.get('bytes_sent', 0.0) / 2**20:.1f}",
            "" if left is None else _duration(left),
        )

    def _look(self, node: "Node") -> Status | None:
        now = time.monotonic()
        if node.state == "running" and now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._status = node.look() or self._status
        return self._status


class Courses:
    """The courses of several nodes, by name."""

    def __init__(self) -> None:
        self._courses: dict[str, Course] = {}

    def of(self, node: "Node") -> Course:
        """The course of one node."""
        return self._courses.setdefault(node.name, Course())

    def take(self, node: "Node", records: Sequence[Record]) -> None:
        """See :class:`Progress`."""
        self.of(node).take(records)


class Lines(Courses):
    """A line per node and half minute, for logs and pipes."""

    def __init__(self, seconds: float = LINE_SECONDS, out: Any = None) -> None:
        super().__init__()
        self._seconds, self._out = seconds, out
        self._last = time.monotonic()

    def show(self, nodes: Sequence["Node"]) -> None:
        """See :class:`Progress`."""
        now = time.monotonic()
        if now - self._last >= self._seconds:
            self._last = now
            self._print(nodes)

    def end(self, nodes: Sequence["Node"]) -> None:
        """See :class:`Progress`."""
        self._print(nodes)

    def _print(self, nodes: Sequence["Node"]) -> None:
        out = self._out or sys.stderr
        for node in nodes:
            name, *cells = self.of(node).cells(node)
            said = [form.format(cell) for form, cell in zip(FORMS, cells, strict=True) if cell]
            print(f"{name}: {', '.join(said)}", file=out, flush=True)


class LiveTable(Courses):
    """A table on the terminal that is drawn again as the nodes go on."""

    def __init__(self, title: str = "", console: Any = None) -> None:
        super().__init__()
        from rich.console import Console
        from rich.live import Live

        self._title = title
        self._live = Live(console=console or Console(stderr=True, highlight=False), auto_refresh=False)
        self._drawn = 0.0

    def show(self, nodes: Sequence["Node"]) -> None:
        """See :class:`Progress`."""
        now = time.monotonic()
        if now - self._drawn >= DRAW_SECONDS:
            self._drawn = now
            self._live.start()
            self._live.update(self.table(nodes), refresh=True)

    def end(self, nodes: Sequence["Node"]) -> None:
        """See :class:`Progress`."""
        self._live.start()
        self._live.update(self.table(nodes), refresh=True)
        self._live.stop()

    def table(self, nodes: Sequence["Node"]) -> "Table":
        """The table as it is now."""
        from rich import box
        from rich.table import Table

        width = self._live.console.width
        shown = [number for number, heading in enumerate(HEADINGS) if width >= WIDE.get(heading, 0)]
        title = self._title or None
        table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 0), pad_edge=False)
        for number in shown:
            table.add_column(HEADINGS[number], no_wrap=True, justify="right" if number else "left")
        for node in nodes:
            cells = self.of(node).cells(node)
            table.add_row(*(cells[number] for number in shown))
        return table


def usual_progress() -> Progress:
    """The display that fits where the program runs: in a notebook, on a terminal, or neither."""
    from deca_node.api.notebook import NotebookProgress, in_notebook

    if in_notebook():
        return NotebookProgress()
    return LiveTable() if sys.stderr is not None and sys.stderr.isatty() else Lines()


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
