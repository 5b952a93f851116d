"""Which node a verb asks: the flag ``--dir``, and the folder that it means."""

from pathlib import Path

import click

from deca_node.cli.invocation import Decorated
from deca_node.protocol.errors import SettingsError

NODES = Path("deca-data")
"""The folder of all nodes' folders, unless ``--dir`` says otherwise."""
NODE_ENDED = "the node has ended"


def dir_option(function: Decorated) -> Decorated:
    """Add ``--dir DIR``, the folder of the node that is meant."""
    option = click.option(
        "--dir",
        "directory",
        envvar="DECA_DIR",
        type=click.Path(path_type=Path),
        help="The node's folder.  [default: the only one below ./deca-data]",
    )
    return option(function)


def json_option(function: Decorated) -> Decorated:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def find_directory(given: Path | None) -> Path:
    """The folder that was given, or the only node's folder below ./deca-data. Raises SettingsError."""
    if given is not None:
        return given.expanduser()
    found = sorted(lock.parent for lock in NODES.glob("*/lock"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise SettingsError(f"there is no node's folder below ./{NODES}; say where it is with --dir or DECA_DIR")
    names = ", ".join(str(folder) for folder in found)
    raise SettingsError(f"there are {len(found)} nodes below ./{NODES}: {names}; say which with --dir or DECA_DIR")
