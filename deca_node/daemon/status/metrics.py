"""Every number that a node shows, as one table: name, kind, labels, meaning, and how it follows from the status.

Names follow Prometheus' conventions: base units (seconds, bytes), ``_total`` for what only grows until the next start.
Labels take few values: peers of this run, and words that are written in this repository.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from deca_node.daemon.status.facts import PeerRow, Position, Spread, Status

PREFIX = "deca_"

Samples = Iterable[tuple[tuple[str, ...], float]]
"""Values of the labels, in their order, and the number."""


@dataclass(frozen=True)
class Metric:
    """One row: ``kind`` is gauge or counter, ``help`` one sentence. A histogram's samples are made elsewhere."""

    name: str
    kind: str
    help: str
    read: Callable[[Status], Samples] = lambda _: ()
    labels: tuple[str, ...] = ()


def registry(status: Callable[[], Status]) -> CollectorRegistry:
    """All of :data:`METRICS`, read anew at every scrape, beside what the client library tells of the process."""
    made = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=made)
    PlatformCollector(registry=made)
    made.register(_StatusCollector(status))
    return made


def flat(status: Status) -> dict[str, Any]:
    """All of :data:`METRICS` by name: a number, or numbers by the values of the labels, a space between them. What has
    no value is left out. For files; a histogram is its sum and its count there."""
    found: dict[str, Any] = {}
    for metric in METRICS:
        if metric.kind == "histogram":
            seen = status.step_seconds
            found |= {f"{metric.name}_sum": seen.sum, f"{metric.name}_count": seen.count}
        elif samples := [(labels, value) for labels, value in metric.read(status) if math.isfinite(value)]:
            by_labels = {" ".join(labels): value for labels, value in samples}
            found[metric.name] = by_labels if metric.labels else samples[0][1]
    return found


class _StatusCollector(Collector):
    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def collect(self) -> Iterator[Family]:
        status = self._status()
        for metric in METRICS:
            yield _histogram(metric, status) if metric.kind == "histogram" else _family(metric, metric.read(status))


def _family(metric: Metric, samples: Samples) -> Family:
    made = GaugeMetricFamily if metric.kind == "gauge" else CounterMetricFamily
    family: GaugeMetricFamily | CounterMetricFamily = made(metric.name, metric.help, labels=metric.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _histogram(metric: Metric, status: Status) -> Family:
    seen = status.step_seconds
    buckets = [(f"{bound:g}", float(count)) for bound, count in zip(seen.bounds, seen.counts, strict=True)]
    return HistogramMetricFamily(metric.name, metric.help, buckets=[*buckets, ("+Inf", seen.count)], sum_value=seen.sum)


# --- how samples follow from a status ---------------------------------------------------------------


def _one(value: Callable[[Status], float | None]) -> Callable[[Status], Samples]:
    """One sample without labels, or none where there is no value."""

    def read(status: Status) -> Samples:
        found = value(status)
        return [] if found is None else [((), float(found))]

    return read


def _figure(name: str) -> Callable[[Status], Samples]:
    return _one(lambda status: status.figures.get(name))


def _position(value: Callable[[Position], float]) -> Callable[[Status], Samples]:
    return _one(lambda status: None if status.position is None else value(status.position))


def _peers(value: Callable[[PeerRow], float | None]) -> Callable[[Status], Samples]:
    def read(status: Status) -> Samples:
        found = ((peer.name, value(peer)) for peer in status.peers)
        return [((name,), float(number)) for name, number in found if number is not None]

    return read


def _traffic(value: Callable[[PeerRow], Mapping[str, int]]) -> Callable[[Status], Samples]:
    def read(status: Status) -> Samples:
        return [((peer.name, kind), float(n)) for peer in status.peers for kind, n in sorted(value(peer).items())]

    return read


def _by_key(value: Callable[[Status], Mapping[str, int]]) -> Callable[[Status], Samples]:
    return lambda status: [((key,), float(number)) for key, number in sorted(value(status).items())]


def _clipped(status: Status) -> Samples:
    found = ((peer.name, status.figures.get(f"peer.{peer.name}.clipped_share")) for peer in status.peers)
    return [((name,), share) for name, share in found if share is not None]


def _spread(spread: Spread | None, value: Callable[[Spread], float]) -> float | None:
    return None if spread is None else value(spread)


METRICS: tuple[Metric, ...] = (
    Metric(
        "deca_node_info",
        "gauge",
        "Always 1; the labels say which version runs which run.",
        lambda s: [((s.version, s.run, s.fingerprint), 1.0)],
        ("version", "run", "fingerprint"),
    ),
    Metric(
        "deca_phase_info", "gauge", "Always 1; the label is the node's phase.", lambda s: [((s.phase,), 1)], ("phase",)
    ),
    Metric("deca_ready", "gauge", "Whether the node takes part in the run (1) or not (0).", _one(lambda s: s.ready)),
    Metric("deca_uptime_seconds", "gauge", "Since the node's start.", _one(lambda s: s.uptime_seconds)),
    Metric(
        "deca_loop_lag_p50_seconds",
        "gauge",
        "How late the event loop runs what is due: the median over the last while.",
        _one(lambda s: _spread(s.loop_lag, lambda lag: lag.p50)),
    ),
    Metric(
        "deca_loop_lag_p99_seconds",
        "gauge",
        "How late the event loop runs what is due: the 99th percentile over the last while.",
        _one(lambda s: _spread(s.loop_lag, lambda lag: lag.p99)),
    ),
    Metric("deca_run_steps", "gauge", "Steps of the whole run, flush mixes included.", _position(lambda p: p.total)),
    Metric(
        "deca_run_steps_done",
        "gauge",
        "Steps of the run that are done here; fewer after going back to a checkpoint.",
        _position(lambda p: p.done),
    ),
    Metric("deca_rounds", "gauge", "Rounds of the run, without the final flush.", _position(lambda p: p.rounds)),
    Metric(
        "deca_round",
        "gauge",
        "The round being worked on, from 1; rounds + 1 is the flush.",
        _position(lambda p: p.round),
    ),
    Metric("deca_activations", "gauge", "Visits of blocks in the whole run.", _position(lambda p: p.activations)),
    Metric("deca_activation", "gauge", "The visit being worked on, from 0.", _position(lambda p: p.activation)),
    Metric(
        "deca_block_info",
        "gauge",
        "Always 1; the label is the block being worked on.",
        lambda s: [] if s.position is None else [((s.position.block_name,), 1.0)],
        ("block",),
    ),
    Metric(
        "deca_steps_per_second",
        "gauge",
        "Pace over the last minute, or over the last 100 steps where those took longer.",
        _one(lambda s: s.steps_per_second),
    ),
    Metric(
        "deca_remaining_seconds",
        "gauge",
        "Until the run is done, at the present pace; evaluations that come seldom are not foreseen.",
        _one(lambda s: s.remaining_seconds),
    ),
    Metric("deca_step_duration_seconds", "histogram", "From one step's mix to the next one's, waiting included."),
    Metric(
        "deca_train_loss",
        "gauge",
        "Loss of the newest batch, nats per token or labelled record.",
        _one(lambda s: s.train_loss),
    ),
    Metric(
        "deca_heldout_loss",
        "gauge",
        "Held-out loss as last measured, nats per token or labelled record.",
        _one(lambda s: s.heldout_loss),
    ),
    Metric(
        "deca_heldout_accuracy",
        "gauge",
        "Share of the held-out records whose label a classifier found, as last measured.",
        _one(lambda s: s.heldout_accuracy),
    ),
    Metric(
        "deca_heldout_macro_f1",
        "gauge",
        "Mean F1 over the labels that occur in a classifier's held-out records, as last measured.",
        _one(lambda s: s.heldout_macro_f1),
    ),
    Metric(
        "deca_consensus_distance",
        "gauge",
        "RMS distance of the active block's public copy to the mean of its own and its neighbours'.",
        _one(lambda s: s.consensus_distance),
    ),
    Metric(
        "deca_flows_clipped_share",
        "gauge",
        "Share of a peer's newest flows that were clipped, counted by parameter tensor; only under robust = clip.",
        _clipped,
        ("peer",),
    ),
    Metric("deca_learning_rate", "gauge", "Step size of the newest step.", _figure("learning_rate")),
    Metric(
        "deca_privacy_epsilon",
        "gauge",
        "Epsilon of differential privacy spent in this node's folder, the steps of the present visit included; only "
        "under dp_noise.",
        _figure("privacy_epsilon"),
    ),
    Metric("deca_gradient_norm", "gauge", "Norm of the newest gradient.", _figure("grad_norm")),
    Metric(
        "deca_step_compute_seconds",
        "gauge",
        "Forward, backward and Adam of the newest step.",
        _figure("compute_seconds"),
    ),
    Metric("deca_step_encode_seconds", "gauge", "Quantizing the newest update.", _figure("encode_seconds")),
    Metric(
        "deca_step_wait_seconds",
        "gauge",
        "What of the newest step was waiting for neighbours.",
        _figure("wait_seconds"),
    ),
    Metric("deca_step_mix_seconds", "gauge", "Applying the newest flows.", _figure("mix_seconds")),
    Metric(
        "deca_discrepancy_rms",
        "gauge",
        "The discrepancy h: what neighbours' copies add to the gradient, RMS over the active block.",
        _figure("h_rms"),
    ),
    Metric(
        "deca_peer_up",
        "gauge",
        "Whether there is a session with the peer.",
        _peers(lambda p: p.state == "up"),
        ("peer",),
    ),
    Metric(
        "deca_peer_edge_open",
        "gauge",
        "Whether this visit's edge is open.",
        _peers(lambda p: p.edge == "open"),
        ("peer",),
    ),
    Metric(
        "deca_peer_behind_exchanges",
        "gauge",
        "By how many exchanges the peer's updates are behind this node's.",
        _peers(lambda p: p.behind),
        ("peer",),
    ),
    Metric(
        "deca_peer_activation",
        "gauge",
        "The visit that the peer works on, from 0; -1 while it does not train.",
        _peers(lambda p: p.activation),
        ("peer",),
    ),
    Metric(
        "deca_peer_rtt_p50_seconds",
        "gauge",
        "Round trip of a ping, median over the last while.",
        _peers(lambda p: _spread(p.rtt, lambda rtt: rtt.p50)),
        ("peer",),
    ),
    Metric(
        "deca_peer_rtt_p99_seconds",
        "gauge",
        "Round trip of a ping, 99th percentile over the last while.",
        _peers(lambda p: _spread(p.rtt, lambda rtt: rtt.p99)),
        ("peer",),
    ),
    Metric(
        "deca_peer_sent_bytes_total",
        "counter",
        "Sent to the peer, by kind of message, framing included.",
        _traffic(lambda p: p.sent_bytes),
        ("peer", "kind"),
    ),
    Metric(
        "deca_peer_received_bytes_total",
        "counter",
        "Received from the peer, by kind of message, framing included.",
        _traffic(lambda p: p.received_bytes),
        ("peer", "kind"),
    ),
    Metric("deca_members", "gauge", "Members of the run by state.", _by_key(lambda s: s.members), ("state",)),
    Metric(
        "deca_exchange_events_total",
        "counter",
        "What happened to edges, offers and flows, by kind.",
        _by_key(lambda s: s.counters),
        ("kind",),
    ),
    Metric(
        "deca_refusals_total",
        "counter",
        "Messages and callers that were refused, by reason.",
        _by_key(lambda s: s.refusals),
        ("reason",),
    ),
    Metric(
        "deca_quarantines_total",
        "counter",
        "How often a peer was put in quarantine for having broken the rules again and again.",
        _one(lambda s: s.quarantines),
    ),
    Metric(
        "deca_peer_quarantine_end_timestamp_seconds",
        "gauge",
        "Until when the peer is in quarantine, unix time; absent for those that are not.",
        _peers(lambda p: p.quarantined_until),
        ("peer",),
    ),
    Metric(
        "deca_tls_handshakes_total",
        "counter",
        "TLS handshakes that callers began, those that failed included; absent in plaintext.",
        _one(lambda s: s.tls_handshakes),
    ),
    Metric(
        "deca_tls_callers_total",
        "counter",
        "Connections whose caller got through its handshake and said who it is; absent in plaintext.",
        _one(lambda s: s.tls_callers),
    ),
    Metric(
        "deca_checkpoint_timestamp_seconds",
        "gauge",
        "When the newest checkpoint of this process was written, unix time.",
        _one(lambda s: s.checkpoint.written),
    ),
    Metric(
        "deca_checkpoint_failures_total",
        "counter",
        "Checkpoints that could not be written.",
        _one(lambda s: s.checkpoint.failures),
    ),
    Metric(
        "deca_certificate_expiry_timestamp_seconds",
        "gauge",
        "When the node's certificate expires, unix time.",
        _one(lambda s: s.certificate_expires),
    ),
)
