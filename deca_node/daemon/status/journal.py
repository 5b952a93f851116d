"""What a node writes down while it trains: lines of JSON in ``metrics.jsonl``, and log lines about peers and losses.

::

    {"kind": "step", ...}      after every step: its figures, bytes so far, counters
    {"kind": "eval", ...}      after every measurement of the held-out loss
    {"kind": "metrics", ...}   every ``metrics_every`` seconds and at the end: every metric that /metrics has

The same numbers go to the trackers that the settings name (:mod:`deca_node.daemon.tracking`).
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from deca_node.daemon.logs import log, say
from deca_node.daemon.status.append_file import AppendFile, cut_torn_line
from deca_node.daemon.status.facts import Status
from deca_node.daemon.status.lives import FIRST, Life
from deca_node.daemon.status.metrics import flat
from deca_node.daemon.status.steps import StepDone, measured_at
from deca_node.protocol import events as e
from deca_node.protocol.node.state import NodeState
from deca_node.storage.folder import METRICS


class Curves(Protocol):
    """A receiver of named numbers over steps."""

    def add(self, group: str, figures: Mapping[str, Any], step: int) -> None:
        """Add numbers at one step. Values of other types are skipped."""

    def close(self) -> None:
        """Close the receiver."""


class Journal:
    """Writes down the events of one node. ``curves`` takes the same numbers."""

    def __init__(self, node: NodeState, directory: Path, curves: Curves | None = None, life: Life = FIRST) -> None:
        self._node = node
        self._lines = AppendFile(directory / METRICS, cut_torn_line)
        self._curves = curves
        self._life = life

    def observe(self, event: e.Event, done: StepDone | None = None) -> None:
        """Take an event before the node does, and the step that it finishes, if any."""
        if done:
            self._step(done)
        match event:
            case e.Evaluated():
                self._evaluated(event)
            case e.PeerUp():
                say(f"peer {event.peer} is here", peer=event.peer)
            case e.PeerDown():
                say(f"peer {event.peer} is gone: {event.sentence}", "warning", peer=event.peer)

    def sample(self, status: Status) -> None:
        """Write down every metric as it is now."""
        values = flat(status)
        ordinal = status.position.done if status.position else 0
        sent = sum(sum(peer.sent_bytes.values()) for peer in status.peers)
        received = sum(sum(peer.received_bytes.values()) for peer in status.peers)
        facts = {"ordinal": ordinal, **self._life.facts(sent, received), "values": values}
        self._write("metrics", facts, "metrics", values)

    async def sample_every(self, seconds: float, status: Callable[[], Status]) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(seconds)
            self.sample(status())

    def close(self) -> None:
        """Close the files."""
        self._lines.close()
        if self._curves:
            self._curves.close()

    def _step(self, done: StepDone) -> None:
        round_, block, inner = done.activation.round, done.activation.block, done.step.inner
        where = {"round": round_, "block": block, "inner": inner, "ordinal": done.ordinal}
        figures = {**done.figures, "step_seconds": done.seconds}
        traffic = done.life.facts(done.sent_bytes, done.received_bytes)
        self._write("step", {**where, **figures, **traffic, **self._node.counters}, "step", figures)
        # Sentences count from 1, and so do the facts beside them.
        line, facts = self._sentence(done), {"round": round_ + 1, "block": block + 1, "step": inner + 1}
        say(line, "debug", facts=facts)

    def _sentence(self, done: StepDone) -> str:
        at, rounds, blocks = done.activation, self._node.schedule.rounds, self._node.schedule.blocks
        what = f"round {at.round + 1}/{rounds}" if at.round < rounds else "final flush"
        loss, distance = done.figures.get("loss"), done.figures.get("consensus_distance")
        figures = "" if loss is None else f"  loss {loss:.4f}"
        figures += "" if distance is None else f"  consensus distance {distance:.2e}"
        return f"{what}  block {at.block + 1}/{blocks}  step {done.step.inner + 1}/{at.steps}{figures}"

    def _evaluated(self, event: e.Evaluated) -> None:
        facts = {"when": event.when, "loss": event.loss, "tokens": event.tokens, "ordinal": measured_at(self._node)}
        self._write("eval", {**facts, **event.scalars}, "eval", {"loss": event.loss, **event.scalars})
        shares = "".join(f", {name.replace('_', '-')} {value:.3f}" for name, value in event.scalars.items())
        units = "records" if event.scalars else "tokens"
        log.info("held-out loss (%s): %.4f%s over %d %s", event.when, event.loss, shares, event.tokens, units)

    def _write(self, kind: str, facts: Mapping[str, Any], group: str, figures: Mapping[str, Any]) -> None:
        """A line of ``facts``, and ``figures`` as points of curves."""
        line = {"time": round(time.time(), 3), "kind": kind, "node": self._node.name, **facts}
        self._lines.write(json.dumps(line).encode() + b"\n")
        if self._curves:
            self._curves.add(group, figures, facts["ordinal"])
