"""How good a model is on a file of records. There are three kinds of question, by the model and by the records.

::

    language model, texts, completions, chats    mean loss per token, and perplexity, its exponential
    classifier, labelled records                 mean loss per record, accuracy, macro-F1
    language model, labelled records             the same, with each label as the completion of the text

For the third kind the prompt is made of the text. The model's answer is the label that it finds likeliest: the one
whose tokens, with the end of the text after them, have the smallest sum of losses. The loss is that of the right label
among all labels, by a softmax over their likelihoods, so that it compares with a classifier's.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from deca_node.numerics.data.batches import IGNORED, Batch, LabelledBatch, ordered_batches
from deca_node.numerics.data.dataset import Layout, load_dataset
from deca_node.numerics.data.files import Reader
from deca_node.numerics.data.formats.sources import BadRecords, Reading, Source
from deca_node.numerics.data.formats.values import filled, json_type
from deca_node.numerics.data.labelled import load_labelled
from deca_node.numerics.data.records import CompletionRecord
from deca_node.numerics.data.sequences import Tokens
from deca_node.numerics.data.store.tokens import BytesDone
from deca_node.numerics.data.tokenizing import RecordTokenizer
from deca_node.numerics.device import choose_device
from deca_node.numerics.learning.loss import classify, evaluate, judging, nll_per_row, shares
from deca_node.numerics.learning.result import EvaluationResult
from deca_node.numerics.model.classifier import CLASSIFIER, Head
from deca_node.numerics.model.load import LoadedModel
from deca_node.protocol.errors import DataError
from deca_node.protocol.options import ProgressReport
from deca_node.storage.data_sources import data_sources
from deca_node.storage.model_files import read_json

TEXT, PAIR = "{text}", "{text_pair}"
PROMPT = f"{TEXT}\n"
"""The prompt that a label completes by default; the second text of a pair follows on a line of its own."""
LABELS_MAX = 100
"""How many labels there may be: a language model is asked once per record and label."""

Taken = TypeVar("Taken")


@dataclass(frozen=True, kw_only=True)
class Question:
    """What to measure on, and how: ``data`` names it as the setting does; ``length`` tokens per sequence at most,
    ``batch_size`` sequences at a time, records laid into sequences by ``packing`` and ``truncation`` as a run has them.
    ``labels`` are all labels there may be (none given: those in the data); ``prompt`` is what a language model
    completes with a label."""

    data: str
    length: int
    packing: str
    truncation: str
    batch_size: int
    device: torch.device
    bad_records: str
    labels: tuple[str, ...] = ()
    prompt: str = ""
    reading: Reading = field(default_factory=Reading)


def own_head(source: str) -> Head | None:
    """The head to load a checkpoint with: its own labels if it is a classifier, else None. A source that is no folder
    on this machine counts as a language model."""
    path = Path(source).expanduser() / "config.json"
    if not path.is_file():
        return None
    architectures = read_json(path, "").get("architectures") or ()
    return Head((), 0) if any(str(name).endswith(CLASSIFIER) for name in architectures) else None


def evaluate_model(
    loaded: LoadedModel,
    question: Question,
    report: ProgressReport = lambda done, total: None,
    reading: BytesDone | None = None,
    store: Path | None = None,
) -> EvaluationResult:
    """Judge a model that lies on ``question.device``. ``reading`` hears how far the data are read, then ``report`` how
    many of them are judged. The tokens lie in the folder ``store``, or in memory where there is none. Raises
    DataError where the data cannot be used."""
    if loaded.labels:
        return _classifier(loaded, question, report, reading, store)
    if question.labels or _has_labels(question.data, question.reading):
        return _labels(loaded, question, report)
    return _language_model(loaded, question, report, reading, store)


def _language_model(
    loaded: LoadedModel, question: Question, report: ProgressReport, reading: BytesDone | None, store: Path | None
) -> EvaluationResult:
    packed = load_dataset(
        question.data,
        loaded.tokenizer,
        Layout(length=question.length, packing=question.packing, truncation=question.truncation, private=False),
        holdout=0.0,
        bad_records=question.bad_records,
        reading=question.reading,
        progress=reading,
        store=store,
    )
    batches = reporting(ordered_batches(packed.train, question.batch_size), len(packed.train), report)
    loss, counted = evaluate(loaded.model, batches, question.device)
    lengths = packed.summary.lengths
    return EvaluationResult(
        kind="language-model",
        loss=loss,
        counted=counted,
        records=packed.summary.records,
        skipped=packed.summary.skipped,
        cut=lengths.cut if lengths else 0,
        left_out=lengths.dropped + lengths.unlearnt if lengths else 0,
        perplexity=math.exp(loss) if loss < math.log(np.finfo(float).max) else math.inf,
    )


def _classifier(
    loaded: LoadedModel, question: Question, report: ProgressReport, reading: BytesDone | None, store: Path | None
) -> EvaluationResult:
    data = load_labelled(
        question.data,
        loaded.tokenizer,
        loaded.labels,
        sequence_length=question.length,
        pad=loaded.model.config.get_text_config().pad_token_id,
        holdout=0.0,
        bad_records=question.bad_records,
        reading=question.reading,
        progress=reading,
        store=store,
    )
    batches = reporting(ordered_batches(data.train, question.batch_size), len(data.train), report)
    labelled = (batch for batch in batches if isinstance(batch, LabelledBatch))
    scores = classify(loaded.model, labelled, question.device, len(loaded.labels))
    return EvaluationResult(
        kind="classifier",
        loss=scores.loss,
        counted=scores.count,
        records=data.summary.records,
        skipped=data.summary.skipped,
        cut=data.summary.cut,
        accuracy=scores.scalars["accuracy"],
        macro_f1=scores.scalars["macro_f1"],
        labels=loaded.labels,
    )


def reporting(batches: Iterable[Taken], total: int, report: ProgressReport) -> Iterator[Taken]:
    """The same batches; ``report`` is called after each."""
    done = 0
    for batch in batches:
        yield batch
        done += len(batch.input_ids)  # type: ignore[attr-defined]
        report(done, total)


# --- labels as completions ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Named:
    """A text, or a pair of texts, and the name of its label."""

    source: Source
    text: str
    pair: str | None
    label: str

    @property
    def characters(self) -> int:
        return len(self.text) + len(self.pair or "")

    def prompt(self, template: str) -> str:
        template = template or (f"{TEXT}\n{PAIR}\n" if self.pair is not None else PROMPT)
        # In this order, since a text may itself hold a placeholder.
        before, _, after = template.partition(TEXT)
        return before.replace(PAIR, self.pair or "") + self.text + after.replace(PAIR, self.pair or "")


class _NamedReader(Reader[_Named]):
    formats = 'labelled records need "text" and "label"'

    def record(self, value: Mapping[str, Any], source: Source) -> _Named:
        if "label" not in value or "text" not in value:
            raise DataError(f"{source}: {self.formats} in every line")
        label = value["label"]
        if isinstance(label, bool) or not isinstance(label, str | int) or not str(label).strip():
            raise DataError(f'{source}: "label" must be a name or a whole number, not {json_type(label)}')
        pair = filled(value, "text_pair", source) if value.get("text_pair") is not None else None
        return _Named(source, filled(value, "text", source), pair, str(label))

    def whole(self, source: Source, text: str) -> _Named:
        raise DataError(f"{source}: a text file has no labels")


class _LabelSeeker(Reader[bool]):
    """Says of each line whether it has a label."""

    def record(self, value: Mapping[str, Any], source: Source) -> bool:
        return "label" in value

    def whole(self, source: Source, text: str) -> bool:
        return False


def _has_labels(data: str, reading: Reading) -> bool:
    """Whether the first record there is has a label."""
    place = data_sources(data)[0].place
    return next(iter(_LabelSeeker(place, BadRecords(skip=True), reading)), False)


def _labels(loaded: LoadedModel, question: Question, report: ProgressReport) -> EvaluationResult:
    bad = BadRecords(skip=question.bad_records == "skip")
    sources = data_sources(question.data)
    if weighted := next((source.place for source in sources if source.weight != 1), None):
        raise DataError(f"{weighted} has a weight in data, but each labelled record is judged once; leave it out")
    records = [record for source in sources for record in _NamedReader(source.place, bad, question.reading)]
    labels = question.labels or tuple(sorted({record.label for record in records}))
    _check_labels(question.data, records, labels)
    rows = _Rows(loaded, labels, question.length)
    table = torch.zeros(len(labels), len(labels), dtype=torch.int64)
    total = 0.0
    for number, record in enumerate(records, start=1):
        losses = rows.losses(record, question)
        right = labels.index(record.label)
        total -= float(torch.log_softmax(-losses, dim=0)[right])
        table[right, int(losses.argmin())] += 1
        report(number, len(records))
    found = shares(table)
    return EvaluationResult(
        kind="labels",
        loss=total / len(records),
        counted=len(records),
        records=len(records),
        skipped=bad.count,
        cut=rows.cut,
        accuracy=found["accuracy"],
        macro_f1=found["macro_f1"],
        labels=labels,
    )


def _check_labels(data: str, records: Sequence[_Named], labels: Sequence[str]) -> None:
    if not records:
        raise DataError(f"{data}: there are no usable records; give at least one text with its label")
    unknown = sorted({record.label for record in records} - set(labels))
    if unknown:
        raise DataError(f"{data}: the label {unknown[0][:100]!r} is none of {', '.join(labels[:8])}")
    if not 2 <= len(labels) <= LABELS_MAX:
        says = f"{data}: there are {len(labels)} labels, and 2 to {LABELS_MAX} can be told apart"
        raise DataError(f"{says}; name them with --labels where the data has not all of them")


class _Rows:
    """A record with every label, as rows of tokens. A row that is too long loses its beginning; such records are
    counted in ``cut``."""

    def __init__(self, loaded: LoadedModel, labels: Sequence[str], length: int) -> None:
        self._model = loaded.model
        self._tokenizer = RecordTokenizer(loaded.tokenizer, BadRecords(skip=False))
        self._labels = labels
        self._length = length
        self.cut = 0

    def losses(self, record: _Named, question: Question) -> Tensor:
        """The sum of the losses of each label's tokens, float32 [labels]."""
        prompt = record.prompt(question.prompt)
        rows = self._tokenizer.encode([CompletionRecord(record.source, prompt, label) for label in self._labels])
        self.cut += any(len(row.ids) > self._length for row in rows)
        starts = range(0, len(rows), question.batch_size)
        parts = [self._of(rows[start : start + question.batch_size], question.device) for start in starts]
        return torch.cat(parts)

    @torch.no_grad()
    def _of(self, rows: Sequence[Tokens], device: torch.device) -> Tensor:
        longest = min(max(len(row.ids) for row in rows), self._length)
        ids = torch.zeros(len(rows), longest, dtype=torch.int64)
        labels = torch.full_like(ids, IGNORED)
        for number, row in enumerate(rows):
            kept, trained = row.ids[-longest:], row.trained[-longest:]
            ids[number, : len(kept)] = torch.from_numpy(kept.astype(np.int64))
            labels[number, : len(kept)][torch.from_numpy(trained)] = ids[number, : len(kept)][torch.from_numpy(trained)]
        with judging(self._model):
            return nll_per_row(self._model, Batch(ids, labels), device).cpu()


def device_and_threads(device: str, threads: int | None) -> torch.device:
    """The device that ``device`` asks for, and so many threads on the CPU. Raises TrainerError."""
    if threads:
        torch.set_num_threads(threads)
    return choose_device(device)
