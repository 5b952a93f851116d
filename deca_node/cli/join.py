"""``deca-node join``: take over a run from a member, and take part in it."""

import dataclasses
from pathlib import Path
from typing import Any

import click

from deca_node.cli.invocation import debug_option
from deca_node.cli.options import SettingsCommand, load, settings_options
from deca_node.cli.start import launch
from deca_node.daemon.config import expanded_path
from deca_node.protocol.errors import SettingsError
from deca_node.protocol.run import RunSettings


@click.command(
    cls=SettingsCommand,
    epilog="""\b
Examples:
  Take the settings and the start model from the member at that address:
    deca-node join north.example:7001 --name east --listen 0.0.0.0:7001 --advertise east.example:7001 --data east.jsonl
  The model is on this machine already:
    deca-node join north.example:7001 --name east --listen 10.0.0.7:7001 --model ./Qwen2.5-0.5B --data east.jsonl

What was taken over stays in the node's folder; after that `deca-node join` with the same flags goes on from there.
""",
)
@click.argument("members", nargs=-1, required=True, metavar="HOST:PORT...")
@settings_options
@debug_option
@click.pass_context
def join(ctx: click.Context, /, members: tuple[str, ...], **_flags: Any) -> None:
    """Join a run that others have begun, from any member's address.

    The node adopts the run's settings, gets what was trained so far from several members at once, and takes part
    from the next block on.
    """
    loaded = load(ctx)
    node = dataclasses.replace(loaded.node, join=",".join([*loaded.node.seeds, *members]))
    if not node.data:
        raise SettingsError("data is not set; give --data, DECA_DATA, or data in node.toml")

    from deca_node.daemon.adoption import adopt_run, chosen
    from deca_node.daemon.place import find_place
    from deca_node.daemon.security import Security

    security = Security(node)
    place = find_place(node, security.certified_name)
    directory = Path(expanded_path(node.dir)) if node.dir else Path("deca-data") / place.name
    given = chosen(loaded, RunSettings)
    adopted = adopt_run(dataclasses.replace(loaded, node=node), place.name, given, security, directory)
    ctx.exit(launch(adopted))
