"""``deca-node members``: who takes part in the run, as this machine's node knows it."""

from pathlib import Path

import click

from deca_node.api.client import NodeClient, read
from deca_node.cli.client import dir_option, find_directory, json_option
from deca_node.cli.invocation import debug_option
from deca_node.daemon.status.facts import MemberRow


@click.command(
    epilog="""\b
Examples:
  deca-node members
  deca-node members --dir deca-data/north --json
"""
)
@dir_option
@json_option
@debug_option
def members(directory: Path | None, as_json: bool) -> None:
    """Show who takes part in the run, as this machine's node knows it."""
    answer = NodeClient(find_directory(directory)).get("/v1/members")
    if as_json:
        click.echo(answer, nl=False)
        return
    from deca_node.cli.views.console import facts_console
    from deca_node.cli.views.status import members_view

    facts_console().print(members_view(read(list[MemberRow], answer)))
