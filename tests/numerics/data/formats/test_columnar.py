"""Parquet and Arrow: the records of their twins in JSON Lines; saved data sets; damaged files; no pyarrow."""

import sys
from pathlib import Path
from typing import Any

import pytest

from deca_node.numerics.data.formats.sources import Reading
from deca_node.protocol.errors import DataError
from tests.numerics.data.formats.twins import (
    ALPACA,
    ALPACA_TWIN,
    PROMPTS,
    SHAREGPT,
    SHAREGPT_TWIN,
    TEXTS,
    Rows,
    chat,
    reader_of,
    records,
    twin,
)

pyarrow = pytest.importorskip("pyarrow")
CHATS: Rows = [chat("Hi", "Good day", system="Be brief."), {**chat("a", "b"), "source": "x"}]
KINDS = [(TEXTS, TEXTS), (PROMPTS, PROMPTS), (ALPACA, ALPACA_TWIN), (SHAREGPT, SHAREGPT_TWIN), (CHATS, CHATS)]
NAMES = ["text", "prompt", "alpaca", "sharegpt", "messages"]


def write_parquet(path: Path, rows: Rows) -> None:
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(columns(rows)), path)


def columns(rows: Rows) -> list[dict[str, Any]]:
    """The rows with all columns, null where a row has none."""
    names = {key for row in rows for key in row}
    return [{name: row.get(name) for name in names} for row in rows]


def write_arrow(path: Path, rows: Rows, stream: bool) -> None:
    found = pyarrow.Table.from_pylist(columns(rows))
    new = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
    with path.open("wb") as file, new(file, found.schema) as writer:
        writer.write_table(found, max_chunksize=1)


@pytest.mark.parametrize(("rows", "same"), KINDS, ids=NAMES)
def test_rows_are_records(tmp_path: Path, rows: Rows, same: Rows) -> None:
    write_parquet(tmp_path / "set.parquet", rows)
    write_arrow(tmp_path / "set.arrow", rows, stream=True)
    write_arrow(tmp_path / "set.feather", rows, stream=False)
    for name in ("set.parquet", "set.arrow", "set.feather"):
        assert records(tmp_path / name) == twin(tmp_path, same), name
    (tmp_path / "set.parquet").rename(tmp_path / "part-0")
    assert records(tmp_path / "part-0", Reading("parquet")) == twin(tmp_path, same)


@pytest.mark.parametrize(("rows", "same"), KINDS, ids=NAMES)
def test_a_saved_data_set_is_its_train_split(tmp_path: Path, rows: Rows, same: Rows) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    part = datasets.Dataset.from_list(columns(rows))
    folder = tmp_path / "saved"
    datasets.DatasetDict({"train": part, "test": part}).save_to_disk(folder)
    expected = twin(tmp_path, same)
    assert records(folder / "test") == expected
    reader = reader_of(folder)
    assert len(list(reader)) == len(rows)
    assert records(folder) == expected
    told = " ".join(reader.told.told())
    assert f"read {len(rows)} records as Arrow" in told
    assert "test (another split than train)" in told and "train/state.json (describes a data set)" in told


def test_splits_of_which_none_is_train(tmp_path: Path) -> None:
    for split in ("a", "b"):
        (tmp_path / split).mkdir()
        write_arrow(tmp_path / split / "data-00000-of-00001.arrow", TEXTS, stream=True)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["a", "b"]}')
    with pytest.raises(DataError, match=r"a data set with the splits a, b; give the folder of one"):
        records(tmp_path)


def test_a_bad_row_is_named_but_not_quoted(tmp_path: Path) -> None:
    write_parquet(tmp_path / "set.parquet", [{"text": "fine"}, {"text": " "}])
    with pytest.raises(DataError, match=r'set.parquet record 2: "text" is empty'):
        records(tmp_path / "set.parquet")
    write_parquet(tmp_path / "set.parquet", [{"text": "fine"}, {"text": None}])
    with pytest.raises(DataError, match=r'set.parquet record 2: a record needs "text"'):
        records(tmp_path / "set.parquet")
    write_parquet(tmp_path / "set.parquet", [{"text": b"secret"}])
    with pytest.raises(DataError, match=r'set.parquet record 1: "text" must be a string, not a value of type bytes'):
        records(tmp_path / "set.parquet")
    assert records(tmp_path / "set.parquet", skip=True) == []


@pytest.mark.parametrize(
    ("name", "kind"), [("set.parquet", "Parquet"), ("set.arrow", "Arrow"), ("set.feather", "Arrow")]
)
def test_a_file_that_is_not_whole(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    if kind == "Parquet":
        write_parquet(path, TEXTS)
    else:
        write_arrow(path, TEXTS, stream=name == "set.arrow")
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"secret" * 20, b""):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}: the file is no whole {kind} file \(") as caught:
            records(path)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["set.parquet", "set.arrow", "set.jsonl.zst"])
def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).write_bytes(b"any")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        DataError, match=r"need the package pyarrow, .*; install it with: pip install 'deca-node\[sets\]'"
    ):
        records(tmp_path / name)
