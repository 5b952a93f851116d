"""``deca-node debug``: one file with all that an error report needs, without keys, tokens or data."""

import json
import time
from pathlib import Path

import click

from deca_node.api.client import NodeClient
from deca_node.cli.client import dir_option, find_directory, json_option
from deca_node.cli.invocation import debug_option
from deca_node.cli.verbs.version import versions
from deca_node.protocol.errors import DecaError, NoAnswerError

ASKED = {"status.json": "/v1/status", "members.json": "/v1/members", "events.jsonl": "/v1/events?last=1000"}
"""The questions to a running node, by the name of the file that the answer goes into."""


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
    """Collect what an error report needs in the file OUT.

    The file holds status, members, log lines, settings with their sources, versions, the newest metrics, the public
    parts of the certificates, and a listing of the node's folder. If the node has ended, only its folder is read. Keys
    and tokens are removed, and data and weights are never included. Names, addresses and paths are included.
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
        click.echo(f"note: {problem}; the file holds only what the node's folder tells", err=True)
    click.echo(f"{len(files)} files are in {path}. README.txt lists them; read them before you send them.")


def _ask(folder: Path) -> tuple[dict[str, bytes], str]:
    """The node's answers by file name, and the reason why it did not answer, or an empty text."""
    client, heard = NodeClient(folder), {}
    try:
        for name, path in ASKED.items():
            heard[name] = client.get(path)
    except DecaError as problem:
        return heard, str(problem)
    return heard, ""
