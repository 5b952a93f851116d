"""Sequences as lists of pieces: what a batch gets of them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deca_node.numerics.data.sequences import Mask, Pieces, Sequences, Tokens, permutation, pieces_of

LEARNT = np.array([letter == "1" for letter in "1101110111"])
LINE = Tokens(np.arange(10, 20, dtype=np.int32), LEARNT)


def pieces(*places: tuple[int, int], learnt: Mask = LEARNT) -> Pieces:
    starts, stops = np.array(places, np.int64).T
    return pieces_of(learnt, starts, stops)


PIECES = pieces((0, 3), (3, 5), (5, 10))
PACKED = Sequences(LINE, PIECES, np.array([0, 2, 3]), pad=99)


def test_pieces_are_laid_side_by_side_with_positions_of_their_own() -> None:
    """The first token of a piece is not learnt; positions go on through the padding."""
    rows = PACKED.gather(np.array([1, 0]))
    assert rows.ids.tolist() == [[15, 16, 17, 18, 19], [10, 11, 12, 13, 14]]
    assert rows.positions.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 0, 1]]
    assert rows.trained.astype(int).tolist() == [[0, 0, 1, 1, 1], [0, 1, 0, 0, 1]]
    assert PACKED.predicted == 5 and PACKED.tokens == 10 and len(PACKED) == 2


def test_rows_are_as_wide_as_the_longest_of_them() -> None:
    data = Sequences(LINE, PIECES, np.arange(4), pad=99)
    rows = data.gather(np.array([0, 1]))
    assert rows.ids.tolist() == [[10, 11, 12], [13, 14, 99]]
    assert rows.positions.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert not rows.trained[1, 2]


def test_sequences_are_taken_and_joined_in_order() -> None:
    swapped = PACKED.take(np.array([1, 0, 1]))
    twice = Sequences.joined([swapped, PACKED])
    firsts = [int(twice.gather(np.array([k])).ids[0, 0]) for k in range(len(twice))]
    assert firsts == [15, 10, 15, 10, 15]
    assert twice.predicted == swapped.predicted + PACKED.predicted


def test_sequences_in_which_nothing_is_learnt_are_not_useful() -> None:
    line = Tokens(LINE.ids, np.arange(10) == 5)
    first_of_its_piece = pieces((0, 3), (3, 5), (5, 10), learnt=line.trained)
    assert len(Sequences(line, first_of_its_piece, np.arange(4)).useful()) == 0
    assert len(Sequences(line, pieces((0, 5), (5, 10), (4, 6), learnt=line.trained), np.arange(4)).useful()) == 1


def test_ready_made_rows_are_sequences() -> None:
    ids = np.arange(6, dtype=np.int32).reshape(2, 3)
    found = Sequences.of_rows(ids, np.ones_like(ids, np.bool_))
    assert found.gather(np.array([0, 1])).ids.tolist() == ids.tolist()
    assert found.predicted == 4


# --- order ------------------------------------------------------------------------------------------


@given(st.integers(0, 200), st.text(max_size=8))
def test_a_permutation_holds_every_number_once(count: int, name: str) -> None:
    assert sorted(permutation(count, name).tolist()) == list(range(count))


def test_permutations_never_change() -> None:
    """A node that resumes after an upgrade must find its data in the order it left."""
    assert permutation(8, "0:epoch:0").tolist() == [7, 6, 0, 3, 1, 2, 4, 5]
