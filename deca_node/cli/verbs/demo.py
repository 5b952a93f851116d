"""``deca-node demo``: the main job on a bare machine, with no network and no download."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deca_node.cli.invocation import debug_option
from deca_node.cli.verbs.testbed import run_testbed

if TYPE_CHECKING:
    from rich.console import Console

    from deca_node.lab.demo.demo import DemoPlan
    from deca_node.lab.demo.toy_model import ToyModel

REPORT = "report.html"
DEMO, TESTBED = "deca-demo", "deca-testbed"


@click.command(
    epilog="""\b
Examples:
  deca-node demo
  deca-node demo --nodes 6 --dir ~/deca-demo
  deca-node demo --testbed
"""
)
@click.option("--nodes", default=4, show_default=True, type=click.IntRange(1, 12), help="How many nodes take part.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help=f"Folder for all that is made.  [default: {DEMO}, or {TESTBED} with --testbed]",
)
@click.option(
    "--testbed",
    is_flag=True,
    help="Instead: four nodes with a page each, running until Ctrl-C, to kill one and bring it back.",
)
@debug_option
def demo(nodes: int, directory: Path | None, testbed: bool) -> None:
    """Watch several nodes tune one model together on this machine.

    Makes a small language model from text that every Python installation carries, gives each node a different
    package of the standard library as its private data, trains every node alone and all of them together, each
    in processes of its own over loopback, and ends with a table and a report that opens in any browser.
    """
    # Several processes share the cores here; threads that spin while they wait would starve the others.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if testbed:
        run_testbed(directory or Path(TESTBED))
    else:
        _demonstrate(nodes, directory or Path(DEMO))


def _demonstrate(nodes: int, directory: Path) -> None:
    from rich.console import Console

    from deca_node.lab.demo.demo import DemoPlan, by_hand

    console = Console(highlight=False)
    console.print(f"{nodes} nodes, one model, nobody shows their text. Everything stays in {directory}.")
    plan = DemoPlan(directory.absolute(), nodes)
    began = time.monotonic()
    model = _prepare(console, plan)
    _train(console, plan, together=False, title="Each node alone, with as many gradient steps")
    _train(console, plan, together=True, title="All nodes together: only quantized differences travel")
    _conclude(console, plan, model, time.monotonic() - began)
    console.print("\nTo run the same by hand, one command per terminal:")
    for command in by_hand(plan):
        console.print(f"  {command}", soft_wrap=True)


def _prepare(console: Console, plan: DemoPlan) -> ToyModel:
    from rich.progress import Progress

    from deca_node.lab.demo.demo import prepare

    for folder in ("alone", "together"):
        shutil.rmtree(plan.directory / folder, ignore_errors=True)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("Making the starting model from neutral text", total=None)
        model = prepare(plan, lambda done, total, _loss: progress.update(task, completed=done, total=total))
    made = "was there already" if model.cached else f"made, loss {model.loss:.2f} nats per token on neutral text"
    console.print(f"The starting model has {model.parameters:,} parameters ({made}).")
    return model


def _train(console: Console, plan: DemoPlan, *, together: bool, title: str) -> None:
    from rich.live import Live

    from deca_node.lab.demo.demo import start, steps_in_all, wait
    from deca_node.lab.demo.live import LiveTable
    from deca_node.lab.rigs.processes import LocalNodes

    table = LiveTable(title, steps_in_all(plan, together=together))
    with LocalNodes() as nodes, Live(console=console, auto_refresh=False) as live:
        start(plan, nodes, together=together)
        wait(nodes, lambda running: live.update(table.render(running), refresh=True))


def _conclude(console: Console, plan: DemoPlan, model: ToyModel, seconds: float) -> None:
    """Measure, print, and write the report."""
    from deca_node.lab.demo.demo import outcome
    from deca_node.lab.report.report import write_report
    from deca_node.lab.report.result import result_table, verdict

    with console.status("Measuring") as status:
        report = outcome(plan, model, seconds, lambda what: status.update(f"Measuring {what}"))
    console.print(result_table(report))
    for sentence in verdict(report):
        console.print(sentence)
    write_report(plan.directory / REPORT, report)
    console.print(f"Report: {plan.directory / REPORT}")
