"""``deca-node debug``: what an error report needs, in one file, without keys, tokens or data."""

import json
import time
from pathlib import Path

import click

from deca_node.cli.client import NodeClient, dir_option, find_directory, json_option
from deca_node.cli.invocation import debug_option
from deca_node.cli.verbs.version import versions
from deca_node.protocol.errors import DecaError, NoAnswerError

ASKED = {"status.json": "/v1/status", "members.json": "/v1/members", "events.jsonl": "/v1/events?last=1000"}
"""What a running node is asked for, by the file in which it goes in."""


@click.command(
    epilog="""\b
Examples:
  deca-node debug
  deca-node debug --dir deca-data/north north.tar.gz
  tar -tzf north.tar.gz
"""
)
@click.argument("out", required=False, type=click.Path(path_type=Path))
@dir_option
@json_option
@debug_option
def debug(out: Path | None, directory: Path | None, as_json: bool) -> None:
    """Write what an error report needs to the file OUT.

    Status, members, log lines, settings with their sources, versions, the newest metrics, what everybody may see of the
    certificates, and a listing of the node's folder. The node may have ended: then its folder tells what it can. Keys
    and tokens are taken out, and data and weights never come in; names, addresses and paths do.
    """
    folder = find_directory(directory)
    if not folder.is_dir():
        raise NoAnswerError(f"there is no folder {folder}")
    from deca_node.daemon.diagnosis.bundle import collect, write_bundle

    heard, problem = _ask(folder)
    files, scrubber = collect(folder, heard, versions())
    path = out or Path(f"deca-debug-{folder.name}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}.tar.gz")
    write_bundle(path, files)
    if as_json:
        facts = {"path": str(path), "files": list(files), "removed": scrubber.removed, "problem": problem}
        click.echo(json.dumps(facts))
        return
    if problem:
        click.echo(f"note: {problem}; the bundle has what its folder tells", err=True)
    click.echo(f"{len(files)} files are in {path}. Its README.txt says what; look through it before you send it.")


def _ask(folder: Path) -> tuple[dict[str, bytes], str]:
    """What the node says, and why it does not where it does not."""
    door, heard = NodeClient(folder), {}
    try:
        for name, path in ASKED.items():
            heard[name] = door.get(path)
    except DecaError as problem:
        return heard, str(problem)
    return heard, ""
