"""What tokens depend on, as one hash: the data, the tokenizer with its chat template, and how records are read.

The run's settings are not part of it: sequences of another length or packing are laid out from the same tokens.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import deca_node
from deca_node.numerics.data.formats.sources import Reading
from deca_node.storage.durable import sum_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMAT = 1
"""Of the files of a store."""


@dataclasses.dataclass(frozen=True)
class FileSum:
    """A file of the data as it was: its path, what the system says of it, and the SHA-256 of its content."""

    path: str
    bytes: int
    mtime_ns: int
    inode: int
    sha256: str

    @classmethod
    def of(cls, path: Path, known: Mapping["FileSum", str]) -> "FileSum":
        """As the file is now. Its content is read, unless it has a ``known`` sum and is as it was then.

        Raises OSError.
        """
        plain = cls.now(path)
        return dataclasses.replace(plain, sha256=known.get(plain) or sum_file(path).sha256)

    @classmethod
    def now(cls, path: Path) -> "FileSum":
        """As the file is now, without its sum. Raises OSError."""
        found = path.stat()
        return cls(str(path), found.st_size, found.st_mtime_ns, found.st_ino, "")

    @property
    def plain(self) -> "FileSum":
        """Without the sum."""
        return dataclasses.replace(self, sha256="")


def key_of(data: Sequence[Any], tokenizer: "PreTrainedTokenizerBase", reading: Reading, bad_records: str) -> str:
    """The name of the store: 32 hexadecimal digits. ``data`` identifies the sources, in order, as values for JSON."""
    import tokenizers
    import transformers

    depends = {
        "format": FORMAT,
        "versions": [deca_node.__version__, transformers.__version__, tokenizers.__version__],
        "data": list(data),
        "tokenizer": _tokenizer_sum(tokenizer),
        "reading": dataclasses.asdict(reading),
        "bad_records": bad_records,
    }
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:32]


def _tokenizer_sum(tokenizer: "PreTrainedTokenizerBase") -> str:
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    told = {
        "class": type(tokenizer).__name__,
        "backend": backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items()),
        "specials": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "ends": [tokenizer.bos_token_id, tokenizer.eos_token_id],
        "template": tokenizer.chat_template,
        "splits_specials": bool(getattr(tokenizer, "split_special_tokens", False)),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()
