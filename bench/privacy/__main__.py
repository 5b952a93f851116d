"""``python -m bench.privacy``: the cost of private gradients in loss.

Eight nodes train together as in ``bench.hostile``, all honest and all with the same ``dp_noise``. The bench compares
the loss after the run (mean over nodes and texts) with that of packed sequences without noise, at two step sizes each.
``privacy.json`` keeps finished cells, which do not run again.
"""

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from bench.harness import ROOT, Row, parser, write_results
from bench.hostile import cells
from bench.hostile.cells import RUN, Cell
from deca_node.numerics.learning.privacy import Privacy

NOISES: tuple[float | None, ...] = (None, 0.5, 1.0)
"""Values of dp_noise. None is a run without noise, in which records are packed."""

RATES = (5e-3, 1e-3)
DELTA = 1e-3
"""Below 1 / records, of which a node has about 90."""


def main() -> None:
    """Run the missing cells, print the table and write ``privacy.json``."""
    options = parser("The loss under private gradients.")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    done = _done(arguments)
    folder = cells.prepare(ROOT / "build" / "hostile")
    start = _mean([cells.start_losses(folder, arguments.seed)])
    for rate in RATES[:1] if arguments.quick else RATES:
        for noise in NOISES[:2] if arguments.quick else NOISES:
            key = f"dp_noise={noise} learning_rate={rate}"
            if key not in done:
                began = time.process_time()
                done[key] = measure(noise, rate, folder, arguments.seed)
                done[key]["cpu_seconds"] = time.process_time() - began
                write_results("privacy", arguments, {"start": start, "cells": done})
                Console(stderr=True).print(key, highlight=False)
    made = Table("dp_noise", "learning rate", "epsilon", "loss", title=f"start {start:.4f}; delta {DELTA:g}")
    for row in done.values():
        epsilon = "none" if row["epsilon"] is None else f"{row['epsilon']:.3g}"
        made.add_row(str(row["dp_noise"]), f"{row['learning_rate']:g}", epsilon, f"{row['loss']:.4f}")
    Console().print(made)
    Console().print(f"written to {write_results('privacy', arguments, {'start': start, 'cells': done})}")


def measure(noise: float | None, rate: float, folder: Path, seed: int) -> Row:
    """One run."""
    cell = Cell("none", 0, (("learning_rate", rate),), seed)
    chosen = {} if noise is None else {"dp_noise": noise, "dp_clip": 1.0, "dp_delta": DELTA}
    loss = _mean(cells.run(cell, folder, **chosen)["losses"])
    epsilon = None if noise is None else spent(noise, folder, seed)
    return {"dp_noise": noise, "learning_rate": rate, "epsilon": epsilon, "loss": loss}


def spent(noise: float, folder: Path, seed: int) -> float | None:
    """The largest epsilon of any node, or None if the noise is so small that epsilon is practically unlimited."""
    run, steps = replace(RUN, seed=seed), RUN.rounds * RUN.inner_steps * (cells.RECIPE.layers + 1)
    records = min(len(cells.text(folder, name, run, single_records=True).train) for name in cells.names())
    here, device = folder / "work", torch.device("cpu")
    books = {"sigma": noise, "clip": 1.0, "delta": DELTA, "epsilon_max": 0.0}
    epsilon = Privacy(here, records, run.batch_size, chunk=1, device=device, **books).check(steps)  # type: ignore[arg-type]
    return epsilon if math.isfinite(epsilon) and epsilon < 1e4 else None


def _mean(losses: list[list[float | None]]) -> float:
    values = [math.nan if loss is None else loss for row in losses for loss in row]
    return sum(values) / len(values)


def _done(arguments: argparse.Namespace) -> dict[str, Row]:
    path = arguments.results / f"privacy{'-quick' if arguments.quick else ''}.json"
    try:
        found: dict[str, Row] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except FileNotFoundError:
        return {}
    return found


if __name__ == "__main__":
    main()
