"""A plan as JSON and as tables."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from deca_node.cli.views.advice import Advice, in_words, saving
from deca_node.cli.views.choice import HEADINGS, sentence, table_rows
from deca_node.protocol.agreed.frames import KEYFRAME_CODEC_NAME
from deca_node.protocol.planning.case import Case
from deca_node.protocol.planning.duration import Seconds, final_flush_seconds, gradient_seconds, run_seconds
from deca_node.protocol.planning.memory import block_memory, peak_memory
from deca_node.protocol.planning.traffic import (
    PlannedTraffic,
    edge_traffic,
    largest_content,
    planned_bytes,
    signal_bytes,
    update_bytes,
)
from deca_node.protocol.planning.units import bytes_text, seconds_text


def answer(case: Case, advice: Advice) -> dict[str, Any]:
    """The whole plan for JSON: exact numbers, with their units in the names."""
    modes = {mode: case.with_exchange(mode) for mode in ("lockstep", "overlap")}
    times = {mode: run_seconds(changed) for mode, changed in modes.items()}
    peak, limit = peak_memory(case), case.machine.memory_bytes
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
        "traffic": {name: _traffic(sent) for name, sent in planned_bytes(case).items()},
        "time": {mode: _time(seconds) for mode, seconds in times.items()},
        "final_flush": {
            "mixes": case.final_flush_mixes,
            "sent_bytes_max": edge_traffic(case, flush).total_bytes * case.mixing.degree_max,
            "seconds": final_flush_seconds(case),
        },
        "blocks": _blocks(case, modes),
        "saving": dataclasses.asdict(less) if (less := saving(case)) else None,
        "advice": {**dataclasses.asdict(advice), "sentence": in_words(case, advice)},
    }


def _traffic(sent: PlannedTraffic) -> dict[str, int]:
    """The traffic of one node in the whole run. A node receives as much as it sends."""
    return {**dataclasses.asdict(sent), "sent_bytes": sent.total_bytes, "received_bytes": sent.total_bytes}


def _time(seconds: Seconds) -> dict[str, Any]:
    named = {f"{part}_seconds": value for part, value in dataclasses.asdict(seconds).items()}
    return {**named, "bound_by": seconds.bound_by}


def _blocks(case: Case, modes: Mapping[str, Case]) -> list[dict[str, Any]]:
    schedule, steps = case.schedule, case.settings.inner_steps
    first_visit = {int(schedule[index].block): index for index in range(schedule.blocks)}
    return [
        {
            **dataclasses.asdict(block_memory(case, block)),
            "parameters": block.elements,
            "keyframe_bytes": block.frame_bytes[KEYFRAME_CODEC_NAME],
            "update_bytes": update_bytes(case, block),
            "signal_bytes": signal_bytes(case, block, largest_content(case)),
            "visit_bytes": edge_traffic(case, [first_visit[number]]).total_bytes,
            "compute_seconds_per_step": gradient_seconds(case, block).compute / steps,
            "transfer_seconds_per_exchange": gradient_seconds(case, block).transfer / case.exchanges,
            **{f"{mode}_seconds_per_step": gradient_seconds(c, block).total / steps for mode, c in modes.items()},
        }
        for number, block in enumerate(case.model.blocks)
    ]


Column = tuple[str, Callable[[Any], str], str]
"""A column's heading, the function that writes a cell, and the key in a block's row."""

_TABLES: Mapping[str, tuple[Column, ...]] = {
    "Memory while a block is active (activations: an estimate)": (
        ("parameters", "{:,}".format, "parameters"),
        ("model", bytes_text, "model_bytes"),
        ("optimizer and exchange", bytes_text, "state_bytes"),
        ("activations", bytes_text, "activation_bytes"),
        ("total", bytes_text, "total_bytes"),
    ),
    "Traffic with one neighbour, each way": (
        ("keyframe", bytes_text, "keyframe_bytes"),
        ("update", bytes_text, "update_bytes"),
        ("moment signal", bytes_text, "signal_bytes"),
        ("visit", bytes_text, "visit_bytes"),
    ),
    "Time (an estimate)": (
        ("compute per step", seconds_text, "compute_seconds_per_step"),
        ("transfer per exchange", seconds_text, "transfer_seconds_per_exchange"),
        ("step in lockstep", seconds_text, "lockstep_seconds_per_step"),
        ("step with overlap", seconds_text, "overlap_seconds_per_step"),
    ),
}


def sending(plan: Mapping[str, Any]) -> str:
    """What a run sends, and the setting that saves most of it, in two sentences."""
    sent = [node["sent_bytes"] for node in plan["traffic"].values()]
    if not max(sent):
        return "One node alone sends nothing.\n"
    much = _range(bytes_text(min(sent)), bytes_text(max(sent)))
    says = f"Each node sends {much} in the whole run, and receives as much."
    if not (less := plan["saving"]):
        return f"{says} No single setting saves a tenth of it.\n"
    how = "halves it" if 0.45 <= less["share"] <= 0.55 else f"lowers it to {less['share']:.0%}"
    return f"{says} {less['change']} {how}.\n"


def print_tables(plan: Mapping[str, Any]) -> None:
    """Print all tables. The lowest of equal blocks in a row stands for all: it needs most memory and compute."""
    runs = [list(run) for _, run in itertools.groupby(plan["blocks"], key=lambda row: row["parameters"])]
    named = [(run[0]["block"] + (f" to {run[-1]['block']}" if len(run) > 1 else ""), run[0]) for run in runs]
    for (title, columns), note in zip(_TABLES.items(), _notes(plan), strict=True):
        cells = [(name, *(form(row[key]) for _, form, key in columns)) for name, row in named]
        _print_table(title, ("block", *(heading for heading, _, _ in columns)), cells, note)
    changes = [
        (a["change"], seconds_text(a["run_seconds"]), bytes_text(a["memory_bytes"]), f"{a['left_per_step']:.1%}")
        for a in (plan["advice"]["now"], *plan["advice"]["alternatives"])
    ]
    sentence = f"[bold]{plan['advice']['sentence']}[/bold]"
    _print_table("After one change", ("change", "run", "memory", "disagreement left by a step"), changes, sentence)


def print_choice(document: Mapping[str, Any]) -> None:
    """Print the ladder of exchanges, and the one that was chosen."""
    note = f"[bold]{sentence(document)}[/bold]"
    _print_table("Ways to exchange, from many bytes to few", HEADINGS, table_rows(document), note)


def _notes(plan: Mapping[str, Any]) -> tuple[str, str, str]:
    """The notes below the first three tables."""
    memory, machine, mixing, flush, time = (plan[k] for k in ("memory", "machine", "mixing", "final_flush", "time"))
    limit = machine["memory_bytes"]
    verdict = "this fits in" if memory["fits"] else "this is MORE THAN"
    fits = "" if limit is None else f"; {verdict} the given {bytes_text(limit)}"
    if machine["ranks"] > 1:
        others = f"; each of the other {machine['ranks'] - 1} takes {bytes_text(memory['follower_bytes'])}"
        whole = ", all ranks together" if machine["one_memory"] else " at rank 0"
        shards = f", the model sharded over {machine['ranks']} ranks" if machine["sharded"] else ""
        fits = f"{shards}{whole}{others}{fits}"
    counted = "and count in this peak" if machine["one_memory"] else "and do not count in this peak"
    least, most = (op(node["sent_bytes"] for node in plan["traffic"].values()) for op in (min, max))
    lockstep, overlap = (seconds_text(time[mode]["total_seconds"]) for mode in ("lockstep", "overlap"))
    return (
        f"The peak is {bytes_text(memory['total_bytes'])}, with block {memory['block']}{fits}. Frames take "
        f"{bytes_text(memory['frames_bytes'])} of shared memory on the host, {counted}.",
        f"In the whole run a node with {_neighbours(mixing['degree_min'], mixing['degree_max'])} sends "
        f"{_range(bytes_text(least), bytes_text(most))} and receives as much. The final flush, with "
        f"{flush['mixes']} mixes per block, is up to {bytes_text(flush['sent_bytes_max'])} of it.",
        f"The whole run takes {lockstep} in lockstep and {overlap} with overlap, at "
        f"{machine['bits_per_second'] / 1e6:,g} Mbit/s each way, {seconds_text(machine['latency_seconds'])} one way, "
        f"{machine['flops_per_second'] / 1e12:,.3g} TFLOP/s. "
        f"The final flush takes {seconds_text(flush['seconds'])} of it.\n"
        f"Graph: {mixing['edges']} edge{'s' * (mixing['edges'] != 1)}, spectral gap {mixing['spectral_gap']:.3f}. "
        f"A mix leaves {mixing['left_per_mix']:.1%} of a disagreement; "
        f"after {mixing['mixes_to_agree']} mixes 0.01% is left.",
    )


def _range(least: str, most: str) -> str:
    """``5 MB to 7 MB``, or ``5 MB`` where both texts are equal."""
    return least if least == most else f"{least} to {most}"


def _neighbours(least: int, most: int) -> str:
    return f"{_range(str(least), str(most))} neighbour{'s' * (most != 1)}"


def _print_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], note: str) -> None:
    from rich.table import Table

    from deca_node.cli.views.console import facts_console

    table = Table(title=title, title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = facts_console()
    console.print(table)
    console.print(f"{note}\n")
