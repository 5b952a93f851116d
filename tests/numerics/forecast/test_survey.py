"""The survey of a node's data: its figures are those of the sequences that a node would learn from."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deca_node.numerics.data.dataset import Layout, load_dataset
from deca_node.numerics.data.formats.sources import Reading
from deca_node.numerics.data.store import scratch
from deca_node.numerics.forecast.survey import SHOWN_FIRST, SHOWN_LAST, survey, survey_labelled
from deca_node.numerics.forecast.surveyed import Survey
from deca_node.protocol.errors import DataError
from tests.numerics.data.byte_tokens import PLAIN_TEMPLATE, byte_tokenizer
from tests.numerics.data.formats.twins import write_lines

ROWS: list[dict[str, Any]] = [
    {"text": "A note of some length, which is longer than a sequence."},
    {"text": "Short."},
    {"prompt": "2+2=", "completion": "4"},
    {"prompt": "A long question, longer than a sequence: what is 2 + 2?", "completion": "4"},
    {"prompt": "?", "completion": "An answer that is far longer than a sequence is."},
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Good day"}]},
    {"text": "Short."},
]


def look(path: Path, length: int = 32, show: int = 0, **changes: Any) -> Survey:
    usual: dict[str, Any] = {"packing": "isolated", "truncation": "keep-end", "private": False}
    layout = Layout(**{"length": length, **usual, **changes})
    return survey(str(path), byte_tokenizer(PLAIN_TEMPLATE), layout, show=show)


@pytest.mark.parametrize("packing", ["isolated", "none", "concatenated"])
@pytest.mark.parametrize("truncation", ["keep-end", "keep-start", "drop"])
def test_the_figures_are_those_of_the_sequences(tmp_path: Path, packing: str, truncation: str) -> None:
    path = write_lines(tmp_path / "set.jsonl", ROWS)
    found = look(path, packing=packing, truncation=truncation)
    layout = Layout(length=32, packing=packing, truncation=truncation, private=False)
    data = load_dataset(path, byte_tokenizer(PLAIN_TEMPLATE), layout, holdout=0.0, bad_records="stop")
    assert found.packed is not None
    assert (found.packed.count, found.packed.tokens) == (len(data.train), data.train.tokens)
    assert found.packed.learnt_tokens == data.train.predicted
    assert found.packed.empty == data.summary.empty_sequences
    assert found.packed.full == pytest.approx(data.train.tokens / (32 * len(data.train)))
    assert found.records == len(ROWS) and found.tokens == sum(found.lengths)
    assert found.kinds == {"text": 3, "prompt": 3, "chat": 1}
    if lengths := data.summary.lengths:
        assert sum(found.causes.values()) == lengths.divided + lengths.cut + lengths.dropped + lengths.unlearnt
    else:
        assert not found.causes and found.packed.tail_tokens == sum(found.lengths) % 32


def test_tokens_on_disk_change_nothing_and_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_lines(tmp_path / "set.jsonl", ROWS * 60)
    layout = Layout(length=32, packing="isolated", truncation="keep-end", private=False)
    usual = survey(str(path), byte_tokenizer(PLAIN_TEMPLATE), layout, show=9)
    monkeypatch.setattr(scratch, "IN_MEMORY_BYTES", 1 << 10)
    collected: list[Path] = []
    spill = scratch.Growing._spill
    monkeypatch.setattr(
        scratch.Growing, "_spill", lambda array, folder: (collected.append(folder), spill(array, folder))
    )
    found = survey(str(path), byte_tokenizer(PLAIN_TEMPLATE), layout, show=9, store=tmp_path / "tokens")
    assert set(collected) == {tmp_path / "tokens"} and list((tmp_path / "tokens").iterdir()) == []
    assert found.lengths.tolist() == usual.lengths.tolist()
    for field in dataclasses.fields(Survey):
        if field.name != "lengths":
            assert getattr(found, field.name) == getattr(usual, field.name)


def test_every_loss_is_named(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "set.jsonl", ROWS)
    found = look(path)
    assert found.named == {
        "divided: a text longer than a sequence": (f"{path} line 1 (56 tokens)",),
        "truncated (keep-end)": (f"{path} line 4 (57 tokens)",),
        "truncated (keep-end), and loses tokens to learn": (f"{path} line 5 (50 tokens)",),
    }
    found = look(path, truncation="keep-start")
    assert found.named["left out: nothing to learn is left in it"] == (f"{path} line 4 (57 tokens)",)
    found = look(path, truncation="drop")
    assert found.causes["left out: longer than a sequence (drop)"] == 2


def test_records_that_repeat_an_earlier_one_are_named(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "set.jsonl", [*ROWS, *ROWS[2:4], {"prompt": "", "completion": "Short."}])
    found = look(path)
    # The last has the tokens of a text, and is one in all but its name.
    assert found.repeated == 4
    assert found.repeated_named[:2] == (f"{path} line 7 repeats {path} line 2", f"{path} line 8 repeats {path} line 3")


def test_bad_records_are_listed_and_left_out(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "set.jsonl", [ROWS[1], {"text": 5}, {"messages": []}])
    found = look(path)
    assert (found.records, found.bad) == (1, 2)
    assert found.bad_sentences[0] == f'{path} line 2: "text" must be a string, not a number'
    bad = write_lines(tmp_path / "bad.jsonl", [{"text": 5}])
    with pytest.raises(DataError, match=r"no usable records \(1 are bad; the first: .*bad\.jsonl line 1: \"text\""):
        look(bad)


def test_what_is_shown_is_what_is_learnt(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "set.jsonl", ROWS)
    shown = look(path, show=6).shown
    assert [(one.source, one.kind) for one in shown[:3]] == [
        (f"{path} line 1", "text"),
        (f"{path} line 2", "text"),
        (f"{path} line 3", "prompt"),
    ]
    learnt = ["".join(t for t, on in zip(one.tokens, one.learnt, strict=True) if on) for one in shown]
    # The first token of a text is predicted from nothing.
    assert learnt[1:4] == ["hort.</s>", "4</s>", "4</s>"] and learnt[5] == "Good day|\n"
    assert shown[3].fate == "truncated (keep-end)" and shown[3].count == 32
    assert "".join(shown[5].tokens).startswith("[user]Hi|\n[assistant]Good day")


def test_the_middle_of_a_long_record_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("a" * 300 + "b" * 1000 + "c" * 99)
    (one,) = look(path, length=2048, show=3).shown
    assert (one.count, one.tokens_left_out) == (1400, 1400 - SHOWN_FIRST - SHOWN_LAST)
    assert len(one.tokens) == len(one.learnt) == SHOWN_FIRST + SHOWN_LAST
    assert one.tokens[SHOWN_FIRST - 1] == "b" and one.tokens[-2:] == ("c", "</s>")


def test_nothing_fits(tmp_path: Path) -> None:
    found = look(write_lines(tmp_path / "set.jsonl", ROWS[3:5]), truncation="drop")
    assert found.packed is None and found.causes == {"left out: longer than a sequence (drop)": 2}


def test_labelled_records(tmp_path: Path) -> None:
    rows = [{"text": "long stay", "label": "bad"}, {"text": "fine", "label": "good"}, {"text": "fine", "label": "good"}]
    path = write_lines(tmp_path / "set.jsonl", [*rows, {"text": "fine", "label": "odd"}])
    found = survey_labelled(str(path), byte_tokenizer(), ["good", "bad"], 8, show=1)
    assert found.kinds == {"good": 2, "bad": 1} and found.packed is None and found.bad == 1
    assert found.causes == {"cut: longer than 8 tokens": 1}
    assert found.repeated_named == (f"{path} line 3 repeats {path} line 2",)
    assert (found.shown[0].label, "".join(found.shown[0].tokens), found.shown[0].source) == (
        "bad",
        "long sta",
        f"{path} line 1",
    )


def test_reading_is_as_the_settings_say(tmp_path: Path) -> None:
    path = tmp_path / "export.dat"
    path.write_text("body\nGood day\n")
    layout = Layout(length=32, packing="isolated", truncation="keep-end", private=False)
    calls: list[tuple[int, int | None]] = []
    found = survey(
        str(path),
        byte_tokenizer(),
        layout,
        reading=Reading.of("csv", "text=body"),
        progress=lambda done, total: calls.append((done, total)),
    )
    assert found.files == ("read 1 records as CSV",) and calls[-1] == (path.stat().st_size, path.stat().st_size)
    assert json.dumps(found.kinds) == '{"text": 1}'


def test_several_sources_are_one_set(tmp_path: Path) -> None:
    one = write_lines(tmp_path / "one.jsonl", ROWS[1:3])
    two = write_lines(tmp_path / "two.jsonl", ROWS[5:])
    layout = Layout(length=32, packing="isolated", truncation="keep-end", private=False)
    found = survey(f"{one}, {two}*2", byte_tokenizer(PLAIN_TEMPLATE), layout)
    assert (found.records, found.repeated_named) == (4, (f"{two} line 2 repeats {one} line 1",))


def test_lengths_lie_between_powers_of_two() -> None:
    assert _of_lengths(1, 2, 3, 4, 5, 17, 32, 33).histogram == [
        (1, 2, 2),
        (3, 4, 2),
        (5, 8, 1),
        (9, 16, 0),
        (17, 32, 2),
        (33, 64, 1),
    ]
    assert _of_lengths(8, 8).histogram == [(5, 8, 2)]


def _of_lengths(*lengths: int) -> Survey:
    return Survey({"text": len(lengths)}, (), sum(lengths), 0, np.array(lengths), None)
