"""How a run went so far, as few numbers as a drawing needs: what the node's own page asks for again and again.

Like the book of the status it only watches. Memory is bounded: once there are too many points, every two neighbours
become one, so that a line over a million steps is as long as one over a thousand, and as true as a screen can show::

    o o o o o o o o   full   ->   o   o   o   o        and from then on two steps make one point
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deca_node.daemon.status.steps import StepDone, measured_at, waited
from deca_node.protocol import events as e
from deca_node.protocol.agreed.weights import metropolis
from deca_node.protocol.node.state import NodeState
from deca_node.storage.jsons import UNFIT, parse

POINTS_MAX = 2000
"""Even; after thinning half as many are left."""
EVALUATIONS_MAX = 500
ROUNDS_SHOWN_MAX = 100
EDGES_SHOWN_MAX = 4096
"""Of a larger graph only the node's own edges are told."""
RECALLED_BYTES_MAX = 4 << 20

NEWEST = ("ordinal", "time", "sent_bytes", "received_bytes")
"""Of several steps in one point these are the last one's."""
MEANS = ("loss", "consensus_distance", "h_rms", "compute_seconds", "encode_seconds", "wait_seconds", "mix_seconds")
"""And these the mean over those steps that have them."""

Point = Mapping[str, float | None]


@dataclass(frozen=True)
class Points:
    """What came after ``since``. ``whole``: everything is here, and whatever the asker had is out of date.
    ``next`` is the ``since`` of the next time; ``stride`` how many steps make a point."""

    whole: bool
    next: int
    stride: int
    columns: Mapping[str, Sequence[float | None]]
    evaluations: Sequence[tuple[int, float, str]]
    """Ordinal, held-out loss, and what it was measured after."""


@dataclass(frozen=True)
class RunMap:
    """Rounds × blocks, and the graph of the members in this activation.

    A letter of ``rows`` is a visit of a block: ``.`` is still to come (or under way), ``d`` was done here, ``e`` was
    done before this start, ``f`` was done elsewhere and taken over. Rows begin with round ``first`` (from 0), and the
    round after the last of ``rounds`` is the flush. An edge is two positions in ``members`` and its weight.
    """

    blocks: Sequence[str] = ()
    rounds: int = 0
    first: int = 0
    rows: Sequence[str] = ()
    members: Sequence[str] = ()
    edges: Sequence[tuple[int, int, float]] = ()


@dataclass
class _Series:
    """Points of ``stride`` steps each; ``pending`` are steps that do not make a point yet."""

    stride: int = 1
    rows: list[Point] = field(default_factory=list)
    pending: list[Point] = field(default_factory=list)
    thinned: int = 0
    """How many steps there were when points were last joined; whoever knows less has them as they were before."""

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
    """Lines over steps and the evaluations, whether they come one by one or out of a file."""

    def __init__(self) -> None:
        self._series = _Series()
        self._evaluations: list[tuple[int, float, str]] = []
        self.bytes_before = {"sent_bytes": 0.0, "received_bytes": 0.0}
        """What earlier processes of the node sent and received, as far as it was recalled."""

    def add(self, row: Point) -> None:
        """One step."""
        self._series.add(row)

    def note_evaluation(self, ordinal: int, loss: float, when: str) -> None:
        """One measurement of the held-out loss."""
        if math.isfinite(loss):
            self._evaluations.append((ordinal, loss, when))
        if len(self._evaluations) > EVALUATIONS_MAX:
            self._evaluations = self._evaluations[::2]

    def points(self, since: int = 0) -> Points:
        """The points that came after ``since``, or all of them."""
        whole, rows = self._series.since(since)
        columns = {name: [row[name] for row in rows] for name in (*NEWEST, *MEANS)}
        return Points(whole, self._series.end, self._series.stride, columns, tuple(self._evaluations))

    def recall(self, path: Path, bytes_max: int = RECALLED_BYTES_MAX) -> None:
        """Take in what a node wrote down: the end of its metrics. A line that cannot be read, and a file that is not
        there, add nothing."""
        seen = dict.fromkeys(self.bytes_before, 0.0)
        for line in _last_lines(path, bytes_max):
            try:
                self._recall_line(parse(line), seen)
            except UNFIT:
                continue
        self.bytes_before = {key: self.bytes_before[key] + seen[key] for key in seen}

    def _recall_line(self, facts: Mapping[str, Any], seen: dict[str, float]) -> None:
        if facts["kind"] == "eval":
            self.note_evaluation(int(facts["ordinal"]), float(facts["loss"]), str(facts["when"]))
            return
        if facts["kind"] != "step":
            return
        sent = {"sent_bytes": float(facts["bytes_sent"]), "received_bytes": float(facts["bytes_received"])}
        if any(sent[key] < seen[key] for key in sent):
            # Each process counts its bytes from nought.
            self.bytes_before = {key: self.bytes_before[key] + seen[key] for key in sent}
        seen.update(sent)
        row = _row(facts, float(facts["step_seconds"]))
        total = {key: self.bytes_before[key] + sent[key] for key in sent}
        self.add({**row, "ordinal": int(facts["ordinal"]), "time": float(facts["time"]), **total})


def _last_lines(path: Path, bytes_max: int) -> list[bytes]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - bytes_max))
            return file.read(bytes_max).splitlines()
    except OSError:
        return []


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
        """Take in what this node wrote down before this start."""
        self._lines.recall(path)

    def _step(self, done: StepDone) -> None:
        sent, received = done.sent_bytes, done.received_bytes
        before = self._lines.bytes_before
        total = {"sent_bytes": before["sent_bytes"] + sent, "received_bytes": before["received_bytes"] + received}
        row = _row(done.figures, done.seconds)
        self._lines.add({**row, "ordinal": done.ordinal, "time": round(done.time, 1), **total})

    # --- telling ------------------------------------------------------------------------------------

    def points(self, since: int = 0) -> Points:
        """Lines over steps: the points that came after ``since``, or all of them."""
        return self._lines.points(since)

    def map(self) -> RunMap:
        """Which visits are done, and who is joined with whom."""
        members, edges = self._graph()
        if not self._blocks:
            return RunMap(members=members, edges=edges)
        rounds, here = self._node.settings.rounds, self._node.next.activation
        first = max(0, min(here // len(self._blocks) - ROUNDS_SHOWN_MAX // 2, rounds + 1 - ROUNDS_SHOWN_MAX))
        shown = range(first, min(rounds + 1, first + ROUNDS_SHOWN_MAX))
        rows = tuple(self._letters(number, here) for number in shown)
        return RunMap(self._blocks, rounds, first, rows, members, edges)

    def _letters(self, number: int, here: int) -> str:
        """One round's row; within it blocks stand in the model's order, however they are visited."""
        schedule, letters = self._node.schedule, ["."] * len(self._blocks)
        for activation in range(number * len(letters), min(here, (number + 1) * len(letters))):
            done = "e" if activation < self._before else "f" if activation in self._fetched else "d"
            letters[schedule[activation].block] = done
        return "".join(letters)

    def _graph(self) -> tuple[tuple[str, ...], tuple[tuple[int, int, float], ...]]:
        graph, own = self._node.graph(self._node.next.activation), self._node.name
        members = tuple(sorted(graph))
        numbers = {name: number for number, name in enumerate(members)}
        whole = sum(len(near) for near in graph.values()) <= 2 * EDGES_SHOWN_MAX
        return members, tuple(
            (numbers[a], numbers[b], round(metropolis(len(graph[a]), len(graph[b])), 4))
            for a in members
            for b in sorted(graph[a])
            if a < b and (whole or own in {a, b})
        )


def _row(figures: Mapping[str, Any], seconds: float) -> dict[str, float | None]:
    """The means of one point, from the figures and the length of one step."""
    return {**{name: _finite(figures.get(name)) for name in MEANS}, "wait_seconds": waited(figures, seconds)}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _joined(rows: Sequence[Point]) -> Point:
    means = {name: _mean([value for row in rows if (value := row[name]) is not None]) for name in MEANS}
    return {**means, **{name: rows[-1][name] for name in NEWEST}}


def _mean(values: Sequence[float]) -> float | None:
    # Six digits are more than a screen shows; the file of metrics has them all.
    return float(f"{sum(values) / len(values):.6g}") if values else None
