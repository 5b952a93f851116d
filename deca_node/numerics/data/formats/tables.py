"""CSV and TSV: the first line names the columns, and every further row is an object of strings.

A field in quotes may hold separators, quotes (doubled) and newlines. An empty field counts as missing, except those
that a record cannot do without.
"""

import codecs
import csv
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from deca_node.numerics.data.formats.opening import utf8_lines
from deca_node.numerics.data.formats.sources import Entry, Source
from deca_node.protocol.errors import DataError

FIELD_CHARACTERS_MAX = 1 << 30
KEPT = frozenset({"text", "prompt", "completion", "instruction", "output", "label"})
"""Columns whose empty fields stay empty texts."""


def table_rows(path: Path, content: Any, separator: str, known: Collection[str]) -> Iterator[Entry]:
    """The rows of a table. ``known`` are the columns that may make a record.

    Raises DataError where the first line names none of them, since the line is probably no header.
    """
    csv.field_size_limit(FIELD_CHARACTERS_MAX)
    rows = csv.reader(_strings(path, content), delimiter=separator, strict=True)
    names: list[str] | None = None
    while True:
        source = Source(path, rows.line_num + 1)
        try:
            row = next(rows, None)
        except csv.Error as error:
            yield source, DataError(f"{source}: the row is no valid CSV ({error})")
            continue
        if row is None:
            return
        if not row:
            continue
        if names is None:
            names = _header(row, source, known)
        else:
            yield source, _object(names, row, source)


def _strings(path: Path, content: Any) -> Iterator[str]:
    """Lines as strings; a byte that is not UTF-8 becomes half of a character, which is found in its row."""
    for number, line in enumerate(utf8_lines(path, content)):
        yield (line if number else line.removeprefix(codecs.BOM_UTF8)).decode("utf-8", "surrogateescape")


def _header(names: list[str], source: Source, known: Collection[str]) -> list[str]:
    names = [name.strip() for name in names]
    if not set(names) & set(known):
        some = ", ".join(sorted(known))
        raise DataError(
            f"{source}: the first line of a table must name its columns, and it names none of {some}; "
            "give the names that the columns have as columns = text=NAME"
        )
    if len(set(names)) < len(names):
        raise DataError(f"{source}: the first line names two columns alike; give each column a name of its own")
    return names


def _object(names: list[str], row: list[str], source: Source) -> dict[str, str] | DataError:
    if len(row) != len(names):
        return DataError(f"{source}: the row has {len(row)} fields, and the first line names {len(names)} columns")
    if any("\udc80" <= character <= "\udcff" for field in row if not field.isascii() for character in field):
        return DataError(f"{source}: the row is not UTF-8; convert the file to UTF-8")
    return {name: field for name, field in zip(names, row, strict=True) if field or name in KEPT}
