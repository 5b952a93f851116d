"""The paper's data sets, from tiny files in their formats to the records of nodes."""

import csv
import json
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.convergence import public
from deca_node.numerics.data.formats.sources import Source
from deca_node.numerics.data.records import parse_record
from deca_node.protocol.errors import DataError

ROWS = {
    "ag_news": [{"text": "Shares fell.", "label": 2}, {"text": "A goal late on.", "label": 1}],
    "mnli": [
        {"premise": "A man sleeps.", "hypothesis": "Nobody is awake.", "label": 1, "genre": "fiction"},
        {"premise": "It rains.", "hypothesis": "It is dry.", "label": -1, "genre": "fiction"},
    ],
    "alpaca": [
        {"instruction": "Add.", "input": "1 and 2", "output": "3", "text": "..."},
        {"instruction": "Say hello.", "input": "", "output": "Hello", "text": "..."},
    ],
    "tfns": [{"text": "$X upgraded", "label": 1}],
    "nwgi": [{"news": "Profits doubled.", "label": "Strong positive"}, {"news": "Flat.", "label": "mildly negative"}],
}
EXPECTED = {
    "ag_news": [{"text": "Shares fell.", "label": "Business"}, {"text": "A goal late on.", "label": "Sports"}],
    "mnli": [{"text": "A man sleeps.", "text_pair": "Nobody is awake.", "label": "neutral"}],
    "alpaca": [
        {"prompt": "Add.\n\n1 and 2\n\n", "completion": "3"},
        {"prompt": "Say hello.\n\n", "completion": "Hello"},
    ],
    "tfns": [{"text": "$X upgraded", "label": "bullish"}],
    "nwgi": [{"text": "Profits doubled.", "label": "positive"}, {"text": "Flat.", "label": "neutral"}],
}


@pytest.mark.parametrize("name", public.SETS)
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_rows_become_records(name: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows{suffix}"
    rows = ROWS[name]
    if suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        lines = json.dumps(rows) if suffix == ".json" else "\n".join(map(json.dumps, rows)) + "\n"
        path.write_text(lines)
    assert list(public.records(name, str(path))) == EXPECTED[name]


def test_saved_sets_are_read_through_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is loaded with load_from_disk and a name with load_dataset. Of several splits the training split is
    used."""
    asked: list[str] = []

    def load(source: str) -> object:
        asked.append(source)
        return {"train": ROWS["tfns"], "validation": []} if source != "one" else ROWS["tfns"]

    stand_in = SimpleNamespace(load_from_disk=load, load_dataset=load)
    monkeypatch.setitem(sys.modules, "datasets", stand_in)
    assert list(public.records("tfns", str(tmp_path))) == EXPECTED["tfns"]
    assert list(public.records("tfns", "one")) == EXPECTED["tfns"]
    assert asked == [str(tmp_path), "one"]


def test_without_datasets_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="pip install -c"):
        list(public.records("tfns", str(tmp_path)))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"text": "x"}', "row 1 is not a row of tfns"),
        ('{"text": "x", "label": 7}', "row 1 has the label 7"),
        ("[1]", "line 1 is not a JSON object"),
        ("{", "line 1 is not JSON"),
    ],
)
def test_what_is_not_of_the_set_is_refused(line: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match=complaint):
        list(public.records("tfns", str(path)))


def test_labels_are_dealt_unevenly_and_nothing_is_lost() -> None:
    labels = ("a", "b", "c", "d")
    found = [{"text": str(i), "label": labels[i % 4]} for i in range(400)]
    hands = public.deal(found, labels, nodes=8, alpha=0.25, seed=1)
    assert sorted(int(r["text"]) for hand in hands for r in hand) == list(range(400))
    largest = [max(Counter(r["label"] for r in hand).values()) / len(hand) for hand in hands if hand]
    assert sum(largest) / len(largest) > 0.5  # with even shares it would be 0.25
    even = public.deal(found, (), nodes=8, alpha=0.25, seed=1)
    assert [len(hand) for hand in even] == [0] * 8  # no record is without a label here
    plain = public.deal([{"text": str(i)} for i in range(16)], (), nodes=8, alpha=0.25, seed=1)
    assert [len(hand) for hand in plain] == [2] * 8


def test_a_set_becomes_files_that_nodes_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "alpaca.json", tmp_path / "dealt"
    source.write_text(json.dumps(ROWS["alpaca"]))
    monkeypatch.setattr(sys, "argv", ["public", "alpaca", "--source", str(source), "--nodes", "2", "--out", str(out)])
    assert public.main() == 0
    assert "2 records to 2 nodes: 1, 1" in capsys.readouterr().out
    lines = [(file, line) for file in sorted(out.iterdir()) for line in file.read_bytes().splitlines()]
    read = [parse_record(line, Source(file)) for file, line in lines]
    assert sorted(record.completion for record in read) == ["3", "Hello"]
    monkeypatch.setattr(sys, "argv", ["public", "tfns", "--source", str(source), "--out", str(out)])
    assert public.main() == 1
    assert "row 1 is not a row of tfns" in capsys.readouterr().err
