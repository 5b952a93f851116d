"""How much disk a node's folder will take, reckoned before it starts.

With M the bytes of the model as it is held and P its parameters, by what lies in the folder
(:mod:`deca_node.storage.manifest`)::

    start/         M           starting values of every block, once all were visited
    blocks/        M + P       the newest version of every block, and its delta: a byte per parameter, and scales
                   M_k + P_k   the version before, of the block that was visited last: two checkpoints are kept
    checkpoints/   2 * 12 n    master and two moments in float32 of the active block's n parameters, for a checkpoint in
                               the middle of a visit (a stop makes one too); two are kept
    incoming/      P           deltas on their way here, while catching up
    final/         M           the tuned model
"""

from deca_node.protocol.agreed.frames import KEYFRAME_GROUP, KEYFRAME_GROUP_BYTES
from deca_node.protocol.planning.case import Case

CHECKPOINTS_KEPT = 2
STATE_BYTES_PER_ELEMENT = 12
"""Master, m and v of the active block in float32."""
METRICS_BYTES_PER_STEP = 1024


def delta_bytes(elements: int) -> int:
    """Of a block's difference to its start."""
    return -(-elements // KEYFRAME_GROUP) * KEYFRAME_GROUP_BYTES


def folder_bytes(case: Case) -> dict[str, int]:
    """What each part of the folder takes at most, by its name."""
    elements = [block.elements for block in case.model.blocks]
    model, deltas = sum(elements) * case.dtype_bytes, sum(map(delta_bytes, elements))
    largest = max(elements)
    schedule = case.schedule
    steps = sum(schedule[index].steps for index in range(len(schedule)))
    return {
        "start": model,
        "blocks": model + deltas + largest * case.dtype_bytes + delta_bytes(largest),
        "checkpoints": CHECKPOINTS_KEPT * STATE_BYTES_PER_ELEMENT * largest,
        "incoming": deltas,
        "final": model,
        "metrics.jsonl": METRICS_BYTES_PER_STEP * steps,
    }
