"""Writes deca_node/api/typed.py from the settings; with --check, only says whether the file is up to date.

The file gives every keyword argument of ``deca_node.Node`` and ``deca_node.tune`` a name and a type, so editors
complete them and mypy checks them.
"""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from deca_node.daemon.settings.node_settings import NodeSettings  # noqa: E402  (runs from a checkout, not installed)
from deca_node.protocol.agreed.run import RunSettings  # noqa: E402

MODULE = ROOT / "deca_node" / "api" / "typed.py"
ARGUMENTS = frozenset({"model", "data", "peers"})
"""Settings that are arguments of their own."""
WIDTH = 120

HEAD = '''\
"""Every setting's name and type, for keyword arguments. Written by tools/write_python_settings.py: change the settings,
not this file. docs/CONFIGURATION.md says what each one means, with defaults, units and limits."""

from pathlib import Path
from typing import Literal, TypedDict


class Settings(TypedDict, total=False):
    """The settings of the run, then those of the node. None of them is needed: each has a default."""

'''


def main(arguments: list[str]) -> int:
    """Write the module, or check it. Returns 1 if it is stale."""
    text = HEAD + "".join(f"    {line}\n" for kind in (RunSettings, NodeSettings) for line in lines(kind))
    if arguments != ["--check"]:
        MODULE.write_text(text, encoding="utf-8")
        return 0
    if MODULE.exists() and MODULE.read_text(encoding="utf-8") == text:
        return 0
    print(f"{MODULE.relative_to(ROOT)} is stale; run python tools/write_python_settings.py", file=sys.stderr)
    return 1


def lines(kind: type[Any]) -> Iterator[str]:
    """The declarations of one kind's settings."""
    for field in dataclasses.fields(kind):
        if field.name in ARGUMENTS:
            continue
        line = f"{field.name}: {type_of(field)}"
        if len(line) + 4 <= WIDTH:
            yield line
        else:
            yield f"{field.name}: Literal["
            yield from (f"    {choice!r},".replace("'", '"') for choice in field.metadata["choices"])
            yield "]"


def type_of(field: "dataclasses.Field[Any]") -> str:
    """The annotation of a keyword argument."""
    if field.metadata["choices"]:
        words = ", ".join(f'"{choice}"' for choice in field.metadata["choices"])
        return f"Literal[{words}]"
    if field.name == "insecure":
        return "bool | int"
    if field.type is str and "path" in field.metadata["unit"]:
        return "str | Path"
    return str(getattr(field.type, "__name__", field.type))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
