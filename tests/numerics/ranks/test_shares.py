"""Shares of a batch: no row is lost or taken twice, and their gradients add up to that of the whole."""

from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deca_node.numerics.data.batches import IGNORED, AnyBatch, Batch, LabelledBatch
from deca_node.numerics.learning.loss import backward
from deca_node.numerics.model.blocks import BlockGradient, partition
from deca_node.numerics.ranks.orders import End, Gradient, Judge, Order, from_word, to_word
from deca_node.numerics.ranks.shares import add_gradient, share_of, timed
from tests.e2e.testbed import make_tiny_model

CPU = torch.device("cpu")


def sequences(rows: int, length: int = 6) -> Batch:
    """Rows of which each has other tokens to learn, and another number of them."""
    ids = torch.arange(rows * length).view(rows, length) % 20
    labels = torch.where(torch.arange(length) > torch.arange(rows)[:, None] % 3, ids, IGNORED)
    return Batch(ids, labels)


def records(rows: int) -> LabelledBatch:
    ids = torch.arange(rows * 3).view(rows, 3)
    return LabelledBatch(ids, torch.ones_like(ids), torch.zeros_like(ids), torch.arange(rows) % 2)


@given(st.integers(1, 9), st.integers(1, 5))
def test_every_row_is_one_rank_s(rows: int, ranks: int) -> None:
    parts = [share_of(sequences(rows), rank, ranks) for rank in range(ranks)]
    sizes = [0 if part is None else len(part.input_ids) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert torch.equal(torch.cat([part.input_ids for part in parts if part is not None]), sequences(rows).input_ids)


@pytest.mark.parametrize("order", [Gradient(3, 17, 5, 0.5), Judge(2), End()])
@pytest.mark.parametrize("batches", [[], [sequences(2), records(3), Batch(*[sequences(1).input_ids] * 3)]])
def test_an_order_comes_back_from_its_word(order: Order, batches: list[AnyBatch]) -> None:
    again, renewed, found = from_word(*to_word(order, [0, 2], batches))
    assert (again, renewed) == (order, [0, 2])
    for batch, copy in zip(batches, found, strict=True):
        assert type(batch) is type(copy)
        for name, column in vars(batch).items():
            assert (column is None and getattr(copy, name) is None) or torch.equal(column, getattr(copy, name))


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_gradients_of_shares_add_up(tmp_path: Path, clip: float) -> None:
    """Whatever the shares, and although some tokens are not learnt: exactly what one rank computes, up to rounding."""
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(make_tiny_model(tmp_path / "model"))
    batch = sequences(5)
    order = Gradient(1, batch.predicted, 0, clip)
    flat = BlockGradient(model, partition(model, 1)[1])

    def gradient(ranks: int, rank: int) -> tuple[torch.Tensor, float]:
        share = share_of(batch, rank, ranks)
        flat.collect(lambda: None)
        assert flat.grad is not None
        row = timed(partial(add_gradient, model, flat.grad, share, order, 2, CPU), CPU)
        return flat.grad.clone(), float(row[0])

    whole, loss = gradient(1, 0)
    if not clip:
        flat.collect(lambda: backward(model, batch, 0, CPU))
        assert flat.grad is not None
        torch.testing.assert_close(whole, flat.grad, rtol=1e-4, atol=1e-7)
    for ranks in (2, 3, 7):
        parts = [gradient(ranks, rank) for rank in range(ranks)]
        torch.testing.assert_close(torch.stack([part for part, _ in parts]).sum(0), whole, rtol=1e-4, atol=1e-7)
        assert sum(part for _, part in parts) == pytest.approx(loss, rel=1e-5)
