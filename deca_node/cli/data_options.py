"""The options that verbs have in common which read records themselves, without a node: how DATA is to be read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.protocol.options import DATA_FORMATS

Verb = TypeVar("Verb", bound=Callable[..., Any])


def data_options(verb: Verb) -> Verb:
    """``--format``, ``--columns``, ``--chat-template`` and ``--bad-records``."""
    for option in (bad_records, chat_template, columns, data_format):
        verb = option(verb)
    return verb


data_format = click.option(
    "--format",
    "data_format",
    type=click.Choice(DATA_FORMATS),
    default=NodeSettings.format,
    show_default=True,
    help="Format of DATA.",
)
columns = click.option(
    "--columns", default="", help="Names in DATA for the names of records, as in text=body,label=topic."
)
chat_template = click.option(
    "--chat-template",
    type=click.Path(path_type=Path),
    help="File with the chat template to render chats with.  [default: the template of the model's tokenizer]",
)
bad_records = click.option(
    "--bad-records",
    type=click.Choice(["stop", "skip"]),
    default=NodeSettings.bad_records,
    show_default=True,
    help="On a malformed record: stop, or leave it out.",
)
