"""The duration of a run: compute, transfers, and how the two overlap.

Compute is an estimate; :func:`step_flops` has its formula. Loading, evaluating, encoding, mixing and saving are not
counted, nor are sums over the ranks of a node. All nodes are assumed to be alike. The node with the most neighbours
sets the pace: all others wait for it.
"""

import dataclasses
from dataclasses import dataclass
from itertools import pairwise

from deca_node.protocol.agreed.frames import KEYFRAME_CODEC_NAME, frame_framing_bytes
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.planning.case import BlockShape, Case
from deca_node.protocol.planning.traffic import update_bytes


@dataclass(frozen=True)
class Seconds:
    """The time of ``compute`` alone, of ``transfer`` alone, and of both as they overlap (``total``)."""

    compute: float
    transfer: float
    total: float

    @property
    def bound_by(self) -> str:
        """The resource that takes longer."""
        return "network" if self.transfer > self.compute else "compute"


def step_flops(case: Case, block: BlockShape) -> float:
    """Arithmetic of one gradient step, at the rank with the largest share: an estimate for dense models.

    A token costs 2 per element that it is multiplied with: forward through the whole model, backward to the block for
    the gradients of inputs, and in the block for the gradients of weights. Attention costs 4 * sequence * hidden per
    layer forward and twice that backward. Gradient checkpointing repeats the forward pass of the layers that the
    backward pass crosses.
    """
    settings, shape = case.settings, case.model
    again = 1 if case.machine.gradient_checkpointing else 0
    forward = max(b.multiplied_from for b in shape.blocks)
    products = forward + (1 + again) * block.multiplied_from + block.multiplied
    attention = shape.layers + (2 + again) * block.layers_from
    per_token = 2.0 * products + 4.0 * settings.sequence_length * shape.hidden * attention
    return case.share * settings.sequence_length * per_token


def flops_per_second(case: Case, step_seconds: float) -> float:
    """The speed of a machine whose gradient steps take ``step_seconds`` in the mean over the blocks."""
    return sum(step_flops(case, block) for block in case.model.blocks) / len(case.model.blocks) / step_seconds


def transfer_seconds(case: Case, nbytes: int, *, final: bool = False) -> float:
    """The time in which a frame of the busiest node reaches all of its neighbours, in a round or in the final flush."""
    degree = case.mixing.final_degree_max if final else case.mixing.degree_max
    if not degree:
        return 0.0
    bits = 8 * degree * (nbytes + frame_framing_bytes(1, 1, nbytes))
    return bits / case.machine.bits_per_second + case.machine.latency_seconds


def gradient_seconds(case: Case, block: BlockShape) -> Seconds:
    """The time of the R steps with a gradient of one visit.

    lockstep: R compute + exchanges * transfer. overlap: an update must arrive by the next exchange, so each transfer
    hides behind the steps between the two exchanges. The last transfer hides behind none.
    """
    settings, schedule = case.settings, case.schedule
    compute = step_flops(case, block) / case.machine.flops_per_second
    steps = [step for inner in range(settings.inner_steps) if schedule.mixes(step := Step(0, inner))]
    transfers = [transfer_seconds(case, update_bytes(case, block, schedule.content(step))) for step in steps]
    alone = Seconds(settings.inner_steps * compute, sum(transfers), 0.0)
    if settings.exchange == "lockstep":
        return dataclasses.replace(alone, total=alone.compute + alone.transfer)
    between = [(after.inner - before.inner) * compute for before, after in pairwise(steps)]
    hidden = sum(map(max, between, transfers))
    return dataclasses.replace(alone, total=(steps[0].inner + 1) * compute + hidden + transfers[-1])


def mixing_seconds(case: Case, block: BlockShape, mixes: int, *, final: bool = False) -> float:
    """The time that no gradient hides: the keyframe that opens a visit, and the mixes without gradients."""
    keyframe, update = block.frame_bytes[KEYFRAME_CODEC_NAME], update_bytes(case, block)
    return transfer_seconds(case, keyframe, final=final) + mixes * transfer_seconds(case, update, final=final)


def final_flush_seconds(case: Case) -> float:
    """The time of the final flush."""
    return sum(mixing_seconds(case, block, case.final_flush_mixes, final=True) for block in case.model.blocks)


def run_seconds(case: Case) -> Seconds:
    """The time of the whole run, from the first keyframe to the end of the flush."""
    rounds, last = case.settings.rounds_of(len(case.model.blocks)), final_flush_seconds(case)
    steps = [gradient_seconds(case, block) for block in case.model.blocks]
    mixes = sum(mixing_seconds(case, block, case.settings.flush_mixes) for block in case.model.blocks)
    compute, transfer, total = (sum(getattr(s, f.name) for s in steps) for f in dataclasses.fields(Seconds))
    return Seconds(rounds * compute, rounds * (transfer + mixes) + last, rounds * (total + mixes) + last)
