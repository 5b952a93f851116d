"""``deca-node version``: installed versions, found without importing the packages."""

import importlib.metadata
import json
import platform

import click

from deca_node import __version__
from deca_node.cli.invocation import debug_option

PACKAGES = ("torch", "transformers", "safetensors", "grpcio", "protobuf", "click")


@click.command(
    epilog="""\b
Examples:
  deca-node version
  deca-node version --json
"""
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
@debug_option
def version(as_json: bool) -> None:
    """Print the versions of deca-node, Python and the main packages."""
    found = versions()
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for name, text in found.items():
        click.echo(f"{name:<13} {text}")


def versions() -> dict[str, str]:
    """Versions by name."""
    own = {"deca-node": __version__, "python": platform.python_version(), "platform": platform.platform()}
    return own | {package: _installed(package) for package in PACKAGES}


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
