"""Where a record stands, what happens to bad ones, and what the node tells about the files that it read."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deca_node.protocol.errors import DataError
from deca_node.protocol.options import columns_of

BAD_SENTENCES_MAX = 5
"""How many error sentences are kept when bad records are left out; the others are only counted."""
FILES_TOLD_MAX = 20
"""How many files that were left out are named; the others are only counted."""


@dataclass(frozen=True)
class Source:
    """Where a record stands: a file, or the address of a data set. ``line`` counts from 1, and is None where the whole
    file is the record or a format has no lines. ``record`` counts from 1 in formats where a line does not name the
    record."""

    path: Path | str
    line: int | None = None
    record: int | None = None

    def __str__(self) -> str:
        line = "" if self.line is None else f" line {self.line}"
        return f"{self.path}{line}" if self.record is None else f"{self.path}{line} record {self.record}"


Value = Mapping[str, Any] | str | DataError
"""An object, a whole text, or what is wrong with a record."""
Entry = tuple[Source, Value]


@dataclass(frozen=True)
class Reading:
    """The node's settings for its data: the ``kind`` that ``format`` names, and the column in the data for each name
    that a record has."""

    kind: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, data_format: str, columns: str) -> "Reading":
        """As the settings have them. Raises SettingsError where ``columns`` is malformed."""
        return cls(data_format, columns_of(columns))


class BadRecords:
    """What happens to a bad record: it ends the reading, or with ``skip`` it is counted and left out."""

    def __init__(self, skip: bool) -> None:
        self._skip = skip
        self.count = 0
        self.sentences: list[str] = []

    def add(self, error: DataError) -> None:
        """Take note of a bad record.

        Raises DataError with the same sentence and what to do about it, unless bad records are skipped.
        """
        if not self._skip:
            raise DataError(f"{error}; correct it, or leave such records out with bad_records = 'skip'") from error
        self.count += 1
        if len(self.sentences) < BAD_SENTENCES_MAX:
            self.sentences.append(str(error))


class FilesRead:
    """What the node tells about its files: in which formats they were read, and which of them were left out."""

    def __init__(self, root: Path, reading: "Reading | None" = None) -> None:
        self._root = root
        self.unseen = {column: name for name, column in reading.columns.items()} if reading else {}
        """Columns that the settings name and no record has so far, with what they are named for."""
        self.more: list[str] = []
        self.left_out: dict[Path, str] = {}
        self.read_as: Counter[str] = Counter()

    def told(self) -> tuple[str, ...]:
        """One sentence for each foreign format, and one that lists what was left out."""
        found = [f"read {count:,} records as {name}" for name, count in self.read_as.items()]
        found += [f'no record has "{col}", which columns names for "{name}"' for col, name in self.unseen.items()]
        named = [f"{self._name(path)} ({why})" for path, why in sorted(self.left_out.items())[:FILES_TOLD_MAX]]
        more = len(self.left_out) - len(named)
        if named:
            found.append(f"left out of {self._root}: {', '.join(named)}" + (f", and {more:,} more" if more else ""))
        return (*self.more, *found)

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._root)) if path.is_relative_to(self._root) else str(path)
