"""``deca-node plan``: what a run will cost, before it starts.

The reckoning is :mod:`deca_node.protocol.cost`'s. Here the question is put together from flags and files, the
plan is reckoned once more under each single change to find the one that helps most, and all of it is laid out
as tables or as JSON.
"""

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from deca_node.cli.invocation import debug_option
from deca_node.cli.options import SettingsCommand, load, settings_options
from deca_node.daemon.config import expanded_path
from deca_node.daemon.peers import read_peers
from deca_node.daemon.settings_sources import Loaded
from deca_node.protocol import cost
from deca_node.protocol.cost import Case, Machine, ModelShape
from deca_node.protocol.errors import SettingsError

NODES_MAX = 128
GAIN_MIN = 0.05
"""A change that shortens a run by less than this share is not worth naming."""

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)(?:/s)?")


class Quantity(click.ParamType[float]):
    """A number above zero with its unit, as in ``100Mbit``; converted to the unit whose factor is 1."""

    def __init__(self, name: str, units: Mapping[str, float]) -> None:
        self.name = name
        self._units = units

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the text; fails in words that list the units."""
        found = _NUMBER.fullmatch(str(value).strip())
        number = float(found[1]) * self._units.get(found[2], 0.0) if found else 0.0
        if not number:
            units = ", ".join(self._units)
            self.fail(f"{value!r} is no {self.name}; write a number above zero and one of {units}", param, ctx)
        return number


BANDWIDTH = Quantity("bandwidth", {"kbit": 1e3, "Mbit": 1e6, "Gbit": 1e9, "kB": 8e3, "MB": 8e6, "GB": 8e9})
LATENCY = Quantity("latency", {"us": 1e-6, "ms": 1e-3, "s": 1.0})
MEMORY = Quantity("memory", {"MB": 1e6, "GB": 1e9, "TB": 1e12, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40})


@click.command(
    cls=SettingsCommand,
    epilog="""\b
Examples:
  Eight hospitals, a card of 24 GB each, over ordinary lines:
    deca-node plan --model ./Qwen2.5-3B --nodes 8 --memory 24GB --bandwidth 100Mbit --latency 20ms
  A run as its files describe it, with the step time that a trial has shown:
    deca-node plan --run run.toml --peers peers.txt --model ./Qwen2.5-3B --step-seconds 1.4
  What would int4 and a ring change?
    deca-node plan --model ./Qwen2.5-3B --nodes 8 --codec int4 --topology ring
  For machines, all bytes exact:
    deca-node plan --model ./Qwen2.5-3B --nodes 8 --json | jq .traffic.nodes

Only the model's config.json is read, and nothing is fetched. Every run setting counts, whichever way it is
given; of the node's settings model, peers, micro_batch, gradient_checkpointing and device do.
""",
)
@click.option("--nodes", type=click.IntRange(1, NODES_MAX), help="How many nodes.  [default: the lines of --peers]")
@click.option("--bandwidth", type=BANDWIDTH, default="100Mbit", show_default=True, help="Of one node, each way.")
@click.option("--latency", type=LATENCY, default="20ms", show_default=True, help="From node to node: half a ping.")
@click.option(
    "--step-seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="What a gradient step takes, in the mean over the blocks; compute_seconds in metrics.jsonl.  "
    "[default: an estimate from --tflops]",
)
@click.option(
    "--tflops",
    type=click.FloatRange(min=0, min_open=True),
    default=20.0,
    show_default=True,
    help="Arithmetic that a node keeps up, in 10^12 operations per second; a guess unless --step-seconds is given.",
)
@click.option(
    "--memory", type=MEMORY, help="What a node has to train in, as in 24GB; CUDA itself takes about 1 GB more."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with exact numbers, instead of tables.")
@settings_options
@debug_option
@click.pass_context
def plan(ctx: click.Context, /, as_json: bool, **flags: Any) -> None:
    """Show what a run will cost before it starts: memory, bytes and time, and which setting to change first.

    Bytes are exact, but for the headers of gRPC and below; memory for activations and all times are estimates.
    """
    loaded = load(ctx)
    members = _members(loaded, flags["nodes"])
    model, one_layer = _shapes(loaded)
    case = _case(loaded, members, model, flags)
    document = answer(case, advise(case, one_layer))
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        _print_tables(document)


# --- the question -----------------------------------------------------------------------------------


def _members(loaded: Loaded, nodes: int | None) -> tuple[str, ...]:
    if nodes is not None:
        return tuple(f"node-{number:0{len(str(nodes))}d}" for number in range(1, nodes + 1))
    peers = Path(expanded_path(loaded.node.peers))
    if loaded.sources["peers"].where == "default" and not peers.exists():
        raise SettingsError("how many nodes will there be? give --nodes, or --peers with a file that names them")
    return read_peers(peers).names


def _shapes(loaded: Loaded) -> tuple[ModelShape, ModelShape]:
    """The model as the run cuts it, and cut at every layer."""
    source, settings = loaded.node.model, loaded.run
    if not source:
        raise SettingsError("model is not set; give --model, DECA_MODEL, or model in node.toml")
    from deca_node.numerics.shapes import meta_model, model_shape

    model = meta_model(source, settings.sequence_length)
    return model_shape(model, settings.block_layers, source), model_shape(model, 1, source)


def _case(loaded: Loaded, members: tuple[str, ...], model: ModelShape, flags: Mapping[str, Any]) -> Case:
    machine = Machine(
        bits_per_second=flags["bandwidth"],
        latency_seconds=flags["latency"],
        flops_per_second=1e12 * flags["tflops"],
        memory_bytes=flags["memory"],
        micro_batch=loaded.node.micro_batch,
        gradient_checkpointing=loaded.node.gradient_checkpointing,
        one_memory=loaded.node.device == "cpu",
    )
    case = Case.of(loaded.run, model, members, machine)
    if flags["step_seconds"] is None:
        return case
    return case.on(flops_per_second=cost.flops_per_second(case, flags["step_seconds"]))


# --- advice -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Alternative:
    """The plan after one change, spelled as a flag. ``left_per_step``: disagreement that a step leaves, on average."""

    change: str
    run_seconds: float
    memory_bytes: int
    left_per_step: float

    @classmethod
    def of(cls, change: str, case: Case) -> "Alternative":
        """The figures by which changes are compared."""
        seconds, peak = cost.run_seconds(case).total, cost.peak_memory(case).total_bytes
        return cls(change, seconds, peak, cost.left_per_step(case))


@dataclass(frozen=True)
class Advice:
    """Where the plan stands ``now``, what single changes make of it, and which of them helps most (None: none does)
    with its ``aim``: "memory" where the plan does not fit, else "time"."""

    aim: str
    now: Alternative
    best: Alternative | None
    alternatives: tuple[Alternative, ...]


def advise(case: Case, one_layer: ModelShape) -> Advice:
    """Reckon the plan anew under each single change; ``one_layer`` is the model cut at every layer."""
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
    if settings.signal == "mv":
        yield "--signal v", case.under(signal="v")
    seldom = 2 * settings.mix_every
    if seldom <= settings.inner_steps:
        yield f"--mix-every {seldom}", case.under(mix_every=seldom)
    if settings.exchange == "lockstep":
        yield "--exchange overlap", cost.with_exchange(case, "overlap")
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
    """What to change first, in one sentence."""
    now, best = advice.now, advice.best
    if advice.aim == "memory":
        limit = case.machine.memory_bytes or 0
        need = f"{_bytes(now.memory_bytes)} are needed where there are {_bytes(limit)}"
        if best is None:
            return f"{need}, and no single setting makes it less."
        verdict = "which fits" if best.memory_bytes <= limit else "which is not enough yet"
        return f"{need}: {best.change} saves most and leaves {_bytes(best.memory_bytes)}, {verdict}."
    longest = "Compute takes longest" if cost.run_seconds(case).bound_by == "compute" else "The network takes longest"
    if best is None:
        return f"{longest}, and no single setting shortens the run by {GAIN_MIN:.0%} or more."
    gain = f"shortens the run most, from {_seconds(now.run_seconds)} to {_seconds(best.run_seconds)}"
    price = f"; a step then leaves {best.left_per_step:.0%} of a disagreement, not {now.left_per_step:.0%}"
    return f"{longest}: {best.change} {gain}{price if best.left_per_step > now.left_per_step + 0.01 else ''}."


# --- the answer -------------------------------------------------------------------------------------


def answer(case: Case, advice: Advice) -> dict[str, Any]:
    """The whole plan as JSON has it: exact numbers, with their units in the names."""
    modes = {mode: cost.with_exchange(case, mode) for mode in ("lockstep", "overlap")}
    times = {mode: cost.run_seconds(changed) for mode, changed in modes.items()}
    peak, limit = cost.peak_memory(case), case.machine.memory_bytes
    flush = range(len(case.schedule))[-case.schedule.blocks :]
    return {
        "settings": dataclasses.asdict(case.settings),
        "machine": dataclasses.asdict(case.machine),
        "model": {
            "name": case.model.name,
            "parameters": case.model.elements,
            "bytes_per_parameter": case.dtype_bytes,
        },
        "mixing": {**dataclasses.asdict(case.mixing), "left_per_step": advice.now.left_per_step},
        "memory": {**dataclasses.asdict(peak), "fits": None if limit is None else peak.total_bytes <= limit},
        "traffic": {name: _traffic(sent) for name, sent in cost.planned_bytes(case).items()},
        "time": {mode: _time(seconds) for mode, seconds in times.items()},
        "final_flush": {
            "mixes": case.final_flush_mixes,
            "sent_bytes_max": cost.edge_traffic(case, flush).total_bytes * case.mixing.degree_max,
            "seconds": cost.final_flush_seconds(case),
        },
        "blocks": _blocks(case, modes),
        "advice": {**dataclasses.asdict(advice), "sentence": in_words(case, advice)},
    }


def _traffic(sent: cost.Traffic) -> dict[str, int]:
    """One node's, in the whole run; it receives as much as it sends."""
    return {**dataclasses.asdict(sent), "sent_bytes": sent.total_bytes, "received_bytes": sent.total_bytes}


def _time(seconds: cost.Seconds) -> dict[str, Any]:
    named = {f"{part}_seconds": value for part, value in dataclasses.asdict(seconds).items()}
    return {**named, "bound_by": seconds.bound_by}


def _blocks(case: Case, modes: Mapping[str, Case]) -> list[dict[str, Any]]:
    schedule, steps = case.schedule, case.settings.inner_steps
    first_visit = {int(schedule[index].block): index for index in range(schedule.blocks)}
    return [
        {
            **dataclasses.asdict(cost.memory(case, block)),
            "parameters": block.elements,
            "keyframe_bytes": block.frame_bytes[cost.KEYFRAME_CODEC],
            "update_bytes": cost.update_bytes(case, block),
            "signal_bytes": block.signal_bytes[case.settings.signal],
            "visit_bytes": cost.edge_traffic(case, [first_visit[number]]).total_bytes,
            "compute_seconds_per_step": cost.gradient_seconds(case, block).compute / steps,
            "transfer_seconds_per_exchange": cost.gradient_seconds(case, block).transfer / cost.exchanges(case),
            **{f"{mode}_seconds_per_step": cost.gradient_seconds(c, block).total / steps for mode, c in modes.items()},
        }
        for number, block in enumerate(case.model.blocks)
    ]


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def _seconds(seconds: float) -> str:
    for unit, factor, most in (("ms", 1e-3, 1.0), ("s", 1.0, 120.0), ("min", 60.0, 7200.0), ("h", 3600.0, 172_800.0)):
        if seconds < most:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds / 86_400:,.1f} days"


Column = tuple[str, Callable[[Any], str], str]
"""Its heading, how its cells are written, and which key of a block's row it shows."""

_TABLES: Mapping[str, tuple[Column, ...]] = {
    "Memory while a block is active (activations: an estimate)": (
        ("parameters", "{:,}".format, "parameters"),
        ("model", _bytes, "model_bytes"),
        ("optimizer and exchange", _bytes, "state_bytes"),
        ("activations", _bytes, "activation_bytes"),
        ("total", _bytes, "total_bytes"),
    ),
    "Traffic with one neighbour, each way": (
        ("keyframe", _bytes, "keyframe_bytes"),
        ("update", _bytes, "update_bytes"),
        ("moment signal", _bytes, "signal_bytes"),
        ("visit", _bytes, "visit_bytes"),
    ),
    "Time (an estimate)": (
        ("compute per step", _seconds, "compute_seconds_per_step"),
        ("transfer per exchange", _seconds, "transfer_seconds_per_exchange"),
        ("step in lockstep", _seconds, "lockstep_seconds_per_step"),
        ("step with overlap", _seconds, "overlap_seconds_per_step"),
    ),
}


def _print_tables(plan: Mapping[str, Any]) -> None:
    """Of equal blocks in a row the lowest stands for all: it needs most memory and most compute."""
    runs = [list(run) for _, run in itertools.groupby(plan["blocks"], key=lambda row: row["parameters"])]
    named = [(run[0]["block"] + (f" to {run[-1]['block']}" if len(run) > 1 else ""), run[0]) for run in runs]
    for (title, columns), note in zip(_TABLES.items(), _notes(plan), strict=True):
        cells = [(name, *(form(row[key]) for _, form, key in columns)) for name, row in named]
        _print_table(title, ("block", *(heading for heading, _, _ in columns)), cells, note)
    changes = [
        (a["change"], _seconds(a["run_seconds"]), _bytes(a["memory_bytes"]), f"{a['left_per_step']:.1%}")
        for a in (plan["advice"]["now"], *plan["advice"]["alternatives"])
    ]
    sentence = f"[bold]{plan['advice']['sentence']}[/bold]"
    _print_table("After one change", ("change", "run", "memory", "disagreement left by a step"), changes, sentence)


def _notes(plan: Mapping[str, Any]) -> tuple[str, str, str]:
    """What stands under each of the tables."""
    memory, machine, mixing, flush, time = (plan[k] for k in ("memory", "machine", "mixing", "final_flush", "time"))
    limit = machine["memory_bytes"]
    fits = "" if limit is None else f", {'within' if memory['fits'] else 'MORE THAN'} the {_bytes(limit)} there are"
    counted = "counted in" if machine["one_memory"] else "not counted in"
    least, most = (op(node["sent_bytes"] for node in plan["traffic"].values()) for op in (min, max))
    lockstep, overlap = (_seconds(time[mode]["total_seconds"]) for mode in ("lockstep", "overlap"))
    return (
        f"The peak is {_bytes(memory['total_bytes'])}, with {memory['block']}{fits}. Frames take "
        f"{_bytes(memory['frames_bytes'])} of shared memory on the host, {counted}.",
        f"In the whole run a node with {mixing['degree_min']} to {mixing['degree_max']} neighbours sends "
        f"{_bytes(least)} to {_bytes(most)} and receives as much. Up to {_bytes(flush['sent_bytes_max'])} of it is "
        f"the final flush, {flush['mixes']} mixes per block.",
        f"The whole run takes {lockstep} in lockstep, {overlap} with overlap: at {machine['bits_per_second'] / 1e6:,g} "
        f"Mbit/s each way, {_seconds(machine['latency_seconds'])} one way, {machine['flops_per_second'] / 1e12:,.3g} "
        f"TFLOP/s. As planned, {_seconds(flush['seconds'])} are the final flush.\n"
        f"Graph: {mixing['edges']} edges, spectral gap {mixing['spectral_gap']:.3f}. A mix leaves "
        f"{mixing['left_per_mix']:.1%} of a disagreement, {mixing['mixes_to_agree']} mixes leave 0.01%.",
    )


def _print_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], note: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False)
    console.print(table)
    console.print(f"{note}\n")
