"""``deca-node doctor``: checks before a start, printed as a table or as JSON."""

import dataclasses
import json
from collections import Counter
from typing import Any

import click

from deca_node.cli.checks.checkup import SECONDS_PER_PEER, checkup
from deca_node.cli.invocation import debug_option
from deca_node.cli.options import SettingsCommand, load, settings_options
from deca_node.cli.views.progress import work
from deca_node.daemon.diagnosis.findings import Finding, Verdict
from deca_node.protocol.errors import UnfitError

STYLES = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILED: "bold red", Verdict.SKIPPED: "dim"}


@click.command(
    cls=SettingsCommand,
    epilog="""\b
Examples:
  Check with the flags of the later start:
    deca-node doctor --peers peers.txt --name north --model ./Qwen2.5-0.5B --data north.jsonl
  Settings from run.toml and node.toml; model and data are read as a start reads them:
    deca-node doctor --load
  Failed checks only, for programs:
    deca-node doctor --json | jq '.findings[] | select(.verdict == "failed")'

`doctor` takes the same flags, variables and files as `deca-node start`. It starts no node and leaves no files. It exits
with 13 if a check failed. A peer that is not started yet is a warning.
""",
)
@click.option(
    "--seconds",
    default=SECONDS_PER_PEER,
    show_default=True,
    type=click.FloatRange(min=0.1),
    help="Time limit per peer. Peers are called side by side.",
)
@click.option("--load", "really_load", is_flag=True, help="Also read model and data whole, as a start does.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@settings_options
@debug_option
@click.pass_context
def doctor(ctx: click.Context, /, seconds: float, really_load: bool, as_json: bool, **_flags: Any) -> None:
    """Check before a start whether it would work: settings, certificates, peers, data, model, memory, disk, clock.

    `doctor` calls and greets every peer, so it can tell a dead host from a rejected certificate or a different run.
    """
    with work() as doing:
        findings = list(checkup(lambda: load(ctx), lambda what: doing.stage(f"checking {what}"), seconds, really_load))
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


def _print(findings: list[Finding]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from deca_node.cli.views.console import facts_console
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
    facts_console().print(table)
    for finding in findings:
        for step in finding.facts.get("steps", ()):
            # Lines to copy, so they stand outside of the table and are never wrapped.
            click.echo(step)
