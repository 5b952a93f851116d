"""The node's own data, as it lies on disk: a file or a folder in, records out, one at a time.

A record is one thing to learn from: a text, a prompt with its completion, or a chat. A ``.jsonl`` file
holds one per line::

    {"text": "Seen in clinic today ..."}
    {"prompt": "Summarise: ...", "completion": "..."}
    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}

Kinds may be mixed and further keys are allowed. Any other text file is one record as a whole. In a folder
every file counts, at any depth and in sorted order, except hidden ones, ``__pycache__`` and binaries (files
with a NUL byte). Names that end in ``.gz`` are read through gzip. Blank lines and blank files hold no record.

A complaint names file and line and says what is wrong, but never quotes the record: it may be private.
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
from typing import Any, BinaryIO, Generic, TypeVar

from deca_node.protocol.errors import DataError

JSONL_SUFFIXES = (".jsonl", ".jsonlines", ".ndjson")
ASSISTANT = "assistant"
BAD_SENTENCES_MAX = 5
"""How many complaints are kept when bad records are left out; the others are only counted."""

_PROBE_BYTES = 1 << 16
_FORMATS = 'a record needs "text", or "prompt" and "completion", or "messages"'


@dataclass(frozen=True)
class Source:
    """Where a record stands; ``line`` counts from 1, and is None where the whole file is the record."""

    path: Path
    line: int | None = None

    def __str__(self) -> str:
        return str(self.path) if self.line is None else f"{self.path} line {self.line}"


@dataclass(frozen=True)
class TextRecord:
    """Text to continue: the loss covers all of it."""

    source: Source
    text: str

    @property
    def characters(self) -> int:
        """Length of the text."""
        return len(self.text)


@dataclass(frozen=True)
class CompletionRecord:
    """A prompt (it may be empty) and its completion: the loss covers the completion."""

    source: Source
    prompt: str
    completion: str

    @property
    def characters(self) -> int:
        """Length of prompt and completion."""
        return len(self.prompt) + len(self.completion)


@dataclass(frozen=True)
class ChatRecord:
    """A conversation: the loss covers the assistant's turns.

    Every message has a ``role`` and a ``content``, both strings; its other keys are kept for the chat template.
    """

    source: Source
    messages: tuple[Mapping[str, Any], ...]

    @property
    def characters(self) -> int:
        """Length of all contents."""
        return sum(len(message["content"]) for message in self.messages)


Record = TextRecord | CompletionRecord | ChatRecord
Kind = TypeVar("Kind")


class BadRecords:
    """What becomes of a bad record: it ends the reading, or with ``skip`` it is counted and left out."""

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
    def parse(self, line: bytes, source: Source) -> Kind:
        """One line of JSON as a record. Raises DataError that names the source and what is wrong with the line."""

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
            try:
                record = self.parse(line, Source(path, number))
            except DataError as error:
                self._bad.add(error)
            else:
                yield record

    def _text(self, path: Path, content: BinaryIO) -> Iterator[Kind]:
        """The file as one text; looks at its beginning first, so that a large binary is not read through."""
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


class RecordReader(Reader[Record]):
    """Texts, prompts with completions, and chats."""

    def parse(self, line: bytes, source: Source) -> Record:
        """See :func:`parse_record`."""
        return parse_record(line, source)

    def whole(self, source: Source, text: str) -> Record:
        """Any text file is a text."""
        return TextRecord(source, text)


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
    """Refuse a ``.json`` file given as the data: as plain text, its brackets would be learnt by heart."""
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
    """One line of JSON as an object. Raises DataError; ``formats`` says what would do."""
    try:
        value = json.loads(_decode(line, source))
    except json.JSONDecodeError as error:
        raise DataError(f"{source}: not valid JSON ({error.msg} at character {error.pos + 1})") from None
    except (ValueError, RecursionError):
        raise DataError(f"{source}: not valid JSON (nested too deeply, or a number too long)") from None
    if not isinstance(value, dict):
        raise DataError(f"{source}: the line holds {json_type(value)} instead of an object; {formats}")
    return value


def parse_record(line: bytes, source: Source) -> Record:
    """One line of JSON as a record; where several kinds would fit: messages, then prompt, then text.

    Raises DataError that names the source and what is wrong with the line.
    """
    value = parse_object(line, source, _FORMATS)
    if "messages" in value:
        return ChatRecord(source, _messages(value["messages"], source))
    if "prompt" in value and "completion" in value:
        return CompletionRecord(source, _string(value, "prompt", source), filled(value, "completion", source))
    if "text" in value:
        return TextRecord(source, filled(value, "text", source))
    for key, other in (("prompt", "completion"), ("completion", "prompt")):
        if key in value:
            raise DataError(f'{source}: "{key}" is there but "{other}" is missing')
    raise DataError(f"{source}: {_FORMATS}, but the keys are {some_keys(value)}")


def _messages(value: Any, source: Source) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list) or not value:
        raise DataError(f'{source}: "messages" must be a list of at least one message')
    for number, message in enumerate(value, start=1):
        if not isinstance(message, dict):
            raise DataError(f"{source}: message {number} is {json_type(message)} instead of an object")
        for key in ("role", "content"):
            if key not in message:
                raise DataError(f'{source}: message {number} has no "{key}"')
            _string(message, key, source, where=f"of message {number} ")
    if not any(message["role"] == ASSISTANT and message["content"].strip() for message in value):
        raise DataError(f'{source}: the chat has no turn of role "{ASSISTANT}" with any content to learn from')
    return tuple(value)


def filled(value: Mapping[str, Any], key: str, source: Source) -> str:
    """The text under ``key``. Raises DataError where there is none in it."""
    text = _string(value, key, source)
    if not text.strip():
        raise DataError(f'{source}: "{key}" is empty')
    return text


def _string(value: Mapping[str, Any], key: str, source: Source, where: str = "") -> str:
    text = value[key]
    if not isinstance(text, str):
        raise DataError(f'{source}: "{key}" {where}must be a string, not {json_type(text)}')
    try:
        text.encode()
    except UnicodeEncodeError as error:
        # JSON can spell half of a surrogate pair (a cut emoji, mostly); no tokenizer takes it.
        raise DataError(f'{source}: "{key}" {where}holds half of a character (character {error.start + 1})') from None
    return text


def _decode(data: bytes, source: Source) -> str:
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        line = "" if source.line else f" in line {data.count(10, 0, error.start) + 1}"
        raise DataError(f"{source}: not UTF-8 (byte {error.start + 1}{line}); convert the file to UTF-8") from None


def json_type(value: Any) -> str:
    """What a complaint calls the kind of a JSON value."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def some_keys(value: Mapping[str, Any], keys_max: int = 5, length_max: int = 30) -> str:
    """The first keys of an object, for a complaint; values are never told."""
    keys = [json.dumps(key[:length_max]) for key in list(value)[:keys_max]]
    return ", ".join(keys) + (", …" if len(value) > keys_max else "") if keys else "none"
