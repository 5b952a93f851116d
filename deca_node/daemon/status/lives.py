"""A node may be started many times in one folder. Each start is a life, and ``metrics.jsonl`` has the lines of all.

Counters of bytes begin at 0 in every life, so a line says what came before it::

    {"kind": "step", "life": 2, "bytes_sent": 1000, "bytes_sent_before": 44040192, ...}

Lines of versions that did not write this are read as well: there a life ends where a counter falls.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deca_node.storage.jsons import UNFIT, parse

RECALLED_BYTES_MAX = 4 << 20
"""Only this much of the end of a file is read for the last life in it."""


@dataclass(frozen=True)
class Life:
    """One life of a node: its number from 1, and the bytes that the lives before sent and received."""

    number: int = 1
    sent_before: int = 0
    received_before: int = 0

    def facts(self, sent: int, received: int) -> dict[str, int]:
        """The fields of a line after so many bytes of this life."""
        return {
            "life": self.number,
            "bytes_sent": sent,
            "bytes_received": received,
            "bytes_sent_before": self.sent_before,
            "bytes_received_before": self.received_before,
        }


FIRST = Life()


class Lives:
    """Reads the lines of one file in order. ``sent`` and ``received`` are bytes over all lives so far."""

    def __init__(self) -> None:
        self._life = FIRST
        self._seen = (0, 0)
        self.begun = False
        """Whether there was a line."""

    @property
    def number(self) -> int:
        """The life of the last line."""
        return self._life.number

    @property
    def sent(self) -> int:
        """Bytes sent until the last line."""
        return self._life.sent_before + self._seen[0]

    @property
    def received(self) -> int:
        """Bytes received until the last line."""
        return self._life.received_before + self._seen[1]

    def take(self, facts: Mapping[str, Any]) -> None:
        """Take the next line that counts bytes. Raises an exception of ``UNFIT`` if it counts none."""
        seen = (int(facts["bytes_sent"]), int(facts["bytes_received"]))
        if "life" in facts:
            before = (int(facts["bytes_sent_before"]), int(facts["bytes_received_before"]))
            self._life = Life(int(facts["life"]), *before)
        elif seen[0] < self._seen[0] or seen[1] < self._seen[1]:
            self._life = self.next_life()
        self._seen, self.begun = seen, True

    def next_life(self) -> Life:
        """The life that begins after the last line."""
        return Life(self._life.number + 1, self.sent, self.received) if self.begun else self._life


def counts_bytes(facts: Mapping[str, Any]) -> bool:
    """Whether a line of ``metrics.jsonl`` counts bytes."""
    return facts["kind"] == "step" or (facts["kind"] == "metrics" and "bytes_sent" in facts)


def next_life(path: Path) -> Life:
    """The life of a node that is about to write to this file. A missing file or an unreadable line is no error."""
    lives = Lives()
    for line in last_lines(path, RECALLED_BYTES_MAX):
        try:
            if counts_bytes(facts := parse(line)):
                lives.take(facts)
        except UNFIT:
            continue
    return lives.next_life()


def last_lines(path: Path, bytes_max: int) -> Iterator[bytes]:
    """The lines at the end of a file; the first may be cut. A file that cannot be read has none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - bytes_max))
            text = file.read(bytes_max)
    except OSError:
        return
    yield from text.splitlines()
