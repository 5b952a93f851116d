"""From a file or folder to sequences: read, tokenized, made to fit, held out in part, packed.

::

    records     [BOS a a a EOS] [BOS p p c c EOS] [header t t end ...]     p: prompt, c: completion, t: assistant's turn
    learnt           * * *  *           * *   *           * *  *
    sequences   laid out as `packing` says (:mod:`deca_node.numerics.data.packing`)

With private gradients every record is a sequence of its own, cut to ``sequence_length``, so that what is learnt can be
told record by record.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deca_node.numerics.data.formats.sources import BadRecords, Reading
from deca_node.numerics.data.holdout import heldout_mask
from deca_node.numerics.data.lengths import Lengths
from deca_node.numerics.data.packing import firsts, pack
from deca_node.numerics.data.records import RecordReader
from deca_node.numerics.data.sequences import Ids, Mask, RecordTokens, Sequences, TokenLine
from deca_node.numerics.data.tokenizing import RecordTokenizer, runs
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Progress = Callable[[int, int | None], None]
"""Called with (done, total): bytes of the data on disk."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How records become sequences: the run's ``sequence_length``, ``packing`` and ``truncation``; ``private`` for one
    record per sequence."""

    length: int
    packing: str
    truncation: str
    private: bool

    @classmethod
    def of(cls, settings: RunSettings, *, private: bool = False) -> "Layout":
        """As the run's settings ask for it."""
        length, packing, truncation = settings.sequence_length, settings.packing, settings.truncation
        return cls(length=length, packing=packing, truncation=truncation, private=private)

    @property
    def whole(self) -> bool:
        """Whether records are kept apart from each other."""
        return self.packing != "concatenated"


@dataclass(frozen=True)
class DataSummary:
    """What became of the data. ``trained_tokens`` and ``heldout_tokens`` are those that are learnt, or would be.

    ``lengths`` counts the records that were too long; ``empty_sequences`` the sequences that were left out because
    nothing is learnt in them; ``notes`` what chat templates left out (:class:`deca_node.numerics.data.chats.Chat`).
    ``files`` tells, in sentences, foreign formats and files that were left out.
    """

    records: int
    skipped: int
    skipped_sentences: tuple[str, ...]
    tokens: int
    trained_tokens: int
    heldout_tokens: int
    train_sequences: int
    heldout_sequences: int
    lengths: Lengths | None = None
    empty_sequences: int = 0
    notes: Mapping[str, int] = field(default_factory=dict)
    files: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class PackedData:
    """The node's data, ready for :mod:`deca_node.numerics.data.batches`."""

    train: Sequences
    heldout: Sequences
    summary: DataSummary


def load_dataset(
    path: str | Path,
    tokenizer: "PreTrainedTokenizerBase",
    layout: Layout,
    *,
    holdout: float,
    seed: int = 0,
    bad_records: str,
    reading: Reading | None = None,
    progress: Progress | None = None,
) -> PackedData:
    """Read, tokenize, split and pack a file or folder. The same arguments and data give the same sequences.

    ``holdout`` is the share of tokens to hold out, below 1; 0 holds out nothing. Raises DataError where the data cannot
    be used, and where a record is bad unless ``bad_records`` is "skip".
    """
    assert 0 <= holdout < 1 and bad_records in ("stop", "skip"), "the node's configuration checks its settings"
    path = Path(path)
    bad = BadRecords(skip=bad_records == "skip")
    lengths = Lengths(layout.length, layout.truncation, tokenizer.bos_token_id, divides=not layout.private)
    encoder = RecordTokenizer(tokenizer, bad)
    reader = RecordReader(path, bad, reading)
    line = read_tokens(path, reader, encoder, bad, lengths if layout.whole else None, progress)
    held = heldout_mask(path, line, layout.length, holdout, seed, whole=layout.whole)
    pad = tokenizer.eos_token_id or 0
    found = [
        firsts(line, part, layout.length, pad=pad)
        if layout.private and not held_out
        else pack(line, part, layout.packing, layout.length, pad=pad, seed=seed)
        for held_out, part in enumerate((~held, held))
    ]
    train, heldout = (sequences.useful() for sequences in found)
    _check_learnable(path, train, "train on")
    if holdout:
        _check_learnable(path, heldout, "hold out")
    summary = DataSummary(
        records=len(line.starts) - 1,
        skipped=bad.count,
        skipped_sentences=tuple(bad.sentences),
        tokens=len(line),
        trained_tokens=train.predicted,
        heldout_tokens=heldout.predicted,
        train_sequences=len(train),
        heldout_sequences=len(heldout),
        lengths=lengths if layout.whole else None,
        empty_sequences=sum(map(len, found)) - len(train) - len(heldout),
        notes=encoder.notes,
        files=reader.told.told(),
    )
    return PackedData(train, heldout, summary)


def read_tokens(
    path: Path,
    reader: RecordReader,
    encoder: RecordTokenizer,
    bad: BadRecords,
    lengths: Lengths | None,
    progress: Progress | None = None,
) -> TokenLine:
    """Every usable record of a file or folder as tokens; made to fit by ``lengths``, if given. Raises DataError where
    there is none."""

    def report(waiting: int = 0) -> None:
        """Text that is read but waits to be tokenized is not done; a character counts as a byte."""
        if progress:
            progress(max(reader.bytes_done - waiting, 0), reader.bytes_total)

    found = _Line()
    for records in runs(reader, lambda record: record.characters):
        encoded = encoder.encode(records, report)
        found.add(encoded if lengths is None else [fit for fit in map(lengths.fit, encoded) if fit is not None])
        report()
    if not found.ids:
        raise DataError(f"{path}: {_nothing_usable(bad, lengths)}")
    return found.joined()


class _Line:
    """Collects records. One array for a run of them: a million small arrays would weigh more than their tokens."""

    def __init__(self) -> None:
        self.ids: list[Ids] = []
        self._trained: list[Mask] = []
        self._starts = [0]
        self._texts: list[bool] = []

    def add(self, records: list[RecordTokens]) -> None:
        """These records, behind those that are there."""
        if records:
            self.ids.append(np.concatenate([record.ids for record in records]))
            self._trained.append(np.concatenate([record.trained for record in records]))
        for record in records:
            self._starts.append(self._starts[-1] + len(record))
            self._texts.append(record.text)

    def joined(self) -> TokenLine:
        """All of them in a line."""
        starts, texts = np.array(self._starts, np.int64), np.array(self._texts, np.bool_)
        return TokenLine(np.concatenate(self.ids), np.concatenate(self._trained), starts, texts)


def _nothing_usable(bad: BadRecords, lengths: Lengths | None) -> str:
    if lengths and lengths.dropped + lengths.unlearnt:
        return (
            f"no record is usable with sequence_length = {lengths.length}: {lengths.dropped:,} are longer, and in "
            f"{lengths.unlearnt:,} nothing is left to learn; raise sequence_length on all nodes, or change truncation"
        )
    skipped = f" ({bad.count:,} bad ones were left out; the first: {bad.sentences[0]})" if bad.count else ""
    return f"there are no usable records{skipped}; give at least one text that is not empty"


def _check_learnable(path: Path, part: Sequences, purpose: str) -> None:
    if not len(part):
        raise DataError(
            f"{path}: nothing can be learnt from the part to {purpose}: all its tokens are prompts, which are only "
            "read; add data, or raise sequence_length on all nodes"
        )
