"""Log lines: sentences for people, or one JSON object per line that says beside the sentence whom and what it is about.

::

    {"time": 1764295200.1, "level": "warning", "message": "peer south is gone: ...",
     "node": "north", "round": 2, "block": 3, "step": 17, "peer": "south"}

``round`` and ``block`` count from 1 and ``step`` is how many steps of the visit are done, as in the status; they are
where the node stood when it wrote the line, and are left out before the model is loaded. ``peer`` is there where the
sentence is about one.
"""

import json
import logging
import sys
from collections.abc import Mapping
from typing import Any

from deca_node.protocol.node.node import Node

log = logging.getLogger("deca")


def say(sentence: str, level: str = "info", *, peer: str = "", facts: Mapping[str, Any] | None = None) -> None:
    """One line; ``peer`` is whom it is about, and ``facts`` what else a program may want to know."""
    about = {**(facts or {}), **({"peer": peer} if peer else {})}
    log.log(logging.getLevelNamesMapping()[level.upper()], "%s", sentence, extra={"facts": about})


class Whereabouts(logging.Filter):
    """Adds to every line which node wrote it, and where that node stood. Passes everything."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._node = node

    def filter(self, record: logging.LogRecord) -> bool:
        """What the line says itself comes before what is added."""
        record.facts = {**whereabouts(self._node), **getattr(record, "facts", {})}
        return True


def whereabouts(node: Node) -> dict[str, Any]:
    """A node's name and place in the run, as log lines tell them."""
    place: dict[str, Any] = {"node": node.name}
    at = node.at
    if at is None or at.activation >= len(node.schedule):
        return place
    activation = node.schedule[at.activation]
    return {**place, "round": activation.round + 1, "block": activation.block + 1, "step": at.inner}


class JsonFormatter(logging.Formatter):
    """One JSON object per line, with whatever ``extra={"facts": {...}}`` adds."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        line = {"time": round(record.created, 3), "level": record.levelname.lower(), "message": record.getMessage()}
        return json.dumps(line | getattr(record, "facts", {}), ensure_ascii=False)


def set_up_logging(level: str, form: str, name: str) -> None:
    """Log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter(f"%(asctime)s {name} %(levelname)s %(message)s", "%H:%M:%S")
    handler.setFormatter(JsonFormatter() if form == "json" else text)
    log.handlers[:] = [handler]
    log.setLevel(level.upper())
    log.propagate = False
