"""The memory that a node needs while one block is active.

The memory of the optimizer is exact. Activations are an estimate; :func:`activation_bytes` has its formula.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from deca_node.protocol.agreed.frames import KEYFRAME_CODEC_NAME
from deca_node.protocol.planning.case import BlockShape, Case
from deca_node.protocol.planning.traffic import largest_content, update_bytes

PAGE_BYTES = 4096

MEMORY_SHARE_MAX = 0.9
"""A plan that takes more of the free memory than this is worth a warning, since parts of it are estimates; and
``parallel = auto`` shards."""

FRAMES_IN_USE: Mapping[str, int] = {"lockstep": 2, "overlap": 3}
"""Frames of each sender in memory at a time: one that is mixed and one that arrives. Overlap has one more."""


@dataclass(frozen=True)
class Memory:
    """The memory of a node while ``block`` is active. ``frames_bytes`` is shared memory of the host, in the usual
    amount. ``total_bytes`` includes it only if the model is trained in the same memory.

    With several ranks this is rank 0, and ``follower_bytes`` is each of the others. On a CPU they share one memory, and
    ``total_bytes`` is that of all ranks together.
    """

    block: str
    model_bytes: int
    state_bytes: int
    activation_bytes: int
    frames_bytes: int
    total_bytes: int
    follower_bytes: int = 0


def block_memory(case: Case, block: BlockShape) -> Memory:
    """The memory at the peak of a gradient step, on the node with the most neighbours."""
    size = case.dtype_bytes
    model = case.model.elements * size
    # The gradient of one parameter at a time exists beside the block's own, in the model's precision.
    per_element = state_bytes_per_element(size, case.mixing.degree_max, feedback=case.settings.moment_bits < 8)
    state = block.elements * per_element + block.largest_tensor * size
    activations = activation_bytes(case, block)
    follower = model + 4 * block.elements + block.largest_tensor * size + activations if case.machine.ranks > 1 else 0
    if case.machine.sharded:
        model, state, follower = _sharded(case, block, activations)
    content = largest_content(case)
    largest = max(max(b.frame_bytes[KEYFRAME_CODEC_NAME], update_bytes(case, b, content)) for b in case.model.blocks)
    degree = max(case.mixing.degree_max, case.mixing.final_degree_max)
    senders = degree + 1 if degree else 0
    frames = senders * FRAMES_IN_USE[case.settings.exchange] * -(-largest // PAGE_BYTES) * PAGE_BYTES
    # A rank beside the first holds the block's gradient, and none of its state.
    others = case.machine.ranks - 1
    total = model + state + activations + (frames + others * follower if case.machine.one_memory else 0)
    return Memory(block.name, model, state, activations, frames, total, follower)


def _sharded(case: Case, block: BlockShape, activations: int) -> tuple[int, int, int]:
    """Of a sharded model: the bytes of parameters at each rank, the bytes of rank 0's state, and another rank's bytes
    in all.

    A rank holds its part of all parameters, and gathers two layers at a time (the next one early) and what belongs to
    no layer. The larger of these is there twice for a moment, as it arrived and in the parameters' shapes. The gradient
    of the active block's largest layer is whole for a moment, and once more in float32 for the sum; the rank keeps its
    part of it. Rank 0 has the block's state, its master among it.
    """
    size, model, ranks = case.dtype_bytes, case.model, case.machine.ranks
    gathered = 2 * model.layer + model.together + max(model.layer, model.together)
    parts = -(-model.elements // ranks) * size + gathered * size
    summed = (size + 4) * (min(model.layer, block.elements) if block.layers else block.elements)
    gradient = summed + 4 * -(-block.elements // ranks)
    # A float32 master is no view of parameters that are sharded.
    degree, feedback = case.mixing.degree_max, case.settings.moment_bits < 8
    state = block.elements * state_bytes_per_element(2, degree, feedback=feedback) + gradient
    return parts, state, parts + gradient + activations


def is_sharded(case: Case, parallel: str, memory_bytes: float | None) -> bool:
    """Whether several ranks shard the model: as the setting ``parallel`` says, and with ``auto`` if a whole model at
    each rank is too much for this memory (None: unknown)."""
    if case.machine.ranks < 2 or parallel != "auto":
        return case.machine.ranks > 1 and parallel == "shard"
    return memory_bytes is not None and _tight(case, memory_bytes)


def _tight(case: Case, memory_bytes: float) -> bool:
    return peak_memory(case.on(sharded=False)).total_bytes > MEMORY_SHARE_MAX * memory_bytes


def state_bytes_per_element(dtype_bytes: int, degree: int, *, feedback: bool = False) -> int:
    """State of the active block, in bytes per element. All vectors are float32: gradient, m and v; with neighbours
    also x^, one e_ij per neighbour, and with ``feedback`` what m-signals of few bits left over; and a master, unless
    the parameters are float32 and so are views of it."""
    vectors = 3 + (1 + degree + feedback if degree else 0) + (dtype_bytes != 4)
    return 4 * vectors


def activation_bytes(case: Case, block: BlockShape) -> int:
    """Activations that the backward pass to ``block`` needs. They were counted where the model could be traced
    (``BlockShape.activations``); otherwise they are an estimate for layers like Llama's with fused attention.

    Of the estimate: every token has these elements. Each layer from the block upward keeps 6 hidden (8 below float32,
    since norms keep copies in float32) + 3 intermediate. The block's own layers keep 3 hidden + 1 intermediate more,
    their inputs. Each entry of the vocabulary has its logit, and in float32 its log-softmax and the gradient of that.
    With gradient checkpointing every layer keeps only its input, and one layer at a time is computed again.
    """
    size, shape = case.dtype_bytes, case.model
    curve = block.checkpointed if case.machine.gradient_checkpointing else block.activations
    if curve is not None:
        return curve.at(case.micro_batch, case.settings.sequence_length)
    kept = (6 if size == 4 else 8) * shape.hidden + 3 * shape.intermediate
    inputs = 3 * shape.hidden + shape.intermediate
    if case.machine.gradient_checkpointing:
        layers = block.layers_from * shape.hidden + (kept + inputs if block.layers_from else 0)
    else:
        layers = block.layers_from * kept + block.layers * inputs
    tokens = case.micro_batch * case.settings.sequence_length
    return tokens * (size * layers + (8 + size) * shape.vocabulary)


def peak_memory(case: Case) -> Memory:
    """The memory of the block that needs the most."""
    return max((block_memory(case, block) for block in case.model.blocks), key=lambda m: m.total_bytes)
