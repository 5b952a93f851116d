"""From a file to lines or to one text: compression by the file's name, encoding by its first bytes.

Text is UTF-8, with or without a byte order mark, or UTF-16 with one. Zstandard is read by ``pyarrow``.
"""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from deca_node.numerics.data.formats.sources import Source
from deca_node.protocol.errors import DataError

ZSTD_SUFFIXES = (".zst", ".zstd")
COMPRESSED_SUFFIXES = (".gz", *ZSTD_SUFFIXES)
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def plain_name(path: Path) -> str:
    """The file's name in lower case, without the ending of a compression."""
    name = path.name.lower()
    return next((name.removesuffix(end) for end in COMPRESSED_SUFFIXES if name.endswith(end)), name)


def uncompressed(path: Path, file: BinaryIO) -> Any:
    """The file's content as a buffered stream of bytes. Raises DataError where a library is missing."""
    name = path.name.lower()
    if name.endswith(".gz"):
        return gzip.GzipFile(fileobj=file)
    if name.endswith(ZSTD_SUFFIXES):
        pyarrow = arrow_library(path)
        return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.PythonFile(file, "r"), "zstd"))
    return file


def arrow_library(path: Path) -> ModuleType:
    """The package pyarrow. Raises DataError with what to install where there is none."""
    try:
        import pyarrow
    except ImportError:
        raise DataError(
            f"{path}: Parquet, Arrow and zst files need the package pyarrow, which is not installed; install it with: "
            "pip install 'deca-node[sets]' (or pip install pyarrow)"
        ) from None
    return pyarrow


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns a refusal by the system, or a damaged archive, into a DataError that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file or folder; check the path of the data") from None
    except (OSError, EOFError, zlib.error) as error:
        where = getattr(error, "filename", None) or path
        why = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{where}: cannot be read ({why}); check its permissions and that it is whole") from error


def is_utf16(content: Any) -> bool:
    """Whether the stream begins with the byte order mark of UTF-16."""
    head = content.peek(4)[:4]
    return head[:2] in _UTF16 and head != codecs.BOM_UTF32_LE


def utf8_lines(path: Path, content: Any) -> Iterator[bytes]:
    """The stream's lines, which end with a newline only; those of UTF-16 are made UTF-8."""
    if not is_utf16(content):
        yield from content
        return
    number = 0
    text = io.TextIOWrapper(content, "utf-16", newline="\n")
    try:
        for line in text:
            yield line.encode("utf-8", "surrogatepass")
            number += 1
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-16 behind line {number}; convert the file to UTF-8") from None
    finally:
        text.detach()


def decoded(data: bytes, source: Source) -> str:
    """UTF-8, or UTF-16 with a byte order mark, as a string. Raises DataError that names the place."""
    if data[:2] in _UTF16 and not source.line:
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError as error:
            raise DataError(f"{source}: not UTF-16 (byte {error.start + 1}); convert the file to UTF-8") from None
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        line = "" if source.line else f" in line {data.count(10, 0, error.start) + 1}"
        raise DataError(f"{source}: not UTF-8 (byte {error.start + 1}{line}); convert the file to UTF-8") from None
