"""The node's data on disk: a file or a folder in; records out, one at a time, each with its source.

:mod:`deca_node.numerics.data.formats` knows files, encodings and formats. The readers that derive from
:class:`Reader` decide what an object or a text means. An error sentence names file and line and says what is wrong, but
never quotes the data: they may be private.
"""

import abc
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Generic, TypeVar

from deca_node.numerics.data.formats.entries import NAMES, BinaryFileError, entries, found_kind
from deca_node.numerics.data.formats.folders import find_files
from deca_node.numerics.data.formats.hub import NAMED, HubRows
from deca_node.numerics.data.formats.opening import readable, uncompressed
from deca_node.numerics.data.formats.shapes import renamed, shaped
from deca_node.numerics.data.formats.sources import BadRecords, Entry, FilesRead, Reading, Source, Value
from deca_node.protocol.errors import DataError
from deca_node.storage.data_sources import HUB

Kind = TypeVar("Kind")
JSON_BYTES_MAX = 4 << 30
"""The largest ``.json`` file: its text is held in memory while it is read, which takes several times as much."""


class Reader(abc.ABC, Generic[Kind]):
    """Iterates over the records of a file, a folder or a data set of the hub, and knows how far it has come (in bytes,
    for progress).

    ``told`` says, once all records are read, in which formats they were and which files were left out.
    """

    formats: ClassVar[str] = "a record is a JSON object"
    """What a record needs, as the end of an error sentence."""
    takes_shapes: ClassVar[bool] = False
    """Whether Alpaca and ShareGPT are read as chats."""

    def __init__(self, place: Path | str, bad: BadRecords, reading: Reading | None = None) -> None:
        self._bad = bad
        self._reading = reading or Reading()
        self._hub = HubRows(place) if isinstance(place, str) and place.startswith(HUB) else None
        path = Path(place).expanduser()
        self.told = FilesRead(path, self._reading)
        self._files = {} if self._hub else find_files(path, self._reading, self.told)
        self._is_folder = path.is_dir()
        self._bytes_before = 0
        self._open: BinaryIO | None = None
        with readable(path):
            self._bytes_total = sum(file.stat().st_size for file in self._files)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are read, in order."""
        return tuple(self._files)

    @property
    def revision(self) -> str:
        """The commit of a data set of the hub, as far as it is known; empty for others."""
        return self._hub.revision if self._hub else ""

    def pin(self, revision: str) -> None:
        """Read this commit of the data set, if it is one of the hub."""
        if self._hub:
            self._hub.revision = revision

    @property
    def bytes_total(self) -> int:
        """Bytes in all, as they lie on disk; 0 where that is not known."""
        return self._hub.bytes_total if self._hub else self._bytes_total

    @property
    def bytes_done(self) -> int:
        """Bytes read so far of ``bytes_total``."""
        if self._hub:
            return self._hub.bytes_done
        return self._bytes_before + (self._open.tell() if self._open else 0)

    @abc.abstractmethod
    def record(self, value: Mapping[str, Any], source: Source) -> Kind:
        """A JSON object as a record. Raises DataError that names the source and what is wrong."""

    @abc.abstractmethod
    def whole(self, source: Source, text: str) -> Kind:
        """A text file as a record. Raises DataError where there is no such record."""

    def __iter__(self) -> Iterator[Kind]:
        if self._hub:
            yield from self._good(self._hub, NAMED)
            self.told.more += self._hub.told
        for path, kind in self._files.items():
            with readable(path), path.open("rb") as file:
                size, self._open = os.fstat(file.fileno()).st_size, file
                yield from self._records(path, kind, file)
                self._bytes_before, self._open = self._bytes_before + size, None

    def _records(self, path: Path, kind: str, file: BinaryIO) -> Iterator[Kind]:
        content = uncompressed(path, file)
        found = found_kind(kind, content)
        if found == "json":
            _check_size(path, os.fstat(file.fileno()).st_size)
        name = NAMES.get(found, "" if found == kind else "JSON Lines")
        try:
            yield from self._good(entries(path, found, content, self._reading, self.formats), name)
        except BinaryFileError:
            if not self._is_folder:
                says = f"{path}: the file is binary (it holds a NUL byte); give UTF-8 text or JSON lines"
                raise DataError(says) from None
            self.told.left_out[path] = "binary"

    def _good(self, found: Iterable[Entry], name: str) -> Iterator[Kind]:
        """The records that are not bad, of a format that is told by ``name``."""
        for source, value in found:
            try:
                record = self._record(value, source, name)
            except DataError as error:
                self._bad.add(error)
            else:
                yield record

    def _record(self, value: Value, source: Source, name: str) -> Kind:
        if isinstance(value, DataError):
            raise value
        if isinstance(value, str):
            return self.whole(source, value)
        for column in self.told.unseen.keys() & value.keys():
            del self.told.unseen[column]
        value, shape = renamed(value, source, self._reading), ""
        if self.takes_shapes:
            value, shape = shaped(value, source, self._reading)
        record = self.record(value, source)
        if name or shape:
            self.told.read_as[", ".join(filter(None, (name, shape)))] += 1
        return record


def _check_size(path: Path, size: int) -> None:
    if size > JSON_BYTES_MAX:
        raise DataError(
            f"{path}: a JSON array of {size / 1e9:.1f} GB would be held in memory whole, and more than "
            f"{JSON_BYTES_MAX / 1e9:.1f} GB are not read; write a record in each line, as with: jq -c '.[]' FILE > "
            "FILE.jsonl"
        )
