"""Folders: what is taken, and what is left out and why."""

import json
import os
from pathlib import Path

import pytest

from deca_node.numerics.data.formats.sources import FILES_TOLD_MAX
from deca_node.numerics.data.records import TextRecord
from deca_node.protocol.errors import DataError
from tests.numerics.data.formats.twins import reader_of, records


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content)


def read(folder: Path) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """The names and texts of records, and the reason for each file that is left out."""
    reader = reader_of(folder)
    taken = [(str(r.source.path.relative_to(folder)), r.text) for r in reader if isinstance(r, TextRecord)]
    return taken, {str(path.relative_to(folder)): why for path, why in reader.told.left_out.items()}


def test_what_lies_beside_records_is_left_out_and_told(tmp_path: Path) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    line = '{"text": "one"}\n'
    files = {
        "train.jsonl": line,
        "train.jsonl~": line,
        "train.jsonl.bak": line,
        ".train.jsonl": line,
        "README.md": "about",
        "LICENSE": "free",
        "notes.txt": "a note",
        "t.csv": "text\ntwo\n",
        "image.png": "a\0b",
        "more.json": '[{"text": "three"}]',
        "config.json": '{"version": 1}',
        "dataset_info.json": "{}",
    }
    write(data, **files)
    write(elsewhere, **{"part.jsonl": '{"text": "four"}\n'})
    (data / "latest.jsonl").symlink_to("train.jsonl")
    (data / "part2").symlink_to(elsewhere)
    (data / "up").symlink_to(tmp_path)
    (data / "gone.jsonl").symlink_to("nowhere")
    (data / ".git").mkdir()
    os.mkfifo(data / "pipe.jsonl")
    taken, left = read(data)
    assert taken == [
        ("more.json", "three"),
        ("notes.txt", "a note"),
        ("part2/part.jsonl", "four"),
        ("t.csv", "two"),
        ("train.jsonl", "one"),
    ]
    assert left == {
        ".git": "hidden",
        ".train.jsonl": "hidden",
        "LICENSE": "about the data",
        "README.md": "about the data",
        "config.json": "about the data",
        "dataset_info.json": "describes a data set",
        "gone.jsonl": "a link to nothing",
        "image.png": "binary",
        "latest.jsonl": "the same file as train.jsonl",
        "pipe.jsonl": "no regular file",
        "train.jsonl.bak": "a backup or a part of a file",
        "train.jsonl~": "a backup or a part of a file",
        "up": "a link to a folder around it",
    }


def test_a_folder_of_texts_keeps_its_readme(tmp_path: Path) -> None:
    write(tmp_path, **{"README.md": "about", "main.py": "import this", "package.json": '{"name": "x"}'})
    taken, left = read(tmp_path)
    assert [name for name, _ in taken] == ["README.md", "main.py", "package.json"]
    assert left == {}


def test_a_lone_json_file_without_records_is_no_text(tmp_path: Path) -> None:
    write(tmp_path, **{"set.json": '{"data": []}'})
    with pytest.raises(DataError, match=r'set.json line 1: a record needs "text", .*, but the keys are "data"'):
        records(tmp_path)


def test_a_long_list_is_cut(tmp_path: Path) -> None:
    write(tmp_path, **{f"{k:02}.bak": "x" for k in range(FILES_TOLD_MAX + 3)}, **{"a.jsonl": '{"text": "one"}'})
    reader = reader_of(tmp_path)
    assert len(list(reader)) == 1
    (sentence,) = reader.told.told()
    assert sentence.startswith(f"left out of {tmp_path}: 00.bak (a backup or a part of a file), 01.bak (")
    assert sentence.endswith(", and 3 more")


def test_a_folder_with_nothing_to_take_says_how_much_was_left_out(tmp_path: Path) -> None:
    write(tmp_path, **{"a.bak": "x", "b~": "x"})
    with pytest.raises(DataError, match=r"the folder holds no files \(hidden ones do not count\) \(2 left out\)"):
        records(tmp_path)


def test_objects_in_json_files_of_a_folder(tmp_path: Path) -> None:
    """JSON lines that are called .json, also where the first is longer than the look at it."""
    write(tmp_path, **{"a.json": json.dumps({"text": "x" * 100_000}) + "\n", "b.json": '{"id": 1, "text": "two"}'})
    assert [name for name, _ in read(tmp_path)[0]] == ["a.json", "b.json"]
