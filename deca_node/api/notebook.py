"""Progress in a notebook: the table and the curves in the cell, drawn again every two seconds.

IPython is no dependency: this is used only where a notebook has loaded it already.
"""

import sys
import time
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from deca_node.api.curves import picture
from deca_node.api.progress import HEADINGS, Courses

if TYPE_CHECKING:
    from deca_node.api.node import Node

DRAW_SECONDS = 2.0
TITLE = "loss: lines of training, dots held out"


def in_notebook() -> bool:
    """Whether this program is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


class NotebookProgress(Courses):
    """One display in the cell that calls :func:`deca_node.wait`."""

    def __init__(self) -> None:
        super().__init__()
        self._handle: Any = None
        self._drawn = 0.0

    def show(self, nodes: Sequence["Node"]) -> None:
        """See :class:`~deca_node.api.progress.Progress`."""
        now = time.monotonic()
        if now - self._drawn >= DRAW_SECONDS:
            self._drawn = now
            self._draw(nodes)

    def end(self, nodes: Sequence["Node"]) -> None:
        """See :class:`~deca_node.api.progress.Progress`."""
        self._draw(nodes)

    def html(self, nodes: Sequence["Node"]) -> str:
        """Table and curves as they are now."""
        head = "".join(f"<th>{heading}</th>" for heading in HEADINGS)
        rows = "".join(_row(self.of(node).cells(node)) for node in nodes)
        courses = {node.name: self.of(node) for node in nodes}
        lines = {name: course.losses.points for name, course in courses.items()}
        dots = {name: course.heldout.points for name, course in courses.items()}
        return f"<table><tr>{head}</tr>{rows}</table>{picture(TITLE, lines, dots)}"

    def _draw(self, nodes: Sequence["Node"]) -> None:
        from IPython.display import HTML, display

        shown = HTML(self.html(nodes))
        if self._handle is None:
            self._handle = display(shown, display_id=True)
        else:
            self._handle.update(shown)


def _row(cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
