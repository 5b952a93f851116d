"""Data sets of the hub, through ``datasets`` and without a network."""

import contextlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deca_node.numerics.data.formats.sources import BadRecords
from deca_node.numerics.data.records import CompletionRecord, RecordReader
from deca_node.numerics.data.store.tokens import Tokenizing
from deca_node.protocol.errors import DataError
from tests.numerics.data.byte_tokens import byte_tokenizer

ROWS = [{"prompt": f"{number}?", "completion": "yes", "unused": None} for number in range(5)]


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library with a cache of its own. It takes a folder of the working directory for a data set of that name."""
    module = pytest.importorskip("datasets")
    monkeypatch.setattr(module.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(module.config, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return module


def write_set(folder: Path, **splits: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def read(place: str) -> tuple[list[Any], RecordReader]:
    reader = RecordReader(place, BadRecords(skip=False))
    return list(reader), reader


def test_a_data_set_is_read_by_its_address(datasets: Any, tmp_path: Path) -> None:
    """Of several splits the one to train on is taken, unless the address names one. Null is as good as missing."""
    write_set(tmp_path / "owner" / "name", train=ROWS, test=ROWS[:2])
    records, reader = read("hf://owner/name:train")
    assert [record.prompt for record in records if isinstance(record, CompletionRecord)] == [f"{n}?" for n in range(5)]
    assert str(records[2].source) == "hf://owner/name:train record 3"
    assert reader.bytes_done == reader.bytes_total > 0
    assert reader.told.told() == ("read 5 records as rows of a data set",)


def test_an_interrupted_data_set_and_a_later_start_need_no_network(
    datasets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the tokens are written, the hub is not asked again, so that a restart sees the same data."""
    write_set(tmp_path / "owner" / "name", train=ROWS)
    places = ["hf://owner/name"]
    first = Tokenizing(places, byte_tokenizer(), bad_records="stop").stored(tmp_path / "tokens")
    monkeypatch.setattr(datasets, "load_dataset", lambda *given, **named: pytest.fail("the hub was asked"))
    again = Tokenizing(places, byte_tokenizer(), bad_records="stop").stored(tmp_path / "tokens")
    assert first.fresh and not again.fresh and first.line.ids.tolist() == again.line.ids.tolist()


def test_online_it_streams_one_commit(datasets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load(*given: Any, **named: Any) -> Any:
        asked.append((given, named))
        return {"train": Stream(ROWS), "test": Stream([])}

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(
        "huggingface_hub.HfApi.dataset_info", lambda self, name, revision: SimpleNamespace(sha=f"{name}@{revision}!")
    )
    records, reader = read("hf://owner/name/sub@v2")
    assert len(records) == 5
    assert asked == [(("owner/name", "sub"), {"split": None, "revision": "owner/name@v2!", "streaming": True})]
    assert reader.told.told()[0] == "hf://owner/name/sub@v2 is at revision owner/name@v2!"


def test_an_interrupted_stream_goes_on_with_the_commit_that_it_began_with(
    datasets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    commits = iter(["first", "second", "third"])
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(
        "huggingface_hub.HfApi.dataset_info", lambda self, name, revision: SimpleNamespace(sha=next(commits))
    )
    monkeypatch.setattr("deca_node.numerics.data.tokenizing._CALL_CHARACTERS", 1)
    monkeypatch.setattr("deca_node.numerics.data.store.writing.TOKENS_BETWEEN", 1)
    for rows in (Broken(ROWS), Stream(ROWS)):
        monkeypatch.setattr(
            datasets, "load_dataset", lambda *given, rows=rows, revision, **named: asked.append(revision) or rows
        )
        with contextlib.suppress(DataError):
            found = Tokenizing(["hf://owner/name"], byte_tokenizer(), bad_records="stop").stored(tmp_path / "tokens")
    assert asked == ["first", "first"] and found.counted.records == 5
    assert found.counted.told[0] == "hf://owner/name is at revision first"


class Stream(list[Any]):
    """Rows without a length that is known before."""

    info = SimpleNamespace(splits=None)
    split = "train"


def test_what_cannot_be_had_is_told(datasets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        DataError, match=r"hf://owner/absent: the data set cannot be had \(HF_HUB_OFFLINE is set, so only"
    ):
        read("hf://owner/absent")
    monkeypatch.setattr(datasets, "load_dataset", lambda *given, **named: {"one": Stream(), "two": Stream()})
    with pytest.raises(DataError, match="a data set with the splits one, two; name one, as in :one"):
        read("hf://owner/name")
    monkeypatch.setattr(datasets, "load_dataset", lambda *given, **named: Broken(ROWS))
    with pytest.raises(DataError, match=r"could not be read to its end \(the line went dead\); start again"):
        read("hf://owner/name")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="data sets of the hub need the package datasets, which is not installed"):
        read("hf://owner/name")


class Broken(Stream):
    def __iter__(self) -> Any:
        yield self[0]
        raise ConnectionError("the line went dead")
