"""``python -m bench.scale``: consensus, bytes and time for 8 to 1,024 nodes on each topology, and a run of a hundred
homes.

Consensus is simulated (:mod:`bench.scale.simulate`). Bytes and times are estimates of ``deca-node plan`` for a model of
the shape of Qwen2.5-0.5B in bfloat16. The graph ``erdos-renyi`` has the default edge probability of 0.5, so n/2
neighbours. ``erdos-renyi, sparse`` has 2 ln n / n, about the least with which the graph stays connected.
"""

import argparse
import dataclasses
import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from bench.harness import RESULTS, ROOT, Row, parser, write_results
from bench.scale.picture import draw
from bench.scale.simulate import left_per_mix, simulate, weights
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.parts import machine_of
from deca_node.numerics.forecast.shapes import meta_model, model_shape
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.topology import final_graph, graph
from deca_node.protocol.agreed.weights import FLUSH_TOLERANCE
from deca_node.protocol.planning.case import Case, GraphFacts, ModelShape
from deca_node.protocol.planning.duration import final_flush_seconds, run_seconds
from deca_node.protocol.planning.presets import LADDER
from deca_node.protocol.planning.traffic import edge_traffic, planned_bytes

SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)
GRAPHS: Mapping[str, Mapping[str, Any]] = {
    "ring": {"topology": "ring"},
    "torus": {"topology": "torus"},
    "random-regular, 4": {"topology": "random-regular", "degree": 4},
    "hypercube": {"topology": "hypercube"},
    "exponential": {"topology": "exponential"},
    "erdos-renyi, sparse": {"topology": "erdos-renyi"},
    "erdos-renyi": {"topology": "erdos-renyi"},
    "full": {"topology": "full"},
}
CODECS_AT = ("random-regular, 4", 128)
FLUSH_MIXES_MAX = 40
"""The most mixes of the simulated final flush. A large ring would need hundreds of thousands."""
SIMULATED = {"rounds": 2, "inner_steps": 12, "learning_rate": 1e-3}
SEEN: Mapping[str, Any] = {**SIMULATED, "rounds": 8}
"""Of a preset with one neighbour per visit: long enough for the distance to be that of a long run."""

LINKS = {"100/20 Mbit/s, 30 ms": machine_of(NodeSettings(), bits_per_second=2e7, latency_seconds=0.03)}
LINKS |= {"1 Gbit/s, 1 ms": machine_of(NodeSettings(), bits_per_second=1e9, latency_seconds=1e-3)}
"""A home sends as much as it receives, so its upload sets the pace."""

HOMES = 100
_REGULAR = {"topology": "random-regular", "degree": 4}
_HIDDEN = _REGULAR | {"exchange": "overlap", "codec": "int4"}
CHANGES: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("defaults (erdos-renyi, int8, lockstep)", {}),
    ("ring", {"topology": "ring"}),
    ("torus", {"topology": "torus"}),
    ("random-regular, 4", _REGULAR),
    ("the same, topk", _REGULAR | {"codec": "topk"}),
    ("the same, int4", _REGULAR | {"codec": "int4"}),
    ("the same, int4, every 4th step", _REGULAR | {"codec": "int4", "mix_every": 4}),
    ("the same, int4, every 12th step", _REGULAR | {"codec": "int4", "mix_every": 12}),
    ("the same, int4, overlap", _HIDDEN),
    ("the same, int4, overlap, every 12th step", _HIDDEN | {"mix_every": 12}),
    *((f"{rung.name} of the ladder", rung.changes(RunSettings())) for rung in LADDER),
)


def main() -> None:
    """Simulate, plan, print, and write ``scale.json`` and the picture."""
    options = parser("Consensus, bytes and time from eight nodes to a thousand.")
    options.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="numbers of nodes")
    options.add_argument("--homes", action="store_true", help="only plan the homes; keep the other results as they are")
    options.add_argument("--picture", type=Path, default=ROOT / "docs" / "images" / "scale.svg")
    arguments = options.parse_args()
    if arguments.quick:
        arguments.sizes, arguments.picture = arguments.sizes[:2], arguments.results / "scale.svg"
    torch.set_num_threads(arguments.threads)
    shape = model()
    if arguments.homes:
        plan_homes(arguments, shape)
        return
    rows = [row for size in arguments.sizes for row in scaled(size, shape, arguments.seed)]
    codecs = [] if arguments.quick else list(by_codec(arguments.seed))
    homes = [home(name, changes, shape, arguments.seed) for name, changes in CHANGES]
    sizes = list(by_size(arguments.sizes, shape, arguments.seed))
    show(rows, codecs, homes, sizes)
    content = {"model": shape.name, "parameters": shape.elements, "simulated": SIMULATED, "rows": rows}
    path = write_results("scale", arguments, content | {"codecs": codecs, "homes": homes, "presets": sizes})
    lines = {name: [(row["nodes"], row["distance_trained"]) for row in rows if row["graph"] == name] for name in GRAPHS}
    draw(arguments.picture, "Consensus distance at the end of a visit's gradients", "in step sizes", lines)
    Console().print(f"written to {path} and {arguments.picture}")


def plan_homes(arguments: argparse.Namespace, shape: ModelShape) -> None:
    """The parts that are planned and not simulated, into the results that are there."""
    before = json.loads((RESULTS / "scale.json").read_text(encoding="utf-8"))
    homes = [home(name, changes, shape, arguments.seed) for name, changes in CHANGES]
    sizes = list(by_size(arguments.sizes, shape, arguments.seed))
    show([], [], homes, sizes)
    kept = {name: before[name] for name in ("model", "parameters", "simulated", "rows", "codecs")}
    write_results("scale", arguments, {**kept, "simulated_on": before["date"], "homes": homes, "presets": sizes})


def by_size(sizes: Sequence[int], shape: ModelShape, seed: int) -> Iterator[Row]:
    """What a node sends in a round with the defaults and with the last preset, by the number of nodes; with that
    preset how many nodes a moment signal is averaged over within a visit, and how far the copies are apart."""
    for size in sizes:
        defaults = Case.of(RunSettings(seed=seed, edge_probability=0.5), shape, named(8), machine_of(NodeSettings()))
        changes = dict(LADDER[-1].changes(RunSettings()))
        preset = Case.of(RunSettings(seed=seed, **changes), shape, named(8), machine_of(NodeSettings()))
        degree = mean(map(len, graph(named(size), defaults.settings).values()))
        rounds = range(len(shape.blocks))
        yield {
            "nodes": size,
            "defaults_gigabytes": round(edge_traffic(defaults, rounds).total_bytes * degree / 1e9, 2),
            "defaults_neighbours": round(degree, 1),
            "preset": LADDER[-1].name,
            "preset_gigabytes": round(edge_traffic(preset, rounds).total_bytes / 1e9, 2),
            "preset_partners": max(1, (size - 1).bit_length()),
            "preset_distance": apart(size, seed, mix_every=SEEN["inner_steps"], topology="pairs", codec="int4"),
            "regular_distance": apart(size, seed, topology="random-regular", degree=4),
        }


def apart(size: int, seed: int, **changes: Any) -> float:
    """The consensus distance after the last visit's flush, in step sizes, simulated. It depends on where parameters
    travel; moment signals move none."""
    found = simulate(named(size), RunSettings(seed=seed, signal="none", **SEEN, **changes), 3)
    return float(f"{found.flushed:.4g}")


def model() -> ModelShape:
    """The shape of Qwen2.5-0.5B: 494 million parameters, 24 layers, tied embeddings."""
    from transformers import Qwen2Config

    config = Qwen2Config(
        vocab_size=151_936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        dtype="bfloat16",
    )
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        return model_shape(meta_model(folder, 512), 1, "Qwen2.5-0.5B")


def named(count: int) -> tuple[str, ...]:
    """Names of so many nodes, in the order of their numbers."""
    return tuple(f"n{number:04d}" for number in range(count))


def settings_of(name: str, size: int, seed: int, **changes: Any) -> RunSettings:
    """The run's settings with one of the graphs."""
    sparse = {"edge_probability": min(0.5, 2 * math.log(size) / size)} if "sparse" in name else {}
    return RunSettings(seed=seed, **{**GRAPHS[name], **sparse, **changes})


def scaled(size: int, shape: ModelShape, seed: int) -> Iterator[Row]:
    """One row per graph."""
    for name in GRAPHS:
        case = case_of(named(size), settings_of(name, size, seed), shape)
        mixing = case.mixing
        found = simulated(name, size, seed, mixing)
        sent = edge_traffic(case, range(len(shape.blocks))).total_bytes
        seconds = {link: round_seconds(dataclasses.replace(case, machine=machine)) for link, machine in LINKS.items()}
        mean_degree = 2 * mixing.edges / size
        yield {
            "nodes": size,
            "graph": name,
            "neighbours": round(mean_degree, 1),
            "spectral_gap": float(f"{mixing.spectral_gap:.4g}"),
            "mixes_to_agree": mixing.mixes_to_agree,
            **found,
            "round_gigabytes_sent": round(sent * mean_degree / 1e9, 2),
            "round_seconds": {link: round(value, 1) for link, value in seconds.items()},
        }


def simulated(name: str, size: int, seed: int, mixing: GraphFacts, **changes: Any) -> Row:
    """The results of the simulation of one graph, to four digits."""
    settings = settings_of(name, size, seed, **SIMULATED, **changes)
    mixes = min(mixing.mixes_to_agree, FLUSH_MIXES_MAX)
    found = dataclasses.asdict(simulate(named(size), settings, mixes))
    digits = {key: float(f"{value:.4g}") for key, value in found.items()}
    return {
        "distance_trained": digits["trained"],
        "distance_flushed": digits["flushed"],
        "distance_ended": digits["ended"],
        "mean_moved": digits["moved"],
        "final_mixes": mixes,
        "left_per_mix": float(f"{mixing.left_per_mix:.4g}"),
        "left_per_mix_simulated": digits["left_per_mix"],
    }


def case_of(members: tuple[str, ...], settings: RunSettings, shape: ModelShape) -> Case:
    """As :meth:`Case.of`, whose power iteration is made for some hundred nodes, but with all eigenvalues."""
    degrees = [len(near) for near in graph(members, settings).values()]
    final = final_graph(members, settings)
    w = weights(final)
    left = left_per_mix(w, settings.flow_share)
    mixes = max(3, math.ceil(math.log(FLUSH_TOLERANCE) / math.log(left))) if left > FLUSH_TOLERANCE else 3
    gap = 1.0 - left_per_mix(w, 1.0)
    mixing = GraphFacts(
        len(members), sum(degrees) // 2, min(degrees), max(degrees), gap, left, mixes, max(map(len, final.values()))
    )
    return Case(settings, shape, members, mixing, machine_of(NodeSettings()))


def round_seconds(case: Case) -> float:
    """Seconds of one round, without the final flush."""
    whole = run_seconds(case).total - final_flush_seconds(case)
    return whole / case.settings.rounds


def by_codec(seed: int) -> Iterator[Row]:
    """The same graph with each codec."""
    name, size = CODECS_AT
    for codec in ("fp32", "bf16", "int8", "int4", "topk"):
        settings = settings_of(name, size, seed, codec=codec)
        w = weights(graph(named(size), settings))
        left = left_per_mix(w, settings.flow_share)
        mixes = max(3, math.ceil(math.log(FLUSH_TOLERANCE) / math.log(left)))
        mixing = GraphFacts(size, 0, 4, 4, 1.0 - left, left, mixes, 4)
        yield {"codec": codec, "nodes": size, "graph": name, **simulated(name, size, seed, mixing, codec=codec)}


def home(name: str, changes: Mapping[str, Any], shape: ModelShape, seed: int) -> Row:
    """A whole run of a hundred homes with changed settings."""
    settings = RunSettings(seed=seed, **changes)
    link, machine = next(iter(LINKS.items()))
    case = Case.of(settings, shape, named(HOMES), machine)
    seconds, flush = run_seconds(case), final_flush_seconds(case)
    traffic = mean(sent.total_bytes for sent in planned_bytes(case).values())
    return {
        "settings": name,
        "link": link,
        "neighbours": round(2 * case.mixing.edges / HOMES, 1),
        "left_per_step": round(case.left_per_step, 4),
        "final_flush_mixes": case.final_flush_mixes,
        "run_hours": round(seconds.total / 3600, 2),
        "compute_hours": round(seconds.compute / 3600, 2),
        "final_flush_hours": round(flush / 3600, 2),
        "gigabytes_sent": round(traffic / 1e9, 1),
    }


def show(rows: list[Row], codecs: list[Row], homes: list[Row], sizes: list[Row]) -> None:
    """Print four tables."""
    link, fast = LINKS
    distances = {f"distance_{name}": name for name in ("trained", "flushed", "ended")} | {"mean_moved": "moved"}
    shown = {"nodes": "nodes", "graph": "graph", "neighbours": "neighbours", "mixes_to_agree": "mixes to 1e-4"}
    shown |= distances | {"round_gigabytes_sent": "GB sent"}
    flat = [{**row, **{name: in_words(row["round_seconds"][name]) for name in LINKS}} for row in rows]
    title = "Consensus (distances in step sizes), bytes and time per round"
    print_table(title, flat, shown | {link: link, fast: fast})
    title = f"Codecs, {CODECS_AT[1]} nodes, {CODECS_AT[0]}"
    left = {"left_per_mix": "left per mix", "left_per_mix_simulated": "simulated"}
    print_table(title, codecs, {"codec": "codec", **distances, **left})
    shown = {"settings": "settings", "neighbours": "neighbours", "left_per_step": "left per step", "run_hours": "hours"}
    shown |= {"compute_hours": "compute", "final_flush_hours": "final flush", "gigabytes_sent": "GB sent"}
    print_table(f"{HOMES} homes at {link}: a whole run", homes, shown)
    shown = {"nodes": "nodes", "defaults_neighbours": "neighbours", "defaults_gigabytes": "GB, defaults"}
    shown |= {"preset_partners": "partners of the preset", "preset_gigabytes": "GB, preset"}
    shown |= {"preset_distance": "distance, preset", "regular_distance": "distance, four neighbours"}
    print_table("What a node sends in one round", sizes, shown)


def in_words(seconds: float) -> str:
    """Seconds, minutes, hours or days as text."""
    for unit, factor, most in (("s", 1.0, 120.0), ("min", 60.0, 7200.0), ("h", 3600.0, 172_800.0)):
        if seconds < most:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds / 86_400:,.1f} days"


def print_table(title: str, rows: list[Row], columns: Mapping[str, str]) -> None:
    """One table; ``columns`` are keys and headings."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE, collapse_padding=True)
    for key, heading in columns.items():
        table.add_column(heading, justify="left" if key in ("graph", "codec", "settings") else "right")
    for row in rows:
        cells = (row[key] for key in columns)
        table.add_row(*(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
