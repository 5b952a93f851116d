"""What a node says of its data at the start."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.parts import trainer_options
from deca_node.numerics.forecast.record_check import try_records
from deca_node.numerics.learning.tasks import load_data, progress_notes, told
from deca_node.numerics.model.blocks import FlatBlock
from deca_node.numerics.model.load import load_model
from deca_node.numerics.trainer import Trainer
from deca_node.protocol import commands as c
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.errors import DataError
from deca_node.protocol.options import TrainerOptions
from tests.numerics.learning.labelled_runs import WORDS, llama, write_model

LENGTH = 16
RECORDS = [
    *({"prompt": f"w{n}", "completion": "w1 w2"} for n in range(1, 10)),
    {"prompt": " ".join(WORDS[:14]), "completion": "w1 w2 w3"},
    {"prompt": "w1", "completion": " ".join(WORDS[:17])},
    {"text": " ".join(WORDS)},
    {"messages": 5},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(llama(), tmp_path / "model")
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return tmp_path


def options(folder: Path, **chosen: Any) -> TrainerOptions:
    settings = RunSettings(sequence_length=LENGTH, batch_size=2, **chosen)
    node = NodeSettings(
        name="a",
        dir=str(folder / "node"),
        model=str(folder / "model"),
        data=str(folder / "data.jsonl"),
        bad_records="skip",
        threads=1,
    )
    return trainer_options(settings, node)


def sentences(folder: Path, **chosen: Any) -> list[str]:
    given = options(folder, **chosen)
    return list(told(load_data(given, load_model(given.model)), LENGTH))


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (
            {},
            [
                "1 texts are longer than sequence_length = 16 tokens, and are divided",
                "2 records are longer than sequence_length = 16 tokens, and are truncated (keep-end); "
                "1 of them lose tokens to learn",
            ],
        ),
        ({"truncation": "drop"}, ["2 records are longer than sequence_length = 16 tokens, and are left out (drop)"]),
        ({"truncation": "keep-start"}, ["2 of them lose tokens to learn"]),
        ({"packing": "concatenated"}, []),
    ],
)
def test_what_was_divided_cut_or_left_out_is_said_by_cause(
    folder: Path, chosen: dict[str, str], expected: list[str]
) -> None:
    found = sentences(folder, **chosen)
    assert "tokens in the loss" in found[0] and found[-1].startswith("left out 1 bad records; the first: ")
    assert all(any(part in sentence for sentence in found) for part in expected), found
    assert bool(found[1:-1]) == bool(expected)


def test_formats_and_left_out_files_are_told_first(folder: Path) -> None:
    given = options(folder)
    data = folder / "set"
    data.mkdir()
    (data / "a.csv").write_text("body\n" + "".join(f"w{n}\n" for n in range(1, 9)))
    (data / "a.csv.bak").write_text("old")
    given = dataclasses.replace(given, data=str(data), columns="text=body", data_format="csv")
    found = list(told(load_data(given, load_model(given.model)), LENGTH))
    assert found[:2] == ["read 8 records as CSV", f"left out of {data}: a.csv.bak (a backup or a part of a file)"]


def test_prompts_that_fill_sequences_are_told(folder: Path) -> None:
    """Where records are concatenated, a long prompt may lie in a sequence without its completion."""
    long = [{"prompt": " ".join(WORDS * 3), "completion": "w1 w2 w3"} for _ in range(30)]
    (folder / "data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in long))
    found = sentences(folder, packing="concatenated")
    assert any("sequences are left out: they hold prompts, and nothing to learn" in sentence for sentence in found)


def test_what_chat_templates_leave_out_is_told(folder: Path) -> None:
    tokenizer = json.loads((folder / "model" / "tokenizer_config.json").read_text())
    tokenizer["chat_template"] = "{% for m in messages if m.role != 'system' %}{{ m.content }} {% endfor %}"
    (folder / "model" / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    call = {"type": "function", "function": {"name": "look", "arguments": "{}"}}
    talk = [{"role": "system", "content": "w9"}, {"role": "user", "content": "w1"}]
    answers = [{"role": "assistant", "tool_calls": [call]}, {"role": "assistant", "content": "w2"}]
    chats = [{"messages": [*talk, *answers], "tools": [call]} for _ in range(2)]
    (folder / "data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in chats))
    found = sentences(folder)
    for part in ("2 chats give tools that", "2 chats have a message of the system that", "2 turns call tools, which"):
        assert any(part in sentence for sentence in found), found


def first_loss(trainer: Trainer) -> float:
    """The loss of the first batch, by the way of its gradient."""
    flat = FlatBlock(trainer.model, trainer._blocks[0])
    return flat.collect(lambda: trainer._gradients.backward(flat, Step(0, 0)))


@pytest.mark.parametrize("packing", ["isolated", "none", "concatenated"])
def test_a_trainer_learns_from_any_packing(folder: Path, packing: str) -> None:
    notes: list[str] = []
    note = lambda sentence, level="info": notes.append(sentence)  # noqa: E731
    trainer = Trainer.load(options(folder, packing=packing), no_frames, note)
    assert any("kept apart by position ids" in sentence for sentence in notes) == (packing == "isolated")
    assert first_loss(trainer) > 0.0


def test_a_chat_template_of_the_nodes_own_is_learnt_and_saved(folder: Path) -> None:
    """The tokenizer has none. The store of tokens knows the template: with another one nothing is taken from it."""
    chats = [
        {"messages": [{"role": "user", "content": f"w{n}"}, {"role": "assistant", "content": "w2"}]} for n in (1, 3)
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    with pytest.raises(DataError, match="name one with chat_template"):
        Trainer.load(options(folder), no_frames, lambda sentence, level="info": None)
    learnt = []
    for extra in ("", " w5"):
        (folder / "own.jinja").write_text("{% for m in messages %}{{ m.content }} {% endfor %}" + extra)
        given = dataclasses.replace(options(folder), chat_template=str(folder / "own.jinja"))
        notes: list[str] = []
        trainer = Trainer.load(given, no_frames, lambda sentence, level="info", to=notes: to.append(sentence))
        learnt.append([note for note in notes if "records with" in note])
        trainer.obey(c.Save("final"))
        again = load_model(str(folder / "node" / "final")).tokenizer
        assert again.chat_template == (folder / "own.jinja").read_text()
        assert try_records(given, load_model(given.model)).startswith("2 records with")
    assert learnt[0] != learnt[1]


def no_frames(frame: object) -> memoryview:
    raise AssertionError(f"a node alone has no frame {frame}")


def test_progress_is_noted_now_and_then() -> None:
    notes: list[str] = []
    now = [0.0]
    progress = progress_notes(lambda sentence, level="info": notes.append(sentence), "d.jsonl", lambda: now[0])
    for done in (*range(0, 21_000_000, 1_000_000), 20_000_000):
        now[0] += 1.0
        progress(done, 20_000_000)
    assert notes == [
        "reading and tokenizing d.jsonl: 20 % of 20.0 MB, 0.8 MB/s, 20 s left",
        "reading and tokenizing d.jsonl: 45 % of 20.0 MB, 1.0 MB/s, 11 s left",
        "reading and tokenizing d.jsonl: 70 % of 20.0 MB, 1.0 MB/s, 6 s left",
        "reading and tokenizing d.jsonl: 95 % of 20.0 MB, 1.0 MB/s, 1 s left",
        "d.jsonl is read and tokenized, 20.0 MB; laying its records into sequences",
    ]


def test_progress_of_data_of_unknown_size_is_noted() -> None:
    notes: list[str] = []
    now = [0.0]
    progress = progress_notes(lambda sentence, level="info": notes.append(sentence), "hf://a/b", lambda: now[0])
    for done in (0, 10_000_000):
        now[0] += 5.0
        progress(done, None)
    assert notes == [
        "reading and tokenizing hf://a/b: 0.0 MB, 0.0 MB/s",
        "reading and tokenizing hf://a/b: 10.0 MB, 2.0 MB/s",
    ]


def test_a_trainer_keeps_its_tokens_in_its_own_folder(folder: Path) -> None:
    """Only this user may read them, and a second start takes them as they are."""
    notes: list[str] = []
    note = lambda sentence, level="info": notes.append(sentence)  # noqa: E731
    first = Trainer.load(options(folder), no_frames, note)
    found = [path for path in (folder / "node" / "tokens").rglob("*") if path.is_file()]
    assert {path.name for path in found} >= {"ids", "trained", "store.json"}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in found)
    assert all(path.stat().st_mode & 0o777 == 0o700 for path in (folder / "node" / "tokens", found[0].parent))
    assert not any("took the tokens" in sentence for sentence in notes)
    again = Trainer.load(options(folder), no_frames, note)
    assert any(sentence.startswith("took the tokens of the data from ") for sentence in notes)
    assert first_loss(first) == first_loss(again)
