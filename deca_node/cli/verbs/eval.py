"""``deca-node eval``: how good a model is on a file of records, a node's own or any checkpoint."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deca_node.cli.client import dir_option, find_directory, json_option
from deca_node.cli.invocation import debug_option
from deca_node.cli.verbs.export import note, progress_bar, start_model
from deca_node.protocol.errors import ModelError, StorageError
from deca_node.storage.folder import FINAL, agreed_fields

if TYPE_CHECKING:
    from deca_node.numerics.learning.result import Evaluation
    from deca_node.numerics.model.load import LoadedModel

LENGTH_DEFAULT = 512
"""Of a checkpoint that no run says a length of, unless the model is shorter."""


@click.command(
    "eval",
    epilog="""\b
Examples:
  The model of the only node below ./deca-data, as far as it has come:
    deca-node eval heldout.jsonl
  Any checkpoint, and what the run has made of it:
    deca-node eval heldout.jsonl --model ./Qwen2.5-0.5B
    deca-node eval heldout.jsonl --dir deca-data/north --json | jq .perplexity
  Labelled records; a language model completes the text with each label:
    deca-node eval reviews.jsonl --model ./my-model --labels "negative, positive" --prompt "{text}\\nThis is"

A record of a .jsonl file is {"text": ...}, {"prompt": ..., "completion": ...}, {"messages": [...]}, or with a label
{"text": ..., "label": ...}, where a second text may be "text_pair". Loss is in nats, per token, or per labelled record.
""",
)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--model", help="A checkpoint's folder, or the id of one on the hub.  [default: the node's]")
@dir_option
@click.option("--start-model", "start", help="What an unfinished run started from.  [default: as the folder says]")
@click.option(
    "--sequence-length",
    "length",
    type=click.IntRange(min=2),
    help=f"Tokens per sequence.  [default: the run's, else {LENGTH_DEFAULT} or what the model can take]",
)
@click.option("--batch-size", default=8, show_default=True, type=click.IntRange(min=1), help="Sequences at a time.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads on the CPU.  [default: one per core]")
@click.option("--labels", default="", help="All labels there may be, with commas between.  [default: those in DATA]")
@click.option("--prompt", default="", help="What a label completes.  [default: {text} and a newline]")
@click.option(
    "--bad-records",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="What a malformed record does.",
)
@json_option
@debug_option
def evaluation(data: Path, model: str | None, directory: Path | None, as_json: bool, **flags: Any) -> None:
    """Measure a model on the records in DATA, a file or a folder.

    Texts, prompts and chats give loss and perplexity; labelled records accuracy and macro-F1 as well. A node's model is
    the tuned one, or else that of its newest checkpoint; the node may be running, and is not disturbed.
    """
    if flags["prompt"] and "{text}" not in flags["prompt"]:
        raise click.UsageError("--prompt needs {text} in it, where the text goes")
    folder = None if model else find_directory(directory)
    loaded, what, fields = _load(folder, model, flags)
    found = _evaluate(loaded, data, fields, flags)
    if as_json:
        click.echo(json.dumps(_document(found, what, data)))
        return
    for name, text in _in_words(found, what):
        click.echo(f"{name:<11} {text}")


def _load(folder: Path | None, model: str | None, flags: dict[str, Any]) -> tuple[LoadedModel, str, dict[str, str]]:
    """The model on its device, what it is in words, and what its run agreed on, if it has one."""
    from deca_node.numerics.learning.evaluation import device_and_threads, own_head
    from deca_node.numerics.model.classifier import Head
    from deca_node.numerics.model.load import load_model
    from deca_node.numerics.saving.export import restore

    device = device_and_threads(flags["device"], flags["threads"])
    if folder is None:
        assert model is not None
        return load_model(model, device=device, head=own_head(model)), model, {}
    if not folder.is_dir():
        raise StorageError(f"there is no folder {folder}")
    fields = agreed_fields(folder)
    if (folder / FINAL).is_dir():
        final = str(folder / FINAL)
        head = Head((), 0) if fields.get("task") == "classification" else own_head(final)
        return load_model(final, device=device, head=head), f"the tuned model in {final}", fields
    loaded, manifest = restore(folder, flags["start"] or start_model(folder), note)
    loaded.model.to(device)
    at = manifest.position
    return loaded, f"{folder} as of activation {at.activation} step {at.inner}", dict(manifest.agreement.fields)


def _evaluate(loaded: LoadedModel, data: Path, fields: dict[str, str], flags: dict[str, Any]) -> Evaluation:
    from deca_node.numerics.learning.evaluation import Question, evaluate_model

    limit = loaded.positions_max
    usual = int(fields.get("sequence_length", 0)) or min(LENGTH_DEFAULT, limit or LENGTH_DEFAULT)
    length = flags["length"] or usual
    if limit is not None and length > limit:
        raise ModelError(f"sequence_length = {length} is more than the {limit} positions of the model; lower it")
    question = Question(
        data=data,
        length=length,
        batch_size=flags["batch_size"],
        device=next(loaded.model.parameters()).device,
        bad_records=flags["bad_records"],
        labels=tuple(name.strip() for name in flags["labels"].split(",") if name.strip()),
        prompt=flags["prompt"].replace("\\n", "\n"),
    )
    with progress_bar("Evaluating") as report:
        return evaluate_model(loaded, question, report)


def _document(found: Evaluation, what: str, data: Path) -> dict[str, Any]:
    """The same as JSON has it: what is not finite is null."""
    facts = {"model": what, "data": str(data), **dataclasses.asdict(found)}
    return {n: None if isinstance(value, float) and not math.isfinite(value) else value for n, value in facts.items()}


def _in_words(found: Evaluation, what: str) -> list[tuple[str, str]]:
    per = "token" if found.kind == "language-model" else "record"
    lines = [("model", what), ("loss", f"{found.loss:.4f} nats per {per}, over {found.counted:,} {per}s")]
    if found.perplexity is not None:
        lines.append(("perplexity", f"{found.perplexity:,.4g}"))
    if found.accuracy is not None and found.macro_f1 is not None:
        lines.append(("accuracy", f"{found.accuracy:.4f}"))
        lines.append(("macro-F1", f"{found.macro_f1:.4f} over the labels {', '.join(found.labels)}"))
    skipped = f", {found.skipped:,} bad ones left out" if found.skipped else ""
    cut = f", {found.cut:,} cut to the sequence length" if found.cut else ""
    return [*lines, ("records", f"{found.records:,}{skipped}{cut}")]
