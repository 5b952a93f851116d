"""``deca-node start``: check the settings, then run the node."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from deca_node.cli.invocation import debug_option
from deca_node.cli.missing import check_complete
from deca_node.cli.options import SettingsCommand, load, settings_options
from deca_node.daemon.settings.before_start import check_paths, check_plaintext, check_required, settle
from deca_node.daemon.settings.own_address import OwnAddress, find_own_address
from deca_node.daemon.settings.sources import Loaded
from deca_node.protocol.agreed.topology import check_edges

if TYPE_CHECKING:
    from deca_node.daemon.security.security import Security


@click.command(
    cls=SettingsCommand,
    epilog="""\b
Examples:
  Two nodes on one machine, each in its own terminal:
    deca-node start --insecure --name north --model ./Qwen2.5-0.5B --data north.jsonl
    deca-node start --insecure --name south --model ./Qwen2.5-0.5B --data south.jsonl
  On a network you trust, without certificates, and with settings from files:
    deca-node start --insecure --insecure --run run.toml --config node.toml
  The same with environment variables:
    DECA_INSECURE=2 DECA_MODEL=./Qwen2.5-0.5B DECA_DATA=notes.jsonl deca-node start
  Go on in a node's folder with the settings of its last start:
    deca-node start --dir deca-data/north

A flag overrides a DECA_* variable, a variable overrides the file, and the file overrides the default. A start with
--dir, but without model and data, goes on with the settings of the last start there. They rank after the files.
`deca-node config --show` takes the same flags and says where each value comes from. docs/EXIT_CODES.md lists
the exit codes.
""",
)
@settings_options
@debug_option
@click.pass_context
def start(ctx: click.Context, /, **_flags: Any) -> None:
    """Run this machine's node of a training run, until the run is complete or the node is stopped.

    The node finds its own line in the peers file, waits for the other nodes, and trains with them. At the end
    the tuned model is in the node's folder, in `final`, as an ordinary Hugging Face checkpoint.
    """
    loaded = load(ctx)
    if loaded.last_start:
        click.echo(f"going on with the settings of the last start, {loaded.last_start}; flags override them", err=True)
    check_complete(loaded)
    ctx.exit(launch(loaded))


AdoptRun = Callable[[Loaded, OwnAddress, "Security"], Loaded]
"""Takes over a run's settings and its start model from the members."""


def launch(loaded: Loaded, adopt: AdoptRun | None = None) -> int:
    """Check the settings, then run the node; returns its exit code. Raises DecaError.

    ``adopt`` talks to peers, so all checks of encryption come before it.
    """
    from deca_node.daemon.security.security import Security

    check_required(loaded.node, "data" if adopt else "model", "data")
    security = Security(loaded.node)
    own = find_own_address(loaded.node, security.certified_name)
    notice = ""
    if not security.certified_name:
        notice = f"warning: {check_plaintext(loaded.node.insecure, own.listen.host, own.hosts)}"
    loaded = dataclasses.replace(loaded, node=settle(loaded.node, own.name, own.listen))
    if adopt:
        loaded = adopt(loaded, own, security)
    check_edges(own.expected, loaded.run)
    check_paths(loaded.node)
    if notice:
        click.echo(notice, err=True)

    from deca_node.daemon.supervise import run_node

    return run_node(loaded, own, security)
