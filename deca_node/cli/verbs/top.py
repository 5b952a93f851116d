"""``deca-node top``: the peers of a running node, live; single keys change the order."""

from __future__ import annotations

import dataclasses
import json
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from deca_node.api.client import NodeClient, read
from deca_node.cli.client import NODE_ENDED, dir_option, find_directory, json_option
from deca_node.cli.invocation import debug_option
from deca_node.cli.views.rates import ORDERS, TopRow, ordered, top_rows
from deca_node.daemon.status.facts import MemberRow, Status
from deca_node.protocol.errors import NoAnswerError

QUIT, REVERSE = "q", "R"


@dataclass
class View:
    """The order of the rows, which the keys change."""

    sort: str
    reverse: bool


@dataclass(frozen=True)
class Look:
    """The node's status and members at one time."""

    status: Status
    members: list[MemberRow]

    @classmethod
    def at(cls, client: NodeClient) -> Look:
        """Ask the node. Raises NoAnswerError."""
        status = read(Status, client.get("/v1/status"))
        return cls(status, read(list[MemberRow], client.get("/v1/members")))


@click.command(
    epilog="""\b
Examples:
  deca-node top
  deca-node top --sort rtt
  deca-node top --once --sort out
  deca-node top --json | jq '.peers[] | {name, received_bytes_per_second}'

Keys sort the peers: n by name, s by state, r by round trip, b by how far behind, i by bytes in, o by bytes out,
w by last refusal. R reverses the order, and so does pressing the same key again. q quits.
"""
)
@dir_option
@click.option("--sort", type=click.Choice(list(ORDERS)), default="name", show_default=True, help="Order of the peers.")
@click.option("--reverse", is_flag=True, help="Reverse the order.")
@click.option(
    "--every", default=1.0, show_default=True, type=click.FloatRange(min=0.1), help="Seconds between two looks."
)
@click.option("--once", is_flag=True, help="Look twice, print the table and end. The default without a terminal.")
@json_option
@debug_option
def top(directory: Path | None, sort: str, reverse: bool, every: float, once: bool, as_json: bool) -> None:
    """Show the peers of this machine's node live: state, round trip, how far behind, bytes per second, last refusal.

    Exits with 12 where no node answers.
    """
    client, view = NodeClient(find_directory(directory)), View(sort, reverse)
    before = Look.at(client)
    if once or as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        time.sleep(every)
        now = Look.at(client)
        rows = ordered(top_rows(before.status, now.status, now.members), sort, reverse)
        if as_json:
            click.echo(json.dumps(document(now.status, rows)))
        else:
            _print(now.status, rows, view)
        return
    try:
        with _keys() as pressed:
            _live(client, before, view, every, pressed)
    except NoAnswerError:
        click.echo(NODE_ENDED, err=True)
    except KeyboardInterrupt:
        click.echo("", err=True)


def document(status: Status, rows: list[TopRow]) -> dict[str, object]:
    """The document of ``--json``."""
    return {
        "time": status.time,
        "name": status.name,
        "phase": status.phase,
        "awaits": status.awaits,
        "peers": [dataclasses.asdict(row) for row in rows],
    }


def obey(view: View, key: str) -> bool:
    """Do as a key says; returns whether to go on."""
    for sort, order in ORDERS.items():
        if key == order.key:
            view.reverse = not view.reverse if view.sort == sort else False
            view.sort = sort
    if key == REVERSE:
        view.reverse = not view.reverse
    return key != QUIT


def _live(client: NodeClient, before: Look, view: View, every: float, pressed: Callable[[float], str]) -> None:
    from rich.console import Console
    from rich.live import Live

    from deca_node.cli.views.top import top_view

    now, due = before, time.monotonic()
    with Live(console=Console(highlight=False), auto_refresh=False, screen=True) as live:
        while True:
            rows = ordered(top_rows(before.status, now.status, now.members), view.sort, view.reverse)
            live.update(top_view(now.status, rows, view.sort, view.reverse), refresh=True)
            due = max(due, time.monotonic() - every)
            key = pressed(max(due + every - time.monotonic(), 0.0))
            if key:
                if not obey(view, key):
                    return
            else:
                before, now, due = now, Look.at(client), due + every


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """A function that waits so many seconds for a key and returns it without Enter, or an empty text."""
    import termios
    import tty

    terminal = sys.stdin.fileno()
    saved = termios.tcgetattr(terminal)

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([terminal], [], [], seconds)
        return os.read(terminal, 1).decode(errors="replace") if ready else ""

    try:
        tty.setcbreak(terminal)
        yield pressed
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, saved)


def _print(status: Status, rows: list[TopRow], view: View) -> None:
    from rich.console import Console

    from deca_node.cli.views.top import top_view

    Console(highlight=False).print(top_view(status, rows, view.sort, view.reverse))
