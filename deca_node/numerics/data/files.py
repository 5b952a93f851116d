"""The node's data on disk: a file or a folder in; objects and whole texts out, one at a time, each with its source.

A ``.jsonl`` file holds one JSON object per line; any other text file is one text. In a folder every file counts, at
any depth and in sorted order, except hidden files, ``__pycache__`` and binary files (those with a NUL byte). Names
that end in ``.gz`` are read through gzip. Blank lines and blank files are passed over.

This module knows files and encodings. What an object or a text means is decided by the readers that derive from
:class:`Reader`. An error sentence names file and line and says what is wrong, but never quotes the data: they may be
private.
"""

import abc
import codecs
import gzip
import json
import os
import stat
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Generic, TypeVar

from deca_node.protocol.errors import DataError

JSONL_SUFFIXES = (".jsonl", ".jsonlines", ".ndjson")
BAD_SENTENCES_MAX = 5
"""How many error sentences are kept when bad records are left out; the others are only counted."""

_PROBE_BYTES = 1 << 16
Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Source:
    """Where a record stands; ``line`` counts from 1, and is None where the whole file is the record."""

    path: Path
    line: int | None = None

    def __str__(self) -> str:
        return str(self.path) if self.line is None else f"{self.path} line {self.line}"


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


class Reader(abc.ABC, Generic[Kind]):
    """Iterates over the records of a file or folder, and knows how far it has come (in bytes, for progress)."""

    formats: ClassVar[str] = "a record is a JSON object"
    """What a record needs, as the end of an error sentence."""

    def __init__(self, path: Path, bad: BadRecords) -> None:
        self._bad = bad
        self._files = find_files(path)
        self._is_folder = path.is_dir()
        self._bytes_before = 0
        self._open: BinaryIO | None = None
        with _readable(path):
            self.bytes_total = sum(file.stat().st_size for file in self._files)

    @property
    def bytes_done(self) -> int:
        """Bytes read so far of ``bytes_total``, as they lie on disk."""
        return self._bytes_before + (self._open.tell() if self._open else 0)

    @abc.abstractmethod
    def record(self, value: Mapping[str, Any], source: Source) -> Kind:
        """A JSON object as a record. Raises DataError that names the source and what is wrong."""

    @abc.abstractmethod
    def whole(self, source: Source, text: str) -> Kind:
        """A text file as a record. Raises DataError where there is no such record."""

    def __iter__(self) -> Iterator[Kind]:
        for path in self._files:
            with _readable(path), path.open("rb") as file:
                self._open = file
                yield from self._records(path, file)
                self._bytes_before += os.fstat(file.fileno()).st_size
                self._open = None

    def _records(self, path: Path, file: BinaryIO) -> Iterator[Kind]:
        name = path.name.lower()
        content: Any = gzip.GzipFile(fileobj=file) if name.endswith(".gz") else file
        if name.removesuffix(".gz").endswith(JSONL_SUFFIXES):
            yield from self._lines(path, content)
        else:
            yield from self._text(path, content)

    def _lines(self, path: Path, content: BinaryIO) -> Iterator[Kind]:
        for number, line in enumerate(content, start=1):
            if not line.strip():
                continue
            source = Source(path, number)
            try:
                record = self.record(parse_object(line, source, self.formats), source)
            except DataError as error:
                self._bad.add(error)
            else:
                yield record

    def _text(self, path: Path, content: BinaryIO) -> Iterator[Kind]:
        """The file as one text. Its beginning is checked first, so that a large binary file is not read through."""
        data = content.read(_PROBE_BYTES)
        if b"\0" not in data:
            data += content.read()
        if b"\0" in data:
            if self._is_folder:
                return
            raise DataError(f"{path}: the file is binary (it holds a NUL byte); give UTF-8 text or JSON lines")
        try:
            text = _decode(data, Source(path))
            record = self.whole(Source(path), text) if text.strip() else None
        except DataError as error:
            self._bad.add(error)
            return
        if record is not None:
            yield record


def find_files(path: Path) -> list[Path]:
    """The files to read, sorted: the path itself, or everything in the folder that may hold records.

    Raises DataError where the path is missing, unreadable, not a file or folder, or an empty folder.
    """
    with _readable(path):
        mode = path.stat().st_mode
    if stat.S_ISREG(mode):
        return [_not_plain_json(path)]
    if not stat.S_ISDIR(mode):
        raise DataError(f"{path}: neither a file nor a folder; the data must be readable again after a restart")
    with _readable(path):
        files = sorted(_walk(path))
    if not files:
        raise DataError(f"{path}: the folder holds no files (hidden ones do not count); put .jsonl or text files there")
    return files


def _walk(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        for name in names:
            file = Path(parent, name)
            # Only regular files: opening a pipe would wait for ever.
            if not name.startswith(".") and file.is_file():
                yield file


def _not_plain_json(path: Path) -> Path:
    """Refuse a ``.json`` file given as the data: as plain text, the model would learn its brackets by heart."""
    if path.name.lower().removesuffix(".gz").endswith(".json"):
        raise DataError(
            f"{path}: records must stand one per line; name the file .jsonl if they do, "
            f"or convert an array with: jq -c '.[]' {path.name} > {path.stem}.jsonl"
        )
    return path


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file or folder; check the path of the data") from None
    except (OSError, EOFError, zlib.error) as error:
        where = getattr(error, "filename", None) or path
        why = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{where}: cannot be read ({why}); check its permissions and that it is whole") from error


def parse_object(line: bytes, source: Source, formats: str) -> dict[str, Any]:
    """One line of JSON as an object. Raises DataError; ``formats`` says what a record needs."""
    try:
        value = json.loads(_decode(line, source))
    except json.JSONDecodeError as error:
        raise DataError(f"{source}: not valid JSON ({error.msg} at character {error.pos + 1})") from None
    except (ValueError, RecursionError):
        raise DataError(f"{source}: not valid JSON (nested too deeply, or a number too long)") from None
    if not isinstance(value, dict):
        raise DataError(f"{source}: the line holds {json_type(value)} instead of an object; {formats}")
    return value


def _decode(data: bytes, source: Source) -> str:
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        line = "" if source.line else f" in line {data.count(10, 0, error.start) + 1}"
        raise DataError(f"{source}: not UTF-8 (byte {error.start + 1}{line}); convert the file to UTF-8") from None


def filled(value: Mapping[str, Any], key: str, source: Source) -> str:
    """The text under ``key``. Raises DataError where there is none in it."""
    text = string(value, key, source)
    if not text.strip():
        raise DataError(f'{source}: "{key}" is empty')
    return text


def string(value: Mapping[str, Any], key: str, source: Source, where: str = "") -> str:
    """The string under ``key``, which may be empty; ``where`` says of which part. Raises DataError."""
    text = value[key]
    if not isinstance(text, str):
        raise DataError(f'{source}: "{key}" {where}must be a string, not {json_type(text)}')
    try:
        text.encode()
    except UnicodeEncodeError as error:
        # JSON can spell half of a surrogate pair (a cut emoji, mostly); no tokenizer takes it.
        raise DataError(f'{source}: "{key}" {where}holds half of a character (character {error.start + 1})') from None
    return text


def json_type(value: Any) -> str:
    """What an error sentence calls the kind of a JSON value."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def some_keys(value: Mapping[str, Any], keys_max: int = 5, length_max: int = 30) -> str:
    """The first keys of an object, for an error sentence; values are never told."""
    keys = [json.dumps(key[:length_max]) for key in list(value)[:keys_max]]
    return ", ".join(keys) + (", …" if len(value) > keys_max else "") if keys else "none"
