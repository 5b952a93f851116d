"""``deca-node report``: how a run went, as one HTML file that is made from nodes' folders."""

from pathlib import Path

import click

from deca_node.cli.client import find_directory
from deca_node.cli.invocation import debug_option

REPORT, COMPARISON = "report.html", "comparison.html"


@click.command(
    epilog="""\b
Examples:
  deca-node report
  deca-node report deca-data/north
  deca-node report deca-data/* -o both.html
"""
)
@click.argument("directories", metavar="[DIR]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--out",
    "-o",
    type=click.Path(path_type=Path),
    help=f"The file to write.  [default: {REPORT} in DIR; of several, {COMPARISON} beside the first]",
)
@debug_option
def report(directories: tuple[Path, ...], out: Path | None) -> None:
    """Write a report of the nodes in these folders. It is one file that opens in any browser without a network.

    The report of one node is its last page: members, blocks and rounds, curves, peers and events. The report of
    several nodes compares their losses, consensus, bytes and agreed settings. Without DIR, the only folder below
    ./deca-data is taken. The nodes may keep running.
    """
    folders = directories or (find_directory(None),)
    # The report of several nodes is a file of its own: that of the first node stays as it is.
    path = out or (
        folders[0] / REPORT
        if len(folders) == 1
        else (folders[0] if folders[0].name else folders[0].absolute()).parent / COMPARISON
    )
    from deca_node.lab.report.page_report import has_page, write_page_report
    from deca_node.lab.report.run_report import read_node, write_run_report

    if len(folders) == 1 and has_page(folders[0]):
        write_page_report(path, folders[0])
    else:
        write_run_report(path, [read_node(folder) for folder in folders])
    click.echo(f"Report: {path}")
