"""Packing: that no token is lost or used twice, and that records stay whole where they are kept apart."""

import itertools
from pathlib import Path
from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deca_node.numerics.data.holdout import split
from deca_node.numerics.data.packing import best_fit, concatenated, divided, pack
from deca_node.numerics.data.sequences import Mask, Sequences, TokenLine, pieces_of
from tests.numerics.data.lines import holdouts, lengths_lists, line_of, mask_of, parts_of, whole


def packed_as(line: TokenLine, kept: Mask, how: str, length: int, seed: int) -> Sequences:
    return pack(line, parts_of(line, kept), how, length, pad=0, seed=seed)


# --- end to end ---------------------------------------------------------------------------------------


def cut_by_hand(tokens: list[tuple[int, bool]], length: int) -> list[list[tuple[int, bool]]]:
    """The rule of the module's docstring, one token at a time."""
    rows = [tokens[start : start + length] for start in range(0, len(tokens), length)]
    whole = [row for row in rows if len(row) == length] or rows
    return [row for row in whole if any(learnt for _, learnt in row[1:])]


def marked(line: TokenLine, trained: list[bool]) -> TokenLine:
    return TokenLine.of(line.ids, np.array(trained, np.bool_), line.starts, line.texts)


def rows_of(sequences: Sequences) -> list[list[tuple[int, bool]]]:
    """Ids and whether they are learnt, without padding."""
    found = []
    for number in range(len(sequences)):
        rows = sequences.gather(np.array([number]))
        found.append(list(zip(rows.ids[0].tolist(), rows.trained[0].tolist(), strict=True)))
    return found


@given(st.lists(st.booleans(), max_size=80), st.integers(2, 12))
def test_cutting_does_as_by_hand(trained: list[bool], length: int) -> None:
    line = marked(line_of([len(trained)] if trained else []), trained)
    packed = concatenated(line, whole(line).pieces, length, pad=99).useful()
    expected = cut_by_hand(list(enumerate(trained)), length)
    assert rows_of(packed) == [[(row[0][0], False), *row[1:]] for row in expected]
    assert packed.predicted == sum(learnt for row in expected for _, learnt in row[1:])


@given(lengths_lists, st.integers(2, 20), holdouts, st.integers(0, 5), st.randoms(use_true_random=False))
def test_every_trained_token_is_predicted_exactly_once(
    lengths: list[int], length: int, holdout: float, seed: int, rng: Random
) -> None:
    """In one of the two parts, unless it comes first in a sequence or falls to the tail of its part."""
    line = line_of(lengths)
    total = len(line.ids)
    if total < 2 * length:
        return
    line = marked(line, [rng.random() < 0.7 for _ in range(total)])
    found = split(Path("x"), whole(line), length, holdout, seed, whole=False)
    predicted: list[int] = []
    passed_over: list[int] = []
    for part in (found.kept(line.trained), found.held(line.trained)):
        ids = line.ids[mask_of(line, part)]
        packed = concatenated(line, part, length, pad=0).useful()
        predicted += [token for row in rows_of(packed) for token, learnt in row if learnt]
        cut = len(ids) // length * length
        passed_over += [*ids[:cut:length], *ids[cut:]]
    wanted = set(np.flatnonzero(line.trained).tolist()) - set(passed_over)
    assert sorted(predicted) == sorted(wanted)


# --- records apart ------------------------------------------------------------------------------------


@given(lengths_lists, st.integers(2, 20), st.sampled_from(["isolated", "none"]), st.integers(0, 3))
def test_records_stay_whole_and_all_is_learnt_once(lengths: list[int], length: int, how: str, seed: int) -> None:
    """All but the first token of each record, longer than a sequence or not; no piece has tokens of two records."""
    line = line_of(lengths)
    packed = pack(line, whole(line).pieces, how, length, pad=0, seed=seed)
    of_record = np.repeat(np.arange(len(lengths)), lengths)
    for start, stop, _, _ in packed.pieces.tolist():
        assert 0 < stop - start <= length and len(set(of_record[start:stop])) == 1
        assert stop - start in (length, lengths[of_record[start]]) or stop in line.starts
    learnt = sorted(token for row in rows_of(packed) for token, learnt in row if learnt)
    assert learnt == sorted(set(range(len(line))) - set(line.starts[:-1].tolist()))
    widths = [len(row) for row in rows_of(packed)]
    assert max(widths) <= length
    assert how == "isolated" or len(packed) == len(packed.pieces)


@given(st.lists(st.integers(1, 50), max_size=300), st.integers(50, 64))
def test_best_fit_fills_no_bin_too_far_and_needs_few(lengths: list[int], capacity: int) -> None:
    bins = best_fit(lengths, capacity)
    assert sorted(item for found in bins for item in found) == list(range(len(lengths)))
    assert all(sum(lengths[item] for item in found) <= capacity for found in bins)
    least = -(-sum(lengths) // capacity)
    large = sum(length > capacity / 2 for length in lengths)
    assert len(bins) <= 11 / 9 * max(least, large) + max(least, large) * 0.5 + 1


def test_packs_of_usual_records_are_full() -> None:
    rng = np.random.default_rng(0)
    line = line_of(np.minimum(rng.lognormal(4.5, 0.8, 10_000).astype(int) + 2, 512).tolist())
    packed = pack(line, whole(line).pieces, "isolated", 512, pad=0, seed=0)
    assert packed.tokens / (len(packed) * 512) > 0.99


def test_packing_follows_from_the_seed() -> None:
    line = line_of([7, 3, 9, 4, 5] * 20)
    everything = whole(line).pieces
    first, again, other = (rows_of(pack(line, everything, "isolated", 16, pad=0, seed=s)) for s in (1, 1, 2))
    assert first == again != other


def test_a_sample_of_sequences_has_records_of_all_lengths() -> None:
    """An evaluation may stop after a few sequences, which must not be those of the longest records."""
    line = line_of([16] * 100 + [4] * 400)
    packed = pack(line, whole(line).pieces, "isolated", 16, pad=0, seed=0)
    counts = np.diff(packed.rows)[:40]
    assert 8 < (counts == 1).sum() < 32


@given(st.integers(1, 60), st.integers(2, 20))
def test_pieces_of_a_text_overlap_by_one_token(count: int, length: int) -> None:
    line = line_of([100 + count])
    pieces = divided(line, pieces_of(line.trained, np.array([100]), np.array([100 + count])), length).tolist()
    assert pieces[0][0] == 100 and pieces[-1][1] == 100 + count
    assert all(before[1] - 1 == after[0] for before, after in itertools.pairwise(pieces))
    assert all(stop - start == length for start, stop, _, _ in pieces[:-1])
    assert count == 1 or all(stop - start >= 2 for start, stop, _, _ in pieces)


def test_held_out_tokens_are_in_no_sequence() -> None:
    line = line_of([10, 10, 10])
    kept = np.arange(30) % 10 < 7
    packed = packed_as(line, kept & (np.arange(30) < 20), "isolated", 16, seed=0)
    assert sorted(token for row in rows_of(packed) for token, _ in row) == [*range(7), *range(10, 17)]
