"""The newest log lines of a node, kept in memory for whoever asks, and passed on to whoever listens.

Bounded twice: so many lines are kept, and a listener that is slower than the log is told how many it missed.
"""

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncGenerator

from deca_node.daemon.logs import JsonFormatter

LINES_KEPT = 1000
QUIET_SECONDS = 15.0
"""After so long without news a listener gets an empty line: that finds out whether it is still there."""


class EventLog(logging.Handler):
    """A handler to add to the node's logger. To be used on the event loop's own thread only, as the node does."""

    def __init__(self, kept: int = LINES_KEPT) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self._lines: deque[str] = deque(maxlen=kept)
        self._count = 0
        self._listeners: set[asyncio.Event] = set()
        self._ended = False

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line, and wake the listeners."""
        self._lines.append(self.format(record))
        self._count += 1
        for listener in self._listeners:
            listener.set()

    def end(self) -> None:
        """Nothing more will come: whoever listens hears the rest, and then the end."""
        self._ended = True
        for listener in self._listeners:
            listener.set()

    def last(self, count: int) -> list[str]:
        """The newest lines, oldest first."""
        return list(self._lines)[-count:] if count > 0 else []

    async def follow(self, count: int, quiet_seconds: float = QUIET_SECONDS) -> AsyncGenerator[str, None]:
        """The newest ``count`` lines, and then every line as it comes, until the log ends."""
        stirred = asyncio.Event()
        self._listeners.add(stirred)
        seen = self._count - len(self.last(count))
        try:
            while True:
                stirred.clear()
                fresh, missed = self._since(seen)
                seen = self._count
                if missed:
                    yield json.dumps({"level": "warning", "message": f"{missed} lines were missed"})
                for line in fresh:
                    yield line
                if self._ended:
                    return
                try:
                    async with asyncio.timeout(quiet_seconds):
                        await stirred.wait()
                except TimeoutError:
                    yield ""
        finally:
            self._listeners.discard(stirred)

    def _since(self, seen: int) -> tuple[list[str], int]:
        """Lines after the first ``seen``, and how many of those are gone already."""
        wanted = self._count - seen
        lines = self.last(wanted)
        return lines, wanted - len(lines)
