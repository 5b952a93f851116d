"""JSON arrays, compressions and encodings: the records of their twins in JSON Lines, and what is said of bad ones."""

import contextlib
import gzip
import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deca_node.numerics.data.formats.entries import BinaryFileError, entries
from deca_node.numerics.data.formats.sources import Reading
from deca_node.numerics.data.records import TextRecord
from deca_node.protocol.errors import DataError
from tests.numerics.data.formats.twins import PROMPTS, TEXTS, Rows, reader_of, records, twin


@pytest.mark.parametrize("rows", [TEXTS, PROMPTS])
@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_is_its_objects(tmp_path: Path, rows: Rows, indent: int | None) -> None:
    path = tmp_path / "set.json"
    path.write_text("\ufeff \n" + json.dumps(rows, indent=indent) + "\n")
    assert records(path) == twin(tmp_path, rows)


def test_json_lines_may_be_called_json(tmp_path: Path) -> None:
    path = tmp_path / "set.json"
    path.write_text("".join(json.dumps(row) + "\n\n" for row in PROMPTS))
    assert records(path) == twin(tmp_path, PROMPTS)
    path.write_text(json.dumps(PROMPTS[0], indent=1))
    assert records(path) == twin(tmp_path, PROMPTS[:1])


@pytest.mark.parametrize("name", ["set.json", "set.jsonl", "set.txt"])
@pytest.mark.parametrize(("end", "encoding"), [("", "utf-16"), ("", "utf-8-sig"), (".gz", "utf-8"), (".gz", "utf-16")])
def test_encodings_and_gzip(tmp_path: Path, name: str, end: str, encoding: str) -> None:
    rows = [{"text": "Grüße\u2028an alle"}] * 3
    text = {
        "set.json": json.dumps(rows, ensure_ascii=False),
        "set.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
        "set.txt": "Grüße\u2028an alle",
    }[name]
    data = text.encode(encoding)
    path = tmp_path / (name + end)
    path.write_bytes(gzip.compress(data) if end else data)
    found = records(path)
    assert found == twin(tmp_path, rows)[: len(found)]
    assert len(found) == (1 if name == "set.txt" else 3)


@pytest.mark.parametrize("name", ["set.json", "set.jsonl", "set.csv", "set.txt"])
def test_zstandard(tmp_path: Path, name: str) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    rows = [{"text": "one"}, {"text": "two"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    text = {"set.json": json.dumps(rows), "set.jsonl": lines, "set.csv": "text\none\ntwo\n", "set.txt": "one"}[name]
    path = tmp_path / f"{name}.zst"
    path.write_bytes(pyarrow.compress(text.encode(), "zstd", asbytes=True))
    found = records(path)
    assert found == twin(tmp_path, rows)[: len(found)] != []
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match=r"set.*zst: cannot be read"):
        records(path)


BAD = [
    ('[{"text": "a"},\n {"text": "secret}', "line 2 record 2: not valid JSON (Unterminated string starting at line 2)"),
    ('[{"text": "a"}\n {"text": "secret"}]', "line 1 record 1: not valid JSON (a comma is missing behind the record)"),
    ('[{"text": "a"},\n "secret"]', "line 2 record 2: the array holds a string instead of an object; a record needs"),
    ('[{"text": "a"},\n {"text": 5}]', 'line 2 record 2: "text" must be a string, not a number'),
    ('[{"text": "a"}', ": not valid JSON (the end of the array is missing)"),
    ('{"text": "a"}\n{"text"}\n{"text": "b"}', "line 2: not valid JSON (Expecting ':' delimiter at line 2)"),
    ("[" * 200_000, "line 1 record 1: not valid JSON (nested too deeply, or a number too long)"),
    ('{"data": [{"text": "secret"}]}', 'but the keys are "data"'),
]


@pytest.mark.parametrize(("text", "said"), BAD, ids=[said for _, said in BAD])
def test_a_bad_array_is_named_but_not_quoted(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "set.json"
    path.write_text(text)
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        records(path)
    assert str(caught.value).startswith(str(path)) and "secret" not in str(caught.value)


def test_bad_objects_are_left_out_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "set.json"
    path.write_text('[{"text": "a"}, {"text": 5},\n {"text": "b"}]')
    assert records(path, skip=True) == twin(tmp_path, [{"text": "a"}, {"text": "b"}])
    path.write_text('{"text": "a"}\n{"text"\n{"text": "b"}')
    assert records(path, skip=True) == twin(tmp_path, [{"text": "a"}, {"text": "b"}])


@given(st.text(alphabet='[]{}",:\n 1atextprom', max_size=40).map(str.encode) | st.binary(max_size=20))
def test_any_file_is_records_or_a_data_error(content: bytes) -> None:
    """By every reader of text formats, whatever the bytes; and each bad record is left out where it may be."""
    for kind in ("json", "jsonl", "csv", "tsv", "plain"):
        with contextlib.suppress(DataError, BinaryFileError):
            for _, value in entries(Path("x"), kind, io.BufferedReader(io.BytesIO(content)), Reading(), ""):
                assert isinstance(value, dict | str | DataError)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_records_in_a_file_that_is_called_a_text(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "set.txt"
    rows = [{"id": 7, **row} for row in PROMPTS]
    for text, name in (("".join(json.dumps(r) + "\n" for r in rows), "JSON Lines"), (json.dumps(rows), "JSON")):
        path.write_bytes(text.encode(encoding))
        reader = reader_of(path)
        assert len(list(reader)) == 2
        assert reader.told.told() == (f"read 2 records as {name}",)
        assert records(path) == twin(tmp_path, PROMPTS)
    for text in ('{"name": "x"}', "{ text }", '["text", 1]'):
        path.write_bytes(text.encode(encoding))
        assert records(path) == twin(tmp_path, [{"text": text}])


def test_a_record_knows_its_line_and_number(tmp_path: Path) -> None:
    path = tmp_path / "set.json"
    path.write_text('[\n{"text": "a"},\n\n{"text":\n"b"}, {"text": "c"}]')
    found = [record.source for record in reader_of(path) if isinstance(record, TextRecord)]
    assert [(source.line, source.record) for source in found] == [(2, 1), (4, 2), (5, 3)]
    assert str(found[1]) == f"{path} line 4 record 2"


def test_utf_16_that_ends_within_a_character(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes('{"text": "a"}\n{"text": "b"}'.encode("utf-16")[:-1])
    with pytest.raises(DataError, match=r"set.jsonl: not UTF-16 behind line 1; convert the file to UTF-8"):
        records(path)
    (tmp_path / "set.txt").write_bytes("a text".encode("utf-16")[:-1])
    with pytest.raises(DataError, match=r"set.txt: not UTF-16 \(byte 13\)"):
        records(tmp_path / "set.txt")
    path.write_bytes('{"text": "a"}'.encode("utf-16-le"))
    with pytest.raises(
        DataError, match=r"set.jsonl: not UTF-8 \(a NUL byte .*, as in UTF-16 without a byte order mark\); convert"
    ):
        records(path)
