"""Every format through the command line: files of real shape give what their twins in JSON Lines give, and a bad record
is named by file and line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tools.write_data_examples import EXAMPLES, Example, prepare

pytest.importorskip("pyarrow")
pytest.importorskip("datasets")

Deca = Callable[..., Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("formats")
    prepare(folder)
    return folder


def learnt_of(deca: Deca, path: Path, model: Path, *flags: str) -> list[list[Any]]:
    """Tokens of all records with what is learnt of them, and the sequences."""
    outcome = deca("data", str(path), "--model", str(model), "--show", "9", "--json", *flags)
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert (found["bad"], found["causes"], found["records"]) == (0, {}, len(found["shown"]))
    return [*([one["tokens"], one["learnt"], one["label"]] for one in found["shown"]), [found["packed"]]]


def as_labels(rows: Path) -> tuple[str, ...]:
    return ("--labels", "weather, harbour") if rows.stem == "labelled" else ()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_a_fixture_gives_what_its_twin_gives(deca: Deca, made: Path, example: Example) -> None:
    rows = made / "twins" / f"{example.twin}.jsonl"
    found = learnt_of(deca, made / example.file, made / "model", *example.flags)
    same = learnt_of(deca, rows, made / "model", *as_labels(rows))
    # A file of one of the texts has the first of its twin.
    assert found[:-1] == same[: len(found) - 1]
    assert len(found) == 2 or found == same


TEXT = '{"text": "Fog."}\n'
TABLE = "text,id\nFog.,1\n"
CHAT = {"conversations": [{"from": "human", "value": "Fog?"}, {"from": "gpt", "value": "Yes."}]}
BAD = [
    ("a.jsonl", TEXT + '{"text": 5}\n', 'line 2: "text" must be a string, not a number'),
    ("a.jsonl", TEXT + '{"text": "Fog\n', "line 2: not valid JSON (Invalid control character at character 14)"),
    ("a.jsonl", TEXT + "[1]\n", "line 2: the line holds an array instead of an object"),
    ("a.jsonl", TEXT + '{"body": "x"}\n', 'line 2: a record needs "text", or'),
    ("a.jsonl", TEXT.encode() + '{"text": "Grüße"}\n'.encode("latin-1"), "line 2: not UTF-8 (byte 13)"),
    ("a.jsonl", TEXT + '{"prompt": "a"}\n', 'line 2: "prompt" is there but "completion" is missing'),
    ("a.jsonl", TEXT + '{"messages": [{"role": "user"}]}\n', 'line 2: message 1 has no "content"'),
    (
        "a.jsonl",
        TEXT + '{"messages": [{"role": "user", "content": "a"}]}\n',
        'line 2: the chat has no turn of role "assistant" with any content to learn from',
    ),
    (
        "a.json",
        '[{"instruction": "a", "output": "b"},\n {"instruction": 5, "output": "b"}]',
        'line 2 record 2: "instruc',
    ),
    ("a.json", json.dumps([CHAT, {"conversations": [5]}]), "line 1 record 2: message 1 is a number instead of an"),
    ("a.csv", TABLE + "Rain.,2,3\n", "line 3: the row has 3 fields, and the first line names 2 columns"),
    ("a.csv", TABLE + '"Ra"in,2\n', "line 3: the row is no valid CSV"),
    ("a.csv", TABLE.encode() + "Grüße,2\n".encode("latin-1"), "line 3: the row is not UTF-8"),
    ("a.tsv", "text\tid\nFog.\t1\n\t2\n", 'line 3: "text" is empty'),
]
WHOLE = [
    ("a.json", '[{"text": "Fog."},\n {"text": ', "line 2 record 2: not valid JSON"),
    ("a.csv", "body,id\nFog.,1\n", "line 1: the first line of a table must name its columns"),
    ("a.parquet", "Fog.", "the file is no whole Parquet file"),
    ("a.arrow", "Fog.", "the file is no whole Arrow file"),
    ("a.jsonl.gz", TEXT, "cannot be read (Not a gzipped file"),
    ("a.jsonl.zst", TEXT, "cannot be read (ZSTD decompress failed"),
    ("a.jsonl", TEXT.encode("utf-16-le"), "not UTF-8 (a NUL byte near the start, as in UTF-16 without a byte order"),
    ("a.txt", b"Fog.\n" + "Grüße\n".encode("latin-1"), "not UTF-8 (byte 8 in line 2)"),
    ("a.txt", b"Fog.\0", "the file is binary (it holds a NUL byte)"),
]


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(("name", "content", "said"), BAD, ids=[f"{name} {said}" for name, _, said in BAD])
def test_a_bad_record_is_named_by_file_and_line(
    deca: Deca, made: Path, tmp_path: Path, name: str, content: str | bytes, said: str
) -> None:
    path = written(tmp_path, name, content)
    outcome = deca("data", str(path), "--model", str(made / "model"))
    assert outcome.code == 6 and "bad         1 records are malformed" in outcome.out
    assert f"{path} {said}" in outcome.out
    assert deca("data", str(path), "--model", str(made / "model"), "--bad-records", "skip").code == 0


@pytest.mark.parametrize(("name", "content", "said"), WHOLE, ids=[f"{name} {said}" for name, _, said in WHOLE])
def test_a_bad_file_is_named(
    deca: Deca, made: Path, tmp_path: Path, name: str, content: str | bytes, said: str
) -> None:
    path = written(tmp_path, name, content)
    outcome = deca("data", str(path), "--model", str(made / "model"))
    assert outcome.code == 6 and str(path) in outcome.err and said in outcome.err, outcome
