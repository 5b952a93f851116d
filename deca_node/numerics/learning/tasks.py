"""What differs between the tasks: how the data is read and summed up in sentences, and how a model is judged on it."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from deca_node.numerics.data.batches import AnyBatch, heldout_batches
from deca_node.numerics.data.choice import HeldOut
from deca_node.numerics.data.dataset import DataSummary, Layout, PackedData, load_dataset
from deca_node.numerics.data.formats.sources import Reading
from deca_node.numerics.data.labelled import LabelledData, LabelledSummary, load_labelled
from deca_node.numerics.data.lengths import Lengths
from deca_node.numerics.data.store.mixture import check_weights
from deca_node.numerics.data.store.tokens import BytesDone
from deca_node.numerics.learning.loss import Scores, score, summed
from deca_node.numerics.model.load import LoadedModel
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.options import Note, TrainerOptions
from deca_node.protocol.planning.units import seconds_text
from deca_node.storage.data_sources import data_sources

Data = PackedData | LabelledData
LEFT_OUT = {
    "tools": "chats give tools that the chat template leaves out",
    "system": "chats have a message of the system that the chat template leaves out",
    "calls": "turns call tools, which the chat template leaves out; a turn that says nothing else is not learnt",
}
"""What a chat template may leave out, by the names of :class:`deca_node.numerics.data.chats.Chat`."""
NOTE_SECONDS = 5.0
"""From one note of progress to the next."""


def load_data(
    options: TrainerOptions,
    loaded: LoadedModel,
    progress: BytesDone | None = None,
    store: Path | None = None,
    held_out: HeldOut | None = None,
) -> Data:
    """Read the node's own data as the task needs it; ``store`` is the folder to keep their tokens in, and
    ``held_out`` decides which records are held out, as at a first start if it is None.

    Raises DataError, or StorageError where the disk refuses.
    """
    length, seed = options.settings.sequence_length, options.seed
    held_out = held_out or HeldOut(options.settings.seed, seed, options.holdout)
    reading = Reading.of(options.data_format, options.columns)
    if loaded.labels:
        check_weights(data_sources(options.data), private=options.dp_noise > 0)
        return load_labelled(
            options.data,
            loaded.tokenizer,
            loaded.labels,
            sequence_length=length,
            pad=loaded.model.config.get_text_config().pad_token_id,
            holdout=options.holdout,
            seed=seed,
            bad_records=options.bad_records,
            reading=reading,
            progress=progress,
            store=store,
            held_out=held_out,
        )
    return load_dataset(
        options.data,
        loaded.tokenizer,
        Layout.of(options.settings, private=options.dp_noise > 0),
        holdout=options.holdout,
        seed=seed,
        bad_records=options.bad_records,
        reading=reading,
        progress=progress,
        store=store,
        held_out=held_out,
    )


def progress_notes(note: Note, path: str, clock: Callable[[], float] = time.monotonic) -> BytesDone:
    """A progress that is noted every few seconds while data are read and tokenized: the share, the speed since the last
    note, and the time that is left at this speed. At the end, if there was a note, the next stage is named."""
    last, before, over = clock(), 0, False

    def progress(done: int, total: int | None) -> None:
        nonlocal last, before, over
        if total and done >= total:
            if before and not over:
                note(f"{path} is read and tokenized, {total / 1e6:,.1f} MB; laying its records into sequences")
            over = True
            return
        seconds = clock() - last
        if seconds < NOTE_SECONDS:
            return
        speed = (done - before) / seconds
        pace = f"{speed / 1e6:,.1f} MB/s"
        if not total:
            note(f"reading and tokenizing {path}: {done / 1e6:,.1f} MB, {pace}")
        else:
            left = f", {seconds_text((total - done) / speed)} left" if speed > 0 else ""
            note(f"reading and tokenizing {path}: {100 * done / total:.0f} % of {total / 1e6:,.1f} MB, {pace}{left}")
        last, before = clock(), done

    return progress


def trained_on(data: Data) -> int:
    """The tokens in the loss of the part to train on, by which a node may count in the mean; a classifier's records."""
    return len(data.train) if isinstance(data, LabelledData) else data.train.predicted


def told(data: Data, sequence_length: int) -> Iterator[str]:
    """What became of the data, in sentences."""
    found = data.summary
    yield from found.files
    if isinstance(data, LabelledData) and isinstance(found, LabelledSummary):
        counts = ", ".join(f"{count:,} {name}" for name, count in zip(data.labels, found.counts, strict=True))
        yield (
            f"{found.records:,} records with {found.tokens:,} tokens ({counts}): {len(data.train):,} to train on, "
            f"{len(data.heldout):,} held out"
        )
        if found.cut:
            yield f"{found.cut:,} records are longer than sequence_length = {sequence_length} tokens, and are cut"
    elif isinstance(found, DataSummary):
        yield (
            f"{found.records:,} records with {found.tokens:,} tokens: {found.train_sequences:,} sequences to train on "
            f"({found.trained_tokens:,} tokens in the loss), {found.heldout_sequences:,} held out"
        )
        if found.lengths:
            yield from _told_of_lengths(found.lengths)
        yield from (f"{found.notes[note]:,} {says}" for note, says in LEFT_OUT.items() if found.notes.get(note))
        if found.empty_sequences:
            yield f"{found.empty_sequences:,} sequences are left out: they hold prompts, and nothing to learn"
    if found.skipped:
        yield f"left out {found.skipped:,} bad records; the first: {'; '.join(found.skipped_sentences)}"


def length_told(settings: RunSettings, blocks: int, sequences: int) -> str:
    """What the length of the run means for a node with so many sequences, or records, to train on."""
    rounds, per_round = settings.rounds_of(blocks), blocks * settings.inner_steps * settings.batch_size
    length = f"{rounds} round{'s' if rounds > 1 else ''}"
    epochs = f"{settings.epochs:g} epochs of {settings.epoch_sequences:,} sequences make {length}"
    made = epochs if settings.epochs else f"the run has {length}"
    passes = rounds * per_round / max(sequences, 1)
    says = (
        f"{made}, each of {blocks} blocks x {settings.inner_steps} steps x {settings.batch_size} sequences: "
        f"{passes:.3g} passes over the {sequences:,} here"
    )
    steps = rounds * blocks * settings.inner_steps
    if settings.lr_warmup_steps > steps:
        says += f"; with lr_warmup_steps = {settings.lr_warmup_steps}, {steps} steps do not reach learning_rate"
    return says


def _told_of_lengths(found: Lengths) -> Iterator[str]:
    longer = f"longer than sequence_length = {found.length} tokens"
    if found.divided:
        yield f"{found.divided:,} texts are {longer}, and are divided"
    if found.cut:
        loss = f"; {found.cut_learnt:,} of them lose tokens to learn" if found.cut_learnt else ""
        yield f"{found.cut:,} records are {longer}, and are truncated ({found.truncation}){loss}"
    if found.dropped:
        yield f"{found.dropped:,} records are {longer}, and are left out ({found.truncation})"
    if found.unlearnt:
        yield f"{found.unlearnt:,} records are left out: within {found.length} tokens they hold nothing to learn"


Scoring = Callable[[Iterable[AnyBatch], int], Iterable[tuple[Tensor, int]]]
"""Scores batches, as :func:`deca_node.numerics.learning.loss.score` does with so many labels; each result has the
batch's count beside it."""


def judge(
    model: torch.nn.Module,
    data: Data,
    batch_size: int,
    limit: int | None,
    device: torch.device,
    scoring: Scoring | None = None,
) -> Scores:
    """Judge the model on the held-out sequences or records, or on the first ``limit`` of them.

    ``scoring`` shares the work; without it the model here does all of it.
    """
    labels = len(data.labels) if isinstance(data, LabelledData) else 0
    batches = heldout_batches(data, batch_size, limit)
    if scoring is not None:
        return summed(scoring(batches, labels), labels)
    return summed(((score(model, batch, device, labels), batch.predicted) for batch in batches), labels)
