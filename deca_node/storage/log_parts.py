"""A node's log file in its parts: moving them along when the newest is full, and reading them back in order.

::

    node.log      the newest lines, one JSON object each
    node.log.1    the lines before those
    node.log.2    the oldest lines; dropped when the parts move along

A reader remembers its place as the newest part's inode and an offset in it, so that it misses no line when the parts
move along meanwhile.
"""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deca_node.storage.folder import LOG
from deca_node.storage.jsons import UNFIT, parse

BYTES_MAX = 5_000_000
"""A part that has reached this size is moved along before the next line."""
OLD_PARTS = 2


@dataclass(frozen=True)
class Place:
    """The end of what a reader has read: ``offset`` bytes into the part with this inode."""

    inode: int = 0
    offset: int = 0


def has_log(directory: Path) -> bool:
    """Whether a node has written a log here."""
    return any((directory / name).is_file() for name in _names())


def move_along(newest: Path) -> None:
    """Make room for a new part: every part becomes one older, and the oldest is dropped. Raises OSError."""
    newer, *older = (newest.with_name(name) for name in _names())
    for to, path in reversed(list(zip(older, [newer, *older[:-1]], strict=True))):
        if path.exists():
            path.replace(to)


def lines_since(directory: Path, place: Place = Place()) -> tuple[list[str], Place]:
    """The whole lines after ``place``, oldest first, and the new place. Raises OSError if a part cannot be read.

    If the part at ``place`` is gone, all lines are after it.
    """
    lines: list[str] = []
    with contextlib.ExitStack() as stack:
        files = {}
        # Newest first: a part that moves along meanwhile is met a second time, under its older name.
        for name in _names():
            with contextlib.suppress(FileNotFoundError):
                file = stack.enter_context((directory / name).open("rb"))
                files[os.fstat(file.fileno()).st_ino] = file
        inodes = list(reversed(files))
        for inode in inodes[inodes.index(place.inode) if place.inode in files else 0 :]:
            offset = files[inode].seek(place.offset if inode == place.inode else 0)
            whole, newline, _ = files[inode].read().rpartition(b"\n")
            lines += whole.decode(errors="replace").split("\n") if newline else []
            place = Place(inode, offset + len(whole) + len(newline))
    return lines, place


def records(lines: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line that is a log line, and what it holds. A crash can leave other bytes, which are left out."""
    for line in lines:
        with contextlib.suppress(*UNFIT, OSError):
            record = parse(line)
            # A time that no clock can show, such as 1e300, is no time of a log line.
            time.localtime(record["time"] + 0.0), record["level"].upper(), record["message"].strip()
            yield line, record


def _names() -> list[str]:
    return [LOG, *(f"{LOG}.{number}" for number in range(1, OLD_PARTS + 1))]
