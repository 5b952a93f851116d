"""How much memory a node needs while one block is active.

The optimizer's memory is exact. Activations are an estimate; :func:`activation_bytes` has its formula.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from deca_node.protocol.agreed.frames import KEYFRAME_CODEC_NAME
from deca_node.protocol.planning.case import BlockShape, Case
from deca_node.protocol.planning.traffic import update_bytes

PAGE_BYTES = 4096

FRAMES_IN_USE: Mapping[str, int] = {"lockstep": 2, "overlap": 3}
"""Frames of each sender that are held at a time: one being mixed, the next arriving; with overlap one more."""


@dataclass(frozen=True)
class Memory:
    """What a node needs while one block is active. ``frames_bytes`` is shared memory on the host, as much as is
    usually touched; ``total_bytes`` includes it only where the model is trained in that same memory."""

    block: str
    model_bytes: int
    state_bytes: int
    activation_bytes: int
    frames_bytes: int
    total_bytes: int


def block_memory(case: Case, block: BlockShape) -> Memory:
    """At the height of a gradient step, on the node with most neighbours."""
    size = case.dtype_bytes
    model = case.model.elements * size
    # One parameter's gradient at a time stands beside the block's own, in the model's precision.
    state = block.elements * state_bytes_per_element(size, case.mixing.degree_max) + block.largest_tensor * size
    activations = activation_bytes(case, block)
    largest = max(max(b.frame_bytes[KEYFRAME_CODEC_NAME], update_bytes(case, b, True)) for b in case.model.blocks)
    senders = case.mixing.degree_max + 1 if case.mixing.degree_max else 0
    frames = senders * FRAMES_IN_USE[case.settings.exchange] * -(-largest // PAGE_BYTES) * PAGE_BYTES
    total = model + state + activations + (frames if case.machine.one_memory else 0)
    return Memory(block.name, model, state, activations, frames, total)


def state_bytes_per_element(dtype_bytes: int, degree: int) -> int:
    """Of the active block: float32 gradient, m and v; x^ and an e_ij per neighbour where there are any; and the
    master, which float32 parameters are views of and others stand beside."""
    vectors = 3 + (1 + degree if degree else 0) + (dtype_bytes != 4)
    return 4 * vectors


def activation_bytes(case: Case, block: BlockShape) -> int:
    """What the backward pass to ``block`` needs; an estimate, for layers like Llama's with fused attention.

    Per token: in each of the layers from the block upward 6 hidden (8 below float32, where norms keep copies in
    float32) + 3 intermediate elements; in the block's own layers 3 hidden + 1 intermediate more, their inputs;
    for each entry of the vocabulary the logits, and in float32 their log-softmax and its gradient. With gradient
    checkpointing every layer keeps its input only, and one at a time is computed anew. BERT's dropout comes to a
    quarter more, GPT-2's and its activation function of many operations to twice as much; GPT-NeoX, whose norms copy
    nothing, comes to less.
    """
    size, shape = case.dtype_bytes, case.model
    kept = (6 if size == 4 else 8) * shape.hidden + 3 * shape.intermediate
    inputs = 3 * shape.hidden + shape.intermediate
    if case.machine.gradient_checkpointing:
        layers = block.layers_from * shape.hidden + (kept + inputs if block.layers_from else 0)
    else:
        layers = block.layers_from * kept + block.layers * inputs
    tokens = case.micro_batch * case.settings.sequence_length
    return tokens * (size * layers + (8 + size) * shape.vocabulary)


def peak_memory(case: Case) -> Memory:
    """The block that needs most."""
    return max((block_memory(case, block) for block in case.model.blocks), key=lambda m: m.total_bytes)
