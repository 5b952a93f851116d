"""From a file or folder to sequences: read, tokenized, made to fit, held out in part, packed.

::

    records     [BOS a a a EOS] [BOS p p c c EOS] [header t t end ...]     p: prompt, c: completion, t: assistant's turn
    learnt           * * *  *           * *   *           * *  *
    sequences   laid out as `packing` says (:mod:`deca_node.numerics.data.packing`)

With private gradients every record is a sequence of its own, cut to ``sequence_length``, so that what is learnt can be
told record by record.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from deca_node.numerics.data.choice import HeldOut
from deca_node.numerics.data.formats.sources import Reading
from deca_node.numerics.data.holdout import split
from deca_node.numerics.data.lengths import Lengths, as_they_are
from deca_node.numerics.data.packing import firsts, pack
from deca_node.numerics.data.sequences import Sequences
from deca_node.numerics.data.store.mixture import Part, check_weights, mixed, told
from deca_node.numerics.data.store.scratch import Scratch
from deca_node.numerics.data.store.tokens import BytesDone, Tokenizing
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.errors import DataError
from deca_node.storage.data_sources import data_sources

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
    progress: BytesDone | None = None,
    store: Path | None = None,
    held_out: HeldOut | None = None,
) -> PackedData:
    """Read, tokenize, split and pack a file or a folder, or all sources that a text names.

    The same arguments and data give the same sequences.
    ``holdout`` is the share of tokens to hold out, below 1; 0 holds out nothing. ``store`` is the folder to keep the
    tokens in; they are kept in memory where there is none. ``held_out`` takes the place of ``holdout`` and ``seed``.
    Raises DataError where the data cannot be used, and where a record is bad unless ``bad_records`` is "skip".
    """
    assert 0 <= holdout < 1 and bad_records in ("stop", "skip"), "the node's configuration checks its settings"
    sources = data_sources(str(path))
    check_weights(sources, private=layout.private)
    places = [source.place for source in sources]
    tokenizing = Tokenizing(places, tokenizer, bad_records=bad_records, reading=reading, progress=progress)
    found = tokenizing.in_memory() if store is None else tokenizing.stored(store)
    line, counted, scratch = found.line, found.counted, Scratch(store)
    lengths = Lengths(layout.length, layout.truncation, tokenizer.bos_token_id, divides=not layout.private)
    records = lengths.fit(line, scratch) if layout.whole else as_they_are(line, scratch)
    if not len(records.pieces):
        raise DataError(f"{path}: {_nothing_fits(lengths)}")
    if held_out:
        holdout, seed = held_out.holdout, held_out.own_seed
        parts = held_out.divide(path, line, records, layout.length, layout.whole, scratch)
    else:
        parts = split(path, records, layout.length, holdout, seed, whole=layout.whole, scratch=scratch)
    kept = parts.kept(line.trained)
    mixture: list[Part] = []
    if any(source.weight != 1 for source in sources) or len(sources) > 1:
        weights = [(source.place, source.weight) for source in sources]
        kept, mixture = mixed(kept, [tokens for _, tokens in counted.ends], weights, seed, scratch)
    pad = tokenizer.eos_token_id or 0
    packed = [
        firsts(line, part, layout.length, pad=pad, scratch=scratch)
        if layout.private and not held_out
        else pack(line, part, layout.packing, layout.length, pad=pad, seed=seed, scratch=scratch)
        for held_out, part in enumerate((kept, parts.held(line.trained)))
    ]
    train, heldout = (sequences.useful() for sequences in packed)
    _check_learnable(path, train, "train on")
    if holdout:
        _check_learnable(path, heldout, "hold out")
    summary = DataSummary(
        records=len(records.pieces),
        skipped=counted.skipped,
        skipped_sentences=counted.sentences,
        tokens=parts.tokens,
        trained_tokens=train.predicted,
        heldout_tokens=heldout.predicted,
        train_sequences=len(train),
        heldout_sequences=len(heldout),
        lengths=lengths if layout.whole else None,
        empty_sequences=sum(map(len, packed)) - len(train) - len(heldout),
        notes=counted.notes,
        files=(*counted.told, *told(mixture), *([] if found.fresh else [f"took the tokens of the data from {store}"])),
    )
    return PackedData(train, heldout, summary)


def _nothing_fits(lengths: Lengths) -> str:
    return (
        f"no record is usable with sequence_length = {lengths.length}: {lengths.dropped:,} are longer, and in "
        f"{lengths.unlearnt:,} nothing is left to learn; raise sequence_length on all nodes, or change truncation"
    )


def _check_learnable(path: str | Path, part: Sequences, purpose: str) -> None:
    if not len(part):
        raise DataError(
            f"{path}: nothing can be learnt from the part to {purpose}: all its tokens are prompts, which are only "
            "read; add data, or raise sequence_length on all nodes"
        )
