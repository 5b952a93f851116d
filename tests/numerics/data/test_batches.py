"""Batches: every sequence once per epoch, the same order for the same seed, and an exact continuation."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from deca_node.numerics.data.batches import Batch, Batches, Cursor, heldout_batches, make_batch, ordered_batches
from deca_node.numerics.data.dataset import DataSummary, PackedData
from deca_node.numerics.data.sequences import Sequences
from deca_node.protocol.errors import DataError

LENGTH = 4
SIZES: dict[str, Any] = {"vocab_size": 32, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}


def sequences(count: int) -> Sequences:
    """Sequence i is [i, i, i, i], of which the first two tokens are only read."""
    ids = np.repeat(np.arange(count, dtype=np.int32), LENGTH).reshape(count, LENGTH)
    trained = np.tile(np.array([False, False, True, True]), (count, 1))
    return Sequences.of_rows(ids, trained)


def numbers(batch: Batch) -> list[int]:
    return batch.input_ids[:, 0].tolist()


def take(batches: Batches, count: int) -> list[list[int]]:
    return [numbers(batches.next()) for _ in range(count)]


def test_labels_are_the_inputs_or_ignored() -> None:
    batch = make_batch(sequences(5), np.array([3, 1]))
    assert batch.input_ids.tolist() == [[3, 3, 3, 3], [1, 1, 1, 1]]
    assert batch.labels.tolist() == [[-100, -100, 3, 3], [-100, -100, 1, 1]]
    assert batch.input_ids.dtype == batch.labels.dtype == torch.int64


def test_the_model_shifts_the_labels_itself() -> None:
    """``predicted`` counts what the model's mean loss runs over: the label of the first token is not in it."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, num_attention_heads=2))
    data = Sequences.of_rows(np.array([[1, 2, 3, 4]], np.int32), np.array([[True, True, False, True]]))
    batch = make_batch(data, np.array([0]))
    out = model(input_ids=batch.input_ids, labels=batch.labels)
    nats = -out.logits.log_softmax(-1)[0]
    assert batch.predicted == 2
    torch.testing.assert_close(out.loss, (nats[0, 2] + nats[2, 4]) / 2)


@pytest.mark.parametrize(("count", "batch_size"), [(6, 2), (7, 3), (3, 8), (1, 4), (5, 5)])
def test_every_epoch_uses_each_sequence_once(count: int, batch_size: int) -> None:
    """Where batches straddle epochs, and where one batch holds several."""
    batches = Batches(sequences(count), batch_size, seed=0)
    taken = take(batches, 3 * count)
    assert {len(batch) for batch in taken} == {batch_size}
    flat = [number for batch in taken for number in batch]
    epochs = [flat[start : start + count] for start in range(0, len(flat), count)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)


def test_epochs_and_seeds_differ_and_runs_do_not() -> None:
    first, again, other = (take(Batches(sequences(50), 50, seed), 2) for seed in (1, 1, 2))
    assert first == again
    assert first[0] != first[1]
    assert first[0] != other[0]


@given(st.integers(1, 12), st.integers(1, 9), st.integers(0, 8), st.integers(0, 3))
def test_a_restored_cursor_gives_the_same_continuation(count: int, batch_size: int, before: int, seed: int) -> None:
    """Resume is exact, from any place, also in an object that has gone elsewhere meanwhile."""
    batches = Batches(sequences(count), batch_size, seed)
    take(batches, before)
    cursor = batches.state()
    assert cursor.epoch * count + cursor.position == before * batch_size
    continuation = take(batches, 5)

    fresh = Batches(sequences(count), batch_size, seed)
    for resumed in (fresh, batches):
        resumed.restore(cursor)
        assert resumed.state() == cursor
        assert take(resumed, 5) == continuation


@pytest.mark.parametrize("cursor", [Cursor(0, 7), Cursor(-1, 0), Cursor(2, -1)])
def test_a_place_that_the_data_does_not_have_is_refused(cursor: Cursor) -> None:
    with pytest.raises(DataError, match="there are 6 sequences: the data has changed; bring back the data as it was"):
        Batches(sequences(6), 2, seed=0).restore(cursor)


@pytest.mark.parametrize(
    ("batch_size", "limit", "expected"),
    [
        (2, None, [[0, 1], [2, 3], [4]]),
        (2, 3, [[0, 1], [2]]),
        (8, 99, [[0, 1, 2, 3, 4]]),
        (2, 0, []),
    ],
)
def test_evaluation_goes_in_order(batch_size: int, limit: int | None, expected: list[list[int]]) -> None:
    data = PackedData(sequences(1), sequences(5), DataSummary(0, 0, (), 0, 0, 0, 0, 0))
    assert [numbers(batch) for batch in heldout_batches(data, batch_size, limit)] == expected
    assert [numbers(batch) for batch in ordered_batches(data.heldout, batch_size, limit)] == expected
