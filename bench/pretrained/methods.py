"""The methods: what a run does from the start model to its last step, and its outcome.

DECA and what differs from it in a setting go block by block. All other methods train one vector through the whole run:
all parameters (``adamw``, ``noloco``, ``sparseloco``), low-rank factors (``lora``, ``decaf``) or bottlenecks
(``adapter``). They are blocks to the engine as well, visited once.

The run's final flush, which brings all copies to their mean, costs the same for every method. It is left out here, and
the mean of the copies is judged in its place.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from bench.convergence import outer
from bench.convergence import runs as small
from bench.convergence.cells import Cell, Outcome
from bench.convergence.sweep import TUNING_SEED
from bench.pretrained import factors
from bench.pretrained.nodes import Final, Judged, Run, judge, mean_model
from bench.pretrained.start import Start
from deca_node.numerics import deca
from deca_node.numerics.engine import BlockEngine
from deca_node.numerics.model.blocks import Block, partition
from deca_node.numerics.model.facts import model_bytes
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import PARAMETERS, Activation, Schedule, Step
from deca_node.protocol.agreed.weights import matrix
from deca_node.protocol.errors import TrainerError

COMMON = small.COMMON | {"rounds": 1, "inner_steps": 24, "block_layers": 2, "batch_size": 4}
"""Settings of all cells, which arms may replace: two layers in a block, as in the paper."""

OWN = ("rank", "width", "consensus_every", "polish", "polish_rate", "carry", *outer.OWN)
"""Settings of the methods, which are not settings of a run."""


def run(cell: Cell, start: Start) -> Outcome:
    """Run one cell. If it diverges, its losses are infinite and it names the step."""
    began = time.process_time()
    own = {name: value for name, value in cell.settings if name in OWN}
    given = COMMON | {name: value for name, value in cell.settings if name not in OWN}
    settings = RunSettings(seed=cell.seed, learning_rate=cell.learning_rate, task="classification", **given)
    torch.manual_seed(cell.seed)
    state = Run(cell.method, settings, own, start, cell.nodes)
    try:
        METHODS[cell.method](state)
        found = outcome(state)
    except TrainerError as problem:
        lost = float("inf")
        return Outcome(validation=lost, test=lost, test_by_node=(), mean_model=lost, diverged=str(problem))
    return dataclasses.replace(found, cpu_seconds=round(time.process_time() - began, 2))


def outcome(state: Run) -> Outcome:
    """All final measurements. Copies of a joint run are judged by their mean, isolated nodes one by one."""
    task, nodes = state.start.task, len(state.held)
    mean = mean_model(state.models)
    each = state.models if state.method == "isolated" else [mean]
    final = Final.of(spread([judge(m, task, task.test) for m in each], nodes), task, state.held)
    tuning = state.settings.seed == TUNING_SEED
    checked = spread([judge(m, task, task.validation) for m in each], nodes) if tuning else []
    extra = {
        "own": final.own_loss,
        "own_accuracy": final.own_accuracy,
        "joint": final.joint_loss,
        "joint_accuracy": final.joint_accuracy,
        "sent_per_step": state.bytes_sent / len(state.names) / max(state.steps, 1),
    }
    for steps in map(int, state.own.get("polish", "").split()):
        extra |= polished(state, steps)
    directed = sum(map(len, state.graph.values())) or 1
    return Outcome(
        validation=Final.of(checked, task, state.held).joint_loss if tuning else math.nan,  # tables do not use it
        test=final.loss,
        test_by_node=final.by_node,
        mean_model=judge(mean, task, task.test).loss if state.method == "isolated" else final.loss,
        accuracy=final.accuracy,
        f1=final.f1,
        consensus=tuple(state.consensus),
        bytes_sent=state.bytes_sent,
        bytes_per_step=state.bytes_sent / directed / max(state.steps, 1),
        state_mib=(model_bytes(state.start.model) + state.state_bytes) / 2**20,
        extra=extra,
    )


def spread(judged: list[Judged], nodes: int) -> list[Judged]:
    """A judgement for each node: the same one, where there is only one."""
    return judged * nodes if len(judged) == 1 else judged


def polished(state: Run, steps: int) -> dict[str, float]:
    """Losses and accuracy after further ``steps`` per block, which each node takes alone from the mean of all models,
    as it would from the ``final`` folder of the run: moments from zero, no neighbours."""
    mean = mean_model(state.models)
    gamma = state.own.get("polish_rate", state.settings.learning_rate)
    settings = dataclasses.replace(state.settings, rounds=1, inner_steps=steps, flush_mixes=0, learning_rate=gamma)
    alone = Run("isolated", settings, {}, state.start, len(state.names))
    for model in alone.models:
        model.load_state_dict(mean.state_dict())
    run_blocks(alone)
    task = state.start.task
    final = Final.of([judge(m, task, task.test) for m in alone.models], task, state.held)
    named = {"own": final.own_loss, "joint": final.joint_loss, "own_accuracy": final.own_accuracy}
    return {f"polished_{steps}_{name}": value for name, value in named.items()}


# --- block by block ---------------------------------------------------------------------------------


def run_blocks(state: Run) -> None:
    """DECA and all methods that differ from it in a setting or in the graph."""
    settings = state.settings
    blocks = partition(state.models[0], settings.block_layers)
    schedule = Schedule(settings, len(blocks), final_flush_mixes=0)
    left: dict[str, list[Any]] = {}
    for activation in (a for a in map(schedule.__getitem__, range(len(schedule))) if a.inner_steps):
        visit(state, blocks, schedule, activation, left)


def visit(
    state: Run, blocks: Sequence[Block], schedule: Schedule, activation: Activation, left: dict[str, list[Any]]
) -> None:
    """One activation on all nodes. ``left`` are the moments that earlier visits left, if this method keeps them."""
    block = blocks[activation.block]
    engines = state.engines(block)
    if state.method == "decay-only":
        for engine in engines:
            engine.hyper = dataclasses.replace(engine.hyper, discrepancy="decay-only")
    for engine, (moments, counts) in zip(engines, left.get(block.name, ()), strict=False):
        engine.moments, engine.counts = moments, counts
    edges = state.edges(engines, *state.graphs_of(activation.index, len(blocks)))
    for inner in range(activation.steps):
        step, gradient = Step(activation.index, inner), inner < activation.inner_steps
        if gradient:
            ordinal = schedule.gradient_ordinal(step)
            state.step(engines, deca.learning_rate(state.settings, ordinal, schedule.gradient_steps))
        content = schedule.content(step) if schedule.mixes(step) else None
        edges.mix(fold=gradient, content=content, turn=schedule.turn(step))
        if inner == activation.inner_steps - 1:
            state.note(engines)
    if "carry" in state.own:
        left[block.name] = kept(state, engines)
    for engine in engines:
        engine.freeze()
    state.bytes_sent += edges.bytes_sent


def kept(state: Run, engines: list[BlockEngine]) -> list[Any]:
    """Every node's moments for the next visit: its own (``carry = own``), or only v, as the mean of all nodes
    (``carry = mean``), as FedAdamW starts a round from it (arXiv 2510.27486)."""
    found = [(engine.moments, engine.counts) for engine in engines]
    if state.own["carry"] == "own":
        return found
    v = torch.stack([moments.v for moments, _ in found if moments is not None]).mean(0)
    return [(deca.Moments(torch.zeros_like(v), v.clone()), counts) for _, counts in found]


# --- one vector through the whole run ---------------------------------------------------------------


def run_vector(state: Run) -> None:
    """One block through the whole run, mixed at every ``mix_every``-th step: all parameters, or an adapter's."""
    block = prepared(state)
    engines = state.engines(block)
    factored = state.method == "decaf"
    edges = state.edges(engines, *([dict.fromkeys(state.names, frozenset())] if factored else []))
    total, every = gradient_steps(state), state.own.get("consensus_every") or state.settings.mix_every
    for step in range(total):
        state.step(engines, deca.learning_rate(state.settings, step, total))
        due = (step + 1) % every == 0
        edges.mix(fold=True, content=PARAMETERS if due and not factored else None)
        if factored and due:
            factors.mix(engines, torch.tensor(matrix(state.graph)))
            state.bytes_sent += sum(map(len, state.graph.values())) * 4 * block.elements
        if (step + 1) % state.settings.inner_steps == 0:
            state.note(engines)
    for engine in engines:
        engine.freeze()
    state.bytes_sent += edges.bytes_sent


def run_outer(state: Run) -> None:
    """Every node takes ``every`` steps alone, and then an outer step with others: NoLoCo, SparseLoCo."""
    engines = state.engines(prepared(state))
    edges = state.edges(engines, dict.fromkeys(state.names, frozenset()))
    total = gradient_steps(state)
    step_of = outer.OUTER[state.method](engines, state.graph, state.own, state.settings.seed)
    for step in range(total):
        state.step(engines, deca.learning_rate(state.settings, step, total))
        edges.mix(fold=True, content=None)
        if (step + 1) % state.own["every"] == 0:
            state.note(engines)
            state.bytes_sent += step_of((step + 1) // state.own["every"] - 1)
    state.state_bytes += 4 * step_of.vectors * engines[0].elements
    for engine in engines:
        engine.freeze()


def prepared(state: Run) -> Block:
    """The block of the whole run, after the models were given what it consists of."""
    if state.method in ("lora", "decaf"):
        for model in state.models:
            factors.add_low_rank(model, state.own["rank"], state.settings.seed)
    elif state.method == "adapter":
        for model in state.models:
            factors.add_bottlenecks(model, state.own["width"], state.settings.seed)
    state.x0 |= {n: p.detach().clone() for n, p in state.models[0].named_parameters()}
    blocks = partition(state.start.model, state.settings.block_layers)
    if state.method in factors.METHODS:
        names = factors.trained(state.models[0])
    else:
        names = tuple(sorted(name for block in blocks for name in block.parameters))
    return Block(state.method, names, sum(state.x0[name].numel() for name in names))


def gradient_steps(state: Run) -> int:
    """The steps of a block-wise run with the same settings."""
    blocks = partition(state.start.model, state.settings.block_layers)
    return Schedule(state.settings, len(blocks), 0).gradient_steps


def run_nothing(state: Run) -> None:
    """The start model as it is."""
    del state


METHODS: dict[str, Callable[[Run], None]] = {
    "start": run_nothing,
    **dict.fromkeys(("deca", "decay-only", "isolated", "centralized"), run_blocks),
    **dict.fromkeys(("adamw", "lora", "adapter", "decaf"), run_vector),
    **dict.fromkeys(tuple(outer.OUTER), run_outer),
}
