"""Text that exists on every machine with this project: files of its dependencies and of Python.

Each domain is a folder and a pattern. Prose, licences, C++ headers and several kinds of Python share little but the
alphabet, like the notes of different hospitals. The start model has seen none of this text, since it was trained on
the modules at the top of the standard library. The split of a piece (train, validation, test) follows from its file, so
that no file is in two splits. In a domain with few files the pieces are split instead.
"""

import hashlib
import importlib.util
import random
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from deca_node.lab.demo.texts import Corpus, records
from deca_node.protocol.errors import DataError

SPLITS = ("train", "validation", "test")
TURNS = ("train", "test", "train", "validation", "train")
"""The splits of a domain's files, in turn."""

FILES_TO_SPLIT = 20
"""With at least so many files, whole files are held out, otherwise pieces."""

PIECES_PER_FILE_MAX = 8
"""A limit, so that no file makes up most of a split."""


@dataclass(frozen=True)
class Domain:
    """Files of one kind: ``pattern`` under ``folder``, which is a package's name, "stdlib" or "site"."""

    name: str
    folder: str
    pattern: str

    def files(self) -> list[Path]:
        """The files, sorted by path. Raises DataError if there are none."""
        root = _folder(self.folder)
        found = sorted(file for file in root.glob(self.pattern) if file.is_file()) if root else []
        if not found:
            raise DataError(
                f"the domain {self.name} needs {self.folder}/{self.pattern}, and there is no such file here"
            )
        return found


LANGUAGE = (
    Domain("prose", "stdlib", "pydoc_data/*.py"),
    Domain("licences", "site", "*.dist-info/**/LICENSE*"),
    Domain("headers", "torch", "include/c10/**/*.h"),
    Domain("algebra", "sympy", "**/*.py"),
    Domain("arrays", "numpy", "lib/**/*.py"),
    Domain("networks", "transformers", "models/*/modeling_*.py"),
    Domain("stubs", "numpy", "**/*.pyi"),
    Domain("figures", "plotly", "graph_objs/**/*.py"),
)
"""The domains of language modelling."""

SOURCES = LANGUAGE
"""The domains of classification: the packages that a piece may come from."""


def pieces(domain: Domain, wanted: Mapping[str, int]) -> dict[str, list[str]]:
    """Pieces of about 2 kB by split, until each has the ``wanted`` bytes or the domain is used up. Equal on every
    call."""
    files = domain.files()
    whole_files = len(files) >= FILES_TO_SPLIT
    random.Random(f"files of {domain.name}").shuffle(files)
    found: dict[str, list[str]] = {split: [] for split in SPLITS}
    missing = dict(wanted)
    for number, file in enumerate(files):
        for index, piece in enumerate(islice(_records(file), PIECES_PER_FILE_MAX if whole_files else None)):
            split = TURNS[(number if whole_files else index) % len(TURNS)]
            if missing[split] > 0:
                found[split].append(piece)
                missing[split] -= len(piece.encode())
        if max(missing.values()) <= 0:
            break
    return found


def digest(texts: Iterator[str]) -> str:
    """A hash that tells one machine's text from another's, 16 hexadecimal digits."""
    sha = hashlib.sha256()
    for text in texts:
        sha.update(text.encode() + b"\0")
    return sha.hexdigest()[:16]


def _records(file: Path) -> Iterator[str]:
    return (piece for piece in records(Corpus(file.name, (file,))) if piece.strip())


def _folder(name: str) -> Path | None:
    if name in ("stdlib", "site"):
        return Path(sysconfig.get_path("stdlib" if name == "stdlib" else "purelib"))
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin else None
