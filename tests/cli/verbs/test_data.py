"""``deca-node data``: records token by token, the figures of the whole, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Deca = Callable[..., Any]
TEMPLATE = "{% for m in messages %}{{ m.role }} {{ m.content }} {{ eos_token }}\n{% endfor %}"


@pytest.fixture
def place(deca: Deca, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NO_COLOR", "1")
    Path("model").symlink_to(tiny)
    rows: list[dict[str, Any]] = [{"text": f"the node was {n}"} for n in ("data", "loss", "data")]
    rows += [{"prompt": "the node", "completion": "was data"}, {"text": 5}]
    Path("set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("chat.json").write_text(json.dumps([{"instruction": "the", "output": "node"}]))
    Path("own.jinja").write_text(TEMPLATE)
    return Path.cwd()


@pytest.mark.usefixtures("place")
def test_figures_and_records_for_people(deca: Deca) -> None:
    outcome = deca("data", "set.jsonl", "--model", "model", "--show", "4", "--bad-records", "skip")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines() == [
        "record 1: set.jsonl line 1 (text), 5 tokens, 4 learnt",
        "   the·⟦ node· was· data· <eos>⟧",
        "",
        "record 2: set.jsonl line 2 (text), 5 tokens, 4 learnt",
        "   the·⟦ node· was· loss· <eos>⟧",
        "",
        "record 3: set.jsonl line 3 (text), 5 tokens, 4 learnt",
        "   the·⟦ node· was· data· <eos>⟧",
        "",
        "record 4: set.jsonl line 4 (prompt), 5 tokens, 3 learnt",
        "   the· node·⟦ was· data· <eos>⟧",
        "",
        "records     4: 3 texts, 1 prompts with completions",
        "tokens      20; 15 are learnt (75.0%)",
        "lengths     5 to 5 tokens; half of the records have 5 or fewer, nine in ten 5 or fewer",
        "            5 to 8 4 ########################################",
        "sequences   1 of at most 64 tokens (packing = isolated), 31.2% full; 15 tokens are in the loss",
        "lost        nothing",
        "repeated    1 records repeat an earlier one",
        "            set.jsonl line 3 repeats set.jsonl line 1",
        "bad         1 records are malformed",
        '            set.jsonl line 5: "text" must be a string, not a number',
    ]


@pytest.mark.usefixtures("place")
def test_figures_alone_for_programs(deca: Deca) -> None:
    flags = ("--model", "model", "--max-length", "8", "--packing", "none", "--bad-records", "skip", "--json")
    found = json.loads(deca("data", "set.jsonl", *flags).out)
    assert (found["data"], found["sequence_length"], found["records"], found["shown"]) == ("set.jsonl", 8, 4, [])
    assert (found["tokens"], found["learnt_tokens"], found["repeated"], found["bad"]) == (20, 15, 1, 1)
    assert found["lengths"] == [{"from": 5, "to": 8, "records": 4}]
    assert (found["packed"]["packing"], found["packed"]["count"], found["packed"]["full"]) == ("none", 4, 20 / 32)


@pytest.mark.usefixtures("place")
def test_bad_records_end_as_a_start_would(deca: Deca) -> None:
    """But all of the figures come first."""
    outcome = deca("data", "set.jsonl", "--model", "model")
    assert outcome.code == 6 and "bad         1 records are malformed" in outcome.out
    assert outcome.err.startswith("error: 1 records are bad, and a start stops at the first; correct them")
    assert json.loads(deca("data", "set.jsonl", "--model", "model", "--json").out)["bad"] == 1


@pytest.mark.usefixtures("place")
def test_what_is_lost_is_named(deca: Deca) -> None:
    Path("long.jsonl").write_text(json.dumps({"prompt": "the node was " * 3, "completion": "data"}) + "\n")
    out = deca("data", "long.jsonl", "--model", "model", "--sequence-length", "8", "--show", "1").out
    assert "record 1: long.jsonl line 1 (prompt), 8 tokens, 2 learnt, truncated (keep-end)\n" in out
    assert "lost        1 records truncated (keep-end) (long.jsonl line 1 (11 tokens))\n" in out
    out = deca("data", "long.jsonl", "--model", "model", "--sequence-length", "8", "--truncation", "drop").out
    assert "lost        1 records left out: longer than a sequence (drop) (long.jsonl line 1 (11 tokens))\n" in out
    assert "sequences" not in out


@pytest.mark.usefixtures("place")
def test_a_chat_template_of_ones_own(deca: Deca) -> None:
    outcome = deca("data", "chat.json", "--model", "model", "--show", "1")
    assert outcome.code == 6 and "a chat, but the tokenizer has no chat template" in outcome.err
    outcome = deca("data", "chat.json", "--model", "model", "--show", "1", "--chat-template", "own.jinja")
    assert outcome.code == 0 and "⟦ node· <eos>⟧" in outcome.out and "read 1 records as JSON, Alpaca" in outcome.out
    outcome = deca("data", "chat.json", "--model", "model", "--chat-template", "none.jinja")
    assert outcome.code == 6 and "none.jinja: the chat template cannot be read" in outcome.err


@pytest.mark.usefixtures("place")
def test_labels_and_columns(deca: Deca) -> None:
    Path("set.csv").write_text("body,topic\nthe node,good\nthe loss,bad\n")
    flags = ("--columns", "text=body,label=topic", "--labels", "good, bad", "--show", "1")
    out = deca("data", "set.csv", "--model", "model", *flags).out
    assert "record 1: set.csv line 2 (labelled), 2 tokens, label good\n   the· node\n" in out
    assert "records     2: 1 good, 1 bad\n            read 2 records as CSV\ntokens      4\n" in out


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("set.jsonl",), 2, "Missing option '--model'"),
        (("none.jsonl", "--model", "model"), 6, "none.jsonl: there is no such file or folder"),
        (("set.jsonl", "--model", "./none"), 5, "there is no folder './none' to read a model from"),
        (("set.jsonl", "--model", "model", "--sequence-length", "65"), 5, "more than the 64 positions of the model"),
        (("set.jsonl", "--model", "model", "--columns", "text"), 3, "write NAME=COLUMN"),
    ],
)
def test_what_is_refused(deca: Deca, arguments: tuple[str, ...], code: int, said: str) -> None:
    outcome = deca("data", *arguments)
    assert (outcome.code, said in outcome.err) == (code, True), outcome


@pytest.mark.usefixtures("place")
def test_weights_are_not_read(deca: Deca, tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    for file in Path("model").iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    assert deca("data", "set.jsonl", "--model", str(folder), "--bad-records", "skip").code == 0
