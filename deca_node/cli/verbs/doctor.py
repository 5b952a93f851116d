"""``deca-node doctor``: all that can go wrong at a start, looked at before."""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from deca_node.cli.checks.checkup import Checkup
from deca_node.cli.invocation import debug_option
from deca_node.cli.options import SettingsCommand, load, settings_options
from deca_node.daemon.diagnosis.findings import Finding, Verdict
from deca_node.protocol.errors import UnfitError

STYLES = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILED: "bold red", Verdict.SKIPPED: "dim"}


@click.command(
    cls=SettingsCommand,
    epilog="""\b
Examples:
  With the flags of the start that is to come:
    deca-node doctor --peers peers.txt --name north --model ./Qwen2.5-0.5B --data north.jsonl
  The same from run.toml and node.toml, with model and data read as a start would read them:
    deca-node doctor --load
  What failed, for programs:
    deca-node doctor --json | jq '.findings[] | select(.verdict == "failed")'

Takes the same flags, variables and files as `deca-node start`, starts nothing and leaves nothing. Exits with 13 where
a check failed. A peer that is not started yet is a warning.
""",
)
@click.option(
    "--seconds",
    default=5.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    help="The longest that one peer is waited for; peers are asked side by side.",
)
@click.option("--load", "really_load", is_flag=True, help="Read model and data whole, as a start does.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@settings_options
@debug_option
@click.pass_context
def doctor(ctx: click.Context, /, seconds: float, really_load: bool, as_json: bool, **_flags: Any) -> None:
    """Check before a start that it would work: settings, certificates, peers, data, model, memory, disk, clock.

    Every peer is called and greeted, so that a dead host, a refused certificate and another run are told apart.
    """
    with _progress() as say:
        findings = list(Checkup(lambda: load(ctx), say, seconds, really_load).run())
    counts = Counter(finding.verdict for finding in findings)
    if as_json:
        document = {
            "counts": {verdict.value: counts[verdict] for verdict in Verdict},
            "findings": [dataclasses.asdict(finding) for finding in findings],
        }
        click.echo(json.dumps(document, indent=2))
    else:
        _print(findings)
    wrong = [finding.check for finding in findings if finding.verdict is Verdict.FAILED]
    if wrong:
        raise UnfitError(f"{len(wrong)} of {len(findings)} checks failed: {', '.join(wrong)}")


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A line on the terminal that says what is being looked at; nothing where standard error is no terminal."""
    from rich.console import Console

    with Console(stderr=True, highlight=False).status("checking") as status:
        yield lambda what: status.update(f"checking {what}")


def _print(findings: list[Finding]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from deca_node.cli.views.status import plain

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("check", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("what was found, and what to do", overflow="fold")
    for finding in findings:
        said = plain(finding.says)
        if finding.do:
            said = Text.assemble(said, "\n", ("→ " + finding.do, "italic"))
        table.add_row(plain(finding.check), Text(finding.verdict.value, style=STYLES[finding.verdict]), said)
    Console(highlight=False).print(table)
