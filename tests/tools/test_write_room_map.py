"""The map of the rooms, taken from the rooms' own docstrings."""

from pathlib import Path

import pytest

from tools import write_room_map

FLOOR = '"""A floor. More words.\n\n::\n\n    kitchen/   where meals are made\n    stairs     up and down\n"""\n'
KITCHEN = '"""Where meals are made.\n\n::\n\n    stove    heat, or ``fire``\n    stove.c  the same in C\n"""\n'


@pytest.fixture
def floor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A floor with one room and one module of its own."""
    monkeypatch.setattr(write_room_map, "ROOT", tmp_path)
    monkeypatch.setattr(write_room_map, "PACKAGE", tmp_path)
    kitchen = tmp_path / "floor" / "kitchen"
    kitchen.mkdir(parents=True)
    files = {"__init__.py": FLOOR, "stairs.py": '"""Stairs."""\n', "kitchen/__init__.py": KITCHEN}
    files |= {"kitchen/stove.py": '"""A stove."""\n', "kitchen/stove.c": "\n"}
    for name, text in files.items():
        (tmp_path / "floor" / name).write_text(text)
    return tmp_path / "floor"


def test_a_room_is_a_table_of_its_lines(floor: Path) -> None:
    assert write_room_map.table(floor / "kitchen").splitlines() == [
        "| **`floor/kitchen/`** | Where meals are made. |",
        "|---|---|",
        "| `stove` | heat, or `fire` |",
        "| `stove.c` | the same in C |",
    ]
    assert "| `stairs` | up and down |" in write_room_map.table(floor)
    assert "where meals are made" not in write_room_map.table(floor)


def test_a_module_without_a_line_is_told_by_its_own_first_sentence(floor: Path) -> None:
    (floor / "kitchen" / "sink.py").write_text('"""Water, hot and cold. And more."""\n')
    assert "| `sink` | Water, hot and cold. |" in write_room_map.table(floor / "kitchen")


def test_a_line_without_a_module_is_an_error(floor: Path) -> None:
    (floor / "kitchen" / "stove.c").unlink()
    with pytest.raises(SystemExit, match=r"floor/kitchen/__init__.py has a line for stove.c, which does not exist"):
        write_room_map.table(floor / "kitchen")


def test_the_picture_names_rooms_and_modules(floor: Path) -> None:
    lines = write_room_map.picture([floor]).splitlines()
    assert [line[10:].strip(" |") for line in lines[1:-1]] == ["A floor", "kitchen/", "stairs"]
    assert len({len(line) for line in lines}) == 1


def test_imports_are_told_from_left_to_right() -> None:
    assert write_room_map.order(["a | b", "c"]) == "Imports point from left to right: `a`, `b` → `c`."
