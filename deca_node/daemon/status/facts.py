"""The status of a node as plain values, the same for `deca-node status`, /v1/status and /metrics.

A status belongs to one moment. :mod:`deca_node.daemon.status.book` collects it. Times are in seconds, sizes in bytes.
None means that a value is not known, or not yet.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

SOCKET = "admin.sock"
"""The socket in the node's folder through which its owner reaches it (:mod:`deca_node.daemon.web.admin_socket`)."""

FORMAT = 1
"""Raised when a field is removed or changes its meaning. New fields do not raise it."""


class Verb(StrEnum):
    """A request to a running node."""

    PAUSE = "pause"
    RESUME = "resume"
    CHECKPOINT = "checkpoint"
    LEAVE = "leave"
    STOP = "stop"


@dataclass(frozen=True)
class Spread:
    """The recent distribution of a duration, in seconds."""

    p50: float
    p99: float
    max: float


@dataclass(frozen=True)
class Histogram:
    """For each of ``bounds`` the number of values up to it (``counts``); the number of all values, and their sum."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    count: int = 0
    sum: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where the run stands at this node. ``round`` and ``block`` count from 1, and the flush is round ``rounds`` + 1.
    ``step`` is the number of finished steps in this activation, ``done`` in the whole run."""

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

    ``state`` is ``up``, ``down``, ``refused`` or ``quarantined``; a quarantine ends at ``quarantined_until`` (unix
    seconds). ``member`` is its state in the membership: ``alive``, ``suspect``, ``dead`` or ``left``. ``edge`` is the
    state of this activation's edge, empty if there is none. ``behind`` counts exchanges. ``why`` is the reason why the
    peer is not up, or of its refusal.
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
    """The reason of the last refusal, by either side. It stays when the peer is up again."""
    refused: float | None = None
    """The time of that refusal, in unix seconds."""
    rtt: Spread | None = None
    sent_bytes: Mapping[str, int] = field(default_factory=dict)
    received_bytes: Mapping[str, int] = field(default_factory=dict)
    why: str = ""
    quarantined_until: float | None = None
    relay: str = ""
    """The member that relays the connections with the peer; empty if there is none, as for most peers."""
    relayed_bytes: int = 0
    """Bytes that went to the peer and came from it through relays, since the start."""


@dataclass(frozen=True, kw_only=True)
class RelayRow:
    """A pair of members whose connections this node relays now. ``bytes`` counts both directions since the start."""

    pair: tuple[str, str]
    streams: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class MemberRow:
    """One member of the run as the membership knows it.

    ``ready_from`` is the first activation in whose graph the member counts (-1: none yet). If this node has put the
    member in quarantine, ``quarantined_until`` is its end in unix seconds, and ``quarantine`` the reason as a sentence.
    """

    name: str
    address: str
    state: str
    boot: int = 0
    incarnation: int = 0
    ready_from: int = -1
    quarantined_until: float | None = None
    quarantine: str = ""


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One member's progress as it told it, for the view of the whole run from any node.

    ``state`` is its state in the membership. The other fields are its own word, ``age_seconds`` old, that members have
    passed on; they are None or empty where the member does not tell them.
    """

    name: str
    state: str
    own: bool = False
    phase: str = ""
    done: int | None = None
    total: int | None = None
    round: int | None = None
    block: int | None = None
    loss: float | None = None
    heldout_loss: float | None = None
    steps_per_second: float | None = None
    sent_bytes: int | None = None
    received_bytes: int | None = None
    peers_up: int | None = None
    page: str = ""
    """The address of its page as host:port; empty if it has none for others."""
    age_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class CheckpointRow:
    """The newest checkpoint that this process wrote, and its failures to write one. ``activation`` and ``step`` are the
    first that a resumed node would do."""

    activation: int | None = None
    step: int | None = None
    path: str = ""
    written: float | None = None
    age_seconds: float | None = None
    failures: int = 0
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class RankRow:
    """One process of a trainer on several devices. ``compute_seconds`` is the time of its share of the newest step's
    forward and backward passes. ``peak_bytes`` is the most memory that it has used: of its GPU, or of the process if it
    trains on a CPU."""

    rank: int
    device: str
    compute_seconds: float | None = None
    peak_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Status:
    """Everything about one node at ``time`` (unix seconds). ``figures`` belong to the newest step, by name."""

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
    doing: str = ""
    """What the node does now, for people, as in ``training block 4 of 7 (layers.2)``."""
    uptime_seconds: float = 0.0
    position: Position | None = None
    steps_per_second: float | None = None
    remaining_seconds: float | None = None
    train_loss: float | None = None
    """Of the newest step with a gradient."""
    heldout_loss: float | None = None
    heldout_when: str = ""
    heldout_accuracy: float | None = None
    """A share from 0 to 1. This and the next are known for classifiers only."""
    heldout_macro_f1: float | None = None
    consensus_distance: float | None = None
    figures: Mapping[str, float | None] = field(default_factory=dict)
    ranks: tuple[RankRow, ...] = ()
    sharded: bool = False
    """Whether each rank holds a part of the model instead of all of it."""
    """The processes of a trainer on several devices; empty if there is only one."""
    step_seconds: Histogram = Histogram((), ())
    peers: tuple[PeerRow, ...] = ()
    starts: int = 1
    """How often the node was started in its folder, this start included."""
    sent_bytes_total: int = 0
    """Bytes that the node sent to all peers over all of its starts. Those of a peer's row count from this start."""
    received_bytes_total: int = 0
    members: Mapping[str, int] = field(default_factory=dict)
    """The number of members in each state."""
    checkpoint: CheckpointRow = CheckpointRow()
    loop_lag: Spread | None = None
    certificate_expires: float | None = None
    """The end of the node's certificate, in unix seconds."""
    counters: Mapping[str, int] = field(default_factory=dict)
    refusals: Mapping[str, int] = field(default_factory=dict)
    """The number of refusals by reason, since the node's start."""
    quarantines: int = 0
    """The number of quarantines that this node has imposed."""
    tls_handshakes: int | None = None
    """The number of TLS handshakes that callers began; None in plaintext."""
    tls_callers: int | None = None
    """The number of connections that finished the handshake and named their caller; None in plaintext."""
    relays: tuple[RelayRow, ...] = ()
    """The pairs of members whose connections this node relays now."""
    relayed_bytes_total: int = 0
    """Bytes that this node has relayed for others since the start."""
    warning: str = ""
    alone: str = ""
    """Why the tuned model is this node's own and not the others', as a sentence; empty otherwise."""


class NodeAdmin(Protocol):
    """A running node, as its owner sees it and sends it requests."""

    def status(self) -> Status:
        """The node now."""

    def members(self) -> Sequence[MemberRow]:
        """All members that the membership knows, this node included."""

    def run(self) -> Sequence[RunRow]:
        """The progress of all members, as they have told it."""

    async def ask(self, verb: Verb) -> str:
        """Pass a request on; returns a sentence about its effect. Raises DecaError if it would have no effect now."""


def to_json(fact: Any) -> str:
    """A dataclass, or a list of them, as one line of JSON. Infinite numbers and NaN become null."""
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
