"""Data sets from end to end: what is learnt, what is held out, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deca_node.numerics.data import tokenizing
from deca_node.numerics.data.dataset import Layout, PackedData, load_dataset
from deca_node.numerics.data.lengths import Lengths
from deca_node.numerics.data.packing import singles
from deca_node.numerics.data.sequences import Sequences, TokenLine
from deca_node.protocol.errors import DataError
from tests.numerics.data.byte_tokens import BOS, EOS, PLAIN_TEMPLATE, byte_tokenizer, text_of


def write_jsonl(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def labels_text(sequences: Sequences) -> str:
    rows = [sequences.gather(np.array([number])) for number in range(len(sequences))]
    return "".join(text_of(row.ids[row.trained]) for row in rows)


def answers_of(sequences: Sequences) -> list[str]:
    """What is marked to be learnt, the first tokens of sequences included."""
    line = sequences.line
    marked = [line.ids[start:stop][line.trained[start:stop]] for start, stop, _, _ in sequences.pieces.tolist()]
    return text_of(np.concatenate(marked)).split("</s>")


def rows_text(sequences: Sequences) -> list[str]:
    return [text_of(sequences.gather(np.array([number])).ids[0]) for number in range(len(sequences))]


def load(path: Path, **changes: Any) -> PackedData:
    names = ("length", "packing", "truncation", "private")
    usual: dict[str, Any] = {"length": 8, "packing": "isolated", "truncation": "keep-end", "private": False}
    layout = Layout(**(usual | {name: changes.pop(name) for name in names if name in changes}))
    return load_dataset(
        path, byte_tokenizer(PLAIN_TEMPLATE), layout, **({"holdout": 0.1, "bad_records": "stop"} | changes)
    )


def test_progress_is_shown_within_a_long_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizing, "_PIECE_CHARACTERS", 10)
    monkeypatch.setattr(tokenizing, "_CALL_CHARACTERS", 25)
    path = tmp_path / "book.txt"
    path.write_text("x" * 95)
    calls: list[tuple[int, int | None]] = []
    load(path, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(30, 95), (60, 95), (90, 95), (95, 95), (95, 95)]


def test_a_data_set_from_end_to_end(tmp_path: Path) -> None:
    """Concatenated: answers that a cut goes through, and those behind the last cut, are lost."""
    records = [{"prompt": f"{n}+{n}=", "completion": f"{2 * n:03}"} for n in range(1, 41)]
    path = write_jsonl(tmp_path / "sums.jsonl", [*records, {"text": ""}])
    calls: list[tuple[int, int | None]] = []
    progress = lambda done, total: calls.append((done, total))  # noqa: E731
    data = load(path, packing="concatenated", bad_records="skip", progress=progress)

    summary = data.summary
    assert (summary.records, summary.skipped) == (40, 1)
    assert summary.skipped_sentences == (f'{path} line 41: "text" is empty',)
    assert summary.tokens == sum(len(f"{n}+{n}=") + 4 for n in range(1, 41))
    assert (summary.train_sequences, summary.heldout_sequences) == (len(data.train), len(data.heldout))
    assert (summary.trained_tokens, summary.heldout_tokens) == (data.train.predicted, data.heldout.predicted)
    assert calls[-1] == (path.stat().st_size, path.stat().st_size)

    answers = answers_of(data.train) + answers_of(data.heldout)
    whole = [answer for answer in answers if len(answer) == 3]
    assert len(whole) == len(set(whole)) >= 34
    assert "+" not in "".join(answers)


@pytest.mark.parametrize("packing", ["isolated", "none"])
def test_records_are_learnt_whole(tmp_path: Path, packing: str) -> None:
    records = [{"prompt": f"{n}+{n}=", "completion": f"{2 * n:03}"} for n in range(1, 41)]
    data = load(write_jsonl(tmp_path / "sums.jsonl", records), length=24, packing=packing)
    learnt = labels_text(data.train) + labels_text(data.heldout)
    assert sorted(learnt.split("</s>")[:-1]) == [f"{2 * n:03}" for n in range(1, 41)]
    assert data.summary.trained_tokens + data.summary.heldout_tokens == 40 * 4
    assert labels_text(data.heldout).count("</s>") == 4
    rows = rows_text(data.train)
    assert all(row.endswith("</s>") for row in rows)
    assert (len(rows) == 36) == (packing == "none")


@pytest.mark.parametrize("packing", ["isolated", "concatenated"])
@pytest.mark.parametrize("lines", [1, 60], ids=["one text", "many records"])
def test_the_same_data_and_seed_give_the_same_sequences(tmp_path: Path, lines: int, packing: str) -> None:
    path = write_jsonl(tmp_path / "notes.jsonl", [{"text": f"record {n} " * (61 - lines)} for n in range(lines)])
    first, again = load(path, seed=3, packing=packing), load(path, seed=3, packing=packing)
    assert rows_text(first.train) == rows_text(again.train) and rows_text(first.heldout) == rows_text(again.heldout)


@pytest.mark.parametrize("packing", ["isolated", "concatenated"])
def test_of_one_text_the_end_is_held_out(tmp_path: Path, packing: str) -> None:
    path = tmp_path / "book.txt"
    path.write_text("".join(f"{n:03} " for n in range(100)))
    data = load(path, holdout=0.25, packing=packing)
    begin, end = rows_text(data.train), rows_text(data.heldout)
    assert any(row.startswith("000 001") for row in begin) and not any("076" in row for row in begin)
    assert any(row.startswith("75 076") for row in end) and not any("073" in row for row in end)
    # Pieces of a text overlap by one token where records are kept apart.
    assert (len(data.train), len(data.heldout)) == ((37, 12) if packing == "concatenated" else (43, 15))


def test_without_held_out_part_little_data_is_taken(tmp_path: Path) -> None:
    """As for the evaluation of a small file: nothing of it may be dropped."""
    path = write_jsonl(tmp_path / "one.jsonl", [{"prompt": "1+1=", "completion": "2"}])
    for packing in ("isolated", "concatenated", "none"):
        data = load(path, holdout=0.0, length=10, packing=packing)
        assert rows_text(data.train) == ["1+1=2</s>"]
        assert data.train.gather(np.array([0])).trained.tolist() == [[False] * 4 + [True] * 2]
        assert len(data.heldout) == 0


def test_rows_of_unequal_length_are_padded_with_the_end_of_text(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "two.jsonl", [{"text": "abcd"}, {"text": "abcdefg"}])
    rows = load(path, holdout=0.0, length=10, packing="none").train.gather(np.array([0, 1]))
    assert rows.ids[0].tolist()[4:] == [EOS] * 4 and rows.ids.shape == (2, 8)
    assert rows.trained[0].tolist() == [False] + [True] * 4 + [False] * 3


# --- records that are longer than a sequence ----------------------------------------------------------


def long_prompts(tmp_path: Path, **more: Any) -> PackedData:
    records = [{"prompt": "p" * 9, "completion": "answer"}, {"prompt": "ask", "completion": "me"}]
    records.append({"prompt": "?", "completion": "much too long"})
    return load(write_jsonl(tmp_path / "long.jsonl", records), holdout=0.0, length=10, **more)


@pytest.mark.parametrize(
    ("truncation", "rows", "counts"),
    [
        ("keep-end", {"pppanswer</s>", "askme</s>", " too long</s>"}, (2, 1, 0, 0)),
        ("keep-start", {"pppppppppa", "askme</s>", "?much too "}, (2, 2, 0, 0)),
        ("drop", {"askme</s>"}, (0, 0, 2, 0)),
    ],
)
@pytest.mark.parametrize("packing", ["isolated", "none"])
def test_long_records_are_truncated_as_the_run_says(
    tmp_path: Path, packing: str, truncation: str, rows: set[str], counts: tuple[int, ...]
) -> None:
    data = long_prompts(tmp_path, packing=packing, truncation=truncation)
    assert set(rows_text(data.train)) == rows
    found = data.summary.lengths
    assert found is not None
    assert (found.cut, found.cut_learnt, found.dropped, found.unlearnt) == counts


def test_a_record_of_which_only_the_prompt_fits_is_left_out_and_counted(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "x.jsonl", [{"prompt": "p" * 20, "completion": "c"}, {"text": "fine"}, {"text": "ok"}]
    )
    data = load(path, length=10, truncation="keep-start")
    assert data.summary.lengths is not None and data.summary.lengths.unlearnt == 1
    assert data.summary.records == 2
    chat = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "u" * 30},
    ]
    path = write_jsonl(tmp_path / "y.jsonl", [{"messages": chat}] * 2)
    with pytest.raises(
        DataError, match=r"no record is usable with sequence_length = 8: 0 are longer, and in 2 nothing"
    ):
        load(path)


def test_texts_are_divided_and_counted(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "x.jsonl", [{"text": "abcdefghijkl"}, {"text": "short"}])
    data = load(path, length=8, holdout=0.0, packing="none")
    assert set(rows_text(data.train)) == {"abcdefgh", "hijkl</s>", "short</s>"}
    assert data.summary.lengths is not None and data.summary.lengths.divided == 1


def test_bos_stays_in_front_of_a_cut_record() -> None:
    ids = np.array([BOS, 1, 2, 3, 4, 5, EOS], np.int32)
    line = TokenLine.of(ids, np.arange(7) > 3, np.array([0, 7]), np.array([False]))
    for bos, expected in ((BOS, [BOS, 4, 5, EOS]), (None, [3, 4, 5, EOS])):
        fitted = Lengths(4, "keep-end", bos).fit(line)
        row = singles(line, fitted.pieces, pad=0).gather(np.array([0]))
        assert row.ids.tolist() == [expected] and row.positions.tolist() == [[0, 1, 2, 3]]
        assert row.trained.tolist() == [[False, True, True, True]]


def test_private_records_are_one_sequence_each(tmp_path: Path) -> None:
    """Texts too: two pieces of one record would be two records to the books."""
    path = write_jsonl(tmp_path / "x.jsonl", [{"text": f"{n} a long text"} for n in range(9)] + [{"text": "short"}] * 9)
    data = load(path, private=True)
    assert len(data.train) == data.summary.records - 2 == 16
    assert data.summary.lengths is not None and data.summary.lengths.cut == 9
    assert {row[1:] for row in rows_text(data.train)} == {"hort</s>", " a long"}


# --- refusals -----------------------------------------------------------------------------------------


def too_short(path: Path) -> None:
    write_jsonl(path, [{"text": "123456789012345"}] * 2)


def one_short_text(path: Path) -> None:
    write_jsonl(path, [{"text": "1234567890123456789012345678901"}])


def one_chat(path: Path) -> None:
    write_jsonl(path, [{"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "a" * 100}]}])


def only_prompts(path: Path) -> None:
    write_jsonl(path, [{"prompt": "p" * 400, "completion": "c"}])


def only_prompts_but_at_the_end(path: Path) -> None:
    chat = [{"role": "assistant", "content": "a" * 100}, {"role": "user", "content": "u" * 200}]
    write_jsonl(path, [{"messages": [{"role": "user", "content": "?"}, *chat]}])


def nothing(path: Path) -> None:
    path.write_text("\n\n")


def nothing_good(path: Path) -> None:
    path.write_text('{"txt": 1}\n{"txt": 2}\n')


@pytest.mark.parametrize(
    ("packing", "content", "said"),
    [
        ("concatenated", too_short, "the data come to 32 tokens, but 40 are needed: one sequence to train on and one"),
        ("isolated", one_short_text, "the data come to 32 tokens, but 40 are needed: one sequence to train on and one"),
        ("isolated", one_chat, "there is one record, but 2 are needed: one to train on and one to hold out"),
        ("concatenated", only_prompts, "nothing can be learnt from the part to train on: all its tokens are prompts"),
        ("concatenated", only_prompts_but_at_the_end, "nothing can be learnt from the part to hold out"),
        ("isolated", nothing, "there are no usable records; give at least one text"),
        ("isolated", nothing_good, "there are no usable records (2 bad ones were left out; the first: "),
    ],
)
def test_data_that_is_not_enough_is_refused(
    tmp_path: Path, packing: str, content: Callable[[Path], None], said: str
) -> None:
    path = tmp_path / "notes.jsonl"
    content(path)
    with pytest.raises(DataError) as caught:
        load(path, length=20, packing=packing, bad_records="skip")
    assert str(caught.value).startswith(f"{path}: {said}")


def test_two_short_records_are_enough_where_records_are_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    too_short(path)
    data = load(path, length=20)
    assert (len(data.train), len(data.heldout)) == (1, 1)


def test_a_bad_record_stops_the_loading(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "notes.jsonl", [{"text": "x" * 50}, {"text": 1}])
    with pytest.raises(DataError, match=r"line 2: .* or leave such records out with bad_records = 'skip'"):
        load(path)
