"""``deca-node plan``: what a run will cost, before it starts.

This module makes a planning case from flags and files. The modules of :mod:`deca_node.protocol.planning` compute costs,
:mod:`deca_node.cli.views.advice` finds the change that helps most, :mod:`deca_node.cli.views.plan` prints all of it.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from deca_node.cli.invocation import debug_option
from deca_node.cli.options import SettingsCommand, load, settings_options
from deca_node.cli.reference import template
from deca_node.cli.views.advice import advise
from deca_node.cli.views.choice import choice_document
from deca_node.cli.views.plan import answer, print_choice, print_tables, sending
from deca_node.daemon.settings.parts import machine_of
from deca_node.daemon.settings.peers_file import read_peers
from deca_node.daemon.settings.sources import Loaded
from deca_node.daemon.settings.texts import expanded_path
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.errors import SettingsError
from deca_node.protocol.planning.case import Case, Machine, ModelShape
from deca_node.protocol.planning.duration import flops_per_second
from deca_node.protocol.planning.memory import is_sharded
from deca_node.protocol.planning.presets import PRESETS, SHARE, choose, weigh
from deca_node.storage.durable import write_file

NODES_MAX = 128
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)(?:/s)?")


class Quantity(click.ParamType[float]):
    """A number above zero with a unit, such as ``100Mbit``, converted to the unit whose factor is 1."""

    def __init__(self, name: str, units: Mapping[str, float]) -> None:
        self.name = name
        self._units = units

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the text. The error sentence lists the units."""
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
  Eight hospitals, each with a 24 GB card and an ordinary line:
    deca-node plan --model ./Qwen2.5-3B --nodes 8 --memory 24GB --bandwidth 100Mbit --latency 20ms
  A run from its files, with the step time of a trial:
    deca-node plan --run run.toml --peers peers.txt --model ./Qwen2.5-3B --step-seconds 1.4
  The same with int4 and a ring:
    deca-node plan --model ./Qwen2.5-3B --nodes 8 --codec int4 --topology ring
  For a home line, and the run.toml that suits it:
    deca-node plan --model ./Qwen2.5-3B --nodes 8 --bandwidth 20Mbit --rtt 30ms --memory 24GB --write run.toml
  Exact bytes, for programs:
    deca-node plan --model ./Qwen2.5-3B --nodes 8 --json | jq .traffic.nodes

Only the model's config.json is read, and nothing is fetched. All run settings count, from flags, variables and
files. Of the node settings only model, peers, micro_batch, gradient_checkpointing, attention, device,
devices and parallel count.
""",
)
@click.option("--nodes", type=click.IntRange(1, NODES_MAX), help="Number of nodes.  [default: the lines of --peers]")
@click.option(
    "--bandwidth",
    type=BANDWIDTH,
    default=f"{Machine.bits_per_second / 1e6:g}Mbit",
    show_default=True,
    help="Of one node, each way.",
)
@click.option(
    "--latency",
    type=LATENCY,
    default=f"{Machine.latency_seconds * 1e3:g}ms",
    show_default=True,
    help="From node to node: half a ping.",
)
@click.option(
    "--step-seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds per gradient step, as a mean over the blocks: compute_seconds in metrics.jsonl.  "
    "[default: an estimate from --tflops]",
)
@click.option(
    "--tflops",
    type=click.FloatRange(min=0, min_open=True),
    default=Machine.flops_per_second / 1e12,
    show_default=True,
    help="Sustained speed of a node in 10^12 operations per second. --step-seconds is more exact.",
)
@click.option(
    "--memory",
    type=MEMORY,
    help="Memory of one node, such as 24GB; with --devices that of one GPU. CUDA itself takes about 1 GB more.",
)
@click.option(
    "--rtt", type=LATENCY, help="There and back, as `ping` shows it; in place of --latency, which is half of it."
)
@click.option("--preset", type=click.Choice(tuple(PRESETS)), help="Plan with the settings of a kind of line.")
@click.option("--choose", is_flag=True, help="Choose how to exchange by the line and the memory, and plan with that.")
@click.option(
    "--share",
    type=click.FloatRange(min=0, min_open=True),
    default=SHARE,
    show_default=True,
    help="With --choose: what communication may add to the computing, as a share of it.",
)
@click.option(
    "--write",
    type=click.Path(path_type=Path),
    help="Write a run.toml with these settings. Without --preset it implies --choose.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON with exact numbers instead of tables.")
@settings_options
@debug_option
@click.pass_context
def plan(ctx: click.Context, /, as_json: bool, **flags: Any) -> None:
    """Show what a run will cost before it starts: memory, bytes and time, and which setting to change first.

    Bytes are exact, except for the headers of gRPC and the layers below. Memory for activations and all times are
    estimates.
    """
    loaded = load(ctx)
    members = _members(loaded, flags["nodes"])
    model, one_layer = _shapes(loaded)
    case, choice = _chosen(_case(loaded, members, model, flags), loaded, flags)
    document = answer(case, advise(case, one_layer)) | ({"choice": choice} if choice else {})
    if flags["write"]:
        _write(flags["write"], case.settings, loaded)
        document["written"] = str(flags["write"])
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(sending(document))
        click.echo(_assumed_speed(loaded, flags))
        print_tables(document)
        if choice:
            print_choice(choice)
        if flags["write"]:
            click.echo(f"wrote {flags['write']}")


def _assumed_speed(loaded: Loaded, flags: Mapping[str, Any]) -> str:
    """The speed behind all times. The default is that of a GPU, and a CPU is about a hundred times slower."""
    if flags["step_seconds"] is not None:
        return f"All times follow from {flags['step_seconds']:g} s per gradient step.\n"
    given = click.get_current_context().get_parameter_source("tflops") is not ParameterSource.DEFAULT
    says = f"All times assume that a node sustains {flags['tflops']:g} TFLOP/s."
    if given:
        return f"{says}\n"
    if loaded.node.device == "cpu":
        return f"{says} That is a GPU, and a CPU is far slower: give --step-seconds from a trial, or --tflops.\n"
    return f"{says} Give --step-seconds from a trial, or --tflops, for your machines.\n"


# --- the question -----------------------------------------------------------------------------------


def _members(loaded: Loaded, nodes: int | None) -> tuple[str, ...]:
    if nodes is not None:
        return tuple(f"node-{number:0{len(str(nodes))}d}" for number in range(1, nodes + 1))
    peers = Path(expanded_path(loaded.node.peers))
    if loaded.sources["peers"].where == "default" and not peers.exists():
        raise SettingsError("the number of nodes is not known; give --nodes, or --peers with a file that names them")
    return read_peers(peers).names


def _shapes(loaded: Loaded) -> tuple[ModelShape, ModelShape]:
    """The model in the run's blocks, and in blocks of one layer."""
    source, settings = loaded.node.model, loaded.run
    if not source:
        raise SettingsError("model is not set; give --model, DECA_MODEL, or model in node.toml")
    from deca_node.numerics.forecast.shapes import model_shape, planned_model
    from deca_node.numerics.forecast.tracing import trace, with_activations

    model = planned_model(source, settings)
    node = loaded.node
    traced = trace(model, settings, attention=node.attention, device=_ranks(loaded)[0])
    whole, one_layer = (model_shape(model, layers, source) for layers in (settings.block_layers, 1))
    return with_activations(whole, traced), with_activations(one_layer, traced)


def _ranks(loaded: Loaded) -> tuple[str, int]:
    """The kind and number of devices that a node of these settings would use on this machine."""
    from deca_node.numerics.forecast.fitting import planned_ranks

    return planned_ranks(loaded.node.device, loaded.node.devices, loaded.node.ranks_elsewhere)


def _chosen(case: Case, loaded: Loaded, flags: Mapping[str, Any]) -> tuple[Case, dict[str, Any] | None]:
    """The case with the settings of a preset, or with those that suit the line and the memory. What flags, variables
    and files set stays as it is."""
    kept = [name for name, value in loaded.sources.items() if value.where != "default"]
    if flags["preset"]:
        if flags["choose"]:
            raise SettingsError("--preset and --choose both say how to exchange; give one of them")
        wanted = PRESETS[flags["preset"]].changes(case.settings)
        return case.under(**{name: value for name, value in wanted.items() if name not in kept}), None
    if not (flags["choose"] or flags["write"]):
        return case, None
    weighed = tuple(weigh(case, kept))
    best = choose(weighed, flags["share"])
    return case.under(**best.changes), choice_document(weighed, best, flags["share"])


def _write(path: Path, settings: RunSettings, loaded: Loaded) -> None:
    """Write a run.toml with the settings that were given or chosen. An existing file is not overwritten."""
    if path.exists():
        raise SettingsError(f"--write overwrites nothing, and {path} exists: give another name, or move it away")
    given = {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if getattr(settings, field.name) != field.default or loaded.sources[field.name].where != "default"
    }
    write_file(path, [template(RunSettings, given).encode()])


def _case(loaded: Loaded, members: tuple[str, ...], model: ModelShape, flags: Mapping[str, Any]) -> Case:
    kind, ranks = _ranks(loaded)
    machine = machine_of(
        loaded.node,
        bits_per_second=flags["bandwidth"],
        latency_seconds=flags["latency"] if flags["rtt"] is None else flags["rtt"] / 2,
        flops_per_second=1e12 * flags["tflops"],
        memory_bytes=flags["memory"],
        one_memory=kind == "cpu",
        ranks=ranks,
    )
    case = Case.of(loaded.run, model, members, machine)
    case = case.on(sharded=is_sharded(case, loaded.node.parallel, machine.memory_bytes))
    if flags["step_seconds"] is None:
        return case
    return case.on(flops_per_second=flops_per_second(case, flags["step_seconds"]))
