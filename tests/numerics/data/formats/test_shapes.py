"""Alpaca, ShareGPT and named columns become the records of their twins."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from deca_node.numerics.data.formats.sources import Reading
from deca_node.protocol.errors import DataError, SettingsError
from tests.numerics.data.formats.twins import (
    ALPACA,
    ALPACA_TWIN,
    SHAREGPT,
    SHAREGPT_TWIN,
    Rows,
    reader_of,
    records,
    twin,
    write_lines,
)


@pytest.mark.parametrize(
    ("rows", "same", "name"), [(ALPACA, ALPACA_TWIN, "Alpaca"), (SHAREGPT, SHAREGPT_TWIN, "ShareGPT")]
)
@pytest.mark.parametrize("named", [True, False])
def test_foreign_shapes_are_recognised_and_told(tmp_path: Path, rows: Rows, same: Rows, name: str, named: bool) -> None:
    path = tmp_path / "set.json"
    path.write_text(json.dumps(rows))
    reading = Reading(name.lower()) if named else None
    assert records(path, reading) == twin(tmp_path, same)
    reader = reader_of(path, reading)
    assert len(list(reader)) == len(rows)
    assert reader.told.told() == (f"read {len(rows)} records as JSON, {name}",)
    reader = reader_of(write_lines(tmp_path / "set.jsonl", rows), reading)
    assert len(list(reader)) == len(rows)
    assert reader.told.told() == (f"read {len(rows)} records as {name}",)


def test_conversations_may_be_lists_per_key(tmp_path: Path) -> None:
    rows = [{"conversations": {"from": ["human", "gpt"], "value": ["Hi", "Good day"]}}]
    assert records(write_lines(tmp_path / "set.jsonl", rows)) == twin(tmp_path, SHAREGPT_TWIN[:1])


def test_columns_have_the_names_that_the_settings_say(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "set.jsonl", [{"body": "a"}, {"body": "b", "text": "other"}])
    assert records(path, Reading.of("auto", "text=body")) == twin(tmp_path, [{"text": "a"}, {"text": "b"}])
    dolly = [{"instruction": "Add.", "context": "2 and 2", "response": "4"}]
    path = write_lines(tmp_path / "dolly.jsonl", dolly)
    assert records(path, Reading.of("alpaca", "input = context, output = response")) == twin(tmp_path, ALPACA_TWIN[:1])
    with pytest.raises(DataError, match=r'line 1: there is no "body", which columns names for "text"'):
        records(path, Reading.of("auto", "text=body"))


def test_a_named_kind_is_taken_among_several(tmp_path: Path) -> None:
    rows = [{"instruction": "a", "output": "b", "text": "whole", "prompt": "p", "completion": "c"}]
    path = write_lines(tmp_path / "set.jsonl", rows)
    assert records(path) == twin(tmp_path, [{"prompt": "p", "completion": "c"}])
    assert records(path, Reading("text")) == twin(tmp_path, [{"text": "whole"}])
    assert records(path, Reading("alpaca")) == records(
        write_lines(tmp_path / "chat.jsonl", [{"messages": [{"role": "user", "content": "a"}, ANSWER]}])
    )
    with pytest.raises(DataError, match=r'line 1: format = messages needs "messages", but the keys are "instruction"'):
        records(path, Reading("messages"))


ANSWER = {"role": "assistant", "content": "b"}


@pytest.mark.parametrize("columns", ["text", "text=", "=body", "text=a,text=b"])
def test_columns_that_name_nothing(columns: str) -> None:
    with pytest.raises(SettingsError, match=r"columns has .*; write NAME=COLUMN"):
        Reading.of("auto", columns)


def sharegpt(*turns: Any) -> dict[str, Any]:
    return {"conversations": list(turns)}


HUMAN = {"from": "human", "value": "Hi"}
BAD = [
    ({"instruction": 5, "output": "secret"}, '"instruction" must be a string, not a number'),
    ({"instruction": "secret", "output": None}, '"output" must be a string, not null'),
    ({"instruction": "secret", "output": ""}, 'the chat has no turn of role "assistant" with any content'),
    ({"instruction": "secret", "output": "a", "input": ["secret"]}, '"input" must be a string, not an array'),
    ({"instruction": "secret", "output": "a", "system": 1}, '"system" must be a string, not a number'),
    ({"instruction": "secret", "output": "a", "history": ["secret"]}, '"history" must be a list of pairs, each a'),
    ({"instruction": "secret", "output": "a", "history": [["secret", 1]]}, '"history" must be a string, not a number'),
    ({"instruction": "secret"}, 'a record needs "text", or'),
    ({"conversations": {"from": ["gpt"], "value": ["secret", "a"]}}, '"conversations" is an object, and not one of'),
    ({"conversations": {"from": "secret"}}, '"conversations" is an object, and not one of lists of one length'),
    (sharegpt(), '"conversations" must be a list of at least one message'),
    ({"conversations": "secret"}, '"conversations" must be a list of at least one message'),
    (sharegpt("secret"), "message 1 is a string instead of an object"),
    (sharegpt(HUMAN, {"from": "gpt"}), 'message 2 has no "value"'),
    (sharegpt(HUMAN, {"value": "secret"}), 'message 2 has no "from"'),
    (sharegpt(HUMAN, {"from": "gpt", "value": None}), '"value" of message 2 must be a string, not null'),
    (sharegpt(HUMAN, {"from": "secret", "value": ""}), '"from" of message 2 is none of human, user, gpt'),
    (sharegpt(HUMAN, {"from": "function_call", "value": "secret"}), "message 2 is from function_call, and no JSON of"),
    (sharegpt(HUMAN), 'the chat has no turn of role "assistant"'),
]


@pytest.mark.parametrize(("row", "said"), BAD, ids=[said for _, said in BAD])
def test_a_bad_record_is_named_but_not_quoted(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    path = write_lines(tmp_path / "set.jsonl", [*ALPACA, row])
    with pytest.raises(DataError, match=re.escape(f"{path} line 4: ") + ".*" + re.escape(said)) as caught:
        records(path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["tsv", "jsonl"])
def test_a_column_may_be_empty_where_a_record_can_do_without(tmp_path: Path, suffix: str) -> None:
    """As in Dolly, where most questions have no context. A column that no record has is told."""
    rows = [{"instruction": "Greet.", "context": "", "response": "Good day"}, {"instruction": "a", "response": "b"}]
    path = tmp_path / f"dolly.{suffix}"
    if suffix == "tsv":
        path.write_text("instruction\tcontext\tresponse\nGreet.\t\tGood day\na\t\tb\n")
    else:
        write_lines(path, rows)
    same = [{"instruction": "Greet.", "output": "Good day"}, {"instruction": "a", "output": "b"}]
    assert records(path, Reading.of("alpaca", "input=context,output=response")) == twin(tmp_path, same)
    reader = reader_of(path, Reading.of("alpaca", "input=contxt,output=response"))
    assert len(list(reader)) == 2
    assert 'no record has "contxt", which columns names for "input"' in reader.told.told()
