"""The held-out part: its size, and that records are whole where that matters."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deca_node.numerics.data.holdout import RECORDS_TO_SPLIT, _shares, split
from deca_node.numerics.data.sequences import Mask, TokenLine
from deca_node.protocol.errors import DataError
from tests.numerics.data.lines import holdouts, lengths_lists, line_of, mask_of, whole

PATH = Path("notes.jsonl")


def held_out(line: TokenLine, length: int, holdout: float, seed: int, apart: bool = False) -> Mask:
    found = split(PATH, whole(line), length, holdout, seed, whole=apart)
    held = mask_of(line, found.held(line.trained))
    assert mask_of(line, found.kept(line.trained)).tolist() == (~held).tolist()
    return held


def per_record(line: TokenLine, mask: Any) -> list[list[bool]]:
    return [part.tolist() for part in np.split(mask, line.starts[1:-1])]


def test_many_records_are_held_out_whole() -> None:
    line = line_of([30] * 100)
    mask = held_out(line, 16, 0.1, seed=0)
    held = [index for index, part in enumerate(per_record(line, mask)) if all(part)]
    assert len(held) == 10
    assert mask.sum() == 300
    assert held != list(range(10)) and held != list(range(90, 100))


def test_of_few_records_the_ends_are_held_out() -> None:
    line = line_of([100, 50, 200])
    parts = per_record(line, held_out(line, 16, 0.1, seed=0))
    assert [sum(part) for part in parts] == [10, 5, 20]
    assert all(part == sorted(part) for part in parts)


def test_a_record_too_large_to_hold_out_is_cut() -> None:
    """One of many records has nearly all the text: holding it out whole would leave nothing to train on."""
    line = line_of([10] * 30 + [5000])
    for seed in range(40):
        mask = held_out(line, 16, 0.1, seed)
        assert 530 <= mask.sum() <= 2600


def test_where_whole_records_would_leave_no_sequence_they_are_cut() -> None:
    line = line_of([10] * 21)
    assert held_out(line, 105, 0.1, seed=0).sum() == 105


def test_the_split_follows_from_the_seed() -> None:
    line = line_of([7] * 50)
    first, again, other = (held_out(line, 16, 0.2, seed).tolist() for seed in (1, 1, 2))
    assert first == again != other


@given(lengths_lists, st.integers(2, 20), holdouts, st.integers(0, 5))
def test_both_parts_get_at_least_one_sequence(lengths: list[int], length: int, holdout: float, seed: int) -> None:
    line = line_of(lengths)
    total = sum(lengths)
    if total < 2 * length:
        return
    mask = held_out(line, length, holdout, seed)
    assert length <= mask.sum() <= total - length
    all_whole = all(len(set(part)) == 1 for part in per_record(line, mask))
    ends = all(part == sorted(part) for part in per_record(line, mask))
    assert ends if len(lengths) < RECORDS_TO_SPLIT else all_whole or ends


# --- where records are kept apart ---------------------------------------------------------------------


def test_records_are_held_out_whole_down_to_one_of_two() -> None:
    """No more of them than the share asks for, although they do not fill a sequence."""
    for count, expected in ((60, 6), (10, 1), (2, 1)):
        line = line_of([20] * count)
        parts = per_record(line, held_out(line, 512, 0.1, seed=0, apart=True))
        assert sum(map(all, parts)) == expected
        assert all(len(set(part)) == 1 for part in parts)


def test_the_ends_of_few_long_texts_are_held_out() -> None:
    line = line_of([100, 50, 200])
    parts = per_record(line, held_out(line, 16, 0.1, seed=0, apart=True))
    assert [sum(part) for part in parts] == [10, 5, 20]


@given(lengths_lists, st.lists(st.booleans(), min_size=60, max_size=60), holdouts, st.integers(0, 3))
def test_both_parts_get_a_record_and_chats_are_never_divided(
    lengths: list[int], kinds: list[bool], holdout: float, seed: int
) -> None:
    line = line_of(lengths, kinds[: len(lengths)])
    try:
        mask = held_out(line, 16, holdout, seed, apart=True)
    except DataError:
        assert len(lengths) == 1
        return
    assert 0 < mask.sum() < len(line)
    divided = [text for part, text in zip(per_record(line, mask), line.texts, strict=True) if len(set(part)) > 1]
    assert all(divided) and (not divided or line.texts.all())


def test_a_large_chat_is_passed_over() -> None:
    line = line_of([10] * 30 + [5000], texts=False)
    for seed in range(40):
        parts = per_record(line, held_out(line, 8000, 0.1, seed, apart=True))
        assert not any(parts[-1]) and any(map(all, parts))


def test_one_record_cannot_be_held_out_and_learnt() -> None:
    with pytest.raises(DataError, match=r"notes.jsonl: there is one record, but 2 are needed"):
        held_out(line_of([900], texts=False), 16, 0.1, 0, apart=True)
    with pytest.raises(DataError, match="the data come to 31 tokens, but 32 are needed"):
        held_out(line_of([31]), 16, 0.1, 0, apart=True)


def test_shares_of_very_large_data_do_not_overflow() -> None:
    """The product of both numbers has more than 64 bits."""
    total = 20 * 10**9
    ends = np.array([0, total // 2, total])
    assert _shares(ends, total // 10, total).tolist() == [0, total // 20, total // 10]
