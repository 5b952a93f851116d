"""Labelled records, for classifiers: read, made into tokens, split. One record is one row; nothing is packed.

::

    {"text": "The stay was short.", "label": "neutral"}
    {"text": "A man sleeps.", "text_pair": "A man is awake.", "label": 2}

A label is the name of one of the run's labels, or its number, counted from 0. The tokenizer joins the two texts of a
pair in its own way; where it has no separator, a newline stands between them. A record longer than ``sequence_length``
tokens is cut (of a pair, the longer text first) and counted. A share of the records is held out, at least one.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deca_node.numerics.data.choice import HeldOut
from deca_node.numerics.data.files import Reader
from deca_node.numerics.data.formats.sources import BadRecords, Reading, Source
from deca_node.numerics.data.formats.values import filled, json_type, some_keys
from deca_node.numerics.data.sequences import Ids, permutation
from deca_node.numerics.data.store.mixture import often
from deca_node.numerics.data.store.scratch import IN_MEMORY, Growing, Scratch, spans
from deca_node.numerics.data.store.tokens import BytesDone
from deca_node.numerics.data.tokenizing import runs
from deca_node.protocol.agreed.settings import nearest
from deca_node.protocol.errors import DataError
from deca_node.storage.data_sources import data_sources

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FORMATS = 'under task = classification a record needs "text" and "label"'
LABELS_TOLD_MAX = 8
"""How many labels an error sentence lists."""
ROWS_TOGETHER = 4096
"""How many records are copied at a time."""


@dataclass(frozen=True)
class LabelledRecord:
    """A text, or a pair of texts, with the number of its label."""

    source: Source
    text: str
    pair: str | None
    label: int

    @property
    def characters(self) -> int:
        """Length of both texts."""
        return len(self.text) + len(self.pair or "")


class LabelledReader(Reader[LabelledRecord]):
    """Iterates over the labelled records of a file or folder; ``labels`` are all labels of the run, by number."""

    formats = _FORMATS

    def __init__(
        self, place: Path | str, bad: BadRecords, labels: Sequence[str], reading: Reading | None = None
    ) -> None:
        super().__init__(place, bad, reading)
        self._labels = labels

    def record(self, value: Mapping[str, Any], source: Source) -> LabelledRecord:
        """An object with a text and a label. Raises DataError that names the source and what is wrong."""
        for key in ("text", "label"):
            if key not in value:
                raise DataError(f"{source}: {_FORMATS}, but the keys are {some_keys(value)}")
        pair = filled(value, "text_pair", source) if value.get("text_pair") is not None else None
        text = filled(value, "text", source)
        return LabelledRecord(source, text, pair, label_number(value["label"], self._labels, source))

    def whole(self, source: Source, text: str) -> LabelledRecord:
        """Always raises DataError: a plain text has no label."""
        raise DataError(f"{source}: a text file has no labels; {_FORMATS}, one per line of a .jsonl file")


def label_number(value: Any, labels: Sequence[str], source: Source) -> int:
    """The number of a label that is given by name or by number. Raises DataError where it is neither."""
    if isinstance(value, str):
        if value in labels:
            return labels.index(value)
        raise DataError(f'{source}: "label" is none of the run\'s labels{_some(labels)}{nearest(value, labels)}')
    if not isinstance(value, int) or isinstance(value, bool):
        raise DataError(f'{source}: "label" must be a name or a whole number, not {_kind(value)}{_some(labels)}')
    if str(value) in labels and labels.index(str(value)) != value:
        raise DataError(
            f'{source}: "label" is a number, and there are labels that are called by another one\'s number; '
            f'write it as a string, as in "{labels[0]}"'
        )
    if not 0 <= value < len(labels):
        raise DataError(f'{source}: "label" is no number from 0 to {len(labels) - 1}{_some(labels)}')
    return value


def _kind(value: Any) -> str:
    return "a fraction" if isinstance(value, float) else json_type(value)


def _some(labels: Sequence[str]) -> str:
    more = ", …" if len(labels) > LABELS_TOLD_MAX else ""
    return f" ({', '.join(labels[:LABELS_TOLD_MAX])}{more})"


@dataclass(frozen=True, eq=False)
class Examples:
    """Records as tokens: record k has those from ``starts[k]`` to ``starts[k + 1]``, int64 [records + 1].

    ``ids`` int32 [n]; ``types`` int8 [n], 0 or 1 for the first or second text of a pair; ``labels`` int64 [records].
    ``pad`` is the token that fills up a row.
    """

    ids: Ids
    types: NDArray[np.int8]
    starts: NDArray[np.int64]
    labels: NDArray[np.int64]
    pad: int

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64], scratch: Scratch = IN_MEMORY) -> "Examples":
        """These records, in this order, with tokens of their own that lie in ``scratch`` where they are many. Raises
        StorageError where the disk refuses."""
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.starts[rows + 1] - self.starts[rows])])
        ids = scratch.collect(np.int32, (self.ids[places] for places in self._places(rows)))
        types = scratch.collect(np.int8, (self.types[places] for places in self._places(rows)))
        return Examples(ids, types, starts, self.labels[rows], self.pad)

    def _places(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Where the tokens of these records are, of a part of the records at a time."""
        for part in spans(len(rows), ROWS_TOGETHER):
            first = self.starts[rows[part]]
            lengths = self.starts[rows[part] + 1] - first
            yield np.arange(lengths.sum()) + np.repeat(first - (np.cumsum(lengths) - lengths), lengths)


@dataclass(frozen=True)
class LabelledSummary:
    """What became of the data; ``counts`` holds how many records each label has, by its number."""

    records: int
    skipped: int
    skipped_sentences: tuple[str, ...]
    tokens: int
    cut: int
    counts: tuple[int, ...]
    files: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class LabelledData:
    """The node's labelled records, ready for :mod:`deca_node.numerics.data.batches`."""

    train: Examples
    heldout: Examples
    labels: tuple[str, ...]
    summary: LabelledSummary


def load_labelled(
    path: str | Path,
    tokenizer: "PreTrainedTokenizerBase",
    labels: Sequence[str],
    *,
    sequence_length: int,
    pad: int | None = None,
    holdout: float,
    seed: int = 0,
    bad_records: str,
    reading: Reading | None = None,
    progress: BytesDone | None = None,
    store: Path | None = None,
    held_out: HeldOut | None = None,
) -> LabelledData:
    """Read, tokenize and split a file or folder. The same arguments and data give the same records.

    ``holdout`` is the share of records to hold out, below 1; ``pad`` the token that the model takes for padding, if
    it is not the tokenizer's own. ``store`` is a folder for tokens that are too many for memory; they lie there in
    files without a name. ``held_out`` takes the place of ``holdout`` and ``seed``. Raises DataError where the data
    cannot be used, and where a record is bad unless ``bad_records`` is "skip"; StorageError where the disk refuses.
    """
    assert 0 <= holdout < 1 and bad_records in ("stop", "skip"), "the node's configuration checks its settings"
    sources = data_sources(str(path))
    bad = BadRecords(skip=bad_records == "skip")
    readers = [LabelledReader(source.place, bad, labels, reading) for source in sources]
    pad = (tokenizer.pad_token_id if pad is None else pad) or 0
    scratch = Scratch(store)
    rows = _RowTokenizer(tokenizer, sequence_length, bad, scratch)
    ends = [0]
    for reader in readers:
        for records in runs(reader, lambda record: record.characters):
            rows.add(records)
            if progress:
                progress(*(sum(part) for part in zip(*((r.bytes_done, r.bytes_total) for r in readers), strict=True)))
        ends.append(rows.count)
    if not rows.count:
        skipped = f" ({bad.count:,} bad ones were left out; the first: {bad.sentences[0]})" if bad.count else ""
        raise DataError(f"{path}: there are no usable records{skipped}; give at least one text with its label")
    examples = rows.examples(pad)
    held = held_out.rows(path, examples.ids, examples.starts) if held_out else None
    if held is None:
        if held_out:
            holdout, seed = held_out.holdout, held_out.own_seed
        held = _held_out(path, len(examples), holdout, seed)
    summary = LabelledSummary(
        records=len(examples),
        skipped=bad.count,
        skipped_sentences=tuple(bad.sentences),
        tokens=len(examples.ids),
        cut=rows.cut,
        files=tuple(sentence for reader in readers for sentence in reader.told.told()),
        counts=tuple(int(n) for n in np.bincount(examples.labels, minlength=len(labels))),
    )
    kept = [low + np.flatnonzero(~held[low:high]) for low, high in pairwise(ends)]
    weighted = zip(kept, sources, strict=True)
    numbers = [often(part, source.weight, f"{seed}:mixture:{k}") for k, (part, source) in enumerate(weighted)]
    train, heldout = (examples.take(part, scratch) for part in (np.concatenate(numbers), np.flatnonzero(held)))
    return LabelledData(train, heldout, tuple(labels), summary)


def _held_out(path: str | Path, records: int, holdout: float, seed: int) -> NDArray[np.bool_]:
    """Which records are held out, bool [records]."""
    held = np.zeros(records, np.bool_)
    if not holdout:
        return held
    if records < 2:
        raise DataError(f"{path}: there is one record, but 2 are needed: one to train on and one to hold out")
    count = min(max(round(records * holdout), 1), records - 1)
    held[permutation(records, f"{seed}:heldout")[:count]] = True
    return held


PairTokens = tuple[Ids, NDArray[np.int8]]
"""A record's tokens, and for each token 0 or 1: the text of the pair that it belongs to."""


class _RowTokenizer:
    """Collects records as rows of tokens, each at most ``length_max`` long, with special tokens."""

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", length_max: int, bad: BadRecords, scratch: Scratch
    ) -> None:
        # A tokenizer that was told to cut keeps that setting, and would be saved with it beside the tuned model.
        self._tokenizer = copy.deepcopy(tokenizer)
        self._length_max = length_max
        self._bad = bad
        self._joint = "" if tokenizer.sep_token_id is not None else "\n"
        self._ids, self._types = Growing(np.int32, scratch), Growing(np.int8, scratch)
        self._lengths, self._labels = Growing(np.int64, scratch), Growing(np.int64, scratch)
        self.count = 0
        self.cut = 0

    def add(self, records: Sequence[LabelledRecord]) -> None:
        """Tokenize the records that are not bad, in order. A tokenizer takes either texts or pairs in one call."""
        rows: dict[int, PairTokens] = {}
        for paired in (False, True):
            places = [k for k, record in enumerate(records) if (record.pair is not None) == paired]
            rows |= zip(places, self._fitting([records[k] for k in places]), strict=True)
        good: list[int] = []
        for k, record in enumerate(records):
            if len(rows[k][0]):
                good.append(k)
            else:
                self._bad.add(DataError(f"{record.source}: the tokenizer makes no tokens of it"))
        if good:
            self._ids.append(np.concatenate([rows[k][0] for k in good]))
            self._types.append(np.concatenate([rows[k][1] for k in good]))
            self._lengths.append(np.array([len(rows[k][0]) for k in good]))
            self._labels.append(np.array([records[k].label for k in good]))
            self.count += len(good)

    def examples(self, pad: int) -> Examples:
        """All that was collected."""
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(self._lengths.whole())])
        return Examples(self._ids.whole(), self._types.whole(), starts, self._labels.whole(), pad)

    def _fitting(self, records: Sequence[LabelledRecord]) -> list[PairTokens]:
        """Rows of texts, or of pairs. Rows that turn out too long are tokenized again, cut."""
        rows = self._tokenized(records, cut=False)
        long = [k for k, (ids, _) in enumerate(rows) if len(ids) > self._length_max]
        for k, row in zip(long, self._tokenized([records[k] for k in long], cut=True), strict=True):
            rows[k] = row
        self.cut += len(long)
        return rows

    def _tokenized(self, records: Sequence[LabelledRecord], cut: bool) -> list[PairTokens]:
        if not records:
            return []
        pairs = [record.pair for record in records if record.pair is not None]
        out = self._tokenizer(
            [record.text + self._joint if pairs else record.text for record in records],
            pairs or None,
            truncation=cut,
            max_length=self._length_max if cut else None,
            return_token_type_ids=True,
            verbose=False,
        )
        columns = zip(out["input_ids"], out["token_type_ids"], strict=True)
        return [(np.array(ids, np.int32), np.array(types, np.int8)) for ids, types in columns]
