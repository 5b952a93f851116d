"""From records to training sequences: one long line of tokens, cut into pieces of equal length.

::

    records     [BOS a a a EOS] [BOS p p c c EOS] [header t t end ...]     p: prompt, c: completion, t: assistant's turn
    trained on       * * *  *           * *   *           * *  *
    sequences   |------ L ------|------ L ------|------ L ------|- tail -

**Records.** A text is its tokens and EOS, all of them trained on. A completion is the prompt's tokens, which are
only read, then the completion's and EOS, which are trained on; the two are tokenized apart, so that no token
straddles the boundary. A chat is what the tokenizer's chat template makes of it, trained on in the assistant's
turns. BOS stands once at the start of a text or prompt if the tokenizer adds one, and is never trained on; a
tokenizer without EOS adds none. Special tokens spelled out in the data are taken as special tokens.

**Split.** A share of the node's own tokens is held out, and is never trained on nor read as context. With 20
records or more it is whole records, in a seeded random order until the share is reached; with fewer, or where a
record is so large that training would lose half of its own share to it, it is the end of every record, in
proportion. Both parts get at least one sequence.

**Packing.** Each part is laid end to end, in the order of the files, and cut every L tokens, without regard to
where records begin. What is left over at the end (fewer than L tokens) is dropped, unless it is all there is: then
it is padded. Sequences without a token to predict are dropped too.
"""

import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from deca_node.numerics.records import ASSISTANT, BadRecords, ChatRecord, Record, RecordReader, Source, TextRecord
from deca_node.protocol.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RECORDS_TO_SPLIT = 20
"""From this many records on, the held-out part is made of whole records."""

# Tokenizers keep about 100 bytes per token until a call returns, so a call gets a few megabytes of text at most,
# and a long text is tokenized in pieces (in parallel, where there are cores for it).
_CALL_CHARACTERS = 1 << 21
_PIECE_CHARACTERS = 1 << 17
_GENERATION_TAG = re.compile(r"\{%-?\s*generation\s*-?%\}")

Item = TypeVar("Item")
Ids = NDArray[np.int32]
Mask = NDArray[np.bool_]
Progress = Callable[[int, int | None], None]
"""Called with (done, total): bytes of the data on disk."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """Tokens in a line: ``ids`` int32 [n]; ``trained`` bool [n], true where the token is trained on."""

    ids: Ids
    trained: Mask

    def take(self, mask: Mask) -> "Tokens":
        """The tokens for which ``mask``, bool [n], is true, in the same order."""
        return Tokens(self.ids[mask], self.trained[mask])


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
    """The node's data, ready for :mod:`deca_node.numerics.batches`."""

    train: Sequences
    heldout: Sequences
    summary: DataSummary


def load_dataset(
    path: str | Path,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    sequence_length: int,
    holdout: float = 0.1,
    seed: int = 0,
    bad_records: str = "stop",
    progress: Progress | None = None,
) -> PackedData:
    """Read, tokenize, split and pack a file or folder. The same arguments and data give the same sequences.

    ``holdout`` is the share of tokens to hold out, below 1; 0 holds out nothing, and then data shorter than a
    sequence is accepted and padded. Raises DataError where the data cannot be used, and where a record is bad
    unless ``bad_records`` is "skip".
    """
    assert 0 <= holdout < 1 and bad_records in ("stop", "skip"), "the node's configuration checks its settings"
    path = Path(path)
    bad = BadRecords(skip=bad_records == "skip")
    line = read_tokens(path, RecordTokenizer(tokenizer, bad), bad, progress)
    _check_enough(path, line, sequence_length, holdout)
    held = heldout_mask(line, sequence_length, holdout, seed)
    pad = tokenizer.eos_token_id or 0
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
    for records in _runs(reader, lambda record: record.characters):
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


class RecordTokenizer:
    """Turns records into tokens that know whether they are trained on."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", bad: BadRecords) -> None:
        self._tokenizer = tokenizer
        self._bad = bad
        self._bos = np.array(_beginning(tokenizer), np.int32)
        self._eos = np.array([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id], np.int32)

    def encode(self, records: list[Record], report: Callable[[int], None] = lambda waiting: None) -> list[Tokens]:
        """Tokens of each record that is not bad, in order; ``report`` hears how many characters still wait."""
        texts: list[str] = []
        for record in records:
            if isinstance(record, TextRecord):
                texts.append(record.text)
            elif not isinstance(record, ChatRecord):
                texts += (record.prompt, record.completion)
        bodies = iter(self._bodies(texts, report))
        encoded = []
        for record in records:
            try:
                encoded.append(self._tokens(record, bodies))
            except DataError as error:
                self._bad.add(error)
        return encoded

    def _tokens(self, record: Record, bodies: Iterator[Ids]) -> Tokens:
        if isinstance(record, ChatRecord):
            return self._chat(record)
        if isinstance(record, TextRecord):
            return self._joined(record.source, np.empty(0, np.int32), next(bodies))
        return self._joined(record.source, next(bodies), next(bodies))

    def _bodies(self, texts: list[str], report: Callable[[int], None]) -> list[Ids]:
        """Tokens of each text, without any that the tokenizer would put around it."""
        bodies: list[list[Ids]] = [[] for _ in texts]
        waiting = sum(map(len, texts))
        pieces = ((index, piece) for index, text in enumerate(texts) for piece in _pieces(text))
        for run in _runs(pieces, lambda indexed: len(indexed[1])):
            out = self._tokenizer([piece for _, piece in run], add_special_tokens=False, verbose=False)
            for (index, _), ids in zip(run, out["input_ids"], strict=True):
                bodies[index].append(np.array(ids, np.int32))
            waiting -= sum(len(piece) for _, piece in run)
            report(waiting)
        return [np.concatenate(body) for body in bodies]

    def _joined(self, source: Source, context: Ids, learnt: Ids) -> Tokens:
        """[BOS, context, learnt, EOS], with BOS and EOS exactly once where the text spells them out itself."""
        if not len(learnt):
            raise DataError(f"{source}: the tokenizer makes no tokens of it")
        if len(context):
            context = self._without_bos(context)
        else:
            learnt = self._without_bos(learnt)
        eos = self._eos[:0] if np.array_equal(learnt[-1:], self._eos) else self._eos
        ids = np.concatenate([self._bos, context, learnt, eos])
        return Tokens(ids, np.arange(len(ids)) >= len(self._bos) + len(context))

    def _without_bos(self, ids: Ids) -> Ids:
        count = len(self._bos)
        return ids[count:] if np.array_equal(ids[:count], self._bos) else ids

    def _chat(self, record: ChatRecord) -> Tokens:
        if not self._tokenizer.chat_template:
            raise DataError(
                f"{record.source}: a chat, but the tokenizer has no chat template; "
                "use the model's chat version, or write prompt and completion"
            )
        try:
            marked = _GENERATION_TAG.search(self._tokenizer.get_chat_template())
            tokens = self._chat_by_mark(record) if marked else self._chat_by_prefixes(record)
        except DataError:
            raise
        except Exception as error:  # A template is a program by somebody else, and fails as it pleases.
            raise DataError(f"{record.source}: the chat template cannot render the chat ({error})") from error
        if not tokens.trained.any():
            raise DataError(f"{record.source}: the chat template leaves no token in the assistant's turns")
        return tokens

    def _chat_by_mark(self, record: ChatRecord) -> Tokens:
        """The template itself marks what the assistant generates."""
        out = self._tokenizer.apply_chat_template(
            list(record.messages), return_assistant_tokens_mask=True, tokenizer_kwargs={"verbose": False}
        )
        return Tokens(np.array(out["input_ids"], np.int32), np.array(out["assistant_masks"], np.bool_))

    def _chat_by_prefixes(self, record: ChatRecord) -> Tokens:
        """A turn is what it adds to the rendering of the chat so far and the header that asks for an answer."""
        text = self._render(record, len(record.messages))
        out = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        begins = np.array(out["offset_mapping"], np.int64).reshape(-1, 2)[:, 0]
        trained = np.zeros(len(begins), np.bool_)
        for low, high in self._assistant_spans(record, text):
            trained |= (begins >= low) & (begins < high)
        return Tokens(np.array(out["input_ids"], np.int32), trained)

    def _assistant_spans(self, record: ChatRecord, text: str) -> Iterator[tuple[int, int]]:
        """First and last (exclusive) character of the assistant's turns in the rendered chat."""
        for turn, message in enumerate(record.messages):
            if message["role"] != ASSISTANT:
                continue
            header = self._render(record, turn, add_generation_prompt=True)
            so_far = self._render(record, turn + 1)
            if not header or not so_far.startswith(header) or not text.startswith(so_far):
                raise DataError(
                    f"{record.source}: the assistant's turn (message {turn + 1}) cannot be told apart: it opens the "
                    "chat, or the chat template renders the chat up to it differently from the whole; use a template "
                    "with {% generation %}, or write prompt and completion"
                )
            yield len(header), len(so_far)

    def _render(self, record: ChatRecord, turns: int, add_generation_prompt: bool = False) -> str:
        if turns == 0:
            return ""  # Templates need a message; and a chat that the assistant opens has no header to cut off.
        rendered: str = self._tokenizer.apply_chat_template(
            list(record.messages[:turns]), tokenize=False, add_generation_prompt=add_generation_prompt
        )
        return rendered


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


def _beginning(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """What the tokenizer puts before a text: BOS, mostly, or nothing."""
    bare: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    full: list[int] = tokenizer("a")["input_ids"]
    start = next((i for i in range(len(full)) if full[i : i + len(bare)] == bare), 0)
    return full[:start]


def _runs(items: Iterable[Item], characters: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Items in runs of about ``_CALL_CHARACTERS``."""
    run: list[Item] = []
    size = 0
    for item in items:
        run.append(item)
        size += characters(item)
        if size >= _CALL_CHARACTERS:
            yield run
            run, size = [], 0
    if run:
        yield run


def _pieces(text: str) -> Iterator[str]:
    """The text in pieces of at most ``_PIECE_CHARACTERS``, cut after a newline or before a space if there is one."""
    start = 0
    while len(text) - start > _PIECE_CHARACTERS:
        limit = start + _PIECE_CHARACTERS
        end = text.rfind("\n", start, limit) + 1 or text.rfind(" ", start, limit)
        if end <= start:
            end = limit
        yield text[start:end]
        start = end
    yield text[start:]
