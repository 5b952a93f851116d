"""The single change that would help a plan most. The plan is computed once more under each possible change."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

from deca_node.protocol.planning.case import Case, ModelShape
from deca_node.protocol.planning.duration import run_seconds
from deca_node.protocol.planning.memory import peak_memory
from deca_node.protocol.planning.traffic import edge_traffic
from deca_node.protocol.planning.units import bytes_text, seconds_text

GAIN_MIN = 0.05
"""A change that shortens the run by a smaller share is not named."""


@dataclass(frozen=True)
class Alternative:
    """The plan after one ``change``, which is written as a flag. ``left_per_step`` is the share of a disagreement that
    a step leaves, on average."""

    change: str
    run_seconds: float
    memory_bytes: int
    left_per_step: float

    @classmethod
    def of(cls, change: str, case: Case) -> "Alternative":
        """The figures by which changes are compared."""
        seconds, peak = run_seconds(case).total, peak_memory(case).total_bytes
        return cls(change, seconds, peak, case.left_per_step)


@dataclass(frozen=True)
class Advice:
    """The plan ``now``, its ``alternatives``, and the ``best`` of them (None: no change helps). The ``aim`` is "memory"
    where the plan does not fit, else "time"."""

    aim: str
    now: Alternative
    best: Alternative | None
    alternatives: tuple[Alternative, ...]


@dataclass(frozen=True)
class Saving:
    """One ``change``, written as a flag, after which a node sends ``share`` of the bytes."""

    change: str
    share: float


def saving(case: Case) -> Saving | None:
    """The single change that comes closest to half of the bytes; None if none saves a tenth."""
    now = _sent(case)
    found = [Saving(change, _sent(changed) / now) for change, changed in _faster(case)] if now else []
    return min((s for s in found if s.share <= 0.9), key=lambda s: abs(s.share - 0.5), default=None)


def _sent(case: Case) -> int:
    """The bytes that a node with the most neighbours sends in the whole run."""
    return edge_traffic(case, range(len(case.schedule))).total_bytes * case.mixing.degree_max


def advise(case: Case, one_layer: ModelShape) -> Advice:
    """Compute the plan under each single change. ``one_layer`` is the model cut at every layer."""
    now = Alternative.of("as planned", case)
    limit = case.machine.memory_bytes or math.inf
    if now.memory_bytes > limit:
        found = tuple(Alternative.of(*change) for change in _smaller(case, one_layer))
        best = min(found, key=lambda a: a.memory_bytes, default=now)
        return Advice("memory", now, best if best.memory_bytes < now.memory_bytes else None, found)
    found = tuple(Alternative.of(*change) for change in _faster(case))
    best = min((a for a in found if a.memory_bytes <= limit), key=lambda a: a.run_seconds, default=now)
    return Advice("time", now, best if best.run_seconds <= (1 - GAIN_MIN) * now.run_seconds else None, found)


def _faster(case: Case) -> Iterator[tuple[str, Case]]:
    settings = case.settings
    if case.machine.gradient_checkpointing:
        yield "--no-gradient-checkpointing", case.on(gradient_checkpointing=False)
    if not case.mixing.degree_max:
        return
    frame_bytes = case.model.blocks[0].frame_bytes
    for codec in ("int8", "int4"):
        if frame_bytes[codec] < frame_bytes[settings.codec]:
            yield f"--codec {codec}", case.under(codec=codec)
    if settings.signal == "mv" and (settings.moment_bits, settings.v_every) == (8, 1):
        yield "--signal v", case.under(signal="v")
    seldom = 2 * settings.mix_every
    if seldom <= settings.inner_steps:
        yield f"--mix-every {seldom}", case.under(mix_every=seldom)
    if settings.exchange == "lockstep":
        yield "--exchange overlap", case.with_exchange("overlap")
    yield from _sparser(case)


def _smaller(case: Case, one_layer: ModelShape) -> Iterator[tuple[str, Case]]:
    if not case.machine.gradient_checkpointing:
        yield "--gradient-checkpointing", case.on(gradient_checkpointing=True)
    if case.micro_batch > 1:
        yield "--micro-batch 1", case.on(micro_batch=1)
    if case.settings.block_layers > 1:
        yield "--block-layers 1", dataclasses.replace(case.under(block_layers=1), model=one_layer)
    if case.dtype_bytes == 4:
        yield "--dtype bfloat16", case.under(dtype="bfloat16")
    yield from _sparser(case)


def _sparser(case: Case) -> Iterator[tuple[str, Case]]:
    if case.mixing.degree_max > 2:
        yield "--topology ring", case.under(topology="ring")


def in_words(case: Case, advice: Advice) -> str:
    """The advice in one sentence."""
    now, best = advice.now, advice.best
    if advice.aim == "memory":
        limit = case.machine.memory_bytes or 0
        need = f"The run needs {bytes_text(now.memory_bytes)}, and there are {bytes_text(limit)}"
        if best is None:
            return f"{need}. No single setting lowers the need."
        verdict = "which fits" if best.memory_bytes <= limit else "which does not fit yet"
        return f"{need}. {best.change} saves most: the run then needs {bytes_text(best.memory_bytes)}, {verdict}."
    longest = "Compute takes longest" if run_seconds(case).bound_by == "compute" else "The network takes longest"
    if best is None:
        return f"{longest}. No single setting shortens the run by {GAIN_MIN:.0%} or more."
    gain = f"shortens the run most, from {seconds_text(now.run_seconds)} to {seconds_text(best.run_seconds)}"
    price = f"; a step then leaves {best.left_per_step:.0%} of a disagreement, not {now.left_per_step:.0%}"
    return f"{longest}. {best.change} {gain}{price if best.left_per_step > now.left_per_step + 0.01 else ''}."
