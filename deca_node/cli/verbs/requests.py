"""The verbs that ask something of a running node: members, events, pause, resume, checkpoint, leave, stop."""

import json
from pathlib import Path

import click

from deca_node.cli.client import NodeClient, dir_option, find_directory, json_option, read
from deca_node.cli.invocation import debug_option
from deca_node.daemon.status.facts import MemberRow, Verb
from deca_node.protocol.errors import NoAnswerError


@click.command(
    epilog="""\b
Examples:
  deca-node members
  deca-node members --dir deca-data/north --json
"""
)
@dir_option
@json_option
@debug_option
def members(directory: Path | None, as_json: bool) -> None:
    """Show who takes part in the run, as this machine's node knows it."""
    answer = NodeClient(find_directory(directory)).get("/v1/members")
    if as_json:
        click.echo(answer, nl=False)
        return
    from rich.console import Console

    from deca_node.cli.views.status import members_view

    Console(highlight=False).print(members_view(read(list[MemberRow], answer)))


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
    "--last", default=20, show_default=True, type=click.IntRange(0, 1000), help="How many lines to begin with."
)
@click.option("--follow", is_flag=True, help="Stay, and print what comes, until the node ends or Ctrl-C.")
@json_option
@debug_option
def events(directory: Path | None, last: int, follow: bool, as_json: bool) -> None:
    """Show the newest log lines of this machine's node, wherever its log goes."""
    door = NodeClient(find_directory(directory))
    heard = False
    try:
        for line in door.lines(f"/v1/events?last={last}&follow={int(follow)}"):
            heard = True
            click.echo(line if as_json else _in_words(line))
    except NoAnswerError:
        if not heard:
            raise
        click.echo("the node has ended", err=True)
    except KeyboardInterrupt:
        # The usual way to stop listening.
        click.echo("", err=True)


def _in_words(line: str) -> str:
    import time

    record = json.loads(line)
    when = time.strftime("%H:%M:%S", time.localtime(record["time"])) if "time" in record else "--:--:--"
    message = "".join(letter if letter.isprintable() else "�" for letter in record["message"])
    return f"{when} {record['level'].upper()} {message}"


def _request(verb: Verb, help_text: str, *examples: str) -> click.Command:
    """A command that passes one request on and prints the node's answer."""

    @click.command(verb.value, help=help_text, epilog="\b\nExamples:\n" + "".join(f"  {line}\n" for line in examples))
    @dir_option
    @json_option
    @debug_option
    def command(directory: Path | None, as_json: bool) -> None:
        sentence = NodeClient(find_directory(directory)).ask(verb)
        click.echo(json.dumps({"sentence": sentence}) if as_json else sentence)

    return command


pause = _request(
    Verb.PAUSE,
    "Let this machine's node stop training after the current step, and stay: the others go on without it until "
    "`deca-node resume`. A checkpoint is written first.",
    "deca-node pause",
    "deca-node pause --dir deca-data/north",
)
resume = _request(
    Verb.RESUME,
    "Let a paused node go on. What the others trained meanwhile it takes over from them.",
    "deca-node resume",
)
checkpoint = _request(
    Verb.CHECKPOINT,
    "Let the node write a checkpoint after the current step, beside those that it writes anyway.",
    "deca-node checkpoint",
    "deca-node checkpoint && deca-node status --json | jq .checkpoint",
)
leave = _request(
    Verb.LEAVE,
    "Let the node leave the run for good, and end: the others drop it from the membership and do not wait for it. "
    "To come back later use `deca-node stop` instead.",
    "deca-node leave",
)
stop = _request(
    Verb.STOP,
    "Let the node end in good order: it finishes the current step, writes a checkpoint and exits with 0. Started "
    "again in the same folder it goes on from there.",
    "deca-node stop",
    "deca-node stop --dir deca-data/north",
)
