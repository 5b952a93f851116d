"""The course of a run in as few numbers as a drawing needs. The node's page asks for it every few seconds.

Memory is bounded: when there are too many points, each two neighbours become one. So a curve over a million steps has
no more points than one over two thousand, and looks the same on a screen::

    o o o o o o o o   full   ->   o   o   o   o        and from then on two steps make one point
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deca_node.daemon.status.lives import RECALLED_BYTES_MAX, Lives, last_lines
from deca_node.daemon.status.steps import StepDone, measured_at, waited
from deca_node.protocol import events as e
from deca_node.protocol.agreed.topology import Graph
from deca_node.protocol.agreed.weights import SHARE_ONE, metropolis
from deca_node.protocol.node.state import NodeState
from deca_node.storage.jsons import UNFIT, parse

POINTS_MAX = 2000
"""An even number. Thinning leaves half of the points."""
EVALUATIONS_MAX = 500
ROUNDS_SHOWN_MAX = 100
EDGES_SHOWN_MAX = 4096
"""If a graph has more edges, only the node's own are shown."""

NEWEST = ("ordinal", "time", "sent_bytes", "received_bytes")
"""A point of several steps has the values of its last step for these."""
MEANS = ("loss", "consensus_distance", "h_rms", "compute_seconds", "encode_seconds", "wait_seconds", "mix_seconds")
"""And for these the mean over the steps that have a value."""

Point = Mapping[str, float | None]


@dataclass(frozen=True)
class Points:
    """The points after ``since``. If ``whole`` is true these are all points, and the reader drops those it had.
    ``next`` is the ``since`` of the next request. Each point stands for ``stride`` steps."""

    whole: bool
    next: int
    stride: int
    columns: Mapping[str, Sequence[float | None]]
    evaluations: Sequence[tuple[int, float, str]]
    """Ordinal, held-out loss, and the name of the moment of measurement."""


@dataclass(frozen=True)
class RunMap:
    """Rounds × blocks, and the graph of the members in this activation.

    Each letter of ``rows`` is a visit of a block: ``.`` is not finished, ``d`` was done here since the start, ``e`` was
    done here before the start, ``f`` was done by others and fetched. The first row is round ``first`` (from 0), and the
    round after the last of ``rounds`` is the flush. An edge is two positions in ``members``, and its weight.
    """

    blocks: Sequence[str]
    rounds: int
    first: int
    rows: Sequence[str]
    members: Sequence[str]
    edges: Sequence[tuple[int, int, float]]


@dataclass
class _Series:
    """Points of ``stride`` steps each. ``pending`` holds the steps of a point that is not complete."""

    stride: int = 1
    rows: list[Point] = field(default_factory=list)
    pending: list[Point] = field(default_factory=list)
    thinned: int = 0
    """The number of steps when points were last joined. A reader who knows fewer steps has points of the old stride."""

    @property
    def end(self) -> int:
        return len(self.rows) * self.stride

    def add(self, row: Point) -> None:
        self.pending.append(row)
        if len(self.pending) < self.stride:
            return
        self.rows.append(_joined(self.pending))
        self.pending = []
        if len(self.rows) == POINTS_MAX:
            self.rows = [_joined(self.rows[i : i + 2]) for i in range(0, POINTS_MAX, 2)]
            self.stride *= 2
            self.thinned = self.end

    def since(self, count: int) -> tuple[bool, list[Point]]:
        whole = not self.thinned <= count <= self.end or count <= 0
        return whole, self.rows[0 if whole else count // self.stride :]


class Lines:
    """Curves over steps and evaluations, from events or from a file."""

    def __init__(self) -> None:
        self._series = _Series()
        self._evaluations: list[tuple[int, float, str]] = []

    def add(self, row: Point) -> None:
        """Add one step."""
        self._series.add(row)

    def note_evaluation(self, ordinal: int, loss: float, when: str) -> None:
        """Add one measurement of the held-out loss."""
        if math.isfinite(loss):
            self._evaluations.append((ordinal, loss, when))
        if len(self._evaluations) > EVALUATIONS_MAX:
            self._evaluations = self._evaluations[::2]

    def points(self, since: int = 0) -> Points:
        """The points after ``since``, or all points."""
        whole, rows = self._series.since(since)
        columns = {name: [row[name] for row in rows] for name in (*NEWEST, *MEANS)}
        return Points(whole, self._series.end, self._series.stride, columns, tuple(self._evaluations))

    def recall(self, path: Path, bytes_max: int = RECALLED_BYTES_MAX) -> None:
        """Read the end of a metrics file. Unreadable lines are skipped, and so is a missing file."""
        lives = Lives()
        for line in last_lines(path, bytes_max):
            try:
                self._recall_line(parse(line), lives)
            except UNFIT:
                continue

    def _recall_line(self, facts: Mapping[str, Any], lives: Lives) -> None:
        if facts["kind"] == "eval":
            self.note_evaluation(int(facts["ordinal"]), float(facts["loss"]), str(facts["when"]))
            return
        if facts["kind"] != "step":
            return
        lives.take(facts)
        row = _row(facts, float(facts["step_seconds"]))
        total = {"sent_bytes": float(lives.sent), "received_bytes": float(lives.received)}
        self.add({**row, "ordinal": int(facts["ordinal"]), "time": float(facts["time"]), **total})


class History:
    """Curves, the map of blocks and rounds, and the graph of one node."""

    def __init__(self, node: NodeState) -> None:
        self._node = node
        self._lines = Lines()
        self._blocks: tuple[str, ...] = ()
        self._before = 0
        self._fetched: set[int] = set()

    # --- watching -----------------------------------------------------------------------------------

    def observe(self, event: e.Event, done: StepDone | None = None) -> None:
        """Take an event before the node does, and the step that it finishes, if any."""
        if done:
            self._step(done)
        match event:
            case e.TrainerReady():
                if not self._blocks:
                    self._before = event.position.activation
                self._blocks = event.model.block_names
            case e.Evaluated():
                self._lines.note_evaluation(measured_at(self._node), event.loss, event.when)
            case e.Adopted():
                self._fetched.update(range(self._node.next.activation, event.position.activation))

    def recall(self, path: Path) -> None:
        """Read what this node wrote down before this start."""
        self._lines.recall(path)

    def _step(self, done: StepDone) -> None:
        sent, received = done.life.sent_before + done.sent_bytes, done.life.received_before + done.received_bytes
        total = {"sent_bytes": float(sent), "received_bytes": float(received)}
        row = _row(done.figures, done.seconds)
        self._lines.add({**row, "ordinal": done.ordinal, "time": round(done.time, 1), **total})

    # --- telling ------------------------------------------------------------------------------------

    def points(self, since: int = 0) -> Points:
        """The points after ``since``, or all points."""
        return self._lines.points(since)

    def map(self) -> RunMap:
        """The visits of blocks, and the graph of the members."""
        members, edges = self._graph()
        if not self._blocks:
            return RunMap((), 0, 0, (), members, edges)
        rounds, here = self._node.schedule.rounds, self._node.next.activation
        first = max(0, min(here // len(self._blocks) - ROUNDS_SHOWN_MAX // 2, rounds + 1 - ROUNDS_SHOWN_MAX))
        shown = range(first, min(rounds + 1, first + ROUNDS_SHOWN_MAX))
        rows = tuple(self._letters(number, here) for number in shown)
        return RunMap(self._blocks, rounds, first, rows, members, edges)

    def _letters(self, number: int, here: int) -> str:
        """The row of one round. Blocks are in the order of the model, not of the visits."""
        schedule, letters = self._node.schedule, ["."] * len(self._blocks)
        for activation in range(number * len(letters), min(here, (number + 1) * len(letters))):
            if activation in self._node.left_out:
                continue
            done = "e" if activation < self._before else "f" if activation in self._fetched else "d"
            letters[schedule[activation].block] = done
        return "".join(letters)

    def _graph(self) -> tuple[tuple[str, ...], tuple[tuple[int, int, float], ...]]:
        graph, own = self._node.graph(self._node.next.activation), self._node.name
        members = tuple(sorted(graph))
        numbers = {name: number for number, name in enumerate(members)}
        whole = sum(len(near) for near in graph.values()) <= 2 * EDGES_SHOWN_MAX
        shares = self._node.roster.shares
        return members, tuple(
            (numbers[a], numbers[b], round(_weight(graph, shares, a, b), 4))
            for a in members
            for b in sorted(graph[a])
            if a < b and (whole or own in {a, b})
        )


def _weight(graph: Graph, shares: Mapping[str, int], a: str, b: str) -> float:
    """w_ab; of two ends with other shares that of the end that the edge moves more."""
    ends = [(len(graph[name]), shares.get(name, SHARE_ONE)) for name in (a, b)]
    return max(metropolis(d, other, s, of_other) for (d, s), (other, of_other) in (ends, ends[::-1]))


def _row(figures: Mapping[str, Any], seconds: float) -> dict[str, float | None]:
    """The means of one point, from the figures and the length of one step."""
    return {**{name: _finite(figures.get(name)) for name in MEANS}, "wait_seconds": waited(figures, seconds)}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _joined(rows: Sequence[Point]) -> Point:
    means = {name: _mean([value for row in rows if (value := row[name]) is not None]) for name in MEANS}
    return {**means, **{name: rows[-1][name] for name in NEWEST}}


def _mean(values: Sequence[float]) -> float | None:
    # Six digits are more than a screen shows. metrics.jsonl has all digits.
    return float(f"{sum(values) / len(values):.6g}") if values else None
