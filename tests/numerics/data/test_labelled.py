"""Labelled records: labels by name or number, pairs, what is cut, what is held out, and what is refused."""

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deca_node.numerics.data import labelled
from deca_node.numerics.data.formats.lines import parse_object
from deca_node.numerics.data.formats.sources import BadRecords, Source
from deca_node.numerics.data.labelled import LabelledData, LabelledReader, label_number, load_labelled
from deca_node.numerics.data.store import scratch
from deca_node.protocol.errors import DataError
from tests.numerics.learning.labelled_runs import (
    LABELS,
    SPECIAL,
    WORDS,
    learnable_records,
    word_tokenizer,
    write_records,
)

SOURCE = Source(Path("notes.jsonl"), 3)


def load(path: Path, pairs: bool = True, **changes: Any) -> LabelledData:
    return load_labelled(
        path, word_tokenizer(pairs), LABELS, **({"sequence_length": 8, "holdout": 0.0, "bad_records": "stop"} | changes)
    )


def rows(data: LabelledData) -> list[str]:
    """Each record's tokens as words."""
    names = SPECIAL + WORDS
    train = data.train
    return [" ".join(names[k] for k in train.ids[a:b]) for a, b in zip(train.starts, train.starts[1:], strict=False)]


def test_names_and_numbers_of_labels(tmp_path: Path) -> None:
    path = write_records(tmp_path / "d.jsonl", [{"text": "w1", "label": label} for label in ("pos", "neg", 1, 2)])
    data = load(path)
    assert data.train.labels.tolist() == [2, 0, 1, 2]
    assert data.summary.counts == (1, 1, 2)


def test_one_record_is_one_row_as_the_tokenizer_makes_it(tmp_path: Path) -> None:
    records = [
        {"text": "w1 w2", "label": 0},
        {"text": "w3", "text_pair": "w4 w5", "label": 1, "id": 7},
        {"text": "w6", "text_pair": None, "label": 2},
    ]
    path = write_records(tmp_path / "d.jsonl", records)
    assert rows(load(path)) == ["<cls> w1 w2 <sep>", "<cls> w3 <sep> w4 w5 <sep>", "<cls> w6 <sep>"]
    assert load(path).train.types.tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0]
    assert rows(load(path, pairs=False)) == ["w1 w2", "w3 w4 w5", "w6"]


def test_a_tokenizer_without_a_separator_gets_a_newline_between_the_texts(tmp_path: Path) -> None:
    from tests.numerics.data.byte_tokens import byte_tokenizer

    path = write_records(tmp_path / "d.jsonl", [{"text": "ab", "text_pair": "cd", "label": 0}])
    tokenizer = byte_tokenizer()
    data = load_labelled(path, tokenizer, LABELS, sequence_length=8, holdout=0, bad_records="stop")
    assert tokenizer.decode(data.train.ids) == "ab\ncd"


def test_what_is_too_long_is_cut_and_counted(tmp_path: Path) -> None:
    """In a pair the longer text loses first; the ends that the tokenizer sets stay."""
    records = [
        {"text": "w1 " * 20, "label": 0},
        {"text": "w1 w2", "text_pair": "w3 w4 w5 w6 w7", "label": 0},
        {"text": "w1 w2 w3 w4 w5 w6", "label": 0},
    ]
    tokenizer = word_tokenizer()
    path = write_records(tmp_path / "d.jsonl", records)
    data = load_labelled(path, tokenizer, LABELS, sequence_length=8, holdout=0, bad_records="stop")
    assert rows(data) == [
        "<cls> w1 w1 w1 w1 w1 w1 <sep>",
        "<cls> w1 w2 <sep> w3 w4 w5 <sep>",
        "<cls> w1 w2 w3 w4 w5 w6 <sep>",
    ]
    assert data.summary.cut == 2
    tokenizer.save_pretrained(tmp_path / "t")
    assert json.loads((tmp_path / "t" / "tokenizer.json").read_text())["truncation"] is None


@pytest.mark.parametrize(("records", "holdout", "held"), [(2, 0.1, 1), (40, 0.1, 4), (3, 0.9, 2), (5, 0.0, 0)])
def test_a_share_is_held_out_and_nothing_is_lost(tmp_path: Path, records: int, holdout: float, held: int) -> None:
    lines = [{"text": f"w{k % 25}", "label": k % 3} for k in range(records)]
    data = load(write_records(tmp_path / "d.jsonl", lines), holdout=holdout)
    assert (len(data.heldout), len(data.train)) == (held, records - held)
    both = np.concatenate([data.train.labels, data.heldout.labels])
    assert sorted(both) == sorted(line["label"] for line in lines)
    again = load(tmp_path / "d.jsonl", holdout=holdout)
    assert again.heldout.ids.tolist() == data.heldout.ids.tolist()
    if records == 40:
        assert load(tmp_path / "d.jsonl", holdout=holdout, seed=1).heldout.ids.tolist() != data.heldout.ids.tolist()


def test_tokens_too_many_for_memory_lie_in_files_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The records are the same, in the same order, and the folder stays empty."""
    path = write_records(tmp_path / "d.jsonl", learnable_records(300))
    usual = load(path, sequence_length=32, holdout=0.2)
    monkeypatch.setattr(scratch, "IN_MEMORY_BYTES", 1 << 10)
    monkeypatch.setattr(labelled, "ROWS_TOGETHER", 7)
    data = load(path, sequence_length=32, holdout=0.2, store=tmp_path / "tokens")
    for part, same in ((data.train, usual.train), (data.heldout, usual.heldout)):
        assert isinstance(part.ids, np.memmap) == (part.ids.nbytes > 1 << 10)
        for name in ("ids", "types", "starts", "labels"):
            assert np.array_equal(getattr(part, name), getattr(same, name))
    assert isinstance(data.train.ids, np.memmap)
    assert data.summary == usual.summary
    assert list((tmp_path / "tokens").iterdir()) == []


def test_records_taken_are_the_records(tmp_path: Path) -> None:
    data = load(write_records(tmp_path / "d.jsonl", learnable_records(9)), sequence_length=32)
    order = np.array([8, 0, 0, 3])
    taken = data.train.take(order)
    all_rows, all_types = rows(data), np.split(data.train.types, data.train.starts[1:-1])
    assert rows(LabelledData(taken, taken, LABELS, data.summary)) == [all_rows[k] for k in order]
    assert taken.types.tolist() == np.concatenate([all_types[k] for k in order]).tolist()
    assert taken.labels.tolist() == data.train.labels[order].tolist()


# --- what is refused --------------------------------------------------------------------------------

BAD_LINES = [
    (
        '{"text": "secret", "label": "nag"}',
        "\"label\" is none of the run's labels (neg, mid, pos); did you mean 'neg'?",
    ),
    ('{"text": "secret", "label": "secret"}', '"label" is none of the run\'s labels (neg, mid, pos);'),
    ('{"text": "secret", "label": 3}', '"label" is no number from 0 to 2 (neg, mid, pos)'),
    ('{"text": "secret", "label": -1}', '"label" is no number from 0 to 2'),
    ('{"text": "secret", "label": null}', '"label" must be a name or a whole number, not null'),
    ('{"text": "secret", "label": true}', '"label" must be a name or a whole number, not true or false'),
    ('{"text": "secret", "label": 1.0}', '"label" must be a name or a whole number, not a fraction'),
    ('{"text": "secret", "label": ["neg"]}', '"label" must be a name or a whole number, not an array'),
    ('{"text": "secret"}', 'a record needs "text" and "label", but the keys are "text"'),
    ('{"label": "neg"}', 'a record needs "text" and "label", but the keys are "label"'),
    ('{"text": " ", "label": "neg"}', '"text" is empty'),
    ('{"text": "secret", "text_pair": 5, "label": 0}', '"text_pair" must be a string, not a number'),
    ('["secret"]', "the line holds an array instead of an object; under task = classification"),
    ('{"text": "secret"', "not valid JSON"),
]


@pytest.mark.parametrize(("line", "said"), BAD_LINES, ids=[said for _, said in BAD_LINES])
def test_a_bad_line_is_named_but_not_quoted(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": "w1", "label": 0}\n' + line + "\n")
    with pytest.raises(DataError) as caught:
        load(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path} line 2: ")
    assert said in sentence
    assert sentence.endswith("; correct it, or leave such records out with bad_records = 'skip'")
    assert "secret" not in sentence
    data = load(path, bad_records="skip")
    assert (len(data.train), data.summary.skipped) == (1, 1)


def test_a_number_that_is_another_label_s_name_is_refused() -> None:
    """With stars from 1 to 5 for labels, number 1 would be the label "2"."""
    stars = ("1", "2", "3", "4", "5")
    assert label_number("1", stars, SOURCE) == 0
    with pytest.raises(DataError, match='write it as a string, as in "1"'):
        label_number(1, stars, SOURCE)
    assert label_number(1, ("0", "1"), SOURCE) == 1


def test_a_plain_text_has_no_label(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("secret")
    with pytest.raises(DataError, match=r"notes.txt: a text file has no labels; .* one per line of a .jsonl file"):
        load(tmp_path)
    write_records(tmp_path / "d.jsonl", [{"text": "w1", "label": 0}])
    data = load(tmp_path, bad_records="skip")
    assert (len(data.train), data.summary.skipped) == (1, 1)


def test_too_few_records(tmp_path: Path) -> None:
    one = write_records(tmp_path / "one.jsonl", [{"text": "w1", "label": 0}])
    with pytest.raises(DataError, match="there is one record, but 2 are needed"):
        load(one, holdout=0.1)
    (tmp_path / "none.jsonl").write_text("\n")
    with pytest.raises(DataError, match="there are no usable records; give at least one text with its label"):
        load(tmp_path / "none.jsonl")


def test_a_record_without_tokens_is_bad(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    path = write_records(tmp_path / "d.jsonl", [{"text": "b", "label": 0}, {"text": "a", "label": 1}])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0}, [])))
    with pytest.raises(DataError, match="line 1: the tokenizer makes no tokens of it"):
        load_labelled(path, tokenizer, LABELS, sequence_length=8, holdout=0, bad_records="stop")
    data = load_labelled(path, tokenizer, LABELS, sequence_length=8, holdout=0, bad_records="skip")
    assert data.train.labels.tolist() == [1]


def value_lists(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.sampled_from(["text", "text_pair", "label", "x"])
    return st.lists(values, max_size=3) | st.dictionaries(keys, values, max_size=4)


json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), value_lists)


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_line_is_a_record_or_a_data_error(line: bytes) -> None:
    reader = LabelledReader(Path(__file__), BadRecords(skip=False), LABELS)
    with contextlib.suppress(DataError):
        assert 0 <= reader.record(parse_object(line, SOURCE, reader.formats), SOURCE).label < len(LABELS)
