"""A look at the first records with the tokenizer, before the start: what a start would refuse is refused here.

Few records are read and packed as the start does it, all of them. Of many the first are tokenized, chats rendered with
the chat template, and of a long text its beginning."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice

from deca_node.numerics.data.formats.sources import BadRecords, Reading
from deca_node.numerics.data.records import Record, RecordReader, TextRecord
from deca_node.numerics.data.templates import use_template
from deca_node.numerics.data.tokenizing import RecordTokenizer
from deca_node.numerics.learning.tasks import load_data, told
from deca_node.numerics.model.load import LoadedModel
from deca_node.protocol.errors import DataError
from deca_node.protocol.options import TrainerOptions
from deca_node.storage.data_sources import data_sources

RECORDS_MAX = 200
CHARACTERS_MAX = 1_000_000
BYTES_MAX = 1 << 20
"""Labelled records in larger files are not tried: nothing but their length could be wrong."""


def try_records(options: TrainerOptions, loaded: LoadedModel) -> str:
    """Tokenize, and say what was found. Raises DataError as a start would."""
    use_template(loaded.tokenizer, options.chat_template)
    sources, reading = data_sources(options.data), Reading.of(options.data_format, options.columns)
    bad = BadRecords(skip=True)
    readers = [RecordReader(source.place, bad, reading) for source in sources if not source.is_hub]
    if loaded.labels:
        small = len(readers) == len(sources) and sum(reader.bytes_total for reader in readers) <= BYTES_MAX
        return _all(options, loaded) if small else "labelled records are not tried"
    if not readers:
        return "data sets of the hub are not tried"
    first, rest = _first(chain.from_iterable(readers))
    if not rest and len(readers) == len(sources):
        return _all(options, loaded)
    bad = BadRecords(skip=options.bad_records == "skip")
    encoded = RecordTokenizer(loaded.tokenizer, bad).encode(first)
    if not encoded:
        raise DataError(
            f"{options.data}: none of the first {len(first)} records can be used; the first: {bad.sentences[0]}"
        )
    tokens, whole = sum(map(len, encoded)), sum(not part.more for part in encoded)
    if first[-1].characters == CHARACTERS_MAX and len(first) == 1:
        return f"the first {CHARACTERS_MAX:,} characters make {tokens:,} tokens"
    return f"the first {whole} records make {tokens:,} tokens"


def _first(records: Iterator[Record]) -> tuple[list[Record], bool]:
    """The first records, a long text in part, and whether there is more."""
    found: list[Record] = []
    characters = 0
    for record in islice(records, RECORDS_MAX):
        if isinstance(record, TextRecord) and record.characters > CHARACTERS_MAX:
            return [*found, replace(record, text=record.text[:CHARACTERS_MAX])], True
        found.append(record)
        characters += record.characters
        if characters > CHARACTERS_MAX:
            break
    return found, next(records, None) is not None


def _all(options: TrainerOptions, loaded: LoadedModel) -> str:
    data = load_data(options, loaded)
    return "; ".join(says for says in told(data, options.settings.sequence_length) if says not in data.summary.files)
