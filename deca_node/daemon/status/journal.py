"""What a node writes down while it trains: log lines for people, and lines of JSON for everything else.

::

    {"kind": "step", ...}      after every step: its figures, bytes so far, counters
    {"kind": "eval", ...}      after every measurement of the held-out loss
    {"kind": "metrics", ...}   now and then, and at the end: every metric that /metrics has

The same numbers go to TensorBoard, where that is wanted.
"""

import asyncio
import errno
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deca_node.daemon.logs import log, say
from deca_node.daemon.status.facts import Status
from deca_node.daemon.status.metrics import flat
from deca_node.daemon.status.tensorboard import Curves
from deca_node.protocol import events as e
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.node.node import Node
from deca_node.storage.folder import METRICS

LINE_BYTES_MAX = 1 << 20
"""No line of the metrics is longer."""


class Telemetry:
    """Watches the events of one node. Bytes are cumulative since the node's start."""

    def __init__(
        self, node: Node, directory: Path, traffic: Mapping[str, Counter[str]], curves: Curves | None = None
    ) -> None:
        self._node = node
        self._lines = LineFile(directory / METRICS)
        self._traffic = traffic
        self._curves = curves
        self._half: dict[Step, Mapping[str, float]] = {}
        self._newest: tuple[str, dict[str, int]] | None = None
        self._last_step = time.monotonic()

    def observe(self, event: e.Event) -> None:
        """Write down what is worth it."""
        match event:
            case e.HalfStepped():
                self._half[event.step] = event.scalars
            case e.Mixed() if event.step in self._half:
                self._step(event)
            case e.Evaluated():
                self._evaluated(event)
            case e.Frozen():
                self._half.clear()
                self._visited()
            case e.PeerUp():
                say(f"peer {event.peer} is here", peer=event.peer)
            case e.PeerDown():
                say(f"peer {event.peer} is gone: {event.sentence}", "warning", peer=event.peer)

    def sample(self, status: Status) -> None:
        """Write down every metric as it is now."""
        values = flat(status)
        ordinal = status.position.done if status.position else 0
        self._write("metrics", {"ordinal": ordinal, "values": values}, "metrics", values)

    async def sample_every(self, seconds: float, status: Callable[[], Status]) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(seconds)
            self.sample(status())

    def close(self) -> None:
        """End the files."""
        self._lines.close()
        if self._curves:
            self._curves.close()

    def _step(self, event: e.Mixed) -> None:
        now = time.monotonic()
        half = self._half.pop(event.step)
        where = self._where(event.step)
        figures = {**half, **event.scalars, "step_seconds": now - self._last_step}
        self._last_step = now
        self._write("step", {**where, **figures, **self._bytes(), **self._node.counters}, "step", figures)
        loss = f"  loss {half['loss']:.4f}" if "loss" in half else ""
        distance = event.scalars.get("consensus_distance")
        apart = f"  consensus distance {distance:.2e}" if distance is not None else ""
        line = f"{self._place(event.step)}{loss}{apart}"
        # As people count, and as the sentence does.
        facts = {"round": where["round"] + 1, "block": where["block"] + 1, "step": where["inner"] + 1}
        say(line, "debug", facts=facts)
        self._newest = (line, facts)

    def _evaluated(self, event: e.Evaluated) -> None:
        ordinal = 0
        if self._node.visit is not None:
            activation = self._node.visit.activation
            ordinal = self._node.schedule.ordinal(Step(activation.index, max(activation.steps - 1, 0))) + 1
        facts = {"when": event.when, "loss": event.loss, "tokens": event.tokens, "ordinal": ordinal}
        self._write("eval", {**facts, **event.scalars}, "eval", {"loss": event.loss, **event.scalars})
        shares = "".join(f", {name.replace('_', '-')} {value:.3f}" for name, value in event.scalars.items())
        units = "records" if event.scalars else "tokens"
        log.info("held-out loss (%s): %.4f%s over %d %s", event.when, event.loss, shares, event.tokens, units)

    def _visited(self) -> None:
        """A block is done: one line for people, with its last step's figures."""
        if self._newest:
            line, facts = self._newest
            say(line, facts=facts)
            self._newest = None

    def _place(self, step: Step) -> str:
        activation = self._node.schedule[step.activation]
        rounds, blocks = self._node.settings.rounds, self._node.schedule.blocks
        what = f"round {activation.round + 1}/{rounds}" if activation.round < rounds else "final flush"
        return f"{what}  block {activation.block + 1}/{blocks}  step {step.inner + 1}/{activation.steps}"

    def _where(self, step: Step) -> dict[str, int]:
        activation = self._node.schedule[step.activation]
        return {
            "round": activation.round,
            "block": activation.block,
            "inner": step.inner,
            "ordinal": self._node.schedule.ordinal(step),
        }

    def _bytes(self) -> dict[str, int]:
        total: Counter[str] = Counter()
        for traffic in self._traffic.values():
            total.update(traffic)
        return {
            "bytes_sent": sum(n for kind, n in total.items() if kind.startswith("sent.")),
            "bytes_received": sum(n for kind, n in total.items() if kind.startswith("received.")),
        }

    def _write(self, kind: str, facts: Mapping[str, Any], group: str, figures: Mapping[str, Any]) -> None:
        """A line, and what of it is a curve."""
        line = {"time": round(time.time(), 3), "kind": kind, "node": self._node.name, **facts}
        self._lines.append(json.dumps(line))
        if self._curves:
            self._curves.add(group, figures, facts["ordinal"])


class LineFile:
    """A file that only whole lines are added to. A full disk costs lines, and nothing else: training goes on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("a+b", buffering=0)
        self._lost = 0
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(max(0, size - LINE_BYTES_MAX))
        # A crash may have cut the last one short.
        self._file.truncate(size - len(self._file.read().rpartition(b"\n")[2]))

    def append(self, line: str) -> None:
        """Add a line, or count it as lost."""
        data, end = line.encode() + b"\n", self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as problem:
            self._file.truncate(end)
            self._lose(problem)
        else:
            self._recover()

    def close(self) -> None:
        """No more lines."""
        self._file.close()

    def _lose(self, problem: OSError) -> None:
        if not self._lost:
            log.error("nothing can be written to %s: %s; training goes on", self._path, problem.strerror)
        self._lost += 1

    def _recover(self) -> None:
        if self._lost:
            log.warning("%s is written again; lines lost meanwhile: %d", self._path, self._lost)
        self._lost = 0
