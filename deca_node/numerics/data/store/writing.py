"""Records become columns of tokens. In a folder, a journal says how far they are whole.

::

    ids      [ a a a a b b b c c c c c ...
    trained  [ . * * * . . * . * * * * ...
    starts   [ 0       4     7         ...       one more than there are records
    texts    [ 1       0     1         ...
    learnt   [ 3       1     4         ...       without each record's first token

Every ``TOKENS_BETWEEN`` tokens the columns are made durable, and then the journal is written, whole or not at all.
After a crash the columns are cut to the lengths in the journal. The records before that place are read again, which is
fast, and not tokenized again, which is not.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from deca_node.numerics.data.sequences import RecordTokens, TokenLine
from deca_node.numerics.data.store.columns import PRIVATE_FILE, Column, FileColumn
from deca_node.numerics.data.store.scratch import IN_MEMORY, PRIVATE_FOLDER, Growing, Scratch
from deca_node.storage.durable import write_file
from deca_node.storage.jsons import UNFIT, parse

TOKENS_BETWEEN = 1 << 25
"""Tokens between two states of the journal."""
JOURNAL = "journal.json"
TYPES = {"trained": np.bool_, "starts": np.int64, "texts": np.bool_, "learnt": np.int64}
"""The columns and their types; that of ``ids`` depends on the vocabulary."""


@dataclass(frozen=True)
class Progressed:
    """How far a writing has come: ``consumed`` records of source number ``source`` are read, ``tokens`` of ``records``
    are written. Of a record that has begun and not ended, ``learnt`` tokens are learnt. ``revision`` is the commit of
    a data set of the hub that is read.

    ``ends`` has, for each source that is done, the numbers of records and of tokens that stand before its end.
    ``skipped``, ``sentences`` and ``notes`` are what was counted on the way, and ``told`` what was said of files.
    """

    source: int = 0
    consumed: int = 0
    tokens: int = 0
    records: int = 0
    learnt: int = 0
    inside: bool = False
    revision: str = ""
    ends: tuple[tuple[int, int], ...] = ()
    skipped: int = 0
    sentences: tuple[str, ...] = ()
    notes: dict[str, int] = field(default_factory=dict)
    told: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> "Progressed":
        """What the file says; the beginning where there is none or it is damaged."""
        try:
            return cls.of(parse(path.read_text(encoding="utf-8")))
        except (OSError, *UNFIT):
            return cls()

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> "Progressed":
        """From its form in JSON."""
        ends = tuple((int(records), int(tokens)) for records, tokens in found["ends"])
        lists = {name: tuple(map(str, found[name])) for name in ("sentences", "told")}
        return cls(**{**found, "ends": ends, **lists})


class LineWriter:
    """Writes records behind each other, to stay in a folder or for this process only; ``at`` says how far it has
    come. Without a folder the columns grow in memory, and then in ``scratch``."""

    def __init__(self, folder: Path | None, ids: Any, scratch: Scratch = IN_MEMORY) -> None:
        self._folder = folder
        self._types = {"ids": ids, **TYPES}
        self.at = Progressed()
        if folder is None:
            self._columns: dict[str, Column] = {name: Growing(dtype, scratch) for name, dtype in self._types.items()}
        else:
            folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
            self.at = Progressed.read(folder / JOURNAL)
            self._columns = dict(self._files(folder))
        if not self.at.consumed and not self.at.source:
            self._columns["starts"].append(np.zeros(1, np.int64))
        self._durable = self.at.tokens

    def _files(self, folder: Path) -> dict[str, FileColumn]:
        tokens, records = self.at.tokens, self.at.records
        begun = bool(self.at.consumed or self.at.source)
        counts = {
            "ids": tokens,
            "trained": tokens,
            "starts": (records + 1) * begun,
            "texts": records,
            "learnt": records,
        }
        return {name: FileColumn(folder / name, dtype, counts[name]) for name, dtype in self._types.items()}

    def add(self, encoded: Sequence[RecordTokens]) -> None:
        """These records, or parts of them, behind those that are there."""
        if not encoded:
            return
        ids, trained = (np.concatenate(parts) for parts in zip(*((r.ids, r.trained) for r in encoded), strict=True))
        stops = np.cumsum([len(record) for record in encoded])
        firsts = stops - [len(record) for record in encoded]
        ends = np.array([not record.more for record in encoded])
        begins = np.append(not self.at.inside, ends[:-1])
        learnt = np.add.reduceat(trained, firsts, dtype=np.int64) - (trained[firsts] & begins)
        reached = self.at.learnt + np.cumsum(learnt)
        counts = np.diff(reached[ends], prepend=0)
        self._columns["ids"].append(ids)
        self._columns["trained"].append(trained)
        self._columns["starts"].append(self.at.tokens + stops[ends])
        self._columns["texts"].append(np.array([record.text for record in encoded])[ends])
        self._columns["learnt"].append(counts)
        self.at = replace(
            self.at,
            tokens=self.at.tokens + len(ids),
            records=self.at.records + len(counts),
            learnt=int(reached[-1] - counts.sum()),
            inside=not ends[-1],
        )

    def note(self, **counted: Any) -> None:
        """Take over what was counted, by the names of Progressed, and write the journal where it is time to."""
        self.at = replace(self.at, **counted)
        if self._folder is None or self.at.tokens - self._durable < TOKENS_BETWEEN:
            return
        for column in self._columns.values():
            column.sync()
        write_file(self._folder / JOURNAL, [json.dumps(asdict(self.at)).encode()], PRIVATE_FILE)
        self._durable = self.at.tokens

    def line(self) -> TokenLine:
        """Everything that was written."""
        found = {name: column.whole() for name, column in self._columns.items()}
        return TokenLine(found["ids"], found["trained"], found["starts"], found["texts"], found["learnt"])

    def close(self) -> None:
        """Close files that are still open."""
        for column in self._columns.values():
            if isinstance(column, FileColumn):
                column.close()
