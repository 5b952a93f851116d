"""The parts of a log file: they move along, and a reader misses no line meanwhile."""

import json
from pathlib import Path

from deca_node.storage.folder import LOG
from deca_node.storage.log_parts import OLD_PARTS, Place, has_log, lines_since, move_along, records


def write(folder: Path, *lines: str) -> None:
    with (folder / LOG).open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def test_parts_are_read_oldest_first_and_the_oldest_is_dropped(tmp_path: Path) -> None:
    assert not has_log(tmp_path)
    assert lines_since(tmp_path) == ([], Place())
    for number in range(OLD_PARTS + 3):
        write(tmp_path, f"line {number}")
        move_along(tmp_path / LOG)
    assert has_log(tmp_path)
    assert lines_since(tmp_path)[0] == ["line 3", "line 4"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{LOG}.1", f"{LOG}.2"]


def test_a_reader_goes_on_where_it_was_when_parts_moved_along(tmp_path: Path) -> None:
    write(tmp_path, "a", "b")
    _, place = lines_since(tmp_path)
    write(tmp_path, "c")
    move_along(tmp_path / LOG)
    write(tmp_path, "d")
    lines, place = lines_since(tmp_path, place)
    assert lines == ["c", "d"]
    assert lines_since(tmp_path, place)[0] == []


def test_a_line_that_is_being_written_comes_when_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / LOG).write_text("a\nb")
    lines, place = lines_since(tmp_path)
    assert lines == ["a"]
    write(tmp_path, "")
    assert lines_since(tmp_path, place)[0] == ["b"]


def test_what_a_crash_left_is_no_log_line() -> None:
    sound = json.dumps({"time": 1.5, "level": "info", "message": "here"})
    left = ["\0\0\0", "", "[1]", "3", '{"time": 1, "level": "info"}', '{"time": "x", "level": "info", "message": "y"}']
    left += [
        f'{{"time": {time}, "level": "info", "message": "y"}}' for time in ("1e300", "NaN", "null", "[]", "9" * 400)
    ]
    assert [line for line, _ in records([*left, sound, '{"time": 1, "level": 3, "message": "y"}'])] == [sound]
