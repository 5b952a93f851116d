"""``deca-node logs``: log lines from the file in the node's folder, whether the node runs or has ended."""

import logging
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from deca_node.api.client import NodeClient
from deca_node.cli.client import NODE_ENDED, dir_option, find_directory, json_option
from deca_node.cli.invocation import debug_option
from deca_node.cli.views.text import printable
from deca_node.protocol.errors import NoAnswerError, StorageError
from deca_node.storage.folder import LOG, SETTINGS, process_of
from deca_node.storage.jsons import UNFIT, parse
from deca_node.storage.log_parts import Place, has_log, lines_since, records

LINES = 50
SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
ENDING_SECONDS, LOOK_SECONDS = 60.0, 0.1
"""A node that ends closes its socket before its log. Its last lines are waited for as long as its process is there."""
LEVELS = ("debug", "info", "warning", "error")


class Ago(click.ParamType[float]):
    """A time as in 90s, 30m, 2h or 7d; the value is in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it, or fail with an example."""
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhd])", str(value), re.ASCII)
        return float(found[1]) * SECONDS[found[2]] if found else self.fail(f"{value!r} is no time as in 30m, 2h or 7d")


@dataclass(frozen=True)
class Wanted:
    """Which lines are shown: those after ``since`` (unix seconds) of at least this level."""

    since: float
    level: int

    def among(self, lines: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The wanted ones, each as it stands in the file and as an object."""
        for line, record in records(lines):
            level = logging.getLevelNamesMapping().get(record["level"].upper(), logging.CRITICAL)
            if level >= self.level and record["time"] >= self.since:
                yield line, record


@click.command(
    epilog="""\b
Examples:
  deca-node logs
  deca-node logs --follow
  deca-node logs --since 2h --level warning
  deca-node logs --lines 0 --since 7d --json > log.jsonl
"""
)
@dir_option
@click.option("--follow", "-f", is_flag=True, help="Keep printing new lines until the node ends or Ctrl-C.")
@click.option(
    "--lines",
    "-n",
    type=click.IntRange(0),
    help=f"The newest N lines; 0 for all.  [default: {LINES}; all with --since]",
)
@click.option("--since", type=Ago(), help="Only lines of this last time, as in 90s, 30m, 2h or 7d.")
@click.option("--level", default="debug", type=click.Choice(LEVELS), help="Only lines of this level and above.")
@json_option
@debug_option
def logs(
    directory: Path | None, follow: bool, lines: int | None, since: float | None, level: str, as_json: bool
) -> None:
    """Show the log of this machine's node, while it runs and after it has ended.

    The lines come from DIR/node.log, where a node keeps its newest 15 MB of log lines. With log_file = false there is
    no such file; a running node then tells the newest lines that it has in memory.
    """
    folder = find_directory(directory)
    wanted = Wanted(time.time() - since if since is not None else 0.0, logging.getLevelNamesMapping()[level.upper()])
    count = lines if lines is not None else LINES if since is None else 0
    try:
        batches = _from_file(folder, follow) if has_log(folder) and _keeps_log(folder) else _from_node(folder, follow)
        shown = list(wanted.among(next(batches, [])))
        _print(shown[-count:], as_json)
        for batch in batches:
            _print(wanted.among(batch), as_json)
    except KeyboardInterrupt:
        # The usual way to stop listening.
        click.echo("", err=True)


def _from_file(folder: Path, follow: bool) -> Iterator[list[str]]:
    """The lines that are there, then, to follow, those that come until the node ends."""
    lines, place = _read(folder, Place())
    yield lines
    if not follow:
        return
    process, ends = process_of(folder), 0.0
    try:
        # The node tells of every new line, and the file has it already. The first answer is a line from before.
        for _ in NodeClient(folder).lines("/v1/events?last=1&follow=1"):
            ends = ENDING_SECONDS
            lines, place = _read(folder, place)
            yield lines
    except NoAnswerError:
        pass
    ends += time.monotonic()
    while _runs(process) and time.monotonic() < ends:
        time.sleep(LOOK_SECONDS)
        lines, place = _read(folder, place)
        yield lines
    yield _read(folder, place)[0]
    click.echo(NODE_ENDED, err=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return process > 0


def _from_node(folder: Path, follow: bool) -> Iterator[list[str]]:
    """The lines that the node has in memory, then, to follow, those that come until it ends."""
    client = NodeClient(folder)
    try:
        yield list(client.lines("/v1/events?last=1000&follow=0"))
    except NoAnswerError as problem:
        raise NoAnswerError(f"there is no {LOG} in {folder}, and {problem}") from None
    if follow:
        yield from ([line] for line in client.lines("/v1/events?last=0&follow=1"))
        click.echo(NODE_ENDED, err=True)


def _read(folder: Path, place: Place) -> tuple[list[str], Place]:
    try:
        return lines_since(folder, place)
    except OSError as problem:
        raise StorageError(f"cannot read {folder / LOG}: {problem.strerror}") from None


def _keeps_log(folder: Path) -> bool:
    """Whether the newest start in this folder wrote a log; a file may be left from an earlier one."""
    try:
        return bool(parse((folder / SETTINGS).read_text(encoding="utf-8"))["node"]["log_file"]["value"])
    except (OSError, *UNFIT):
        return True


def _print(lines: Iterable[tuple[str, dict[str, Any]]], as_json: bool) -> None:
    for line, record in lines:
        click.echo(line if as_json else _in_words(record))


def _in_words(record: dict[str, Any]) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record["time"]))
    return f"{when} {record['level'].upper()} {printable(record['message'])}"
