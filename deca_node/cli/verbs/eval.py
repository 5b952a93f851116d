"""``deca-node eval``: loss, perplexity and accuracy of a node's model, or of any checkpoint, on a file of records."""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deca_node.api.loading import Held, checkpoint, model_of
from deca_node.cli.client import dir_option, find_directory, json_option
from deca_node.cli.data_options import data_options
from deca_node.cli.invocation import debug_option
from deca_node.cli.views.progress import Work, note, work
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.protocol.agreed.agreement import FORMER
from deca_node.protocol.agreed.run import PACKINGS, RunSettings
from deca_node.protocol.errors import ModelError

if TYPE_CHECKING:
    from deca_node.numerics.learning.result import EvaluationResult

LENGTH_DEFAULT = RunSettings.sequence_length
"""Tokens per sequence for a checkpoint of no run, unless the model takes fewer."""


@click.command(
    "eval",
    epilog="""\b
Examples:
  The model so far of the only node below ./deca-data:
    deca-node eval heldout.jsonl
  The start model, and the same model after tuning:
    deca-node eval heldout.jsonl --model ./Qwen2.5-0.5B
    deca-node eval heldout.jsonl --dir deca-data/north --json | jq .perplexity
  Labelled records, where a language model completes the text with each label:
    deca-node eval reviews.jsonl --model ./my-model --labels "negative, positive" --prompt "{text}\\nThis is"

A record of a .jsonl file is {"text": ...}, {"prompt": ..., "completion": ...} or {"messages": [...]}. A labelled
record is {"text": ..., "label": ...}, with "text_pair" for a second text. The loss is in nats per token, or in nats per
labelled record.
""",
)
@click.argument("data")
@click.option("--model", help="A checkpoint's folder, or the id of one on the hub.  [default: the node's]")
@dir_option
@click.option(
    "--start-model",
    "start",
    help="The start model of an unfinished run.  [default: as noted in the node's folder]",
)
@click.option(
    "--sequence-length",
    "length",
    type=click.IntRange(min=2),
    help=f"Tokens per sequence.  [default: that of the run, or else {LENGTH_DEFAULT} or the model's limit]",
)
@click.option(
    "--batch-size",
    default=RunSettings.batch_size,
    show_default=True,
    type=click.IntRange(min=1),
    help="Sequences per batch.",
)
@click.option("--device", default=NodeSettings.device, show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads on the CPU.  [default: one per core]")
@click.option("--labels", default="", help="All labels, separated by commas.  [default: the labels in DATA]")
@click.option("--prompt", default="", help="The text that a label completes.  [default: {text} and a newline]")
@click.option(
    "--packing",
    type=click.Choice(PACKINGS),
    help="How records are laid into sequences.  [default: as the run has it, else isolated]",
)
@data_options
@json_option
@debug_option
def evaluation(data: str, model: str | None, directory: Path | None, as_json: bool, **flags: Any) -> None:
    """Measure a model on the records in DATA: a file, a folder, or several with weights, as the setting data has it.

    Texts, prompts and chats give loss and perplexity. Labelled records also give accuracy and macro-F1. A node's model
    is the tuned model, or else the model of its newest checkpoint. The node may keep running and is not disturbed.
    """
    if flags["prompt"] and "{text}" not in flags["prompt"]:
        raise click.UsageError("--prompt needs {text} in it, at the place of the record's text")
    folder = None if model else find_directory(directory)
    with work() as doing:
        doing.stage("loading the model")
        held = _load(folder, model, flags)
        found, what = _evaluate(held, data, flags, doing), held.what
    if as_json:
        click.echo(json.dumps(_document(found, what, data)))
        return
    for name, text in _in_words(found, what):
        click.echo(f"{name:<11} {text}")


def _load(folder: Path | None, model: str | None, flags: dict[str, Any]) -> Held:
    """The model on its device."""
    from deca_node.numerics.learning.evaluation import device_and_threads

    device = device_and_threads(flags["device"], flags["threads"])
    if folder is None:
        assert model is not None
        return checkpoint(model, device)
    return model_of(folder, flags["start"], device, note)


def _evaluate(held: Held, data: str, flags: dict[str, Any], doing: Work) -> EvaluationResult:
    from deca_node.numerics.data.formats.sources import Reading
    from deca_node.numerics.data.templates import use_template
    from deca_node.numerics.learning.evaluation import Question, evaluate_model

    loaded, fields = held.loaded, held.fields
    use_template(loaded.tokenizer, str(flags["chat_template"] or ""))
    limit = loaded.positions_max
    usual = int(fields.get("sequence_length", 0)) or min(LENGTH_DEFAULT, limit or LENGTH_DEFAULT)
    length = flags["length"] or usual
    if limit is not None and length > limit:
        raise ModelError(f"sequence_length = {length} is more than the {limit} positions of the model; lower it")
    question = Question(
        data=data,
        length=length,
        packing=flags["packing"] or (fields.get("packing", FORMER["packing"]) if fields else RunSettings.packing),
        truncation=fields.get("truncation", FORMER["truncation"]),
        batch_size=flags["batch_size"],
        device=next(loaded.model.parameters()).device,
        bad_records=flags["bad_records"],
        labels=tuple(name.strip() for name in flags["labels"].split(",") if name.strip()),
        prompt=flags["prompt"].replace("\\n", "\n"),
        reading=Reading.of(flags["data_format"], flags["columns"]),
    )
    doing.stage(f"reading and tokenizing {data}")
    judging = False

    def judged(done: int, total: int) -> None:
        nonlocal judging
        if not judging:
            doing.stage("judging the model")
            judging = True
        doing.report(done, total)

    # Tokens lie on disk while they are judged, so that data may be larger than memory.
    with tempfile.TemporaryDirectory(prefix="deca-node-eval-") as folder:
        return evaluate_model(loaded, question, judged, doing.report, Path(folder, "tokens"))


def _document(found: EvaluationResult, what: str, data: str) -> dict[str, Any]:
    """The document of ``--json``; numbers that are not finite are null."""
    facts = {"model": what, "data": data, **dataclasses.asdict(found)}
    return {n: None if isinstance(value, float) and not math.isfinite(value) else value for n, value in facts.items()}


def _in_words(found: EvaluationResult, what: str) -> list[tuple[str, str]]:
    per = "token" if found.kind == "language-model" else "record"
    lines = [("model", what), ("loss", f"{found.loss:.4f} nats per {per}, over {found.counted:,} {per}s")]
    if found.perplexity is not None:
        lines.append(("perplexity", f"{found.perplexity:,.4g}"))
    if found.accuracy is not None and found.macro_f1 is not None:
        lines.append(("accuracy", f"{found.accuracy:.4f}"))
        lines.append(("macro-F1", f"{found.macro_f1:.4f} over the labels {', '.join(found.labels)}"))
    skipped = f", {found.skipped:,} malformed ones left out" if found.skipped else ""
    cut = f", {found.cut:,} cut to the sequence length" if found.cut else ""
    left = f", {found.left_out:,} left out with nothing to judge in it" if found.left_out else ""
    return [*lines, ("records", f"{found.records:,}{skipped}{cut}{left}")]
