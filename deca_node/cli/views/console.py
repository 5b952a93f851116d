"""The console that verbs print facts on: as wide as the terminal, and without line breaks of its own in a pipe."""

import os
import sys

from rich.console import Console

PIPE_COLUMNS = 1000
"""The width where standard output is no terminal. A program that reads the lines wants each fact on one line."""


def facts_console() -> Console:
    """A console for standard output. The variable COLUMNS sets the width, also in a pipe."""
    narrow = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if narrow else PIPE_COLUMNS)
