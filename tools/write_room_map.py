"""Write the map of the rooms into docs/ARCHITECTURE.md; with --check, only say whether it is up to date.

::

    the docstring of a room's __init__.py    -> the room's idea, and one line per module
    the contracts of pyproject.toml          -> which rooms may import which

A module that its room does not mention is told by the first sentence of its own docstring. A line for a module that
does not exist is an error.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "deca_node"
PAGE = ROOT / "docs" / "ARCHITECTURE.md"
BEGIN, END = "<!-- rooms: begin; written by tools/write_room_map.py -->\n", "<!-- rooms: end -->\n"

GENERATED = "wire_pb"
"""Rooms of this name hold generated code, which has no map."""
MAP_LINE = re.compile(r"\s*([\w.]+/?)\s{2,}(\S.*)")


def main(arguments: list[str]) -> int:
    """Write the map into the page, or check it; 1 where it is stale."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    page = f"{before}{BEGIN}\n{map_of_all()}\n{END}{after}"
    if page == text:
        return 0
    if arguments == ["--check"]:
        print(f"The map in {PAGE.relative_to(ROOT)} is stale; run: make docs", file=sys.stderr)
        return 1
    PAGE.write_text(page, encoding="utf-8")
    return 0


def map_of_all() -> str:
    """The contracts, then every floor with its rooms, from the top down."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = {container: each["layers"] for each in contracts for container in each.get("containers", [])}
    arrow = next(each for each in contracts if each["id"] == "arrow")
    parts = ["**Contracts**, which `make check` holds:", "\n".join(f"- {each['name']}" for each in contracts)]
    for floor in arrow["layers"]:
        folder = ROOT.joinpath(*floor.split("."))
        parts += [f"### {folder.name}", summary(folder), order(layers.get(floor, ()))]
        rooms = [folder, *sorted(path.parent for path in folder.glob("*/__init__.py"))]
        parts += [table(room) for room in rooms if room.name != GENERATED and modules(room)]
    return "\n\n".join(part for part in parts if part) + "\n"


def order(layers: list[str]) -> str:
    """Which parts of a floor may import which, as one sentence."""
    if not layers:
        return ""
    steps = [", ".join(f"`{name.strip()}`" for name in layer.split("|")) for layer in layers]
    return f"Imports point from left to right: {' → '.join(steps)}."


def table(room: Path) -> str:
    """A room and its modules."""
    lines = map_lines(room)
    lines |= {name: first_sentence(room / f"{name}.py") for name in sorted(modules(room) - lines.keys())}
    rows = [f"| `{name}` | {text} |" for name, text in lines.items() if not name.endswith("/")]
    idea = "modules outside of rooms" if any(room.glob("*/__init__.py")) else summary(room)
    return "\n".join([f"| **`{room.relative_to(PACKAGE)}/`** | {idea} |", "|---|---|", *rows])


def summary(room: Path) -> str:
    """The first paragraph of a room's docstring."""
    return summary_of(docstring(room / "__init__.py"))


def summary_of(text: str) -> str:
    """The first paragraph of a docstring."""
    return as_markdown(text.partition("\n\n")[0])


def map_lines(room: Path) -> dict[str, str]:
    """The lines of a room's docstring that stand for modules, files and rooms in it, as name -> text."""
    found = {match[1]: as_markdown(match[2]) for match in matches(docstring(room / "__init__.py"))}
    for name in found:
        place = room / (name if "." in name or name.endswith("/") else f"{name}.py")
        if not place.exists():
            sys.exit(f"{room.relative_to(ROOT)}/__init__.py has a line for {name}, which does not exist.")
    return found


def first_sentence(module: Path) -> str:
    """The first sentence of a module's docstring."""
    return re.split(r"(?<=\.) ", summary_of(docstring(module)), maxsplit=1)[0]


def matches(text: str) -> Iterator[re.Match[str]]:
    """The lines of a map."""
    for line in text.splitlines():
        if match := MAP_LINE.fullmatch(line):
            yield match


def modules(room: Path) -> set[str]:
    """Names of the modules that lie in a room."""
    return {path.stem for path in room.glob("*.py") if path.stem != "__init__"}


def docstring(file: Path) -> str:
    """A module's docstring, or nothing."""
    return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""


def as_markdown(text: str) -> str:
    """A piece of a docstring as a cell of a table."""
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
