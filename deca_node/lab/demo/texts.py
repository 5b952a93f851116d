"""Real text that needs no download: the standard library of every Python has millions of characters.

Different people wrote its packages about different things. So a node with only ``email`` and a node with only
``asyncio`` predict different next tokens, much as two hospitals would for their notes. The modules outside of all
packages are common ground: they make the model that is then fine-tuned.
"""

import ast
import json
import random
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deca_node.protocol.errors import DataError

# Early packages differ much from each other (English prose, coroutines, header grammars, widgets, ...), are large, and
# are part of every Python. Late ones are small, or missing in some distributions and versions.
PREFERRED = (
    "pydoc_data",
    "asyncio",
    "email",
    "unittest",
    "xml",
    "multiprocessing",
    "importlib",
    "logging",
    "http",
    "urllib",
    "tkinter",
    "idlelib",
    "lib2to3",
    "distutils",
    "zipfile",
    "_pyrepl",
    "xmlrpc",
    "concurrent",
    "ctypes",
    "wsgiref",
    "json",
    "collections",
)
TABLES = frozenset({"encodings", "html", "re"})
"""Packages that are mostly generated tables, which any model memorizes within a few steps."""

CORPUS_BYTES_MIN = 40_000
"""A smaller package has too little text to train on and to hold some of it out."""

CHUNK_BYTES = 2_000
"""A record ends at the first line boundary after this many bytes. Whole records are held out for validation."""


@dataclass(frozen=True)
class Corpus:
    """A named collection of source files."""

    name: str
    files: tuple[Path, ...]

    def documents(self) -> Iterator[str]:
        """The text of each file, in the order of the files."""
        return (_document(file) for file in self.files)


def standard_library() -> Path:
    """The folder of the running Python's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def packages(library: Path) -> list[Corpus]:
    """Every package with enough text: the preferred packages in their order, then all others by name."""
    names = {init.parent.name for init in library.glob("*/__init__.py")} - TABLES - {"test"}
    others = sorted(names - set(PREFERRED))
    candidates = (Corpus(name, _sources(library / name)) for name in (*PREFERRED, *others) if name in names)
    return [corpus for corpus in candidates if sum(f.stat().st_size for f in corpus.files) >= CORPUS_BYTES_MIN]


def private_corpora(count: int, library: Path | None = None) -> list[Corpus]:
    """``count`` different packages, the most different ones first.

    Raises DataError if the library has fewer packages with enough text.
    """
    library = library or standard_library()
    found = packages(library)
    if len(found) < count:
        raise DataError(
            f"the standard library at {library} has {len(found)} packages with enough text "
            f"({CORPUS_BYTES_MIN // 1000} kB each), too few to give {count} nodes a different one"
        )
    return found[:count]


def neutral_text(library: Path | None = None) -> Corpus:
    """The modules at the top of the standard library, whose text is in no private corpus.

    Raises DataError if there are none, as in a Python whose library is zipped or compiled.
    """
    library = library or standard_library()
    # Build variables are a table that differs between machines.
    files = [file for file in library.glob("*.py") if not file.name.startswith("_sysconfigdata")]
    if not files:
        raise DataError(f"the standard library at {library} holds no source text (*.py)")
    return Corpus("neutral", tuple(sorted(files)))


def records(corpus: Corpus, chunk_bytes: int = CHUNK_BYTES) -> Iterator[str]:
    """The corpus, cut at line boundaries into pieces of about ``chunk_bytes`` UTF-8 bytes. No piece spans two files."""
    for document in corpus.documents():
        piece: list[str] = []
        size = 0
        for line in document.splitlines(keepends=True):
            piece.append(line)
            size += len(line.encode())
            if size >= chunk_bytes:
                yield "".join(piece)
                piece, size = [], 0
        if piece:
            yield "".join(piece)


def write_corpus(corpus: Corpus, path: Path, *, limit_bytes: int, seed: int) -> int:
    """Write a shuffled selection of the corpus as JSON lines, each ``{"text": ...}``, and return their number.

    Stops before the texts exceed ``limit_bytes`` UTF-8 bytes. The same corpus, limit and seed write the same file.
    """
    pieces = [piece for piece in records(corpus) if piece.strip()]
    random.Random(f"{seed}:{corpus.name}").shuffle(pieces)
    written = size = 0
    with path.open("w", encoding="utf-8") as file:
        for piece in pieces:
            size += len(piece.encode())
            if size > limit_bytes:
                break
            file.write(json.dumps({"text": piece}, ensure_ascii=False) + "\n")
            written += 1
    return written


def _sources(package: Path) -> tuple[Path, ...]:
    """The modules of the package without its tests, which quote the modules and each other."""
    files = (file.relative_to(package) for file in package.rglob("*.py"))
    kept = (file for file in files if not any(part == "tests" or part.endswith("test") for part in file.parts[:-1]))
    return tuple(package / file for file in sorted(kept))


def _document(file: Path) -> str:
    text = file.read_text(encoding="utf-8", errors="replace")
    return _string_values(text) if file.parts[-2:] == ("pydoc_data", "topics.py") else text


def _string_values(source: str) -> str:
    """The strings of the dict that a module consists of. The Python reference is stored as such a dict."""
    tables = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Dict))
    values = (value for table in tables for value in table.values)
    return "\n".join(v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str))
