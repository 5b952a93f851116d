"""Fixtures: the same records in many formats, beside their twin in JSON Lines."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deca_node.numerics.data.formats.sources import BadRecords, Reading, Source
from deca_node.numerics.data.records import Record, RecordReader

Rows = Sequence[Mapping[str, Any]]
TEXTS: Rows = [{"text": 'Grüße,\n"quoted", and a comma'}, {"text": "two\u2028parts"}]
PROMPTS: Rows = [{"prompt": "2+2=", "completion": "4"}, {"prompt": "", "completion": "a\tb"}]


def chat(*contents: str, system: str = "") -> dict[str, Any]:
    """A chat in which user and assistant take turns."""
    turns = [{"role": ("user", "assistant")[k % 2], "content": content} for k, content in enumerate(contents)]
    return {"messages": [{"role": "system", "content": system}, *turns] if system else turns}


ALPACA: Rows = [
    {"instruction": "Add.", "input": "2 and 2", "output": "4"},
    {"instruction": "Greet.", "input": "", "output": "Good day", "text": "Below is an instruction ..."},
    {"instruction": "Go on.", "output": "c", "history": [["a?", "a"], ["b?", "b"]], "system": "Be brief."},
]
ALPACA_TWIN: Rows = [
    chat("Add.\n2 and 2", "4"),
    chat("Greet.", "Good day"),
    chat("a?", "a", "b?", "b", "Go on.", "c", system="Be brief."),
]
SHAREGPT: Rows = [
    {"id": "x_0", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Good day"}]},
    {
        "system": "Be brief.",
        "conversations": [
            {"from": "human", "value": "Look."},
            {"from": "function_call", "value": '{"name": "look", "arguments": {"x": 1}}'},
            {"from": "observation", "value": "red"},
            {"from": "gpt", "value": "It is red."},
        ],
        "tools": '[{"name": "look"}]',
    },
]
CALL = {"type": "function", "function": {"name": "look", "arguments": {"x": 1}}}
SHAREGPT_TWIN: Rows = [
    chat("Hi", "Good day"),
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Look."},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "content": "red"},
            {"role": "assistant", "content": "It is red."},
        ],
        "tools": [{"name": "look"}],
    },
]


def write_lines(path: Path, rows: Rows) -> Path:
    """The rows as JSON Lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def reader_of(path: Path, reading: Reading | None = None, skip: bool = False) -> RecordReader:
    """The reader that the trainer uses."""
    return RecordReader(path, BadRecords(skip), reading)


def records(path: Path, reading: Reading | None = None, skip: bool = False) -> list[Record]:
    """All records, without their sources."""
    nowhere = Source(Path())
    return [dataclasses.replace(record, source=nowhere) for record in reader_of(path, reading, skip)]


def twin(tmp_path: Path, rows: Rows) -> list[Record]:
    """The records of the rows as JSON Lines."""
    folder = tmp_path / "twin"
    folder.mkdir(exist_ok=True)
    return records(write_lines(folder / "twin.jsonl", rows))
