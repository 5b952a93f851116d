"""``deca-node data``: what would be learnt of a file or folder of records, before a start."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deca_node.cli.client import json_option
from deca_node.cli.data_options import data_options
from deca_node.cli.invocation import debug_option
from deca_node.protocol.agreed.run import PACKINGS, TRUNCATIONS, RunSettings
from deca_node.protocol.errors import DataError, ModelError

if TYPE_CHECKING:
    from deca_node.numerics.forecast.surveyed import Survey

SHOW_MAX = 1000


@click.command(
    epilog="""\b
Examples:
  Figures only:
    deca-node data notes.jsonl --model ./Qwen2.5-0.5B
  The first three records as well, token by token, with the learnt ones marked:
    deca-node data notes.jsonl --model ./Qwen2.5-0.5B --show 3
  A table with names of its own, in sequences of 1024 tokens:
    deca-node data export.csv --model ./Qwen2.5-0.5B --columns text=body --sequence-length 1024
  For programs:
    deca-node data notes.jsonl --model ./Qwen2.5-0.5B --json | jq .packed

Nothing is trained and no weights are read. On a terminal learnt tokens have a colour; elsewhere they stand in brackets
like \N{MATHEMATICAL LEFT WHITE SQUARE BRACKET}these\N{MATHEMATICAL RIGHT WHITE SQUARE BRACKET}, and a middle dot \
stands between two tokens. Bad records are listed; with --bad-records stop the exit code
is then that of bad data, since a start would stop there.
""",
)
@click.argument("data")
@click.option("--model", required=True, help="The checkpoint with the tokenizer: a folder, or an id on the hub.")
@click.option(
    "--show", type=click.IntRange(0, SHOW_MAX), default=0, show_default=True, help="Records to show token by token."
)
@data_options
@click.option("--labels", default="", help="For labelled records: all labels, separated by commas.")
@click.option(
    "--sequence-length",
    "--max-length",
    "length",
    type=click.IntRange(min=8),
    help=f"Tokens per sequence.  [default: {RunSettings.sequence_length}, or the model's limit]",
)
@click.option(
    "--packing",
    type=click.Choice(PACKINGS),
    default=RunSettings.packing,
    show_default=True,
    help="How records are laid into sequences.",
)
@click.option(
    "--truncation",
    type=click.Choice(TRUNCATIONS),
    default=RunSettings.truncation,
    show_default=True,
    help="What is kept of prompts and chats that are too long.",
)
@json_option
@debug_option
def data(data: str, show: int, as_json: bool, bad_records: str, **flags: Any) -> None:
    """Show what would be learnt of DATA, as the setting data has it, by a model's tokenizer and chat template.

    Prints how many tokens there are and how many are learnt, the lengths of records, what is cut or left out and why,
    records that repeat an earlier one, and how full the sequences are.
    """
    from deca_node.cli.views.data import document, print_shown, print_survey

    found, length = _survey(data, show, flags)
    if as_json:
        click.echo(json.dumps(document(found, data, length)))
    else:
        print_shown(found.shown)
        print_survey(found, length)
    if found.bad and bad_records == "stop":
        raise DataError(
            f"{found.bad:,} records are bad, and a start stops at the first; correct them, or leave them out with "
            "bad_records = 'skip'"
        )


def _survey(data: str, show: int, flags: dict[str, Any]) -> tuple[Survey, int]:
    """The survey, and the length of its sequences."""
    from deca_node.cli.views.progress import work
    from deca_node.numerics.data.dataset import Layout
    from deca_node.numerics.data.formats.sources import Reading
    from deca_node.numerics.data.templates import use_template
    from deca_node.numerics.forecast.survey import survey, survey_labelled
    from deca_node.numerics.model.load import load_tokenizer

    tokenizer, limit = load_tokenizer(flags["model"])
    length = flags["length"] or min(RunSettings.sequence_length, limit or RunSettings.sequence_length)
    if limit is not None and length > limit:
        raise ModelError(f"sequence_length = {length} is more than the {limit} positions of the model; lower it")
    use_template(tokenizer, str(flags["chat_template"] or ""))
    labels = [name.strip() for name in flags["labels"].split(",") if name.strip()]
    reading = Reading.of(flags["data_format"], flags["columns"])
    layout = Layout(length=length, packing=flags["packing"], truncation=flags["truncation"], private=False)
    # Tokens that are many lie on disk, so that data may be larger than memory.
    with work() as doing, tempfile.TemporaryDirectory(prefix="deca-node-data-") as folder:
        doing.stage(f"reading and tokenizing {data}")
        store = Path(folder)
        if labels:
            return survey_labelled(
                data, tokenizer, labels, length, show=show, reading=reading, progress=doing.report, store=store
            ), length
        return survey(data, tokenizer, layout, show=show, reading=reading, progress=doing.report, store=store), length
