"""``deca-node config``: every setting with its value and its source, and templates of the two files."""

import json
from typing import Any

import click

from deca_node.cli.invocation import debug_option
from deca_node.cli.options import SettingsCommand, load, settings_options
from deca_node.cli.reference import template, value_text
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.sources import Loaded, as_document
from deca_node.protocol.agreed.run import RunSettings

KINDS = {"run": RunSettings, "node": NodeSettings}


@click.command(
    cls=SettingsCommand,
    epilog="""\b
Examples:
  deca-node config --show
  deca-node config --show --run run.toml --rounds 2
  deca-node config --show --json | jq .run.learning_rate
  deca-node config --template run > run.toml
  deca-node config --template node > node.toml
""",
)
@click.option("--show", is_flag=True, help="Print every setting with its source. This is the default.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--template", "kind", type=click.Choice(list(KINDS)), help="Print a commented file to start from.")
@settings_options
@debug_option
@click.pass_context
def config(ctx: click.Context, /, show: bool, as_json: bool, kind: str | None, **_flags: Any) -> None:
    """Show every setting, its value and where the value comes from; or print a template.

    `config` takes the same flags, variables and files as `deca-node start`, and starts no node.
    """
    if kind:
        if show or as_json:
            raise click.UsageError("--template does not go together with --show or --json; leave them out")
        click.echo(template(KINDS[kind]), nl=False)
        return
    loaded = load(ctx)
    if as_json:
        click.echo(json.dumps(as_document(loaded), indent=2))
    else:
        _print_tables(loaded)


def _print_tables(loaded: Loaded) -> None:
    from rich.table import Table
    from rich.text import Text

    from deca_node.cli.views.console import facts_console

    console = facts_console()
    for name, settings in as_document(loaded).items():
        table = Table(title=f"{name.capitalize()} settings", title_justify="left")
        table.add_column("setting", no_wrap=True)
        for heading in ("value", "unit", "source"):
            table.add_column(heading, overflow="fold")
        for setting, facts in settings.items():
            style = "dim" if facts["where"] == "default" else "bold"
            cells = (setting, value_text(facts["value"]), facts["unit"], facts["where"])
            table.add_row(*(Text(cell) for cell in cells), style=style)
        console.print(table)
