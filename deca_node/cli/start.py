"""``deca-node start``: check everything at the door, then hand over to the daemon."""

import dataclasses
from pathlib import Path
from typing import Any

import click

from deca_node.cli.invocation import debug_option
from deca_node.cli.options import SettingsCommand, load, settings_options
from deca_node.daemon.config import check_paths, check_plaintext, check_required, expanded_path, settle
from deca_node.daemon.peers import Peer, Peers, host_is_local, own_line, read_peers
from deca_node.daemon.settings_sources import Loaded


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
    loaded, peers, own = resolve(load(ctx))
    listen = loaded.node.listen_address or own.address
    notice = check_plaintext(loaded.node.insecure, listen.host, [peer.host for peer in peers.others(own)])
    click.echo(f"warning: {notice}", err=True)

    from deca_node.daemon.supervise import run_node

    ctx.exit(run_node(loaded, peers, own))


def resolve(loaded: Loaded) -> tuple[Loaded, Peers, Peer]:
    """Read the peers file, find the node's own line, fill in what follows from it, and check the paths."""
    check_required(loaded.node)
    peers = read_peers(Path(expanded_path(loaded.node.peers)))
    own = own_line(peers, loaded.node.name, loaded.node.listen_address, host_is_local)
    node = settle(loaded.node, own)
    check_paths(node)
    return dataclasses.replace(loaded, node=node), peers, own
