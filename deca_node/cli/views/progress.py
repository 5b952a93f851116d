"""What a verb says while it works: a progress bar, and notes beside the answer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


def note(sentence: str, level: str = "info") -> None:
    """Print a sentence to standard error."""
    click.echo(f"{level}: {sentence}", err=True)


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal, as a function that takes (done, total); it shows nothing where there is no terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
