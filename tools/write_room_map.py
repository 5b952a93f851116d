"""Writes the map of the rooms into docs/ARCHITECTURE.md; with --check, only says whether it is up to date.

::

    folders and modules                      -> the picture of the floors
    the docstring of a room's __init__.py    -> the room's idea, and one line per module
    the contracts of pyproject.toml          -> which rooms may import which

A module without a line in its room is described by the first sentence of its own docstring. A line for a module that
does not exist is an error.
"""

import ast
import re
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "deca_node"
PAGE = ROOT / "docs" / "ARCHITECTURE.md"
BEGIN, END = "<!-- {}: begin; written by tools/write_room_map.py -->\n", "<!-- {}: end -->\n"
WIDTH = 100
"""Columns of the picture within its frame."""

GENERATED = "wire_pb"
"""Rooms of this name hold generated code, which has no map."""
MAP_LINE = re.compile(r"\s*([\w.]+/?)\s{2,}(\S.*)")


def main(arguments: list[str]) -> int:
    """Write the map into the page, or check it. Returns 1 if it is stale."""
    text = PAGE.read_text(encoding="utf-8")
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    arrow = next(each for each in contracts if each["id"] == "arrow")
    floors = [ROOT.joinpath(*floor.split(".")) for floor in arrow["layers"]]
    page = replaced(text, "floors", f"```\n{picture(floors)}\n```")
    page = replaced(page, "rooms", map_of_all(floors, contracts))
    if page == text:
        return 0
    if arguments == ["--check"]:
        print(f"The map in {PAGE.relative_to(ROOT)} is stale; run: make docs", file=sys.stderr)
        return 1
    PAGE.write_text(page, encoding="utf-8")
    return 0


def replaced(page: str, part: str, text: str) -> str:
    """The page with a new text between the two marks of a part."""
    before, _, rest = page.partition(BEGIN.format(part))
    after = rest.partition(END.format(part))[2]
    return f"{before}{BEGIN.format(part)}\n{text}\n\n{END.format(part)}{after}"


def picture(floors: list[Path]) -> str:
    """The floors, one above the other: the idea of each, its rooms, and its own modules."""
    edge = f"{'':10}+{'-' * (WIDTH + 2)}+"
    lines = []
    for floor in floors:
        idea = as_markdown(docstring(floor / "__init__.py").partition(".")[0]).replace("`", "")
        rooms, own = [f"{room.name}/" for room in rooms_of(floor)], sorted(modules(floor))
        words = [line for text in (idea, "  ".join(rooms), "  ".join(own)) for line in textwrap.wrap(text, WIDTH)]
        boxed = [f"{'':10}| {line:{WIDTH}} |" for line in words]
        lines += [edge, f"{floor.name:10}{boxed[0][10:]}", *boxed[1:]]
    return "\n".join([*lines, edge])


def map_of_all(floors: list[Path], contracts: list[dict[str, Any]]) -> str:
    """The contracts, then every floor with its rooms, from the top down."""
    layers = {container: each["layers"] for each in contracts for container in each.get("containers", [])}
    parts = ["**Contracts**, which `make check` holds:", "\n".join(f"- {each['name']}" for each in contracts)]
    for floor in floors:
        parts += [f"### {floor.name}", summary(floor), order(layers.get(f"{PACKAGE.name}.{floor.name}", []))]
        parts += [table(room) for room in (floor, *rooms_of(floor)) if modules(room)]
    return "\n\n".join(part for part in parts if part)


def rooms_of(floor: Path) -> list[Path]:
    """The rooms of a floor, without generated code."""
    return sorted(path.parent for path in floor.glob("*/__init__.py") if path.parent.name != GENERATED)


def order(layers: list[str]) -> str:
    """The imports that are allowed between the parts of a floor, as one sentence."""
    if not layers:
        return ""
    steps = [", ".join(f"`{name.strip()}`" for name in layer.split("|")) for layer in layers]
    return f"Imports point from left to right: {' → '.join(steps)}."


def table(room: Path) -> str:
    """A room and its modules."""
    lines = map_lines(room)
    lines |= {name: first_sentence(room / f"{name}.py") for name in sorted(modules(room) - lines.keys())}
    rows = [f"| `{name}` | {text} |" for name, text in lines.items() if not name.endswith("/")]
    idea = "modules outside of rooms" if rooms_of(room) else summary(room)
    return "\n".join([f"| **`{room.relative_to(PACKAGE)}/`** | {idea} |", "|---|---|", *rows])


def summary(room: Path) -> str:
    """The first paragraph of a room's docstring."""
    return summary_of(docstring(room / "__init__.py"))


def summary_of(text: str) -> str:
    """The first paragraph of a docstring."""
    return as_markdown(text.partition("\n\n")[0])


def map_lines(room: Path) -> dict[str, str]:
    """The lines of a room's docstring that describe modules, files and rooms in it, as name -> text."""
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
    """Names of the modules of a room."""
    return {path.stem for path in room.glob("*.py") if path.stem != "__init__"}


def docstring(file: Path) -> str:
    """A module's docstring, or an empty text."""
    return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""


def as_markdown(text: str) -> str:
    """A piece of a docstring as a cell of a table."""
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
