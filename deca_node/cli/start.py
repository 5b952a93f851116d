"""``deca-node start``: check everything at the door, then hand over to the daemon."""

import dataclasses
from typing import Any

import click

from deca_node.cli.invocation import debug_option
from deca_node.cli.options import SettingsCommand, load, settings_options
from deca_node.daemon.config import check_paths, check_plaintext, check_required, settle
from deca_node.daemon.place import find_place
from deca_node.daemon.settings_sources import Loaded
from deca_node.protocol.topology import check_edges


@click.command(
    cls=SettingsCommand,
    epilog="""\b
Examples:
  Two nodes on one machine, each in its own terminal:
    deca-node start --insecure --name north --model ./Qwen2.5-0.5B --data north.jsonl
    deca-node start --insecure --name south --model ./Qwen2.5-0.5B --data south.jsonl
  On a network without certificates, with settings from files:
    deca-node start --insecure --insecure --run run.toml --config node.toml
  The same through the environment:
    DECA_INSECURE=2 DECA_MODEL=./Qwen2.5-0.5B DECA_DATA=notes.jsonl deca-node start

The first source that has a value wins: a flag, a DECA_* variable, a file, the default. Exit codes are
in docs/EXIT_CODES.md; `deca-node config --show` takes the same flags and says where each value comes from.
""",
)
@settings_options
@debug_option
@click.pass_context
def start(ctx: click.Context, /, **_flags: Any) -> None:
    """Run this machine's node of a training run, until the run is finished or the node is stopped.

    The node finds its own line in the peers file, waits for the others, and trains with them. The tuned
    model ends up in the node's folder as an ordinary Hugging Face checkpoint.
    """
    ctx.exit(launch(load(ctx)))


def launch(loaded: Loaded) -> int:
    """Check everything at the door, then run the node; returns its exit code. Raises DecaError."""
    from deca_node.daemon.security import Security

    check_required(loaded.node)
    security = Security(loaded.node)
    place = find_place(loaded.node, security.certified_name)
    check_edges(place.expected, loaded.run)
    node = settle(loaded.node, place.name, place.listen)
    check_paths(node)
    if not security.certified_name:
        click.echo(f"warning: {check_plaintext(node.insecure, place.listen.host, place.hosts)}", err=True)

    from deca_node.daemon.supervise import run_node

    return run_node(dataclasses.replace(loaded, node=node), place, security)
