"""Log lines: what one holds, how it is printed, and the newest of them kept for readers.

A line is a sentence for people, or one JSON object that adds what the sentence is about::

    {"time": 1764295200.1, "level": "warning", "message": "peer south is gone: ...",
     "node": "north", "round": 2, "block": 3, "step": 17, "peer": "south"}

``node``, ``round``, ``block`` and ``step`` say where the node stood when it wrote the line. ``round`` and ``block``
count from 1, and ``step`` is the number of finished steps in the visit, as in the status; the three are missing until
the model is loaded. ``peer`` is there if the sentence is about a peer.
"""

import asyncio
import json
import logging
import sys
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from deca_node.protocol.node.state import NodeState

log = logging.getLogger("deca")

LINES_KEPT = 1000
QUIET_SECONDS = 15.0
"""After this time without a log line a listener gets an empty one, so that a lost connection is noticed."""


def say(sentence: str, level: str = "info", *, peer: str = "", facts: Mapping[str, Any] | None = None) -> None:
    """Log one sentence about ``peer`` (if given), with further ``facts`` for programs."""
    about = {**(facts or {}), **({"peer": peer} if peer else {})}
    log.log(logging.getLevelNamesMapping()[level.upper()], "%s", sentence, extra={"facts": about})


def set_up_logging(level: str, form: str, name: str) -> None:
    """Log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter(f"%(asctime)s {name} %(levelname)s %(message)s", "%H:%M:%S")
    handler.setFormatter(JsonFormatter() if form == "json" else text)
    log.handlers[:] = [handler]
    log.setLevel(level.upper())
    log.propagate = False


def log_failure(task: "asyncio.Task[None]") -> None:
    """Log the exception of a background task, for ``add_done_callback``. Otherwise it would be lost."""
    if not task.cancelled() and (problem := task.exception()) is not None:
        log.error("a task of the node failed: %s: %s", type(problem).__name__, problem)


class JsonFormatter(logging.Formatter):
    """One JSON object per line, with the facts in ``extra={"facts": {...}}``."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        line = {"time": round(record.created, 3), "level": record.levelname.lower(), "message": record.getMessage()}
        return json.dumps(line | getattr(record, "facts", {}), ensure_ascii=False)


class Whereabouts(logging.Filter):
    """Adds the node's name and its place in the run to every line, and lets every line pass."""

    def __init__(self, node: NodeState) -> None:
        super().__init__()
        self._node = node

    def filter(self, record: logging.LogRecord) -> bool:
        """Facts that the line has already win over those added here."""
        record.facts = {**whereabouts(self._node), **getattr(record, "facts", {})}
        return True


def whereabouts(node: NodeState) -> dict[str, Any]:
    """A node's name and place in the run, as log lines show them."""
    place: dict[str, Any] = {"node": node.name}
    at = node.at
    if at is None or at.activation >= len(node.schedule):
        return place
    activation = node.schedule[at.activation]
    return {**place, "round": activation.round + 1, "block": activation.block + 1, "step": at.inner}


class EventLog(logging.Handler):
    """Keeps the newest ``kept`` log lines as JSON, and passes new ones on to listeners.

    A listener that reads more slowly than the node writes is told how many lines it missed. Everything here runs on the
    event loop's thread.
    """

    def __init__(self, kept: int = LINES_KEPT) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self._lines: deque[str] = deque(maxlen=kept)
        self._count = 0
        self._listeners: set[asyncio.Event] = set()
        self._ended = False

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line and wake the listeners."""
        self._lines.append(self.format(record))
        self._count += 1
        for listener in self._listeners:
            listener.set()

    def end(self) -> None:
        """No more lines will come: listeners get the lines that are left, then the end."""
        self._ended = True
        for listener in self._listeners:
            listener.set()

    def last(self, count: int) -> list[str]:
        """The newest ``count`` lines, oldest first."""
        return list(self._lines)[-count:] if count > 0 else []

    async def follow(self, count: int, quiet_seconds: float = QUIET_SECONDS) -> AsyncGenerator[str, None]:
        """The newest ``count`` lines, then every new line until the log ends."""
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
        """The lines that follow the first ``seen`` and are still kept, and how many more followed but are gone."""
        wanted = self._count - seen
        lines = self.last(wanted)
        return lines, wanted - len(lines)
