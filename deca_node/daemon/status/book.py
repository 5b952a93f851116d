"""Collects the facts of a node and makes a :class:`~deca_node.daemon.status.facts.Status` of them when asked.

The book watches every event before the node takes it, and every command that the node gives. Other parts of the daemon
know bytes, addresses and round trips; the book asks them at the moment when a status is made.
"""

import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from deca_node import __version__
from deca_node.daemon.status.facts import (
    CheckpointRow,
    Histogram,
    MemberRow,
    PeerRow,
    Position,
    RankRow,
    RelayRow,
    Spread,
    Status,
)
from deca_node.daemon.status.history import History
from deca_node.daemon.status.last_refusals import LastRefusals
from deca_node.daemon.status.lives import FIRST, Life
from deca_node.daemon.status.progress import doing_words
from deca_node.daemon.status.steps import StepDone, Traffic
from deca_node.daemon.status.warnings import Warnings
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.schedule import Ordinal, Step
from deca_node.protocol.node.phases import ENDED, Phase
from deca_node.protocol.node.state import NodeState
from deca_node.protocol.quarantine import Quarantined
from deca_node.protocol.refusals import Problem
from deca_node.protocol.visit.edges import NOTHING
from deca_node.protocol.visit.phases import EdgeState

PACE_SECONDS, PACE_STEPS_MIN, PACE_STEPS_MAX = 60.0, 100, 1000
"""The pace is measured over the last minute, but over at least the last 100 steps and at most the last 1000."""

STEP_SECONDS_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

NOT_READY = frozenset({Phase.LOADING, Phase.GATHERING, Phase.FETCHING, Phase.AWAITING_TURN}) | ENDED
"""Phases in which a node takes no part in the run: it has not joined yet, it is catching up, or it has ended."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Functions that give what the node itself does not know. Each may be left out."""

    addresses: Callable[[], Mapping[str, str]] = dict
    traffic: Callable[[], Traffic] = dict
    """Bytes by peer, and by direction and kind: ``sent.update``, ``received.keyframe``, ..."""
    problems: Callable[[], Mapping[str, Problem]] = dict
    """By peer: why there is no session with it."""
    refusals: Callable[[], Mapping[str, int]] = dict
    """The number of refusals by reason."""
    quarantines: Callable[[], int] = lambda: 0
    quarantined: Callable[[], Mapping[str, Quarantined]] = dict
    """The peers in quarantine."""
    tls_handshakes: Callable[[], int | None] = lambda: None
    tls_callers: Callable[[], int | None] = lambda: None
    rtt: Callable[[], Mapping[str, Spread]] = dict
    members: Callable[[], Sequence[MemberRow]] = tuple
    relay_of: Callable[[], Mapping[str, str]] = dict
    """By peer: the member that relays the connections with it."""
    relayed_with: Callable[[], Mapping[str, int]] = dict
    """By peer: bytes that went through relays."""
    relays: Callable[[], Sequence[RelayRow]] = tuple
    relayed_bytes: Callable[[], int] = lambda: 0
    lag: Callable[[], Spread | None] = lambda: None
    """How late the event loop runs due work."""
    certificate_expires: Callable[[], float | None] = lambda: None
    """In unix seconds; None if the node has no certificate."""
    warning: Callable[[], str] = str
    """A sentence about this machine, for as long as it holds; it comes before the last warning of the log."""
    life: Life = FIRST
    """The start of the node that this process is."""


class StatusBook:
    """The facts of one node. ``clock`` is monotonic, ``wall`` gives unix seconds."""

    def __init__(
        self,
        node: NodeState,
        sources: Sources,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._node = node
        self._sources = sources
        self._clock = clock
        self._wall = wall
        self.history = History(node)
        self._born = clock()
        self._fingerprint = ""
        self._block_names: tuple[str, ...] = ()
        self._devices: tuple[str, ...] = ()
        self._sharded = False
        self._times: deque[tuple[float, Ordinal]] = deque(maxlen=PACE_STEPS_MAX + 1)
        self._step_seconds = Histogram(STEP_SECONDS_BOUNDS, (0,) * len(STEP_SECONDS_BOUNDS))
        self._figures: Mapping[str, float] = {}
        self._loss: float | None = None
        self._heldout: e.Evaluated | None = None
        self._checkpoint = CheckpointRow()
        self._refused: dict[str, str] = {}
        self._last_refusals = LastRefusals(wall)
        self._progress: dict[str, int] = {}
        self._warnings = Warnings()
        self._remark = ""
        self._graph_key: tuple[int, tuple[str, ...], frozenset[str]] | None = None
        self._near: frozenset[str] = frozenset()

    # --- watching -----------------------------------------------------------------------------------

    def observe(self, event: e.Event, done: StepDone | None = None) -> None:
        """Take an event before the node does, and the step that it finishes, if any."""
        self.history.observe(event, done)
        self._last_refusals.observe(event)
        self._warnings.observe(event)
        if done:
            self._step(done)
        match event:
            case e.TrainerReady():
                self._block_names = event.model.block_names
                self._devices, self._sharded = event.devices, event.sharded
                self._times.clear()
            case e.Evaluated():
                self._heldout = event
            case e.Checkpointed() | e.CheckpointFailed():
                self._checkpointed(event)
            case e.Adopted() | e.PauseRequested() | e.ResumeRequested():
                # The time until the next step is not the time of a step.
                self._times.clear()
            case _:
                self._observe_peer(event)

    def perform(self, command: c.Command) -> None:
        """Take a command when it is performed."""
        self._last_refusals.perform(command)
        match command:
            case c.Meet():
                self._fingerprint = command.agreement.fingerprint
            case c.RestartTrainer():
                self._remark = ""
            case c.Report():
                self._warnings.perform(command)

    def _observe_peer(self, event: e.Event) -> None:
        match event:
            case e.PeerUp():
                self._refused.pop(event.peer, None)
                self._progress[event.peer] = event.activation
            case e.PeerDown():
                self._progress.pop(event.peer, None)
            case e.PeerProgress():
                self._progress[event.peer] = event.activation
            case e.PeerRefused():
                self._refused[event.peer] = event.sentence

    def _step(self, done: StepDone) -> None:
        now, ordinal = done.clock, done.ordinal
        if self._times and self._times[-1][1] + 1 == ordinal:
            self._step_seconds = _with(self._step_seconds, now - self._times[-1][0])
        self._times.append((now, ordinal))
        while len(self._times) > PACE_STEPS_MIN + 1 and now - self._times[0][0] > PACE_SECONDS:
            self._times.popleft()
        self._figures = {**done.figures, "wait_seconds": done.wait_seconds}
        # The last steps of a visit only mix, and have no loss.
        self._loss = done.figures.get("loss", self._loss)

    def _checkpointed(self, event: e.Checkpointed | e.CheckpointFailed) -> None:
        failures = self._checkpoint.failures
        if isinstance(event, e.CheckpointFailed):
            self._checkpoint = replace(self._checkpoint, failures=failures + 1, failure=event.sentence)
            return
        at = event.position
        self._checkpoint = CheckpointRow(
            activation=at.activation, step=at.inner, path=event.path, written=self._wall(), failures=failures
        )

    def remark(self, sentence: str) -> None:
        """Take what the trainer says of its work while it loads."""
        self._remark = sentence

    def look(self) -> None:
        """Note refusals that end before the next status is asked for. Call this about every second."""
        self._last_refusals.look(self._sources.problems())

    # --- telling ------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether the node takes part in the run now."""
        return bool(self._fingerprint) and self._node.phase not in NOT_READY

    def status(self) -> Status:
        """The node now."""
        node, figures, position = self._node, self._figures, self._position()
        rate = self._rate()
        peers, life = self._peers(), self._sources.life
        sent = sum(sum(peer.sent_bytes.values()) for peer in peers)
        received = sum(sum(peer.received_bytes.values()) for peer in peers)
        visiting = node.phase is Phase.VISITING and node.visit is not None
        return Status(
            version=__version__,
            time=self._wall(),
            name=node.name,
            run=node.settings.run_name,
            fingerprint=self._fingerprint,
            phase=node.phase.value,
            stage=node.visit.phase.value if visiting and node.visit else "",
            started=bool(self._fingerprint),
            ready=self.ready,
            awaits=node.awaits(),
            doing=doing_words(node, position, self._remark),
            uptime_seconds=self._clock() - self._born,
            position=position,
            steps_per_second=rate,
            remaining_seconds=(position.total - position.done) / rate if position and rate else None,
            train_loss=self._loss,
            heldout_loss=self._heldout.loss if self._heldout else None,
            heldout_when=self._heldout.when if self._heldout else "",
            heldout_accuracy=self._heldout.scalars.get("accuracy") if self._heldout else None,
            heldout_macro_f1=self._heldout.scalars.get("macro_f1") if self._heldout else None,
            consensus_distance=figures.get("consensus_distance"),
            figures=figures,
            ranks=tuple(_rank(number, device, figures) for number, device in enumerate(self._devices)),
            sharded=self._sharded,
            step_seconds=self._step_seconds,
            peers=peers,
            starts=life.number,
            sent_bytes_total=life.sent_before + sent,
            received_bytes_total=life.received_before + received,
            members=Counter(member.state for member in self._sources.members()),
            checkpoint=self._aged(self._checkpoint),
            loop_lag=self._sources.lag(),
            certificate_expires=self._sources.certificate_expires(),
            counters=dict(node.counters),
            refusals=dict(self._sources.refusals()),
            quarantines=self._sources.quarantines(),
            tls_handshakes=self._sources.tls_handshakes(),
            tls_callers=self._sources.tls_callers(),
            relays=tuple(self._sources.relays()),
            relayed_bytes_total=self._sources.relayed_bytes(),
            warning=self._sources.warning() or self._warnings.newest,
            alone=node.alone,
        )

    def _position(self) -> Position | None:
        """The position; None before the model is loaded."""
        if not self._fingerprint:
            return None
        schedule, at = self._node.schedule, self._node.at
        assert at is not None, "the schedule is known"
        last = schedule[len(schedule) - 1]
        if at.activation > last.index:
            at = Step(last.index, last.steps)
        activation = schedule[at.activation]
        return Position(
            round=activation.round + 1,
            rounds=schedule.rounds,
            block=activation.block + 1,
            blocks=schedule.blocks,
            block_name=self._block_names[activation.block],
            step=at.inner,
            steps=activation.steps,
            activation=activation.index,
            activations=len(schedule),
            done=schedule.ordinal(at),
            total=schedule.ordinal(Step(last.index, last.steps)),
        )

    def _rate(self) -> float | None:
        """Steps per second until now, so the rate of a waiting node falls; None if the node does not train."""
        if len(self._times) < 2 or self._node.phase in NOT_READY | {Phase.PAUSED, Phase.STAYING}:
            return None
        (since, first), (_, newest) = self._times[0], self._times[-1]
        seconds = self._clock() - since
        return (newest - first) / seconds if seconds > 0 else None

    def _aged(self, row: CheckpointRow) -> CheckpointRow:
        if row.written is None:
            return row
        return replace(row, age_seconds=max(self._wall() - row.written, 0.0))

    def _peers(self) -> tuple[PeerRow, ...]:
        addresses, traffic = self._sources.addresses(), self._sources.traffic()
        problems, rtt = self._sources.problems(), self._sources.rtt()
        self._last_refusals.look(problems)
        neighbours, quarantined = self._neighbours(), self._sources.quarantined()
        relay_of, relayed_with = self._sources.relay_of(), self._sources.relayed_with()
        said = {member.name: member.state for member in self._sources.members()}
        names = {*addresses, *traffic, *self._node.up, *self._node.members, *self._refused} - {self._node.name}
        return tuple(
            PeerRow(
                name=name,
                address=addresses.get(name, ""),
                state="quarantined" if name in quarantined else self._state(name),
                member=said.get(name, ""),
                neighbour=name in neighbours,
                edge=self._edge(name),
                behind=self._behind(name),
                activation=self._progress.get(name),
                refusal=last.sentence if (last := self._last_refusals.of(name)) else "",
                refused=last.time if last else None,
                rtt=rtt.get(name),
                sent_bytes=_kinds(traffic.get(name, {}), "sent."),
                received_bytes=_kinds(traffic.get(name, {}), "received."),
                why=self._why(name, quarantined, problems),
                quarantined_until=quarantined[name].until if name in quarantined else None,
                relay=relay_of.get(name, ""),
                relayed_bytes=relayed_with.get(name, 0),
            )
            for name in sorted(names)
        )

    def _why(self, peer: str, quarantined: Mapping[str, Quarantined], problems: Mapping[str, Problem]) -> str:
        if peer in quarantined:
            return f"in quarantine {quarantined[peer].why}"
        problem = problems.get(peer)
        return self._refused.get(peer) or (problem.sentence if problem else "")

    def _neighbours(self) -> frozenset[str]:
        """The neighbours in the next activation. The graph is drawn only after a change, because drawing it takes
        milliseconds with hundreds of members."""
        key = (self._node.next.activation, self._node.members, self._node.roster.refused)
        if self._graph_key != key:
            self._graph_key, self._near = key, self._node.graph(key[0])[self._node.name]
        return self._near

    def _state(self, peer: str) -> str:
        if peer in self._node.up:
            return "up"
        return "refused" if peer in self._refused else "down"

    def _edge(self, peer: str) -> str:
        edge = self._node.visit.edges.by_peer.get(peer) if self._node.visit else None
        return edge.state.value if edge else ""

    def _behind(self, peer: str) -> int | None:
        """How many exchanges an open edge is behind this node's own newest update."""
        edges = self._node.visit.edges if self._node.visit else None
        edge = edges.by_peer.get(peer) if edges else None
        if edges is None or edge is None or edge.state is not EdgeState.OPEN or edges.encoded == NOTHING:
            return None
        return edges.behind(edge)


def _with(histogram: Histogram, value: float) -> Histogram:
    first = bisect_left(histogram.bounds, value)
    counts = tuple(count + (i >= first) for i, count in enumerate(histogram.counts))
    return Histogram(histogram.bounds, counts, histogram.count + 1, histogram.sum + value)


def _kinds(traffic: Mapping[str, int], prefix: str) -> dict[str, int]:
    return {kind.removeprefix(prefix): nbytes for kind, nbytes in traffic.items() if kind.startswith(prefix)}


def _rank(number: int, device: str, figures: Mapping[str, float]) -> RankRow:
    peak = figures.get(f"rank.{number}.peak_bytes")
    return RankRow(
        rank=number,
        device=device,
        compute_seconds=figures.get(f"rank.{number}.compute_seconds"),
        peak_bytes=None if peak is None else int(peak),
    )
