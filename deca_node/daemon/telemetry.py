"""What a node tells: log lines for people, and one JSON line per step and evaluation for everything else."""

import errno
import json
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deca_node.daemon.directory import METRICS
from deca_node.protocol import events as e
from deca_node.protocol.node import Node
from deca_node.protocol.schedule import Step

log = logging.getLogger("deca")

LINE_BYTES_MAX = 1 << 16
"""No line of the metrics is longer."""


class JsonFormatter(logging.Formatter):
    """One JSON object per line, with whatever ``extra={"facts": {...}}`` adds."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        line = {"time": round(record.created, 3), "level": record.levelname.lower(), "message": record.getMessage()}
        return json.dumps(line | getattr(record, "facts", {}), ensure_ascii=False)


def set_up_logging(level: str, form: str, name: str) -> None:
    """Log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter(f"%(asctime)s {name} %(levelname)s %(message)s", "%H:%M:%S")
    handler.setFormatter(JsonFormatter() if form == "json" else text)
    log.handlers[:] = [handler]
    log.setLevel(level.upper())
    log.propagate = False


class Telemetry:
    """Watches the events of one node. Bytes are cumulative since the node's start."""

    def __init__(self, node: Node, directory: Path, traffic: Mapping[str, Counter[str]]) -> None:
        self._node = node
        self._lines = LineFile(directory / METRICS)
        self._traffic = traffic
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
                log.info("peer %s is here", event.peer)
            case e.PeerDown():
                log.warning("peer %s is gone: %s", event.peer, event.sentence)

    def close(self) -> None:
        """End the file."""
        self._lines.close()

    def _step(self, event: e.Mixed) -> None:
        now = time.monotonic()
        half = self._half.pop(event.step)
        where = self._where(event.step)
        figures = {**half, **event.scalars, "step_seconds": now - self._last_step}
        self._last_step = now
        self._write("step", {**where, **figures, **self._bytes(), **self._node.counters})
        loss = f"  loss {half['loss']:.4f}" if "loss" in half else ""
        distance = event.scalars.get("consensus_distance")
        apart = f"  consensus distance {distance:.2e}" if distance is not None else ""
        line = f"{self._place(event.step)}{loss}{apart}"
        log.debug("%s", line, extra={"facts": where})
        self._newest = (line, where)

    def _evaluated(self, event: e.Evaluated) -> None:
        ordinal = 0
        if self._node.visit is not None:
            activation = self._node.visit.activation
            ordinal = self._node.schedule.ordinal(Step(activation.index, max(activation.steps - 1, 0))) + 1
        self._write("eval", {"when": event.when, "loss": event.loss, "tokens": event.tokens, "ordinal": ordinal})
        log.info("held-out loss (%s): %.4f over %d tokens", event.when, event.loss, event.tokens)

    def _visited(self) -> None:
        """A block is done: one line for people, with its last step's figures."""
        if self._newest:
            line, where = self._newest
            log.info("%s", line, extra={"facts": where})
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

    def _write(self, kind: str, facts: Mapping[str, Any]) -> None:
        line = {"time": round(time.time(), 3), "kind": kind, "node": self._node.name, **facts}
        self._lines.append(json.dumps(line))


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
