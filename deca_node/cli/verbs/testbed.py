"""``deca-node demo --testbed``: four nodes that stay until Ctrl-C, and a list of things to try with them."""

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
    """Start the nodes, print their pages and commands to try, and stay until all nodes have ended."""
    from deca_node.lab.demo.testbed import prepare, start, stop, watch
    from deca_node.lab.rigs.processes import LocalNodes

    click.echo(f"Four nodes tune one model. All files stay in {folder}; a testbed that was stopped there continues.")
    testbed = prepare(folder)
    with LocalNodes() as nodes:
        start(testbed, nodes)
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            click.echo(_words(testbed))
            watch(nodes, lambda node, code: click.echo(_ended(testbed, node, code)))
        except KeyboardInterrupt:
            click.echo("\nStopping: each node writes a checkpoint.")
            stop(nodes)
    click.echo(f"The testbed has ended. Start it again to continue, or remove {folder} to begin anew.")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _words(testbed: Testbed) -> str:
    from deca_node.lab.demo.testbed import NAMES

    folder, some = testbed.folder, NAMES[1]
    pages = "\n".join(f"  {name:<6} {testbed.page(name)}   {folder / name}" for name in NAMES)
    return f"""
  node   page                      folder
{pages}

The nodes need a few seconds to start. In another terminal try:

  deca-node status --dir {folder / NAMES[0]} --watch
  kill -9 $(cat {folder / some}/lock)     # {some} is dead: look at the page and the status of {NAMES[0]}
  {testbed.command(some)}     # {some} comes back
  deca-node export my-model --dir {folder / NAMES[0]}
  deca-node report {folder / NAMES[0]}

Ctrl-C in this terminal stops the nodes that were started here.
"""


def _ended(testbed: Testbed, node: NodeProcess, code: int) -> str:
    how = "was killed" if code == KILLED else f"ended with code {code}; its log is {node.log}"
    return f"{node.name} {how}. To bring it back:  {testbed.command(node.name)}"
