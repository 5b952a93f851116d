"""``deca-node generate``: the text that the tuned model writes after a prompt, beside the start model's."""

import json
import sys
from typing import Any

import click

from deca_node.cli.client import json_option
from deca_node.cli.invocation import debug_option
from deca_node.cli.verbs.writing import choice_of, loaded_of, parts_of, screened, writing_options
from deca_node.cli.views.progress import work


@click.command(
    epilog="""\b
Examples:
  What the tuned model of the only node below ./deca-data writes, beside the start model:
    deca-node generate "The patient was admitted with"
  The tuned model alone, drawn instead of the likeliest text:
    deca-node generate "Dear colleague," --only tuned --temperature 0.8 --tokens 200
  An exported model, with the prompt from a file:
    deca-node generate - --model my-model < prompt.txt
"""
)
@click.argument("prompt")
@writing_options
@json_option
@debug_option
def generate(prompt: str, as_json: bool, **flags: Any) -> None:
    """Write the text that follows PROMPT; - reads it from standard input.

    A node's model is the tuned model, or else the model of its newest checkpoint. The node may keep running and is not
    disturbed.
    """
    from deca_node.numerics.learning.writing import complete

    text = sys.stdin.read() if prompt == "-" else prompt
    found: dict[str, str] = {}
    for part in parts_of(flags):
        held = loaded_of(part, flags)
        with work() as doing:
            doing.stage(f"writing with {part.label}")
            found[part.key] = complete(held.loaded, text, choice_of(flags))
        if not as_json:
            click.echo(f"{part.label}:\n{screened(text + found[part.key])}\n")
    if as_json:
        click.echo(json.dumps({"prompt": text, **found}))
