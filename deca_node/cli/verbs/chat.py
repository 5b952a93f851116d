"""``deca-node chat``: a conversation with the tuned model, beside the start model."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from deca_node.api.loading import Held
from deca_node.cli.client import json_option
from deca_node.cli.invocation import debug_option
from deca_node.cli.verbs.writing import Part, choice_of, loaded_of, parts_of, screened, writing_options

ANEW, END = "/new", "/quit"
YOU = "you> "


@dataclass
class Talk:
    """One model, and the conversation with it so far."""

    part: Part
    held: Held
    messages: list[dict[str, str]] = field(default_factory=list)


@click.command(
    epilog=f"""\b
Examples:
  deca-node chat
  deca-node chat --only tuned --system "You write discharge letters." --temperature 0.7
  One question and its answers, for a script:
    deca-node chat --prompt "What is a block?" --json

{ANEW} forgets the conversation, and {END} or Ctrl-D ends it. Both models see the same questions and their own answers.
"""
)
@click.option("--prompt", help="Ask this, print the answers, and end.")
@click.option("--system", help="An instruction that stands before the conversation.")
@click.option(
    "--chat-template",
    "template",
    type=click.Path(path_type=Path),
    help="File with the chat template.  [default: the tokenizer's]",
)
@writing_options
@json_option
@debug_option
def chat(prompt: str | None, system: str | None, template: Path | None, as_json: bool, **flags: Any) -> None:
    """Talk with the tuned model, beside the start model.

    The tokenizer's chat template lays out the conversation. Without a terminal, every line of standard input is a
    question.
    """
    if as_json and prompt is None:
        raise click.UsageError("--json needs --prompt")
    talks = [Talk(part, loaded_of(part, flags)) for part in parts_of(flags)]
    _settle_templates(talks, template)
    for question in [prompt] if prompt is not None else _questions():
        if question == ANEW:
            for talk in talks:
                talk.messages.clear()
            continue
        answers = {talk.part.key: _ask(talk, question, system, flags, shown=not as_json) for talk in talks}
        if as_json:
            click.echo(json.dumps({"prompt": question, **answers}))


def _settle_templates(talks: list[Talk], template: Path | None) -> None:
    """Give every tokenizer the template in the file, or else the last model's own where it has none: a start model may
    lack the template that the run used."""
    from deca_node.numerics.data.templates import use_template

    last = talks[-1].held.loaded.tokenizer
    for talk in talks:
        tokenizer = talk.held.loaded.tokenizer
        if template:
            use_template(tokenizer, str(template))
        elif not tokenizer.chat_template:
            tokenizer.chat_template = last.chat_template


def _ask(talk: Talk, question: str, system: str | None, flags: dict[str, Any], *, shown: bool) -> str:
    """The answer of one model, printed as it is written."""
    from deca_node.numerics.learning.writing import answer

    if not talk.messages and system:
        talk.messages.append({"role": "system", "content": system})
    talk.messages.append({"role": "user", "content": question})
    if shown:
        click.echo(f"{talk.part.label}:")
    text = answer(talk.held.loaded, talk.messages, choice_of(flags), _print if shown else None)
    if shown:
        click.echo("\n")
    talk.messages.append({"role": "assistant", "content": text})
    return text


def _print(piece: str) -> None:
    click.echo(screened(piece), nl=False)


def _questions() -> Iterator[str]:
    """The lines that the person types, without empty ones."""
    while True:
        try:
            line = input(YOU if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if line == END:
            return
        if line:
            yield line
