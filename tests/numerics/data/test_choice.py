"""Which records are held out follows from their content, and stays as the first start chose it."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deca_node.numerics.data.choice import Choice, HeldOut, _least
from deca_node.numerics.data.holdout import RECORDS_TO_SPLIT
from deca_node.numerics.data.sequences import TokenLine
from deca_node.numerics.data.store.scratch import IN_MEMORY
from deca_node.protocol.errors import DataError
from tests.numerics.data.lines import holdouts, whole

PATH = Path("notes.jsonl")
Record = tuple[int, ...]

records_of = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=12).map(tuple), min_size=1, max_size=60)
distinct = st.integers(2, 60).map(lambda count: [(k, 0, 0, 0, *range(k % 5)) for k in range(count)])


def line(records: list[Record], texts: bool = True) -> TokenLine:
    starts = np.cumsum([0, *map(len, records)], dtype=np.int64)
    ids = np.array([token for record in records for token in record], np.int32)
    return TokenLine.of(ids, np.ones(len(ids), np.bool_), starts, np.full(len(records), texts))


def held(
    records: list[Record], held_out: HeldOut, length: int = 4, *, apart: bool = True, texts: bool = True
) -> list[tuple[Record, int]]:
    """Each record, and how many tokens at its end are held out."""
    all_of_them = line(records, texts)
    parts = held_out.divide(PATH, all_of_them, whole(all_of_them), length, apart, IN_MEMORY)
    counts = (all_of_them.starts[1:] - parts.cuts).tolist()
    return list(zip(records, counts, strict=True))


def fresh(holdout: float = 0.1, seed: int = 0) -> HeldOut:
    return HeldOut(seed, 12345, holdout)


def later(first: HeldOut, own_seed: int = 999) -> HeldOut:
    """A later start, of a node with another name."""
    return HeldOut(0, own_seed, first.holdout, first.choice)


@given(distinct, holdouts, st.booleans(), st.booleans(), st.randoms())
def test_no_order_and_no_name_matters(
    records: list[Record], holdout: float, apart: bool, texts: bool, chance: object
) -> None:
    first, mixed = fresh(holdout), list(records)
    before = held(records, first, apart=apart, texts=texts)
    chance.shuffle(mixed)  # type: ignore[attr-defined]
    assert Counter(held(mixed, later(first), apart=apart, texts=texts)) == Counter(before)
    assert Counter(held(mixed, fresh(holdout), apart=apart, texts=texts)) == Counter(before)


@given(distinct, holdouts, st.booleans(), st.integers(1, 10))
def test_records_that_come_or_go_move_no_others(
    records: list[Record], holdout: float, apart: bool, removed: int
) -> None:
    first = fresh(holdout)
    before = dict(held(records, first, apart=apart))
    added = [(*record, 77) for record in records]
    after = dict(held([*added, *records[removed:]], later(first), apart=apart))
    assert all(after[record] == before[record] for record in records[removed:])
    if len(records) > RECORDS_TO_SPLIT and holdout == 0.5:
        assert {after[record] > 0 for record in added} == {True, False}


@given(distinct, st.integers(2, 12), holdouts, st.booleans(), st.booleans())
def test_both_parts_get_enough(records: list[Record], length: int, holdout: float, apart: bool, texts: bool) -> None:
    total = sum(map(len, records))
    if not apart and total < 2 * length:
        return
    first = fresh(holdout)
    try:
        out = sum(count for _, count in held(records, first, length, apart=apart, texts=texts))
    except DataError:
        assert apart and total < 2 * length
        return
    least = 1 if apart else length
    assert least <= out <= total - least
    longest = max(map(len, records))
    assert abs(out - holdout * total) <= length + longest


@given(records_of, holdouts, st.booleans(), st.randoms())
def test_equal_records_are_on_one_side_unless_too_many_are_equal(
    records: list[Record], holdout: float, texts: bool, chance: object
) -> None:
    if len(records) < 2 or (texts and sum(map(len, records)) < 8):
        return
    first, mixed = fresh(holdout), list(records)
    before = held(records, first, texts=texts)
    out = sum(count for _, count in before)
    assert 0 < out < sum(map(len, records)) or (first.choice and first.choice.kind == "ends")
    assert first.choice is not None
    sides = Counter(record for record, _ in set(before))
    assert max(sides.values()) == 1 or first.choice.numbered
    chance.shuffle(mixed)  # type: ignore[attr-defined]
    assert Counter(held(mixed, later(first), texts=texts)) == Counter(before)


def test_many_equal_texts_are_divided_as_wholes() -> None:
    """The end of a short text may be a single token, of which nothing can be learnt."""
    first = fresh(0.1)
    assert Counter(count for _, count in held([(1, 2, 3, 4, 5)] * 30, first, length=16)) == {0: 27, 5: 3}
    assert first.choice is not None and first.choice.kind == "records"


def test_the_run_has_its_own_choice() -> None:
    records = [(k, k + 1) for k in range(50)]
    assert held(records, fresh(0.2, seed=1)) != held(records, fresh(0.2, seed=2))
    assert held(records, fresh(0.2, seed=1)) == held(records, fresh(0.2, seed=1))


def test_nothing_is_held_out_where_nothing_is_asked_for() -> None:
    first = fresh(0.0)
    assert {count for _, count in held([(1, 2), (3, 4)], first)} == {0}
    assert first.choice == Choice("none")


@pytest.mark.parametrize("records", [2, 3, 40, 1000])
def test_labelled_records_are_counted(records: int) -> None:
    ids, starts = np.arange(2 * records, dtype=np.int32), 2 * np.arange(records + 1)
    first = fresh(0.1)
    mask = first.rows(PATH, ids, starts)
    assert mask is not None and mask.sum() == max(1, round(0.1 * records))
    order = np.random.default_rng(0).permutation(records)
    mixed = ids.reshape(-1, 2)[order].reshape(-1)
    assert (later(first).rows(PATH, mixed, starts) == mask[order]).all()


def test_equal_labelled_records_are_divided_where_all_are_equal() -> None:
    ids, starts = np.zeros(20, np.int32), 2 * np.arange(11)
    mask = fresh(0.2).rows(PATH, ids, starts)
    assert mask is not None and mask.sum() == 2


def test_a_census_tells_order_from_content() -> None:
    def census(records: list[Record]) -> object:
        found = fresh()
        held(records, found, texts=False)
        return found.census

    one, turned = census([(1,), (2, 3), (4,)]), census([(4,), (2, 3), (1,)])
    assert one != turned and one.total == turned.total  # type: ignore[attr-defined]
    assert one.total != census([(1,), (2, 3), (5,)]).total  # type: ignore[attr-defined]


@given(st.integers(0, 255))
def test_halving_finds_the_least(least: int) -> None:
    assert _least(8, lambda number: number >= least) == least
