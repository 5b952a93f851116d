"""``python -m bench.hostile``: the loss of honest members among hostile ones, with and without robust mixing.

Eight nodes have texts of their own. None, one or two of them are hostile. The loss is the mean over the honest nodes on
the honest nodes' held-out texts, after the final flush. ``hostile.json`` keeps every finished cell, so that a run that
was stopped continues where it was.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bench.harness import ROOT, Row, parser, write_results
from bench.hostile import cells
from bench.hostile.attacks import ATTACKS
from bench.hostile.cells import NODES, Cell

HOSTILE = (1, 2)
CLIP = (("robust", "clip"), ("robust_neighbours", 2))
PAPER = (*CLIP, ("clip_reach", 0.0))
ARMS: dict[str, tuple[tuple[str, Any], ...]] = {"plain": (), "clip": CLIP, "clip, no reach": PAPER}
"""The arms: no robust mixing; robust = clip for two hostile neighbours; and the same without clip_reach, as in the
paper."""


def main() -> None:
    """Run the missing cells, print the table and write ``hostile.json``."""
    options = parser("The loss of honest nodes among hostile ones, with and without robust mixing.")
    options.add_argument("--seeds", type=int, default=2, help="runs of every cell")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    done = _done(arguments)
    planned = list(plan(1 if arguments.quick else arguments.seeds, quick=arguments.quick))
    folder = cells.prepare(ROOT / "build" / "hostile")
    starts = cells.start_losses(folder, arguments.seed)
    for number, cell in enumerate(planned, 1):
        if cell.key not in done:
            began = time.process_time()
            done[cell.key] = cells.run(cell, folder) | {"cpu_seconds": time.process_time() - began}
            write_results("hostile", arguments, {"start": starts, "cells": done})
            Console(stderr=True).print(f"{number}/{len(planned)}  {cell.key}", highlight=False, markup=False)
    rows = table(planned, done, starts)
    path = write_results("hostile", arguments, {"start": starts, "rows": rows, "cells": done})
    Console(width=120).print(drawn(rows))
    Console().print(f"written to {path}")


def plan(seeds: int, *, quick: bool) -> Iterator[Cell]:
    """All cells, seed by seed, so that a stopped run has whole tables."""
    for seed in range(seeds):
        for attack in ("none", "scaled") if quick else ("none", *ATTACKS, "none with signal = v"):
            signal = (("signal", "v"),) if attack in ("inflated", "none with signal = v") else ()
            kind = "none" if attack.startswith("none") else attack
            for hostile in (0,) if kind == "none" else HOSTILE:
                for name, arm in ARMS.items():
                    if name != "clip, no reach" or kind in ("sign-flip", "scaled"):
                        yield Cell(kind, hostile, (*signal, *arm), seed)


def table(planned: Sequence[Cell], done: dict[str, Row], starts: Sequence[float | None]) -> list[Row]:
    """A row per attack and number of hostile nodes. It has the loss of the honest nodes by arm and seed, the loss of
    the same nodes among honest ones, and the loss at the start."""
    rows: dict[tuple[str, int, bool], Row] = {}
    for cell in planned:
        signal = ("signal", "v") in cell.settings
        arm = next(n for n, s in ARMS.items() if s == tuple(x for x in cell.settings if x != ("signal", "v")))
        for hostile in HOSTILE if cell.attack == "none" else (cell.hostile,):
            empty = {"attack": cell.attack, "hostile": hostile, "signal": "v" if signal else "none"}
            row = rows.setdefault(
                (cell.attack, hostile, signal), empty | {"losses": {}, "start": mean(starts, hostile)}
            )
            row["losses"].setdefault(arm, []).append(honest_loss(done[cell.key]["losses"], hostile))
    return list(rows.values())


def honest_loss(losses: Sequence[Sequence[float | None]], hostile: int) -> float | None:
    """The mean over the honest nodes and their texts, or None if any of them diverged."""
    return mean([loss for row in losses[: NODES - hostile] for loss in row[: NODES - hostile]], 0)


def mean(values: Sequence[float | None], left_out: int) -> float | None:
    """The mean of all but the last ``left_out`` values, or None if one is missing."""
    kept = [value for value in values[: len(values) - left_out] if value is not None]
    return sum(kept) / len(kept) if len(kept) == len(values) - left_out else None


def drawn(rows: Sequence[Row]) -> Table:
    """The table: means over seeds, and the number of seeds that diverged."""
    made = Table("attack", "signal", "hostile", "start", *ARMS, title="loss of the honest nodes, nats per token")
    for row in rows:
        losses = [shown(row["losses"][arm]) if arm in row["losses"] else "" for arm in ARMS]
        made.add_row(row["attack"], row["signal"], f"{row['hostile']} of {NODES}", shown([row["start"]]), *losses)
    return made


def shown(losses: Sequence[float | None]) -> str:
    """The mean, or how many runs diverged. A loss above 50 nats is shown without digits."""
    kept = [loss for loss in losses if loss is not None and loss < 50]
    if len(kept) < len(losses):
        return f"diverged ({len(losses) - len(kept)} of {len(losses)})"
    return f"{sum(kept) / len(kept):.4f}"


def _done(arguments: argparse.Namespace) -> dict[str, Row]:
    """The cells of an earlier run with the same recipe."""
    path = arguments.results / f"hostile{'-quick' if arguments.quick else ''}.json"
    try:
        found: dict[str, Row] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except FileNotFoundError:
        return {}
    return found


if __name__ == "__main__":
    main()
