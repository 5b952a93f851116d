"""The arithmetic that must hold between the trainers of a cluster, whatever the network does.

A flow adds to one end of an edge what it takes from the other, each in its node's share in the mean. So the sum over
all copies, weighted by the shares, changes only by gradients, by flows that one end has applied and the other has not
yet, and by jumps. A node jumps when it returns to a checkpoint, or takes over work that others did while it was away.
"""

import math
import random
import struct
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.weights import SHARE_ONE, share_of

ELEMENTS = 4
BLOCKS = 2
FRAME_BYTES = 8 * (1 + ELEMENTS)
ROUNDING = 1e-12
"""The largest distance between the two ends of a flow, for numbers of about 1."""

Vector = list[float]


def plus(x: Vector, y: Vector, factor: float = 1.0) -> Vector:
    """x + factor y."""
    return [a + factor * b for a, b in zip(x, y, strict=True)]


def tokens_of(name: str) -> int:
    """The tokens on which a node trains, by its name: from 400 to 2,500."""
    return round(1000 * math.exp(random.Random(f"tokens:{name}").uniform(-0.9, 0.9)))


class Holds(Protocol):
    """The part of a trainer that the audit needs: a copy of every block."""

    name: str
    x: list[Vector]


class HalfFlow(NamedTuple):
    """A flow that one end has applied; ``amount`` is weighted by its share."""

    block: int
    amount: Vector
    activation: int
    ends: tuple[str, str]


@dataclass
class Audit:
    """``start`` is the weighted sum of x over the nodes at the start, by block, and ``drift`` that of all gradients and
    jumps since. ``single`` holds the flows that only one end of an edge has applied, by the serial numbers of both
    frames."""

    settings: RunSettings
    trainers: list[Holds] = field(default_factory=list)
    start: list[Vector] = field(default_factory=lambda: [[0.0] * ELEMENTS for _ in range(BLOCKS)])
    drift: list[Vector] = field(default_factory=lambda: [[0.0] * ELEMENTS for _ in range(BLOCKS)])
    single: dict[tuple[int, int], HalfFlow] = field(default_factory=dict)
    written: list[bytes] = field(default_factory=list)
    """All frames that were ever written. A frame's serial number is its index here, and its first eight bytes."""
    given: dict[str, Vector] = field(default_factory=dict)
    """Blocks that donors have given, by path."""
    codes: dict[int, Any] = field(default_factory=dict)
    """The production codes of frames, by serial number; only in storms with the production exchange."""
    applied: int = 0
    declared: Counter[tuple[int, str, str]] = field(default_factory=Counter)
    """By activation, node and peer, how many flows of a lost edge the node has declared to be uneven at most."""
    _moved: bool = True

    def join(self, trainer: Holds) -> None:
        """Add a node."""
        self.trainers.append(trainer)
        share = self.share(trainer.name)
        self.start = [plus(total, x, share) for total, x in zip(self.start, trainer.x, strict=True)]

    def share(self, name: str) -> float:
        """A node's share in the mean, in times that of an ordinary node."""
        return share_of(self.settings, tokens_of(name)) / SHARE_ONE

    def moved(self, name: str, block: int, by: Vector) -> None:
        """Record that a gradient or a jump has moved one node."""
        self._moved = True
        self.drift[block] = plus(self.drift[block], by, self.share(name))

    def jumped(self, name: str, before: list[Vector], after: list[Vector]) -> None:
        """Record that a node has replaced its copy."""
        for block in range(BLOCKS):
            self.moved(name, block, plus(after[block], before[block], -1.0))

    def frame(self, x: Vector) -> bytes:
        """Make a frame that holds x."""
        data = struct.pack(f"<q{ELEMENTS}d", len(self.written), *x)
        self.written.append(data)
        return data

    def read(self, data: bytes) -> tuple[int, Vector] | None:
        """The serial number and content of a frame, or None if the bytes are not those that its sender wrote."""
        serial, *x = struct.unpack(f"<q{ELEMENTS}d", data)
        sound = 0 <= serial < len(self.written) and self.written[serial] == data
        return (serial, x) if sound else None

    def flowed(self, name: str, flow: HalfFlow, theirs: int, ours: int) -> None:
        """Record that a node has applied a flow. That of the other end must be the opposite, each in its share:
        exactly where shares are equal, and up to rounding elsewhere."""
        self.applied += 1
        share = self.share(name)
        flow = flow._replace(amount=[share * value for value in flow.amount])
        self._moved = True
        key = (min(theirs, ours), max(theirs, ours))
        if key not in self.single:
            self.single[key] = flow
            return
        other, allowed = self.single.pop(key), 0.0 if self.settings.weights == "equal" else ROUNDING
        same = other._replace(amount=[]) == flow._replace(amount=[])
        opposite = all(abs(a + b) <= allowed * max(1.0, abs(a)) for a, b in zip(flow.amount, other.amount, strict=True))
        assert same and opposite, f"the two ends of {flow} differ: {other}"

    def check(self) -> None:
        """Check that the sum over nodes has changed only by gradients, jumps and flows that one end has still to
        apply."""
        if not self._moved:
            return
        self._moved = False
        expected = [plus(start, drift) for start, drift in zip(self.start, self.drift, strict=True)]
        for flow in self.single.values():
            expected[flow.block] = plus(expected[flow.block], flow.amount)
        for block in range(BLOCKS):
            held = [[self.share(t.name) * value for value in t.x[block]] for t in self.trainers]
            found = [sum(column) for column in zip(*held, strict=True)]
            assert all(abs(a - b) < 1e-6 for a, b in zip(found, expected[block], strict=True)), (
                f"the mean of block {block} has moved: {found}, expected {expected[block]}"
            )

    def check_uneven(self, crashed: Collection[str]) -> None:
        """Check that the flows that only one end has applied are over edges that one of their ends has declared lost,
        and no more than one of them has declared."""
        uneven = Counter((flow.activation, flow.ends) for flow in self.single.values())
        for (activation, ends), flows in uneven.items():
            if not set(ends) & set(crashed):
                one, other = ends
                declared = max(self.declared[activation, one, other], self.declared[activation, other, one])
                assert flows <= declared, (
                    f"{flows} flows of {ends} in activation {activation} are uneven, not {declared}"
                )

    def spread(self, names: frozenset[str] | None = None) -> float:
        """The largest distance in any element between two nodes, or between two nodes of ``names``."""
        chosen = [trainer for trainer in self.trainers if names is None or trainer.name in names]
        columns = [column for block in range(BLOCKS) for column in zip(*(t.x[block] for t in chosen), strict=True)]
        return max(max(column) - min(column) for column in columns)
