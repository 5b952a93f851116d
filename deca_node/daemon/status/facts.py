"""What a node says of itself: plain facts, the same for `deca-node status`, for /v1/status and for /metrics.

Everything here is a value at one moment. Who collects the facts is :mod:`deca_node.daemon.status.book`; who shows
them need not ask anybody else. Times are seconds, sizes bytes; None is what is not known (yet).
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

SOCKET = "admin.sock"
"""In the node's folder: where whoever may use the folder reaches the node
(:mod:`deca_node.daemon.web.admin_socket`)."""

FORMAT = 1
"""Raised when a field changes its meaning or goes; new fields alone do not raise it."""


class Verb(StrEnum):
    """What a running node can be asked to do."""

    PAUSE = "pause"
    RESUME = "resume"
    CHECKPOINT = "checkpoint"
    LEAVE = "leave"
    STOP = "stop"


@dataclass(frozen=True)
class Spread:
    """How a duration was spread over the last while, in seconds."""

    p50: float
    p99: float
    max: float


@dataclass(frozen=True)
class Histogram:
    """How many values were at most each of ``bounds``, how many there were in all, and their sum."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    count: int = 0
    sum: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where the run stands here. ``round`` and ``block`` count from 1, as people do, the flush being round
    ``rounds`` + 1; ``step`` is how many steps of this activation are done, ``done`` how many of the whole run."""

    round: int
    rounds: int
    block: int
    blocks: int
    block_name: str
    step: int
    steps: int
    activation: int
    activations: int
    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class PeerRow:
    """One peer as this node sees it.

    ``state`` is ``up``, ``down``, ``refused``, or ``quarantined`` until ``quarantined_until`` (unix seconds);
    ``member`` what the membership says (``alive``, ``suspect``, ``dead``, ``left``); ``edge`` the state of this
    activation's edge, empty where there is none; ``behind`` counts exchanges; ``why`` says what keeps it from being up,
    or what it was last refused for.
    """

    name: str
    address: str = ""
    state: str = "down"
    member: str = ""
    neighbour: bool = False
    edge: str = ""
    behind: int | None = None
    activation: int | None = None
    refusal: str = ""
    """What it was last refused for, or refused this node for; kept when it is up again."""
    refused: float | None = None
    """When that was, in unix seconds."""
    rtt: Spread | None = None
    sent_bytes: Mapping[str, int] = field(default_factory=dict)
    received_bytes: Mapping[str, int] = field(default_factory=dict)
    why: str = ""
    quarantined_until: float | None = None


@dataclass(frozen=True, kw_only=True)
class MemberRow:
    """One member of the run as the membership knows it; ``ready_from`` is the activation from which on it counts
    in the graph (-1: not yet). This node's own streams with it are in quarantine until ``quarantined_until`` (unix
    seconds), and ``quarantine`` says why."""

    name: str
    address: str
    state: str
    boot: int = 0
    incarnation: int = 0
    ready_from: int = -1
    quarantined_until: float | None = None
    quarantine: str = ""


@dataclass(frozen=True, kw_only=True)
class CheckpointRow:
    """The newest checkpoint that this process wrote, and what went wrong; ``activation`` and ``step`` are the next
    to be done from there."""

    activation: int | None = None
    step: int | None = None
    path: str = ""
    written: float | None = None
    age_seconds: float | None = None
    failures: int = 0
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class Status:
    """Everything about one node at ``time`` (unix seconds). ``figures`` are those of the newest step, by name."""

    format: int = FORMAT
    version: str = ""
    time: float
    name: str
    run: str
    fingerprint: str = ""
    phase: str
    stage: str = ""
    started: bool = False
    ready: bool = False
    awaits: str = ""
    uptime_seconds: float = 0.0
    position: Position | None = None
    steps_per_second: float | None = None
    remaining_seconds: float | None = None
    train_loss: float | None = None
    heldout_loss: float | None = None
    heldout_when: str = ""
    heldout_accuracy: float | None = None
    """Of a classifier only, like the next: shares, from 0 to 1."""
    heldout_macro_f1: float | None = None
    consensus_distance: float | None = None
    figures: Mapping[str, float | None] = field(default_factory=dict)
    step_seconds: Histogram = Histogram((), ())
    peers: tuple[PeerRow, ...] = ()
    members: Mapping[str, int] = field(default_factory=dict)
    """How many members are in each state."""
    checkpoint: CheckpointRow = CheckpointRow()
    loop_lag: Spread | None = None
    certificate_expires: float | None = None
    """When the node's certificate does, in unix seconds."""
    counters: Mapping[str, int] = field(default_factory=dict)
    refusals: Mapping[str, int] = field(default_factory=dict)
    """By reason, since the node's start."""
    quarantines: int = 0
    """How often a peer was put in quarantine."""
    tls_handshakes: int | None = None
    """How many callers began one; None in plaintext."""
    tls_callers: int | None = None
    """How many connections got through it, and said who calls."""
    warning: str = ""


class NodeAdmin(Protocol):
    """A running node, as whoever administers it may see and ask it."""

    def status(self) -> Status:
        """The node now."""

    def members(self) -> Sequence[MemberRow]:
        """Everybody whom the membership knows, this node included."""

    async def ask(self, verb: Verb) -> str:
        """Pass a request on; returns a sentence that says what will happen. Raises DecaError where it cannot be."""


def to_json(fact: Any) -> str:
    """A dataclass, or a list of them, on one line of JSON. What is not finite has no place in JSON and becomes null."""
    return json.dumps(_plain(fact), separators=(",", ":"), allow_nan=False)


def _plain(fact: Any) -> Any:
    if dataclasses.is_dataclass(fact):
        return {each.name: _plain(getattr(fact, each.name)) for each in dataclasses.fields(fact)}
    if isinstance(fact, Mapping):
        return {str(key): _plain(value) for key, value in fact.items()}
    if isinstance(fact, list | tuple):
        return [_plain(value) for value in fact]
    if isinstance(fact, float) and not math.isfinite(fact):
        return None
    return fact
