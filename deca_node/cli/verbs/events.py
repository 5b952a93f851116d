"""``deca-node events``: the node's newest log lines; ``--follow`` also prints those that come."""

import json
import time
from pathlib import Path

import click

from deca_node.api.client import NodeClient
from deca_node.cli.client import NODE_ENDED, dir_option, find_directory, json_option
from deca_node.cli.invocation import debug_option
from deca_node.cli.views.text import printable
from deca_node.protocol.errors import NoAnswerError


@click.command(
    epilog="""\b
Examples:
  deca-node events
  deca-node events --follow
  deca-node events --last 1000 --json > events.jsonl
"""
)
@dir_option
@click.option(
    "--last", default=20, show_default=True, type=click.IntRange(0, 1000), help="Number of lines to start with."
)
@click.option("--follow", is_flag=True, help="Keep printing new lines until the node ends or Ctrl-C.")
@json_option
@debug_option
def events(directory: Path | None, last: int, follow: bool, as_json: bool) -> None:
    """Show the newest log lines of this machine's node, wherever its log goes."""
    client = NodeClient(find_directory(directory))
    heard = False
    try:
        for line in client.lines(f"/v1/events?last={last}&follow={int(follow)}"):
            heard = True
            click.echo(line if as_json else _in_words(line))
    except NoAnswerError:
        if not heard:
            raise
        click.echo(NODE_ENDED, err=True)
    except KeyboardInterrupt:
        # The usual way to stop listening.
        click.echo("", err=True)


def _in_words(line: str) -> str:
    record = json.loads(line)
    when = time.strftime("%H:%M:%S", time.localtime(record["time"])) if "time" in record else "--:--:--"
    return f"{when} {record['level'].upper()} {printable(record['message'])}"
