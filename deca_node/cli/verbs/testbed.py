"""``deca-node demo --testbed``: four nodes that stay until Ctrl-C, and what can be tried with them."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from deca_node.lab.demo.testbed import Testbed
    from deca_node.lab.rigs.processes import NodeProcess

KILLED = -signal.SIGKILL


def run_testbed(folder: Path) -> None:
    """Start the nodes, say where to look and what to try, and stay until they have ended."""
    from deca_node.lab.demo.testbed import prepare, start, stop, watch
    from deca_node.lab.rigs.processes import LocalNodes

    click.echo(f"Four nodes, one model. Everything stays in {folder}; a testbed that was stopped there goes on.")
    testbed = prepare(folder)
    with LocalNodes() as nodes:
        start(testbed, nodes)
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            click.echo(_words(testbed))
            watch(nodes, lambda node, code: click.echo(_ended(testbed, node, code)))
        except KeyboardInterrupt:
            click.echo("\nStopping: each node writes down where it stands.")
            stop(nodes)
    click.echo(f"The testbed has ended; start it again to go on, or remove {folder} to begin anew.")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _words(testbed: Testbed) -> str:
    from deca_node.lab.demo.testbed import NAMES

    folder, some = testbed.folder, NAMES[1]
    pages = "\n".join(f"  {name:<6} {testbed.page(name)}   {folder / name}" for name in NAMES)
    return f"""
  node   page                      folder
{pages}

They need some seconds until they answer. In another terminal try:

  deca-node status --dir {folder / NAMES[0]} --watch
  kill -9 $(cat {folder / some}/lock)     # {some} is gone: look at the page and the status of {NAMES[0]}
  {testbed.command(some)}     # and back again
  deca-node export my-model --dir {folder / NAMES[0]}
  deca-node report {folder / NAMES[0]}

Ctrl-C here stops the nodes that were started here.
"""


def _ended(testbed: Testbed, node: NodeProcess, code: int) -> str:
    how = "was killed" if code == KILLED else f"ended with code {code}; its log is {node.log}"
    return f"{node.name} {how}. To bring it back:  {testbed.command(node.name)}"
