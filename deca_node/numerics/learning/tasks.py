"""What differs between the tasks: how the data is read and summed up in sentences, and how a model is judged on it."""

from collections.abc import Iterator

import torch

from deca_node.numerics.data.batches import LabelledBatch, heldout_batches
from deca_node.numerics.data.labelled import LabelledData, LabelledSummary, load_labelled
from deca_node.numerics.data.packing import DataSummary, PackedData, load_dataset
from deca_node.numerics.learning.loss import Scores, classify, evaluate
from deca_node.numerics.model.load import LoadedModel
from deca_node.protocol.options import TrainerOptions

Data = PackedData | LabelledData


def load_data(options: TrainerOptions, loaded: LoadedModel) -> Data:
    """Read the node's own data as the task needs it. Raises DataError."""
    length, seed = options.settings.sequence_length, options.seed
    if loaded.labels:
        return load_labelled(
            options.data,
            loaded.tokenizer,
            loaded.labels,
            sequence_length=length,
            pad=loaded.model.config.get_text_config().pad_token_id,
            holdout=options.holdout,
            seed=seed,
            bad_records=options.bad_records,
        )
    return load_dataset(
        options.data,
        loaded.tokenizer,
        sequence_length=length,
        holdout=options.holdout,
        seed=seed,
        bad_records=options.bad_records,
        single_records=options.dp_noise > 0,
    )


def told(data: Data, sequence_length: int) -> Iterator[str]:
    """What became of the data, in sentences."""
    found = data.summary
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
    if found.skipped:
        yield f"left out {found.skipped:,} bad records; the first: {'; '.join(found.skipped_sentences)}"


def judge(model: torch.nn.Module, data: Data, batch_size: int, limit: int | None, device: torch.device) -> Scores:
    """Judge the model on the held-out sequences or records, or on the first ``limit`` of them."""
    batches = heldout_batches(data, batch_size, limit)
    if isinstance(data, LabelledData):
        labelled = (batch for batch in batches if isinstance(batch, LabelledBatch))
        return classify(model, labelled, device, len(data.labels))
    return Scores(*evaluate(model, batches, device))
