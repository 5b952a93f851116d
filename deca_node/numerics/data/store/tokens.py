"""The data as a line of tokens: from the store where they are there, else read, tokenized and written to it."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deca_node.numerics.data.formats.opening import readable
from deca_node.numerics.data.formats.sources import BadRecords, Reading
from deca_node.numerics.data.records import Record, RecordReader
from deca_node.numerics.data.sequences import TokenLine
from deca_node.numerics.data.store.columns import PRIVATE_FILE, read_column
from deca_node.numerics.data.store.key import FileSum, key_of
from deca_node.numerics.data.store.scratch import PRIVATE_FOLDER, disk_refusals
from deca_node.numerics.data.store.writing import JOURNAL, TYPES, LineWriter, Progressed
from deca_node.numerics.data.tokenizing import RecordTokenizer, runs
from deca_node.protocol.errors import DataError
from deca_node.storage.durable import PARTIAL, make_folder, remove, sync_folder, sync_tree, write_file
from deca_node.storage.jsons import UNFIT, parse

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENS = "tokens"
"""The folder of stores, in the node's own."""
FACTS = "store.json"

BytesDone = Callable[[int, int | None], None]
"""Called with (done, total): bytes of the data on disk."""


@dataclass(frozen=True, eq=False)
class Tokenized:
    """The data as tokens, and what was counted on the way. ``fresh``: they were tokenized now."""

    line: TokenLine
    counted: Progressed
    fresh: bool = True


class Tokenizing:
    """How some data become tokens. Raises DataError where a source is missing or unreadable."""

    def __init__(
        self,
        places: Sequence[Path | str],
        tokenizer: "PreTrainedTokenizerBase",
        *,
        bad_records: str,
        reading: Reading | None = None,
        progress: BytesDone | None = None,
    ) -> None:
        self._name = ", ".join(map(str, places))
        self._places = places
        self._tokenizer = tokenizer
        self._bad_records = bad_records
        self._reading = reading or Reading()
        self._progress = progress
        self._bad = BadRecords(skip=bad_records == "skip")
        self._readers = [RecordReader(place, self._bad, self._reading) for place in places]
        self._ids = np.uint16 if max(tokenizer.get_vocab().values(), default=0) < 1 << 16 else np.int32

    def in_memory(self) -> Tokenized:
        """Read and tokenize; nothing is written. Raises DataError."""
        writer = LineWriter(None, self._ids)
        self._write(writer)
        return Tokenized(writer.line(), writer.at)

    def stored(self, folder: Path) -> Tokenized:
        """From the store in ``folder``, or read, tokenized and written there. Other stores in it are removed.

        Raises DataError, or StorageError where the disk refuses.
        """
        with disk_refusals(folder):
            sums = self._sums(_known(folder))
            # What the hub has is known when it has been read, and may change; so its address stands for it.
            data = [
                [file.sha256 for file in files] or [str(place)] for files, place in zip(sums, self._places, strict=True)
            ]
            store = folder / key_of(data, self._tokenizer, self._reading, self._bad_records)
            fresh = not store.exists()
            if fresh:
                _private(folder)
                _remove_others(folder, store)
                self._fill(store, [file for files in sums for file in files])
            return _open(store, fresh)

    # --- the store --------------------------------------------------------------------------------------

    def _sums(self, known: Mapping[FileSum, str]) -> list[list[FileSum]]:
        """The files of each source with their sums."""
        found: list[list[FileSum]] = []
        for reader in self._readers:
            found.append([])
            for path in reader.files:
                with readable(path):
                    found[-1].append(FileSum.of(path, known))
        return found

    def _fill(self, store: Path, files: Sequence[FileSum]) -> None:
        """Write the store, whole or not at all; what an earlier writing left half done is gone on with."""
        aside = _partial(store)
        writer = LineWriter(aside, self._ids)
        try:
            self._write(writer)
        finally:
            writer.close()
        for file in files:
            with readable(Path(file.path)):
                if FileSum.now(Path(file.path)) != file.plain:
                    raise DataError(f"{file.path}: the file changed while it was read; start again when it is whole")
        facts = {"ids": np.dtype(self._ids).name, "counted": asdict(writer.at), "files": [asdict(f) for f in files]}
        write_file(aside / FACTS, [json.dumps(facts).encode()], PRIVATE_FILE)
        (aside / JOURNAL).unlink(missing_ok=True)
        sync_tree(aside)
        aside.replace(store)
        sync_folder(store.parent)

    # --- reading ----------------------------------------------------------------------------------------

    def _write(self, writer: LineWriter) -> None:
        """Read all sources, from where the writer is. Raises DataError."""
        encoder = RecordTokenizer(self._tokenizer, self._bad)
        encoder.notes.update(writer.at.notes)
        begun = writer.at
        for number in range(begun.source, len(self._readers)):
            reader = self._readers[number]
            records = iter(reader)
            if number == begun.source:
                reader.pin(begun.revision)
                self._pass_over(number, records, begun)
            for run in runs(records, lambda record: record.characters):
                writer.add(encoder.encode(run, partial(self._report, number)))
                consumed = writer.at.consumed + len(run)
                writer.note(consumed=consumed, revision=reader.revision, notes=dict(encoder.notes), **self._skipped())
                self._report(number)
            ends = (*writer.at.ends, (writer.at.records, writer.at.tokens))
            told = (*writer.at.told, *reader.told.told())
            writer.note(source=number + 1, consumed=0, revision="", ends=ends, told=told, **self._skipped())
        if not writer.at.records:
            raise DataError(f"{self._name}: {_nothing_usable(self._bad)}")

    def _pass_over(self, number: int, records: Iterator[Record], begun: Progressed) -> None:
        """Read what is written already. What was wrong with it is known, from its tokens as well."""
        for _ in islice(records, begun.consumed):
            self._report(number)
        self._bad.count, self._bad.sentences = begun.skipped, list(begun.sentences)

    def _skipped(self) -> dict[str, Any]:
        return {"skipped": self._bad.count, "sentences": tuple(self._bad.sentences)}

    def _report(self, number: int, waiting: int = 0) -> None:
        """Text that is read but waits to be tokenized is not done; a character counts as a byte."""
        if self._progress:
            before = sum(reader.bytes_total for reader in self._readers[:number])
            total = sum(reader.bytes_total for reader in self._readers)
            self._progress(max(before + self._readers[number].bytes_done - waiting, 0), total)


def _nothing_usable(bad: BadRecords) -> str:
    skipped = f" ({bad.count:,} bad ones were left out; the first: {bad.sentences[0]})" if bad.count else ""
    return f"there are no usable records{skipped}; give at least one text that is not empty"


def _open(store: Path, fresh: bool) -> Tokenized:
    facts = parse((store / FACTS).read_text(encoding="utf-8"))
    columns = {name: read_column(store / name, dtype) for name, dtype in {"ids": facts["ids"], **TYPES}.items()}
    return Tokenized(TokenLine(**columns), Progressed.of(facts["counted"]), fresh)


def _known(folder: Path) -> dict[FileSum, str]:
    """The sums of files that a store in the folder knows, by the files without their sums."""
    found: dict[FileSum, str] = {}
    for path in folder.glob(f"*/{FACTS}"):
        with contextlib.suppress(OSError, *UNFIT):
            sums = [FileSum(**file) for file in parse(path.read_text(encoding="utf-8"))["files"]]
            found.update((file.plain, file.sha256) for file in sums)
    return found


def _private(folder: Path) -> None:
    make_folder(folder.parent)
    folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)


def _partial(store: Path) -> Path:
    return store.with_name(store.name + PARTIAL)


def _remove_others(folder: Path, store: Path) -> None:
    for other in list(folder.iterdir()):
        if other not in (store, _partial(store)):
            remove(other)
