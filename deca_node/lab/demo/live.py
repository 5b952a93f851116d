"""One line per node while local nodes train, from the files that the nodes write."""

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
    """The progress of each node. ``steps`` is the number of steps of the whole run."""

    def __init__(self, title: str, steps: int) -> None:
        self._title = title
        self._steps = steps

    def render(self, nodes: Sequence[NodeProcess]) -> Table:
        """The table with the current progress."""
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
    """The newest step in a metrics file of any length, or None before the first step."""
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
