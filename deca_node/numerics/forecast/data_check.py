"""A look through a node's data before the start: how many records of each kind, and which of them are bad.

It needs no torch and no tokenizer, so that it takes no longer than reading. A trainer looks at the first records before
it imports torch, so that a wrong file or a wrong label is told at once."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from deca_node.numerics.data.formats.sources import BadRecords, Reading
from deca_node.numerics.data.labelled import LabelledReader, LabelledRecord
from deca_node.numerics.data.records import ChatRecord, CompletionRecord, RecordReader, TextRecord
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.errors import ModelError
from deca_node.protocol.options import TrainerOptions
from deca_node.storage.model_files import read_json

KINDS = {TextRecord: "texts", CompletionRecord: "completions", ChatRecord: "chats", LabelledRecord: "labelled records"}
RECORDS_BETWEEN_REPORTS = 1000
FIRST_RECORDS = 1000


@dataclass(frozen=True)
class DataCheck:
    """``kinds`` counts the good records by kind. ``sentences`` are about the first few of the ``bad`` records; each
    names file and line. ``files`` tells foreign formats and what was left out."""

    kinds: dict[str, int]
    characters: int
    bad: int
    sentences: tuple[str, ...]
    files: tuple[str, ...] = ()

    @property
    def records(self) -> int:
        """How many records are good."""
        return sum(self.kinds.values())


def first_look(options: TrainerOptions) -> None:
    """Read the first records as a start would. Raises DataError where it would, for these records."""
    labels = known_labels(options.settings, options.model)
    if labels is None:
        return
    path, bad = Path(options.data).expanduser(), BadRecords(skip=options.bad_records == "skip")
    reading = Reading.of(options.data_format, options.columns)
    reader = LabelledReader(path, bad, labels, reading) if labels else RecordReader(path, bad, reading)
    for _ in islice(reader, FIRST_RECORDS):
        pass


def known_labels(run: RunSettings, model: str) -> tuple[str, ...] | None:
    """The labels of the run or of the model's config.json; none for another task, None where they are not known."""
    if run.task != "classification" or run.label_names:
        return run.label_names
    try:
        found = read_json(Path(model).expanduser() / "config.json", "")["id2label"]
        return tuple(str(found[number]) for number in sorted(found, key=int))
    except (ModelError, KeyError, TypeError, ValueError):
        return None


def look_through(
    path: Path,
    report: Callable[[int, int], None] = lambda done, total: None,
    labels: Sequence[str] = (),
    reading: Reading | None = None,
) -> DataCheck:
    """Read all records, as labelled ones where ``labels`` are given. ``report`` is called now and then with the bytes
    read and the bytes in all. Raises DataError where a file cannot be read."""
    bad = BadRecords(skip=True)
    reader = LabelledReader(path, bad, labels, reading) if labels else RecordReader(path, bad, reading)
    kinds: Counter[str] = Counter()
    characters = 0
    for number, record in enumerate(reader):
        kinds[KINDS.get(type(record), "records")] += 1
        characters += record.characters
        if number % RECORDS_BETWEEN_REPORTS == 0:
            report(reader.bytes_done, reader.bytes_total)
    return DataCheck(dict(kinds), characters, bad.count, tuple(bad.sentences), reader.told.told())
