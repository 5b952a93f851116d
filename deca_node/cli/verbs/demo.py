"""``deca-node demo``: several nodes tune a toy model on this machine, without a network and without a download."""

from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deca_node.cli.invocation import debug_option
from deca_node.cli.verbs.testbed import run_testbed
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.process.before_torch import set_before_torch

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
  A toy model to try the other verbs with, in deca-demo/model:
    deca-node demo --prepare
"""
)
@click.option("--nodes", default=4, show_default=True, type=click.IntRange(1, 12), help="Number of nodes.")
@click.option(
    "--rounds",
    type=click.IntRange(1, 100),
    help="Rounds of training. One is quicker and shows less.  [default: as many as show an effect]",
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help=f"Folder for all files of the demo.  [default: {DEMO}, or {TESTBED} with --testbed]",
)
@click.option(
    "--testbed",
    is_flag=True,
    help="Run four nodes with a page each until Ctrl-C instead, to kill one and bring it back.",
)
@click.option("--prepare", is_flag=True, help="Make the model, the private texts and the settings, and train nothing.")
@debug_option
def demo(nodes: int, rounds: int | None, directory: Path | None, testbed: bool, prepare: bool) -> None:
    """Watch several nodes tune one model together on this machine.

    The demo makes a small language model from text that every Python installation carries. Each node gets
    another package of the standard library as its private data. The nodes train first alone and then together,
    as processes that talk over loopback. The demo ends with a table, and with a report that opens in any
    browser.
    """
    set_before_torch(NodeSettings.threads)
    if testbed and prepare:
        raise click.UsageError("--testbed starts nodes, and --prepare starts none; give one of them")
    if testbed:
        run_testbed(directory or Path(TESTBED))
    elif prepare:
        _prepare_only(nodes, directory or Path(DEMO))
    else:
        _demonstrate(nodes, rounds, directory or Path(DEMO))


def _demonstrate(nodes: int, rounds: int | None, directory: Path) -> None:
    from rich.console import Console

    from deca_node.lab.demo.demo import RUN, DemoPlan, by_hand

    console = Console(highlight=False)
    console.print(f"{nodes} nodes tune one model, and each keeps its own text. All files stay in {directory}.")
    plan = DemoPlan(directory.absolute(), nodes, dataclasses.replace(RUN, rounds=rounds or RUN.rounds))
    began = time.monotonic()
    for folder in ("alone", "together"):
        shutil.rmtree(plan.directory / folder, ignore_errors=True)
    model = _prepare(console, plan)
    _train(console, plan, together=False, title="Each node alone, with the same number of gradient steps")
    _train(console, plan, together=True, title="All nodes together, exchanging quantized differences only")
    _conclude(console, plan, model, time.monotonic() - began)
    console.print("\nTo run the same nodes by hand, one command per terminal:")
    for command in by_hand(plan):
        console.print(f"  {command}", soft_wrap=True)


def _prepare_only(nodes: int, directory: Path) -> None:
    from rich.console import Console

    from deca_node.lab.demo.demo import DemoPlan

    console = Console(highlight=False)
    _prepare(console, DemoPlan(directory.absolute(), nodes))
    console.print(
        f"The model is in {directory / 'model'}, and private texts of {nodes} nodes are in {directory / 'data'}."
    )


def _prepare(console: Console, plan: DemoPlan) -> ToyModel:
    from rich.progress import Progress

    from deca_node.lab.demo.demo import prepare

    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("Making the starting model from neutral text", total=None)
        model = prepare(plan, lambda done, total, _loss: progress.update(task, completed=done, total=total))
    made = "made before" if model.cached else f"made, loss {model.loss:.2f} nats per token on neutral text"
    console.print(f"The starting model has {model.parameters:,} parameters ({made}).")
    return model


def _train(console: Console, plan: DemoPlan, *, together: bool, title: str) -> None:
    from deca_node.api.progress import LiveTable
    from deca_node.api.waiting import wait
    from deca_node.lab.demo.demo import RUN_SECONDS_MAX, parties

    wait(*parties(plan, together=together), timeout=RUN_SECONDS_MAX, progress=LiveTable(title, console))


def _conclude(console: Console, plan: DemoPlan, model: ToyModel, seconds: float) -> None:
    """Measure the models, print the result, and write the report."""
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
