"""The format of a file, by its name or as the setting ``format`` says, and what stands in it."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from deca_node.numerics.data.formats.columnar import arrow_rows, parquet_rows
from deca_node.numerics.data.formats.lines import json_lines, json_objects
from deca_node.numerics.data.formats.opening import decoded, is_utf16, plain_name
from deca_node.numerics.data.formats.shapes import KNOWN
from deca_node.numerics.data.formats.sources import Entry, Reading, Source
from deca_node.numerics.data.formats.tables import table_rows
from deca_node.protocol.errors import DataError

SUFFIXES = {
    **dict.fromkeys((".jsonl", ".jsonlines", ".ndjson"), "jsonl"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys((".arrow", ".feather"), "arrow"),
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
}
NAMES = {"json": "JSON", "csv": "CSV", "tsv": "TSV", "parquet": "Parquet", "arrow": "Arrow"}
"""Formats that the node tells about; JSON Lines and texts go without saying."""
_PROBE_BYTES = 1 << 16
_HEAD_BYTES = 1 << 12
_RECORD_BEGINS = re.compile(r'(\[\s*)?\{\s*"')
_KEY = re.compile(rf'"({"|".join(KNOWN)})"\s*:')


class BinaryFileError(Exception):
    """The file holds a NUL byte, so it is no text."""


def kind_of(path: Path, reading: Reading) -> str:
    """The format of a file: jsonl, json, csv, tsv, parquet, arrow, or plain for a text."""
    if reading.kind in SUFFIXES.values():
        return reading.kind
    return SUFFIXES.get(Path(plain_name(path)).suffix, "plain")


def found_kind(kind: str, content: Any) -> str:
    """The format of a stream that is ``kind`` by its name: records may lie in a file that is called a text."""
    if kind != "plain":
        return kind
    head = content.peek(_HEAD_BYTES)[:_HEAD_BYTES]
    text = head.decode("utf-16" if is_utf16(content) else "utf-8-sig", "ignore").lstrip()
    if not _RECORD_BEGINS.match(text) or not _KEY.search(text.partition("\n")[0]):
        return kind
    return "json" if text.startswith("[") else "jsonl"


def entries(path: Path, kind: str, content: Any, reading: Reading, formats: str) -> Iterator[Entry]:
    """Objects and texts of a stream of the format ``kind``, one at a time; ``formats`` says what a record needs.

    Raises DataError where the file cannot be read, and BinaryFileError where it is no text.
    """
    if kind in ("jsonl", "json", "csv", "tsv") and b"\0" in content.peek(4)[:4] and not is_utf16(content):
        why = "a NUL byte near the start, as in UTF-16 without a byte order mark"
        raise DataError(f"{path}: not UTF-8 ({why}); convert the file to UTF-8")
    readers: dict[str, Callable[[], Iterator[Entry]]] = {
        "jsonl": lambda: json_lines(path, content, formats),
        "json": lambda: json_objects(path, content, formats),
        "csv": lambda: table_rows(path, content, ",", {*KNOWN, *reading.columns.values()}),
        "tsv": lambda: table_rows(path, content, "\t", {*KNOWN, *reading.columns.values()}),
        "parquet": lambda: parquet_rows(path, content),
        "arrow": lambda: arrow_rows(path, content),
        "plain": lambda: _whole(path, content),
    }
    yield from readers[kind]()


def _whole(path: Path, content: Any) -> Iterator[Entry]:
    """The file as one text. Its beginning is checked first, so that a large binary file is not read through."""
    two_bytes = is_utf16(content)
    data = content.read(_PROBE_BYTES)
    if two_bytes or b"\0" not in data:
        data += content.read()
    if b"\0" in data and not two_bytes:
        raise BinaryFileError
    source = Source(path)
    try:
        text = decoded(data, source)
    except DataError as error:
        yield source, error
        return
    if text.strip():
        yield source, text
