"""A survey of a node's data with a model's tokenizer: what is learnt of it, and what is lost on the way to sequences.

::

    a record -> its tokens -> made to fit a sequence -> beside others in a sequence
       |            |                  |                       |
      bad       duplicate      truncated, left out       how full it is

All records count, before a part of them is held out. The first few are kept as they are learnt. The survey reads no
weights. Where it has a folder, tokens that are many lie there; what it knows of each record stays in memory.
"""

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deca_node.numerics.data.dataset import Layout
from deca_node.numerics.data.formats.sources import BadRecords, Reading, Source
from deca_node.numerics.data.labelled import LabelledReader, LabelledRecord, load_labelled
from deca_node.numerics.data.lengths import Lengths, as_they_are
from deca_node.numerics.data.packing import pack
from deca_node.numerics.data.records import ChatRecord, CompletionRecord, Record, RecordReader, TextRecord
from deca_node.numerics.data.sequences import NO_HEAD, Pieces, Places, RecordTokens, TokenLine, learnt_between
from deca_node.numerics.data.store.scratch import Scratch
from deca_node.numerics.data.store.tokens import BytesDone
from deca_node.numerics.data.store.writing import LineWriter
from deca_node.numerics.data.tokenizing import RecordTokenizer, runs
from deca_node.numerics.forecast.spelling import spelled
from deca_node.numerics.forecast.surveyed import Packed, Shown, Survey
from deca_node.protocol.errors import DataError
from deca_node.storage.data_sources import data_sources

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KINDS = {TextRecord: "text", CompletionRecord: "prompt", ChatRecord: "chat"}
SHOWN_FIRST, SHOWN_LAST = 400, 100
"""How many tokens of a long record are shown, from its beginning and from its end."""
WRITTEN_TOGETHER = 4096
"""A million small arrays would weigh more than their tokens."""
NAMED_MAX = 5
"""How many records are named for each cause; the others are only counted."""


def survey(
    data: str,
    tokenizer: "PreTrainedTokenizerBase",
    layout: Layout,
    *,
    show: int = 0,
    reading: Reading | None = None,
    progress: BytesDone | None = None,
    store: Path | None = None,
) -> Survey:
    """Read and tokenize all sources, and lay their records into sequences with the seed 0. Weights are left aside.

    ``show`` says how many records to keep; ``layout`` is one without private gradients; ``store`` is a folder for
    tokens that are too many for memory. Raises DataError where there is no usable record, StorageError where the disk
    refuses.
    """
    scratch = Scratch(store)
    bad = BadRecords(skip=True)
    readers = [RecordReader(source.place, bad, reading) for source in data_sources(data)]
    encoder = RecordTokenizer(tokenizer, bad)
    found = _Found(scratch)

    def report(waiting: int = 0) -> None:
        if progress:
            done = sum(reader.bytes_done for reader in readers)
            progress(max(done - waiting, 0), sum(reader.bytes_total for reader in readers))

    for records in runs(chain.from_iterable(readers), lambda record: record.characters):
        for record, tokens in encoder.pairs(records, report):
            found.add(record, tokens)
        report()
    if not found.kinds:
        first = f" ({bad.count:,} are bad; the first: {bad.sentences[0]})" if bad.count else ""
        raise DataError(f"{data}: there are no usable records{first}; give at least one text that is not empty")
    line = found.line()
    lengths = Lengths(layout.length, layout.truncation, tokenizer.bos_token_id)
    fitted = lengths.fit(line, scratch) if layout.whole else as_they_are(line, scratch)
    fates = _Fates(line, fitted.pieces, layout, show)
    return Survey(
        kinds=dict(found.kinds),
        files=tuple(sentence for reader in readers for sentence in reader.told.told()),
        tokens=len(line),
        learnt_tokens=int(line.learnt.sum()),
        lengths=np.diff(line.starts),
        packed=_packed(line, fitted.pieces, layout, scratch) if len(fitted.pieces) else None,
        shown=tuple(fates.shown(tokenizer, number, found) for number in range(min(show, line.records))),
        causes={cause: len(which) for cause, which in fates.causes.items()},
        named={cause: fates.names(cause, found) for cause in fates.causes},
        notes={name: count for name, count in encoder.notes.items() if count},
        **found.repeats.told(found.source),
        bad=bad.count,
        bad_sentences=tuple(bad.sentences),
    )


class _Found:
    """Collects records as one line of tokens, and where each of them stands."""

    def __init__(self, scratch: Scratch) -> None:
        self._writer = LineWriter(None, np.int32, scratch)
        self._paths: dict[Path | str, int] = {}
        self._places = array("q")
        """Of each record its file's number, its line and its number there, or -1."""
        self._waiting: list[RecordTokens] = []
        self._begun: list[RecordTokens] = []
        self.kinds: Counter[str] = Counter()
        self.repeats = Repeats()
        self._kinds = bytearray()

    def add(self, record: Record, tokens: RecordTokens) -> None:
        """Take one record, or the next part of it."""
        self._waiting.append(tokens)
        if len(self._waiting) == WRITTEN_TOGETHER:
            self._write()
        self._begun.append(tokens)
        if tokens.more:
            return
        source, kind = record.source, KINDS[type(record)]
        self.kinds[kind] += 1
        self._kinds.append(list(KINDS.values()).index(kind))
        self._places.append(self._paths.setdefault(source.path, len(self._paths)))
        self._places.extend(-1 if number is None else number for number in (source.line, source.record))
        self.repeats.add(part for tokens in self._begun for part in (tokens.ids.tobytes(), tokens.trained.tobytes()))
        self._begun = []

    def source(self, number: int) -> str:
        """Where the record of this number stands."""
        file, line, record = self._places[3 * number : 3 * number + 3]
        return str(Source(list(self._paths)[file], None if line < 0 else line, None if record < 0 else record))

    def kind(self, number: int) -> str:
        """The kind of the record of this number."""
        return list(KINDS.values())[self._kinds[number]]

    def line(self) -> TokenLine:
        """All records."""
        self._write()
        return self._writer.line()

    def _write(self) -> None:
        self._writer.add(self._waiting)
        self._waiting = []


class _Fates:
    """What becomes of each record on the way to sequences."""

    def __init__(self, line: TokenLine, pieces: Pieces, layout: Layout, show: int) -> None:
        self._line = line
        which = np.searchsorted(line.starts, pieces["stop"] - 1, side="right") - 1
        self._piece = dict(zip(which[:show].tolist(), pieces[:show], strict=True))
        used = np.zeros(line.records, np.bool_)
        used[which] = True
        longer = np.diff(line.starts) > layout.length
        divided = used & longer & line.texts
        dropped = ~used & longer & ~line.texts & (layout.truncation == "drop")
        cut = used & longer & ~divided
        lost = np.zeros(line.records, np.bool_)
        total = learnt_between(line.trained, line.starts[:-1], line.starts[1:])
        lost[which] = learnt_between(line.trained, pieces["start"], pieces["stop"]) < total[which]
        way = layout.truncation
        masks = {
            "divided: a text longer than a sequence": divided,
            f"truncated ({way})": cut & ~lost,
            f"truncated ({way}), and loses tokens to learn": cut & lost,
            "left out: longer than a sequence (drop)": dropped,
            "left out: nothing to learn is left in it": ~used & ~dropped,
        }
        found = {cause: np.flatnonzero(mask) for cause, mask in masks.items()} if layout.whole else {}
        self.causes: dict[str, Places] = {cause: which for cause, which in found.items() if len(which)}

    def names(self, cause: str, found: _Found) -> tuple[str, ...]:
        """The first few records of a cause."""
        starts = self._line.starts
        return tuple(
            f"{found.source(number)} ({starts[number + 1] - starts[number]:,} tokens)"
            for number in self.causes[cause][:NAMED_MAX].tolist()
        )

    def shown(self, tokenizer: "PreTrainedTokenizerBase", number: int, found: _Found) -> Shown:
        """The record of this number as it is learnt; whole where it is left out."""
        line = self._line
        piece = self._piece.get(number)
        start, stop = (piece["start"], piece["stop"]) if piece is not None else line.starts[number : number + 2]
        places = np.arange(start, stop)
        if piece is not None and piece["head"] != NO_HEAD:
            places = np.append(piece["head"], places)
        fate = next((cause for cause, which in self.causes.items() if number in which), "")
        tokens = RecordTokens(line.ids[places], line.trained[places])
        return shown(tokenizer, found.source(number), found.kind(number), tokens, fate)


def _packed(line: TokenLine, pieces: Pieces, layout: Layout, scratch: Scratch) -> Packed:
    sequences = pack(line, pieces, layout.packing, layout.length, pad=0, seed=0, scratch=scratch)
    useful = sequences.useful()
    places = len(useful) * layout.length
    return Packed(
        packing=layout.packing,
        length=layout.length,
        count=len(useful),
        tokens=useful.tokens,
        learnt_tokens=useful.predicted,
        full=useful.tokens / places if places else 0.0,
        empty=len(sequences) - len(useful),
        tail_tokens=0 if layout.whole else len(line) - sequences.tokens,
    )


class Repeats:
    """Finds records that are the same as an earlier one."""

    def __init__(self) -> None:
        self._sums = bytearray()

    def add(self, content: Iterable[bytes]) -> None:
        """Take the next record, in parts."""
        found = hashlib.blake2b(digest_size=16)
        for part in content:
            found.update(part)
        self._sums += found.digest()

    def told(self, source: Callable[[int], str]) -> dict[str, Any]:
        """The fields of :class:`Survey` about them."""
        sums = np.frombuffer(bytes(self._sums), [("high", np.uint64), ("low", np.uint64)])
        _, first, which = np.unique(sums, return_index=True, return_inverse=True)
        repeats = np.flatnonzero(first[which] != np.arange(len(sums)))
        named = [f"{source(k)} repeats {source(int(first[which[k]]))}" for k in repeats[:NAMED_MAX].tolist()]
        return {"repeated": len(repeats), "repeated_named": tuple(named)}


def shown(
    tokenizer: "PreTrainedTokenizerBase", source: str, kind: str, tokens: RecordTokens, fate: str = "", label: str = ""
) -> Shown:
    """A record for people: its tokens as texts, without the middle of a long one."""
    ids, learnt = tokens.ids.tolist(), tokens.trained.tolist()
    left_out = max(len(ids) - SHOWN_FIRST - SHOWN_LAST, 0)
    texts = spelled(tokenizer, ids[:SHOWN_FIRST] if left_out else ids)
    if left_out:
        texts += spelled(tokenizer, ids[-SHOWN_LAST:])
        learnt = learnt[:SHOWN_FIRST] + learnt[-SHOWN_LAST:]
    # The first token is predicted from nothing.
    return Shown(source, kind, len(ids), tuple(texts), (False, *learnt[1:]), left_out, fate, label)


def survey_labelled(
    data: str,
    tokenizer: "PreTrainedTokenizerBase",
    labels: Sequence[str],
    length: int,
    *,
    show: int = 0,
    reading: Reading | None = None,
    progress: BytesDone | None = None,
    store: Path | None = None,
) -> Survey:
    """The same for labelled records, each of which is a row of its own. Raises DataError and StorageError."""
    loaded = load_labelled(
        data,
        tokenizer,
        labels,
        sequence_length=length,
        holdout=0.0,
        bad_records="skip",
        reading=reading,
        progress=progress,
        store=store,
    )
    examples, found = loaded.train, loaded.summary
    sources = _sources(data, labels, reading, len(examples))
    repeats = Repeats()
    kept: list[Shown] = []
    for number, (start, stop) in enumerate(zip(examples.starts[:-1], examples.starts[1:], strict=True)):
        ids, label = examples.ids[start:stop], labels[examples.labels[number]]
        repeats.add([ids.tobytes(), label.encode()])
        if number < show:
            tokens = RecordTokens(ids, np.zeros(len(ids), np.bool_))
            kept.append(shown(tokenizer, sources[number], "labelled", tokens, label=label))
    cause = f"cut: longer than {length} tokens"
    return Survey(
        kinds=dict(zip(labels, found.counts, strict=True)),
        files=found.files,
        tokens=found.tokens,
        learnt_tokens=0,
        lengths=np.diff(examples.starts),
        packed=None,
        shown=tuple(kept),
        causes={cause: found.cut} if found.cut else {},
        **repeats.told(sources.__getitem__),
        bad=found.skipped,
        bad_sentences=found.skipped_sentences,
    )


def _sources(data: str, labels: Sequence[str], reading: Reading | None, count: int) -> list[str]:
    """Where each of the ``count`` good records stands, in order."""
    bad = BadRecords(skip=True)
    readers = [LabelledReader(source.place, bad, labels, reading) for source in data_sources(data)]
    records: list[LabelledRecord] = list(chain.from_iterable(readers))
    if len(records) == count:
        return [str(record.source) for record in records]
    # The tokenizer made nothing of some of them, and it is not known which.
    return [f"usable record {number + 1}" for number in range(count)]
