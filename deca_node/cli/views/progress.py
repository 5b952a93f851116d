"""What a verb says while it works: a bar on a terminal, a line now and then elsewhere, and notes beside the answer."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Progress

EVERY_SECONDS = 30.0
"""Where standard error is no terminal, long work has a line this often, and short work has none."""


def note(sentence: str, level: str = "info") -> None:
    """Print a sentence to standard error."""
    click.echo(f"{level}: {sentence}", err=True)


class Work:
    """The stages of a verb's work. ``clock`` is monotonic."""

    def __init__(self, bar: "Progress | None", clock: Callable[[], float] = time.monotonic) -> None:
        self._bar = bar
        self._clock = clock
        self._told = clock()
        self._title = ""
        self._task = bar.add_task("", total=None) if bar else None

    def stage(self, title: str) -> None:
        """The next stage begins, or the title of this one changes."""
        self._title = title
        if self._bar and self._task is not None:
            self._bar.update(self._task, description=title, completed=0, total=None)
        self._tell("")

    def report(self, done: int, total: int | None) -> None:
        """So much of this stage is done."""
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=done, total=total)
        self._tell(f": {100 * done / total:.0f} %" if total else "")

    def _tell(self, share: str) -> None:
        if self._bar is None and self._clock() - self._told >= EVERY_SECONDS:
            self._told = self._clock()
            note(f"{self._title}{share}")


@contextmanager
def work() -> Iterator[Work]:
    """Show the stages of a verb's work on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield Work(None)
        return
    words = TextColumn("{task.description}", markup=False)
    columns = (SpinnerColumn(), words, BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        yield Work(bar)


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """One stage, as a function that takes (done, total)."""
    with work() as doing:
        doing.stage(title)
        yield doing.report
