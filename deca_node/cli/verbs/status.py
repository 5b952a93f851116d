"""``deca-node status``: the node's position, its peers and what it waits for; with ``--watch`` again and again."""

import time
from pathlib import Path

import click

from deca_node.api.client import NodeClient, read
from deca_node.cli.client import NODE_ENDED, dir_option, find_directory, json_option
from deca_node.cli.invocation import debug_option
from deca_node.daemon.status.facts import Status
from deca_node.protocol.errors import NoAnswerError

STATUS = "/v1/status"


@click.command(
    epilog="""\b
Examples:
  deca-node status
  deca-node status --watch
  deca-node status --dir deca-data/north --json | jq .position
"""
)
@dir_option
@click.option("--watch", is_flag=True, help="Repeat until the node ends or Ctrl-C.")
@click.option(
    "--every", default=1.0, show_default=True, type=click.FloatRange(min=0.01), help="Seconds between two looks."
)
@json_option
@debug_option
def status(directory: Path | None, watch: bool, every: float, as_json: bool) -> None:
    """Show where this machine's node stands: position, pace, losses, peers and the newest checkpoint.

    Exits with 12 where no node answers.
    """
    client = NodeClient(find_directory(directory))
    if watch:
        _watch(client, every, as_json)
    elif as_json:
        click.echo(client.get(STATUS), nl=False)
    else:
        from deca_node.cli.views.console import facts_console
        from deca_node.cli.views.status import status_view

        facts_console().print(status_view(read(Status, client.get(STATUS))))


def _watch(client: NodeClient, every: float, as_json: bool) -> None:
    """Look again and again. The first look must succeed; the end of the node after that is no error."""
    answer = client.get(STATUS)
    try:
        if as_json:
            _print_for_ever(client, every, answer)
        else:
            _show_for_ever(client, every, answer)
    except NoAnswerError:
        click.echo(NODE_ENDED, err=True)
    except KeyboardInterrupt:
        # The usual way to stop watching.
        click.echo("", err=True)


def _print_for_ever(client: NodeClient, every: float, answer: bytes) -> None:
    while True:
        click.echo(answer, nl=False)
        time.sleep(every)
        answer = client.get(STATUS)


def _show_for_ever(client: NodeClient, every: float, answer: bytes) -> None:
    from rich.console import Console
    from rich.live import Live

    from deca_node.cli.views.status import status_view

    with Live(console=Console(highlight=False), auto_refresh=False) as live:
        while True:
            live.update(status_view(read(Status, answer)), refresh=True)
            time.sleep(every)
            answer = client.get(STATUS)
