"""What a person sees while local nodes train: one line per node, from the files the nodes write anyway."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from deca_node.lab.rigs.processes import NodeProcess
from deca_node.storage.folder import METRICS
from deca_node.storage.jsons import parse

TAIL_BYTES = 1 << 16


class LiveTable:
    """Where each node is. ``steps`` is how many steps the whole run has."""

    def __init__(self, title: str, steps: int) -> None:
        self._title = title
        self._steps = steps

    def render(self, nodes: Sequence[NodeProcess]) -> Table:
        """The table as of now."""
        table = Table(box=box.SIMPLE_HEAD, title=self._title, title_justify="left")
        table.add_column("node", no_wrap=True)
        for heading in ("round", "block", "step", "done", "loss", "consensus distance", "sent"):
            table.add_column(heading, justify="right")
        for node in nodes:
            table.add_row(node.name, *self._cells(last_step(node.directory / METRICS)))
        return table

    def _cells(self, step: dict[str, Any] | None) -> list[str]:
        if step is None:
            return ["", "", "", "loading", "", "", ""]
        done = f"{100 * (step['ordinal'] + 1) / self._steps:.0f} %"
        loss = f"{step['loss']:.3f}" if "loss" in step else "(mixing)"
        distance = f"{step['consensus_distance']:.1e}" if "consensus_distance" in step else ""
        where = [str(step[key] + 1) for key in ("round", "block", "inner")]
        return [*where, done, loss, distance, f"{step['bytes_sent'] / 2**20:.1f} MiB"]


def last_step(path: Path) -> dict[str, Any] | None:
    """The newest step in a metrics file, however long the file is; None before the first."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        lines = file.read().splitlines()
    for line in reversed(lines):
        try:
            record: Any = parse(line)
        except ValueError:
            continue
        if isinstance(record, dict) and record.get("kind") == "step":
            return record
    return None
