"""A look through a node's data before the start: how many records of each kind, and which of them are bad.

It needs no torch and no tokenizer, so that it takes no longer than reading. A trainer looks at the first records before
it imports torch, so that a wrong file or a wrong label is told at once."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from deca_node.numerics.data.formats.sources import BadRecords, Reading
from deca_node.numerics.data.labelled import LabelledReader, LabelledRecord
from deca_node.numerics.data.records import ChatRecord, CompletionRecord, RecordReader, TextRecord
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.errors import ModelError
from deca_node.protocol.options import TrainerOptions
from deca_node.storage.data_sources import data_sources
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
    bad, reading = BadRecords(skip=options.bad_records == "skip"), Reading.of(options.data_format, options.columns)
    for source in data_sources(options.data):
        if not source.is_hub:
            for _ in islice(_reader(source.place, bad, labels, reading), FIRST_RECORDS):
                pass


def _reader(
    place: str, bad: BadRecords, labels: Sequence[str], reading: Reading | None
) -> LabelledReader | RecordReader:
    return LabelledReader(place, bad, labels, reading) if labels else RecordReader(place, bad, reading)


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
    data: str | Path,
    report: Callable[[int, int], None] = lambda done, total: None,
    labels: Sequence[str] = (),
    reading: Reading | None = None,
) -> DataCheck:
    """Read all records on this machine, as labelled ones where ``labels`` are given. ``report`` is called now and then
    with the bytes read and the bytes in all. Raises DataError where a file cannot be read."""
    bad = BadRecords(skip=True)
    sources = data_sources(str(data))
    readers = [_reader(source.place, bad, labels, reading) for source in sources if not source.is_hub]
    kinds: Counter[str] = Counter()
    characters, total = 0, sum(reader.bytes_total for reader in readers)
    for number, record in enumerate(chain.from_iterable(readers)):
        kinds[KINDS.get(type(record), "records")] += 1
        characters += record.characters
        if number % RECORDS_BETWEEN_REPORTS == 0:
            report(sum(reader.bytes_done for reader in readers), total)
    files = [sentence for reader in readers for sentence in reader.told.told()]
    files += [f"{source.place} is not read before the start" for source in sources if source.is_hub]
    return DataCheck(dict(kinds), characters, bad.count, tuple(bad.sentences), tuple(files))
