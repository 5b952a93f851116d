"""A JSON array that is too large to be held in memory is refused before it is read."""

import json
from pathlib import Path

import pytest

from deca_node.numerics.data import files
from deca_node.numerics.data.formats.sources import BadRecords
from deca_node.numerics.data.records import RecordReader
from deca_node.protocol.errors import DataError


def test_the_sentence_says_how_to_make_lines_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "all.json"
    path.write_text(json.dumps([{"text": "one"}, {"text": "two"}]))
    lines = tmp_path / "all.jsonl"
    lines.write_text('{"text": "one"}\n{"text": "two"}\n')
    monkeypatch.setattr(files, "JSON_BYTES_MAX", path.stat().st_size)
    assert len(list(RecordReader(path, BadRecords(skip=False)))) == 2
    monkeypatch.setattr(files, "JSON_BYTES_MAX", 10)
    with pytest.raises(DataError, match=r"all\.json: a JSON array of .* GB would be held in memory whole.*jq -c"):
        list(RecordReader(path, BadRecords(skip=True)))
    assert len(list(RecordReader(lines, BadRecords(skip=False)))) == 2, "lines have no limit"
