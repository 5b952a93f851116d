"""``deca-node report``: one HTML file with the curves of a run, from the folders of its nodes."""

from pathlib import Path

import click

from deca_node.cli.door import find_directory
from deca_node.cli.invocation import debug_option

REPORT = "report.html"


@click.command(
    epilog="""\b
Examples:
  deca-node report
  deca-node report deca-data/north
  deca-node report deca-data/* --out both.html
"""
)
@click.argument("directories", metavar="[DIR]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help=f"The file to write.  [default: {REPORT} in the first DIR]"
)
@debug_option
def report(directories: tuple[Path, ...], out: Path | None) -> None:
    """Write a report of the nodes in these folders: losses, consensus, bytes, and what they agreed on.

    Without a folder it takes the only one below ./deca-data. The nodes may be running. The report is one file, and
    opens in any browser without a network.
    """
    folders = directories or (find_directory(None),)
    from deca_node.lab.run_report import read_node, write_run_report

    path = out or folders[0] / REPORT
    write_run_report(path, [read_node(folder) for folder in folders])
    click.echo(f"Report: {path}")
