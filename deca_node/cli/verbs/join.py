"""``deca-node join``: start a node with the settings and the start model of a run that others have begun."""

import dataclasses
import functools
from typing import Any

import click

from deca_node.cli.invocation import debug_option
from deca_node.cli.options import SettingsCommand, load, settings_options
from deca_node.cli.verbs.start import launch


@click.command(
    cls=SettingsCommand,
    epilog="""\b
Examples:
  Take over the settings and the start model from the member at this address:
    deca-node join north.example:7001 --name east --listen 0.0.0.0:7001 --advertise east.example:7001 --data east.jsonl
  Use a start model that is already on this machine:
    deca-node join north.example:7001 --name east --listen 10.0.0.7:7001 --model ./Qwen2.5-0.5B --data east.jsonl

Settings and start model stay in the node's folder. The same command starts the node again later.
""",
)
@click.argument("members", nargs=-1, required=True, metavar="HOST:PORT...")
@settings_options
@debug_option
@click.pass_context
def join(ctx: click.Context, /, members: tuple[str, ...], **_flags: Any) -> None:
    """Join a run that others have begun, from the address of any member.

    The node takes over the run's settings, fetches the blocks that were trained so far from several members at
    once, and takes part from the next block on.
    """
    loaded = load(ctx, go_on=False)
    node = dataclasses.replace(loaded.node, join=",".join(filter(None, [loaded.node.join, *members])))

    from deca_node.daemon.transfer.adoption import adopt_run

    def note(sentence: str, level: str = "info") -> None:
        # The node's own log does not exist yet.
        click.echo(sentence if level == "info" else f"{level}: {sentence}", err=True)

    adopt = functools.partial(adopt_run, note=note)
    ctx.exit(launch(dataclasses.replace(loaded, node=node), adopt))
