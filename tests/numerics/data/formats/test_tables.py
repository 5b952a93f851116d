"""CSV and TSV: the records of their twins in JSON Lines, and what is said of bad tables and rows."""

import csv
import io
import json
import re
from pathlib import Path

import pytest

from deca_node.numerics.data.formats.sources import BadRecords, Reading
from deca_node.numerics.data.labelled import LabelledReader
from deca_node.protocol.errors import DataError
from tests.numerics.data.formats.twins import (
    ALPACA,
    ALPACA_TWIN,
    PROMPTS,
    SHAREGPT,
    SHAREGPT_TWIN,
    TEXTS,
    Rows,
    reader_of,
    records,
    twin,
)


def table(rows: Rows, separator: str = ",") -> str:
    """The rows as spreadsheets export them; lists as the text of JSON."""
    names = sorted({key for row in rows for key in row})
    out = io.StringIO()
    writer = csv.DictWriter(out, names, delimiter=separator)
    writer.writeheader()
    for row in rows:
        writer.writerow({k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()})
    return out.getvalue()


@pytest.mark.parametrize(("suffix", "separator"), [("csv", ","), ("tsv", "\t")])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8", "utf-16"])
@pytest.mark.parametrize(
    ("rows", "same"),
    [(TEXTS, TEXTS), (PROMPTS, PROMPTS), (ALPACA, ALPACA_TWIN), (SHAREGPT, SHAREGPT_TWIN)],
    ids=["text", "prompt", "alpaca", "sharegpt"],
)
def test_rows_are_records(tmp_path: Path, rows: Rows, same: Rows, suffix: str, separator: str, encoding: str) -> None:
    path = tmp_path / f"set.{suffix}"
    path.write_bytes(table(rows, separator).encode(encoding))
    assert records(path) == twin(tmp_path, same)
    assert records(path.rename(tmp_path / "export.dat"), Reading(suffix)) == twin(tmp_path, same)


def test_what_was_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "set.csv"
    path.write_text("body,id\none,1\n\ntwo,2\n")
    reader = reader_of(path, Reading.of("auto", "text=body"))
    assert len(list(reader)) == 2
    assert reader.told.told() == ("read 2 records as CSV",)


def test_labelled_rows(tmp_path: Path) -> None:
    path = tmp_path / "set.csv"
    path.write_text("body,topic,text_pair\nlong stay,bad,\nshort,good,again\n")
    reading = Reading.of("csv", "text=body,label=topic")
    found = list(LabelledReader(path, BadRecords(skip=False), ["good", "bad"], reading))
    assert [(r.text, r.pair, r.label) for r in found] == [("long stay", None, 1), ("short", "again", 0)]


BAD = [
    ("secret,other\na,b\n", " line 1: the first line of a table must name its columns, and it names none of compl"),
    ("text,text\na,b\n", " line 1: the first line names two columns alike"),
    ('text,id\nfine,1\n"a\nb",2\nsecret,3,4\n', " line 5: the row has 3 fields, and the first line names 2 columns"),
    ("text,id\nfine,1\nsecret\n", " line 3: the row has 1 fields, and the first line names 2 columns"),
    ('text,id\nfine,1\n"a"secret,2\n', " line 3: the row is no valid CSV"),
    ('text,id\nfine,1\n"secret,2\nnever closed', " line 3: the row is no valid CSV (unexpected end of data)"),
    ("text,id\nfine,1\n,2\n", ' line 3: "text" is empty'),
    (b"text,id\nfine,1\nsecret \xfc,2\n", " line 3: the row is not UTF-8; convert the file to UTF-8"),
    ("text,id\n".encode("utf-16-be"), ": not UTF-8 (a NUL byte near the start"),
]


@pytest.mark.parametrize(("content", "said"), BAD, ids=[said for _, said in BAD])
def test_a_bad_row_is_named_but_not_quoted(tmp_path: Path, content: str | bytes, said: str) -> None:
    path = tmp_path / "set.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=re.escape(f"{path}{said}")) as caught:
        records(path)
    assert "secret" not in str(caught.value)


def test_bad_rows_can_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "set.csv"
    path.write_bytes(b'text,id\none,1\nx,2,3\n\xfc,4\n"a"b,5\ntwo,6\n')
    assert records(path, skip=True) == twin(tmp_path, [{"text": "one"}, {"text": "two"}])
