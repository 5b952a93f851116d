"""The report of a run that is in progress or over, from the files of its nodes. It loads no model.

Each party has only its own node's folder, so one folder is enough. With several folders (of a run on one machine, or
folders that parties have sent) every node is a line in the charts.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deca_node.daemon.web.page_file import PAGE
from deca_node.lab.report.metrics import Metrics, read_metrics
from deca_node.lab.report.report import Tile, curves, facts, tiles, write_page
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.errors import DataError
from deca_node.storage.folder import FINAL, METRICS, alone_because
from deca_node.storage.jsons import UNFIT, parse

VALUE_LENGTH_MAX = 200
LEFT_OUT = "absent"


@dataclass(frozen=True)
class NodeRecord:
    """The contents of one node's folder: its metrics, and its agreement with the others by field."""

    name: str
    metrics: Metrics
    agreed: Mapping[str, str]
    alone: str = ""
    """Why the node's tuned model is not the others', as a sentence; empty otherwise."""
    state: str = ""
    """Whether the node has finished the run, and where it stands otherwise, in a few words."""


def read_node(directory: Path) -> NodeRecord:
    """Read a node's folder, whether the node runs or not. Raises DataError if the folder has no metrics."""
    metrics = read_metrics(directory / METRICS)
    if not metrics.steps and not metrics.evaluations:
        raise DataError(f"the node in {directory} has not trained yet; there is nothing to report")
    alone = alone_because(directory / FINAL)
    return NodeRecord(directory.absolute().name, metrics, agreed(directory), alone, _state(directory))


def _state(directory: Path) -> str:
    """In the node's words as its page had them last. A node that was killed left the words of its last seconds."""
    if (directory / FINAL).is_dir():
        return "complete"
    try:
        told = parse((directory / PAGE).read_text(encoding="utf-8"))["status"]
        at, phase, when = told["position"], str(told["phase"]), float(told["time"])
        where = f" at {at['done']} of {at['total']} steps" if at else ""
        return f"{phase}{where}, last heard of at {time.strftime('%Y-%m-%d %H:%M', time.localtime(when))}"
    except (OSError, *UNFIT):
        return "not complete"


def agreed(directory: Path) -> dict[str, str]:
    """The agreement of a node by field. Empty if the node was killed while it wrote the agreement, since its metrics
    are still worth a report."""
    try:
        run = parse((directory / "run.json").read_text(encoding="utf-8"))
        return {"fingerprint": str(run["fingerprint"]), **{k: str(v) for k, v in run["agreement"].items()}}
    except (OSError, *UNFIT):
        return {}


def write_run_report(path: Path, nodes: Sequence[NodeRecord]) -> None:
    """Write the report as one HTML file. Raises StorageError if it cannot be written."""
    names = sorted({node.agreed.get("run_name", RunSettings.run_name) for node in nodes})
    who = "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes"
    write_page(path, f"Run {', '.join(names)}: {who}", _body(nodes))


def _body(nodes: Sequence[NodeRecord]) -> Iterator[str]:
    yield tiles(_numbers(nodes))
    if own := [(f"Tuned model of {node.name}", f"not the others': {node.alone}") for node in nodes if node.alone]:
        yield facts("Models that are one node's own", own)
    yield facts("Where the nodes stand", [(node.name, node.state) for node in nodes])
    yield from curves([(node.name, node.metrics) for node in nodes])
    yield facts("Settings and facts that are equal on all nodes", _agreed(nodes))


def _numbers(nodes: Sequence[NodeRecord]) -> Iterator[Tile]:
    """The first and the last held-out loss, and the position of the nodes. All are means over nodes."""
    measured = [node.metrics.evaluations for node in nodes if node.metrics.evaluations]
    if measured:
        yield "", f"{_mean(each[0].loss for each in measured):.3f}", "first held-out loss"
        yield "together", f"{_mean(each[-1].loss for each in measured):.3f}", "last held-out loss"
    shares = [[a.accuracy for a in each if a.accuracy is not None] for each in measured]
    if any(shares):
        yield "", f"{_mean(each[0] for each in shares if each):.3f}", "first held-out accuracy"
        yield "together", f"{_mean(each[-1] for each in shares if each):.3f}", "last held-out accuracy"
    stepped = [node.metrics.steps for node in nodes if node.metrics.steps]
    if stepped:
        yield "", str(max(step.ordinal for steps in stepped for step in steps) + 1), "steps done"
        sent = sum(node.metrics.bytes_sent for node in nodes) / 2**20
        yield "", f"{sent:,.1f}", "MiB sent" if len(nodes) == 1 else "MiB sent by all"


def _agreed(nodes: Sequence[NodeRecord]) -> Iterator[tuple[str, str]]:
    """One line per field. If the nodes are of different runs, it shows the value of each node."""
    for field in sorted({field for node in nodes for field in node.agreed}):
        values = {node.name: _brief(node.agreed.get(field, LEFT_OUT)) for node in nodes}
        same = len(set(values.values())) == 1
        yield field, next(iter(values.values())) if same else ", ".join(f"{v} ({name})" for name, v in values.items())


def _brief(value: str) -> str:
    return value if len(value) <= VALUE_LENGTH_MAX else value[: VALUE_LENGTH_MAX - 1] + "…"


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)
