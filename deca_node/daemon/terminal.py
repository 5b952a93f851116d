"""A bar at the foot of a terminal: how far the run is, below the log lines. Where standard error is no terminal, or
lines are JSON, there is no bar, and the log lines say the same.
"""

import logging
import sys
from typing import TYPE_CHECKING

from deca_node.daemon.logs import log
from deca_node.daemon.status.facts import Status
from deca_node.daemon.status.progress import pace_words

if TYPE_CHECKING:
    from rich.console import Console

WORDS_MAX = 60
"""The bar's text is cut after so many letters, so that it keeps its place in 80 columns."""


def bar_wanted(log_format: str) -> bool:
    """Whether a person watches this process on a terminal that can redraw a line."""
    return log_format == "text" and sys.stderr.isatty()


class TerminalBar:
    """Draws the bar. Log lines appear above it from :meth:`open` to :meth:`close`."""

    def __init__(self, console: "Console | None" = None) -> None:
        # Imported here, since a node without a terminal needs none of it.
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._console = console or Console(stderr=True, highlight=False)
        words = TextColumn("{task.description}", markup=False)
        share = TextColumn("{task.percentage:>3.0f} %")
        # Drawn when it is told to: a thread of its own would compete with the network.
        self._progress = Progress(
            words,
            BarColumn(bar_width=None),
            share,
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            expand=True,
        )
        self._task = self._progress.add_task("starting", total=1.0)
        self._above = _Above(self._console)
        self._handlers: list[logging.Handler] = []
        self._shown: tuple[str, float] | None = None

    def open(self) -> None:
        """Take the log lines over."""
        if self._console.is_dumb_terminal:
            return
        self._handlers = [handler for handler in log.handlers if type(handler) is logging.StreamHandler]
        for handler in self._handlers:
            self._above.setFormatter(handler.formatter)
            log.removeHandler(handler)
        log.addHandler(self._above)
        self._progress.start()

    def draw(self, status: Status) -> None:
        """Draw the bar as the node is now."""
        if self._handlers:
            at = status.position
            shown = (bar_words(status), at.done / max(at.total, 1) if at else 0.0)
            if shown != self._shown:
                self._shown = shown
                self._progress.update(self._task, description=shown[0], completed=shown[1])
                self._progress.refresh()

    def close(self) -> None:
        """Remove the bar, and give the log lines back."""
        if not self._handlers:
            return
        self._progress.stop()
        log.removeHandler(self._above)
        for handler in self._handlers:
            log.addHandler(handler)
        self._handlers = []


def bar_words(status: Status) -> str:
    """The text of the bar."""
    loss = [f"loss {status.train_loss:.3f}"] if status.train_loss is not None else []
    held = [f"held-out {status.heldout_loss:.3f}"] if status.heldout_loss is not None else []
    words = ", ".join([*loss, *held, *pace_words(status)]) if status.steps_per_second else status.doing
    return words if len(words) <= WORDS_MAX else words[: WORDS_MAX - 1] + "…"


class _Above(logging.Handler):
    """Prints log lines above the bar, as they are."""

    def __init__(self, console: "Console") -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(self.format(record), markup=False, highlight=False, soft_wrap=True)
