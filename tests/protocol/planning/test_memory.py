"""The planned memory adds up from the model, the active block's state, activations and frames."""

import dataclasses

import pytest

from deca_node.protocol.planning.duration import gradient_seconds
from deca_node.protocol.planning.memory import (
    activation_bytes,
    block_memory,
    is_sharded,
    peak_memory,
    state_bytes_per_element,
)
from tests.protocol.planning.cases import HIDDEN, INTERMEDIATE, MODEL, case


@pytest.mark.parametrize(
    ("dtype_bytes", "degree", "expected"), [(4, 3, 16 + 12), (2, 3, 20 + 12), (4, 1, 20), (4, 0, 12), (2, 0, 16)]
)
def test_state_per_element(dtype_bytes: int, degree: int, expected: int) -> None:
    assert state_bytes_per_element(dtype_bytes, degree) == expected
    fed_back = state_bytes_per_element(dtype_bytes, degree, feedback=True)
    assert fed_back == expected + (4 if degree else 0), "what m-signals of few bits leave over is one more vector"


def test_memory_adds_up() -> None:
    planned = case(dtype="bfloat16")
    found = block_memory(planned, MODEL.blocks[0])
    assert found.model_bytes == 2 * 4500
    assert found.state_bytes == (20 + 4 * 2) * 3000 + 2 * 1500
    assert found.frames_bytes == 3 * 2 * 4096, "three senders, two frames each, whole pages"
    both = block_memory(planned.under(signal="mv"), MODEL.blocks[0])
    assert both.frames_bytes == 3 * 2 * 2 * 4096, "an update with both moments takes 3004 + 20 + 3008 bytes"
    assert found.total_bytes == found.model_bytes + found.state_bytes + found.activation_bytes
    together = block_memory(planned.on(one_memory=True), MODEL.blocks[0])
    assert together.total_bytes == found.total_bytes + found.frames_bytes
    assert peak_memory(planned) == max((block_memory(planned, b) for b in MODEL.blocks), key=lambda m: m.total_bytes)


def test_activations_follow_the_backward_pass() -> None:
    """A block needs less if fewer layers are above it, and a micro-batch divides the whole amount."""
    planned = case(batch_size=8)
    embedding, layer, head = (activation_bytes(planned, b) for b in MODEL.blocks)
    assert layer > embedding > head > 0
    assert activation_bytes(planned.on(micro_batch=2), MODEL.blocks[0]) == embedding // 4
    assert activation_bytes(planned.on(micro_batch=64), MODEL.blocks[0]) == embedding
    tokens = 8 * 512
    kept = activation_bytes(planned.on(gradient_checkpointing=True), MODEL.blocks[0]) - head
    assert kept == tokens * 4 * (HIDDEN + (6 + 3) * HIDDEN + (3 + 1) * INTERMEDIATE)


def test_ranks_share_the_batch_and_rank_0_alone_has_the_state() -> None:
    planned = case(dtype="bfloat16", batch_size=5)
    one, block = block_memory(planned, MODEL.blocks[0]), MODEL.blocks[0]
    two = block_memory(planned.on(ranks=2), block)
    assert two.activation_bytes == activation_bytes(planned.on(micro_batch=3), block), "three of five sequences at most"
    assert (two.state_bytes, two.model_bytes) == (one.state_bytes, one.model_bytes)
    assert two.follower_bytes == two.model_bytes + 4 * 3000 + 2 * 1500 + two.activation_bytes
    together = block_memory(planned.on(ranks=3, one_memory=True), block)
    assert together.total_bytes == (
        together.model_bytes
        + together.state_bytes
        + together.activation_bytes
        + together.frames_bytes
        + 2 * together.follower_bytes
    )
    assert one.follower_bytes == 0
    assert gradient_seconds(planned.on(ranks=5), block).compute == pytest.approx(
        gradient_seconds(planned, block).compute / 5
    )


def test_of_a_sharded_model_a_rank_holds_a_part_and_gathers_two_layers() -> None:
    planned = case(dtype="bfloat16", batch_size=4)
    planned = dataclasses.replace(planned, model=dataclasses.replace(planned.model, layer=500, together=300))
    block = MODEL.blocks[0]
    whole = block_memory(planned.on(ranks=4), block)
    found = block_memory(planned.on(ranks=4, sharded=True), block)
    assert found.model_bytes == 2 * 4500 // 4 + 2 * (3 * 500 + 300)
    part = 4 * 3000 // 4 + (2 + 4) * 3000
    assert found.state_bytes == (20 + 4 * 2) * 3000 + part, "rank 0 has the block's state, and a part of its gradient"
    assert found.follower_bytes == found.model_bytes + part + found.activation_bytes
    assert found.activation_bytes == whole.activation_bytes


def test_a_model_is_sharded_if_that_is_asked_for_or_a_whole_one_is_too_much() -> None:
    planned = case(dtype="bfloat16", batch_size=4).on(ranks=2)
    whole = peak_memory(planned).total_bytes
    assert is_sharded(planned, "auto", whole)
    assert not is_sharded(planned, "auto", whole / 0.89) and is_sharded(planned, "auto", whole / 0.91)
    assert not is_sharded(planned, "auto", None), "of an unknown memory nothing is concluded"
    assert not is_sharded(planned, "data", 1.0)
    assert is_sharded(planned, "shard", None) and not is_sharded(planned.on(ranks=1), "shard", 1.0)
