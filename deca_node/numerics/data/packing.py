"""From records to training sequences: one long line of tokens, cut into pieces of equal length.

::

    records     [BOS a a a EOS] [BOS p p c c EOS] [header t t end ...]     p: prompt, c: completion, t: assistant's turn
    trained on       * * *  *           * *   *           * *  *
    sequences   |------ L ------|------ L ------|------ L ------|- tail -

**Split.** A share of the node's own tokens is held out, and is never trained on nor read as context. With 20
records or more it is whole records, in a seeded random order until the share is reached; with fewer, or where a
record is so large that training would lose half of its own share to it, it is the end of every record, in
proportion. Both parts get at least one sequence.

**Packing.** Each part is laid end to end, in the order of the files, and cut every L tokens, without regard to
where records begin. What is left over at the end (fewer than L tokens) is dropped, unless it is all there is: then
it is padded. Sequences without a token to predict are dropped too. With private gradients a record is a sequence by
itself instead: its first L tokens, padded.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deca_node.numerics.data.files import BadRecords
from deca_node.numerics.data.records import RecordReader
from deca_node.numerics.data.tokenizing import Ids, Mask, RecordTokenizer, Tokens, runs
from deca_node.protocol.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RECORDS_TO_SPLIT = 20
"""From this many records on, the held-out part is made of whole records."""

Progress = Callable[[int, int | None], None]
"""Called with (done, total): bytes of the data on disk."""


@dataclass(frozen=True, eq=False)
class TokenLine(Tokens):
    """All records end to end; record k has the tokens from ``starts[k]`` to ``starts[k + 1]``, int64 [records + 1]."""

    starts: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sequences:
    """Packed sequences: ``ids`` int32 [n, L]; ``trained`` bool [n, L], true where the token is a label."""

    ids: Ids
    trained: Mask

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def predicted(self) -> int:
        """How many tokens the loss covers: the first of a sequence has no predecessor to predict it from."""
        return int(np.count_nonzero(self.trained[:, 1:]))


@dataclass(frozen=True)
class DataSummary:
    """What became of the data. ``trained_tokens`` and ``heldout_tokens`` are those that the loss covers."""

    records: int
    skipped: int
    skipped_sentences: tuple[str, ...]
    tokens: int
    trained_tokens: int
    heldout_tokens: int
    train_sequences: int
    heldout_sequences: int


@dataclass(frozen=True, eq=False)
class PackedData:
    """The node's data, ready for :mod:`deca_node.numerics.data.batches`."""

    train: Sequences
    heldout: Sequences
    summary: DataSummary


def load_dataset(
    path: str | Path,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    sequence_length: int,
    holdout: float,
    seed: int = 0,
    bad_records: str,
    single_records: bool = False,
    progress: Progress | None = None,
) -> PackedData:
    """Read, tokenize, split and pack a file or folder. The same arguments and data give the same sequences.

    ``holdout`` is the share of tokens to hold out, below 1; 0 holds out nothing, and then data shorter than a
    sequence is accepted and padded. With ``single_records`` every record is a sequence of its own, so that what is
    trained on can be told record by record. Raises DataError where the data cannot be used, and where a record is bad
    unless ``bad_records`` is "skip".
    """
    assert 0 <= holdout < 1 and bad_records in ("stop", "skip"), "the node's configuration checks its settings"
    path = Path(path)
    bad = BadRecords(skip=bad_records == "skip")
    line = read_tokens(path, RecordTokenizer(tokenizer, bad), bad, progress)
    _check_enough(path, line, sequence_length, holdout)
    held = heldout_mask(line, sequence_length, holdout, seed)
    pad = tokenizer.eos_token_id or 0
    if single_records:
        train = single(line, ~held, sequence_length, pad)
    else:
        train = pack(line.take(~held), sequence_length, pad)
    heldout = pack(line.take(held), sequence_length, pad)
    _check_learnable(path, train, "train on")
    if holdout:
        _check_learnable(path, heldout, "hold out")
    summary = DataSummary(
        records=len(line.starts) - 1,
        skipped=bad.count,
        skipped_sentences=tuple(bad.sentences),
        tokens=len(line.ids),
        trained_tokens=train.predicted,
        heldout_tokens=heldout.predicted,
        train_sequences=len(train),
        heldout_sequences=len(heldout),
    )
    return PackedData(train, heldout, summary)


def read_tokens(path: Path, encoder: "RecordTokenizer", bad: BadRecords, progress: Progress | None = None) -> TokenLine:
    """Every usable record of a file or folder as tokens. Raises DataError where there is none."""
    reader = RecordReader(path, bad)

    def report(waiting: int = 0) -> None:
        """Text that is read but waits to be tokenized is not done; a character counts as a byte."""
        if progress:
            progress(max(reader.bytes_done - waiting, 0), reader.bytes_total)

    ids: list[Ids] = []
    trained: list[Mask] = []
    starts = [0]
    for records in runs(reader, lambda record: record.characters):
        encoded = encoder.encode(records, report)
        if encoded:
            # One array for all: a million small arrays would weigh more than the tokens in them.
            ids.append(np.concatenate([tokens.ids for tokens in encoded]))
            trained.append(np.concatenate([tokens.trained for tokens in encoded]))
        for tokens in encoded:
            starts.append(starts[-1] + len(tokens.ids))
        report()
    if not ids:
        skipped = f" ({bad.count:,} bad ones were left out; the first: {bad.sentences[0]})" if bad.count else ""
        raise DataError(f"{path}: there are no usable records{skipped}; give at least one text that is not empty")
    return TokenLine(np.concatenate(ids), np.concatenate(trained), np.array(starts, np.int64))


def heldout_mask(line: TokenLine, sequence_length: int, holdout: float, seed: int) -> Mask:
    """Which tokens are held out, bool [n]; the module's docstring says how. Needs n >= 2 sequence lengths."""
    total = len(line.ids)
    mask = np.zeros(total, np.bool_)
    if not holdout:
        return mask
    lengths = np.diff(line.starts)
    target = min(max(round(total * holdout), sequence_length), total - sequence_length)
    if len(lengths) >= RECORDS_TO_SPLIT:
        order = permutation(len(lengths), f"{seed}:heldout")
        count = np.searchsorted(np.cumsum(lengths[order]), target) + 1
        held = np.zeros(len(lengths), np.bool_)
        held[order[:count]] = True
        kept = total - lengths[held].sum()
        if kept >= max(sequence_length, (total - target) / 2):
            return np.repeat(held, lengths)
    # Differences of rounded-down sums: each record's share is off by less than a token, and all come to the target.
    shares = np.diff(line.starts * target // total)
    for end, share in zip(line.starts[1:], shares, strict=True):
        mask[end - share : end] = True
    return mask


def pack(tokens: Tokens, sequence_length: int, pad: int) -> Sequences:
    """Cut tokens into sequences; drop the tail, and sequences in which no token is predicted.

    A tail that is all there is gets padded on the right, with padding that is not trained on. Attention is
    causal, so the padding needs no attention mask.
    """
    count = len(tokens.ids)
    ids, trained = tokens.ids, tokens.trained
    if 0 < count < sequence_length:
        missing = (0, sequence_length - count)
        ids, trained = np.pad(ids, missing, constant_values=pad), np.pad(trained, missing)
    whole = len(ids) // sequence_length
    ids = ids[: whole * sequence_length].reshape(whole, sequence_length)
    trained = trained[: whole * sequence_length].reshape(whole, sequence_length)
    useful = trained[:, 1:].any(axis=1)
    return Sequences(ids, trained) if useful.all() else Sequences(ids[useful], trained[useful])


def single(line: TokenLine, kept: Mask, sequence_length: int, pad: int) -> Sequences:
    """One sequence per record: its first tokens among those that are ``kept`` (bool [n]), padded on the right.

    Records without a token to predict are dropped.
    """
    records = len(line.starts) - 1
    ids = np.full((records, sequence_length), pad, line.ids.dtype)
    trained = np.zeros((records, sequence_length), np.bool_)
    for row, (start, stop) in enumerate(pairwise(line.starts)):
        inside = kept[start:stop]
        own = line.ids[start:stop][inside][:sequence_length]
        ids[row, : len(own)] = own
        trained[row, : len(own)] = line.trained[start:stop][inside][:sequence_length]
    useful = trained[:, 1:].any(axis=1)
    return Sequences(ids[useful], trained[useful])


def permutation(count: int, name: str) -> NDArray[np.int64]:
    """The numbers below ``count`` in an order that follows from the name alone, whatever the library's version."""
    rng = random.Random(name)
    return np.argsort([rng.random() for _ in range(count)], kind="stable")


def _check_enough(path: Path, line: TokenLine, sequence_length: int, holdout: float) -> None:
    total, needed = len(line.ids), 2 * sequence_length
    if holdout and total < needed:
        raise DataError(
            f"{path}: the data come to {total:,} tokens, but {needed:,} are needed: one sequence to train on and one "
            f"to hold out, of {sequence_length:,} tokens each; add data, or lower sequence_length on all nodes"
        )


def _check_learnable(path: Path, part: Sequences, purpose: str) -> None:
    if not len(part):
        raise DataError(
            f"{path}: nothing can be learnt from the part to {purpose}: all its tokens are prompts, which are only "
            "read; add data, or raise sequence_length on all nodes"
        )
