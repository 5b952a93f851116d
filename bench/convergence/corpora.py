"""Text that lies on every machine this project is installed on: what its dependencies and Python itself are written in.

Each domain is a folder and a pattern. Prose, licences, C++ headers and several kinds of Python have little in common
but the alphabet, as the notes of different hospitals do; none of it is text that the start model has seen, which is
made of the modules at the top of the standard library. What a piece is for (train, validation, test) follows from
the file it is in, so that no file is learnt and asked about; of a domain with few files pieces are told apart.
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
"""What the files of a domain are for, one after the other."""

FILES_TO_SPLIT = 20
"""From so many files on, whole files are held out; below, pieces."""

PIECES_PER_FILE_MAX = 8
"""So that no file is most of a split."""


@dataclass(frozen=True)
class Domain:
    """Files of one kind: ``pattern`` under ``folder``, a package's name, or "stdlib" or "site"."""

    name: str
    folder: str
    pattern: str

    def files(self) -> list[Path]:
        """Sorted by path. Raises DataError where there are none."""
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
"""What language modelling is about."""

SOURCES = LANGUAGE
"""What classification is about: which of these packages a piece comes from."""


def pieces(domain: Domain, wanted: Mapping[str, int]) -> dict[str, list[str]]:
    """Pieces of about 2 kB by split, until each holds the bytes that are ``wanted``, or the domain is used up; the same
    on every call."""
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
    """What tells one machine's text from another's, 16 hexadecimal digits."""
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
