"""``deca-node version``: installed versions, found without importing the packages; with ``--check`` whether the
installed version could go on with a node's run."""

import dataclasses
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import click

from deca_node import __version__
from deca_node.api.client import NodeClient
from deca_node.cli.client import NODES, dir_option, find_directory
from deca_node.cli.invocation import debug_option
from deca_node.protocol.errors import NoAnswerError, SettingsError, UnfitError

PACKAGES = ("torch", "transformers", "safetensors", "grpcio", "protobuf", "click")
OF_THE_MODEL = ("model", "blocks", "classes")
"""Fields of an agreement that are not settings."""
SETTINGS_NAMED_MAX = 5


@click.command(
    epilog="""\b
Examples:
  deca-node version
  deca-node version --json
  Before an upgrade goes on with a run:
    deca-node version --check --dir deca-data/north
"""
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
@click.option(
    "--check",
    is_flag=True,
    help="Also print the numbers by which nodes tell whether they fit, and check the node's folder against them. Exits "
    "with 13 if this version cannot go on from there.",
)
@dir_option
@debug_option
def version(as_json: bool, check: bool, directory: Path | None) -> None:
    """Print the versions of deca-node, Python and the main packages.

    docs/COMPATIBILITY.md says which versions train together.
    """
    found: dict[str, str] = versions()
    problem = ""
    if check:
        found |= numbers()
        folder = _folder(directory)
        told, problem = look(folder) if folder else ({}, "")
        found |= told
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        for name, text in found.items():
            click.echo(f"{name:<13} {text}")
    if problem:
        raise UnfitError(problem)


def versions() -> dict[str, str]:
    """Versions by name."""
    own = {"deca-node": __version__, "python": platform.python_version(), "platform": platform.platform()}
    return own | {package: _installed(package) for package in PACKAGES}


def numbers() -> dict[str, str]:
    """The numbers that both ends of a stream compare, and that of checkpoints."""
    from deca_node.daemon.links import control, transport
    from deca_node.daemon.transfer import donor
    from deca_node.storage import manifest

    return {
        "updates": f"protocol {transport.PROTOCOL_VERSION}",
        "membership": f"protocol {control.VERSION}",
        "fetching": f"protocol {donor.PROTOCOL_VERSION}",
        "checkpoints": f"format {manifest.FORMAT}",
    }


def look(folder: Path) -> tuple[dict[str, str], str]:
    """What the node's folder says, by name; and a sentence where this version could not go on from there."""
    from deca_node.storage.folder import agreed_fields
    from deca_node.storage.manifest import DamagedError, checkpoints, read_manifest

    told = {"folder": str(folder), "running node": _running(folder)}
    if unknown := _unknown(agreed_fields(folder)):
        return told, (
            f"the run in {folder} has settings that this version does not know: {', '.join(unknown)}; go on with the "
            "version that began it"
        )
    newest = next(iter(checkpoints(folder)), None)
    if newest is None:
        return told | {"checkpoint": "none yet"}, ""
    try:
        at = read_manifest(newest).position
    except DamagedError as problem:
        return told, f"{problem}; this version cannot go on from the newest checkpoint"
    return told | {"checkpoint": f"activation {at.activation} step {at.inner}: readable"}, ""


def _unknown(fields: dict[str, str]) -> list[str]:
    """The settings in a run's agreement that this version does not have."""
    from deca_node.protocol.agreed.run import RunSettings

    known = {field.name for field in dataclasses.fields(RunSettings)} | set(OF_THE_MODEL)
    return [name for name in sorted(fields) if name not in known][:SETTINGS_NAMED_MAX]


def _running(folder: Path) -> str:
    """The version of the node that runs in the folder."""
    try:
        there: dict[str, Any] = json.loads(NodeClient(folder).get("/v1/status"))
    except NoAnswerError:
        return "none"
    running = str(there.get("version", "unknown"))
    return running if running == __version__ else f"{running}; a restart goes on with {__version__}"


def _folder(given: Path | None) -> Path | None:
    """The folder that was given, or the only one below ./deca-data; None where there is no such folder."""
    if given is None and not any(NODES.glob("*/lock")):
        return None
    folder = find_directory(given)
    if not folder.is_dir():
        raise SettingsError(f"there is no folder {folder}")
    return folder


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
