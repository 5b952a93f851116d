"""The disk space of a node's folder, computed before the node starts.

M is the bytes of the model in the dtype of training, and P the number of its parameters. The parts of the folder
(:mod:`deca_node.storage.manifest`)::

    start/         M           starting values of every block, after the first round
    blocks/        M + P       the newest version of every block, and its delta: a byte per parameter, and scales
                   M_k + P_k   the previous version of the block that was visited last, since two checkpoints are kept
    checkpoints/   2 * 12 n    master and two moments in float32 of the active block's n parameters. A checkpoint in the
                               middle of a visit has them, as after a stop; two are kept
    incoming/      P           deltas that arrive while the node catches up
    final/         M           the tuned model
    best/          M           with early_stop_rounds: the best model by held-out loss, and those of rounds that are
    candidate-T/   2 M         not judged yet
    tokens/        2 D         the tokens of D bytes of text: a token has three bytes of it in most languages, and takes
                               five on disk. Labelled records lie there twice while they are divided into two parts
"""

from deca_node.protocol.agreed.frames import KEYFRAME_GROUP, KEYFRAME_GROUP_BYTES
from deca_node.protocol.planning.case import Case

CHECKPOINTS_KEPT = 2
CANDIDATES = 2
"""Models of rounds that are not judged yet: the last one, and the one before until it is."""
STATE_BYTES_PER_ELEMENT = 12
"""Master, m and v of the active block in float32."""
METRICS_BYTES_PER_STEP = 1024
TOKENS_PER_DATA = {"causal-lm": 2, "classification": 4}
"""Bytes of tokens for each byte of text, by the run's task."""


def delta_bytes(elements: int) -> int:
    """Bytes of a block's difference to its start."""
    return -(-elements // KEYFRAME_GROUP) * KEYFRAME_GROUP_BYTES


def folder_bytes(case: Case, data_bytes: int = 0) -> dict[str, int]:
    """The largest size of each part of the folder, by its name, for so many bytes of data."""
    elements = [block.elements for block in case.model.blocks]
    model, deltas = case.model.elements * case.dtype_bytes, sum(map(delta_bytes, elements))
    largest = max(elements)
    schedule = case.schedule
    steps = sum(schedule[index].steps for index in range(len(schedule)))
    return {
        "start": model,
        "blocks": sum(elements) * case.dtype_bytes + deltas + largest * case.dtype_bytes + delta_bytes(largest),
        "checkpoints": CHECKPOINTS_KEPT * STATE_BYTES_PER_ELEMENT * largest,
        "incoming": deltas,
        "final": model,
        **({"best": model, "candidate": CANDIDATES * model} if case.settings.early_stop_rounds else {}),
        **({"tokens": TOKENS_PER_DATA[case.settings.task] * data_bytes} if data_bytes else {}),
        "metrics.jsonl": METRICS_BYTES_PER_STEP * steps,
    }
