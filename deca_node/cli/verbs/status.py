"""``deca-node status``: where the node stands, whom it talks to and what it waits for; with ``--watch``, live."""

import time
from pathlib import Path

import click

from deca_node.cli.client import NodeClient, dir_option, find_directory, json_option, read
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
@click.option("--watch", is_flag=True, help="Show it again and again, until the node ends or Ctrl-C.")
@click.option(
    "--every", default=1.0, show_default=True, type=click.FloatRange(min=0.01), help="Seconds between two looks."
)
@json_option
@debug_option
def status(directory: Path | None, watch: bool, every: float, as_json: bool) -> None:
    """Show where this machine's node stands: position, pace, losses, peers, the newest checkpoint.

    Exits with 12 where no node answers.
    """
    door = NodeClient(find_directory(directory))
    if watch:
        _watch(door, every, as_json)
    elif as_json:
        click.echo(door.get(STATUS), nl=False)
    else:
        from rich.console import Console

        from deca_node.cli.views.status import status_view

        Console(highlight=False).print(status_view(read(Status, door.get(STATUS))))


def _watch(door: NodeClient, every: float, as_json: bool) -> None:
    """The first look must succeed; that a node ends after it is no error."""
    answer = door.get(STATUS)
    try:
        if as_json:
            _print_for_ever(door, every, answer)
        else:
            _show_for_ever(door, every, answer)
    except NoAnswerError:
        click.echo("the node has ended", err=True)
    except KeyboardInterrupt:
        # The usual way to stop watching.
        click.echo("", err=True)


def _print_for_ever(door: NodeClient, every: float, answer: bytes) -> None:
    while True:
        click.echo(answer, nl=False)
        time.sleep(every)
        answer = door.get(STATUS)


def _show_for_ever(door: NodeClient, every: float, answer: bytes) -> None:
    from rich.console import Console
    from rich.live import Live

    from deca_node.cli.views.status import status_view

    with Live(console=Console(highlight=False), auto_refresh=False) as live:
        while True:
            live.update(status_view(read(Status, answer)), refresh=True)
            time.sleep(every)
            answer = door.get(STATUS)
