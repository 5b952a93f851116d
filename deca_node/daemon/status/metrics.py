"""Every metric of a node as one table: name, kind, help, labels, and the value's way from the status.

Names follow Prometheus' conventions: base units (seconds, bytes), and ``_total`` for counters, which start at 0 with
the process. Labels have few values: the peers of this run, and words from this repository.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from deca_node.daemon.status.facts import PeerRow, Position, RankRow, Spread, Status

PREFIX = "deca_"

Samples = Iterable[tuple[tuple[str, ...], float]]
"""The values of the labels, in their order, and the number."""


@dataclass(frozen=True)
class Metric:
    """One row of the table. ``kind`` is gauge, counter or histogram; ``read`` gives the samples of the first two."""

    name: str
    kind: str
    help: str
    read: Callable[[Status], Samples] = lambda _: ()
    labels: tuple[str, ...] = ()


def registry(status: Callable[[], Status]) -> CollectorRegistry:
    """All of :data:`METRICS`, read at every scrape, and the client library's metrics of the process."""
    made = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=made)
    PlatformCollector(registry=made)
    made.register(_StatusCollector(status))
    return made


def flat(status: Status) -> dict[str, Any]:
    """All of :data:`METRICS` by name, for files. A metric is a number, or numbers by the values of its labels with
    spaces between them; a histogram is its sum and its count. Metrics without a value are left out."""
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
    """One sample without labels, or none if there is no value."""

    def read(status: Status) -> Samples:
        found = value(status)
        return [] if found is None else [((), float(found))]

    return read


def _figure(name: str) -> Callable[[Status], Samples]:
    return _one(lambda status: status.figures.get(name))


def _position(value: Callable[[Position], float]) -> Callable[[Status], Samples]:
    return _one(lambda status: None if status.position is None else value(status.position))


def _peers(value: Callable[[PeerRow], float | None]) -> Callable[[Status], Samples]:
    return lambda s: [((peer.name,), float(n)) for peer in s.peers if (n := value(peer)) is not None]


def _ranks(value: Callable[[RankRow], float | None]) -> Callable[[Status], Samples]:
    return lambda s: [((str(r.rank), r.device), float(n)) for r in s.ranks if (n := value(r)) is not None]


def _traffic(value: Callable[[PeerRow], Mapping[str, int]]) -> Callable[[Status], Samples]:
    return lambda s: [((peer.name, kind), float(n)) for peer in s.peers for kind, n in sorted(value(peer).items())]


def _by_key(value: Callable[[Status], Mapping[str, int]]) -> Callable[[Status], Samples]:
    return lambda status: [((key,), float(number)) for key, number in sorted(value(status).items())]


def _clipped(status: Status) -> Samples:
    found = ((peer.name, status.figures.get(f"peer.{peer.name}.clipped_share")) for peer in status.peers)
    return [((name,), share) for name, share in found if share is not None]


def _spread(spread: Spread | None, value: Callable[[Spread], float]) -> float | None:
    return None if spread is None else value(spread)


def _gauge(name: str, text: str, read: Callable[[Status], Samples], labels: tuple[str, ...] = ()) -> Metric:
    return Metric(name, "gauge", text, read, labels)


METRICS: tuple[Metric, ...] = (
    _gauge(
        "deca_node_info",
        "Always 1. The labels are the version, and the run's name and fingerprint.",
        lambda s: [((s.version, s.run, s.fingerprint), 1.0)],
        ("version", "run", "fingerprint"),
    ),
    _gauge("deca_phase_info", "Always 1. The label is the node's phase.", lambda s: [((s.phase,), 1)], ("phase",)),
    _gauge("deca_ready", "Whether the node takes part in the run (1) or not (0).", _one(lambda s: s.ready)),
    _gauge("deca_uptime_seconds", "Time since the node's start.", _one(lambda s: s.uptime_seconds)),
    _gauge(
        "deca_loop_lag_p50_seconds",
        "How late the event loop runs due work: recent median.",
        _one(lambda s: _spread(s.loop_lag, lambda lag: lag.p50)),
    ),
    _gauge(
        "deca_loop_lag_p99_seconds",
        "How late the event loop runs due work: recent 99th percentile.",
        _one(lambda s: _spread(s.loop_lag, lambda lag: lag.p99)),
    ),
    _gauge("deca_run_steps", "Steps of the whole run, flush mixes included.", _position(lambda p: p.total)),
    _gauge(
        "deca_run_steps_done",
        "Steps of the run that this node has done. Lower after it resumed from a checkpoint.",
        _position(lambda p: p.done),
    ),
    _gauge("deca_rounds", "Rounds of the run, without the final flush.", _position(lambda p: p.rounds)),
    _gauge(
        "deca_round",
        "The current round, from 1. The flush is round deca_rounds + 1.",
        _position(lambda p: p.round),
    ),
    _gauge("deca_activations", "Visits of blocks in the whole run.", _position(lambda p: p.activations)),
    _gauge("deca_activation", "The current visit, from 0.", _position(lambda p: p.activation)),
    _gauge(
        "deca_block_info",
        "Always 1. The label is the current block.",
        lambda s: [] if s.position is None else [((s.position.block_name,), 1.0)],
        ("block",),
    ),
    _gauge(
        "deca_steps_per_second",
        "Steps per second over the last minute, or over the last 100 steps if these took longer.",
        _one(lambda s: s.steps_per_second),
    ),
    _gauge(
        "deca_remaining_seconds",
        "Time until the run is complete, at the current pace. Evaluations are not included.",
        _one(lambda s: s.remaining_seconds),
    ),
    Metric(
        "deca_step_duration_seconds", "histogram", "Time from one step's mix to the next step's mix, waiting included."
    ),
    _gauge(
        "deca_train_loss",
        "Loss of the newest batch, in nats per token or per labelled record.",
        _one(lambda s: s.train_loss),
    ),
    _gauge(
        "deca_heldout_loss",
        "Newest held-out loss, in nats per token or per labelled record.",
        _one(lambda s: s.heldout_loss),
    ),
    _gauge(
        "deca_heldout_accuracy",
        "Share of held-out records that a classifier labels correctly, as last measured.",
        _one(lambda s: s.heldout_accuracy),
    ),
    _gauge(
        "deca_heldout_macro_f1",
        "Mean F1 over the labels in a classifier's held-out records, as last measured.",
        _one(lambda s: s.heldout_macro_f1),
    ),
    _gauge(
        "deca_consensus_distance",
        "RMS distance between the active block's public copy and the mean of this node's and its neighbours' copies.",
        _one(lambda s: s.consensus_distance),
    ),
    _gauge(
        "deca_flows_clipped_share",
        "Share of a peer's newest flows that were clipped, counted by parameter tensor. Only with robust = clip.",
        _clipped,
        ("peer",),
    ),
    _gauge("deca_learning_rate", "Step size of the newest step.", _figure("learning_rate")),
    _gauge(
        "deca_privacy_epsilon",
        "Epsilon of differential privacy spent in this node's folder, the current visit included. Only with dp_noise.",
        _figure("privacy_epsilon"),
    ),
    _gauge("deca_gradient_norm", "Norm of the newest gradient.", _figure("grad_norm")),
    _gauge(
        "deca_step_compute_seconds",
        "Time of the newest step's forward pass, backward pass and Adam update.",
        _figure("compute_seconds"),
    ),
    _gauge(
        "deca_rank_compute_seconds",
        "Time of a rank's share of the newest step's forward and backward passes. Only with several devices.",
        _ranks(lambda r: r.compute_seconds),
        ("rank", "device"),
    ),
    _gauge(
        "deca_rank_peak_bytes",
        "Most memory that a rank has used: of its GPU, or of its process on a CPU. Only with several devices.",
        _ranks(lambda r: r.peak_bytes),
        ("rank", "device"),
    ),
    _gauge("deca_step_encode_seconds", "Time to quantize the newest update.", _figure("encode_seconds")),
    _gauge(
        "deca_step_wait_seconds",
        "Time that the newest step waited for neighbours.",
        _figure("wait_seconds"),
    ),
    _gauge("deca_step_mix_seconds", "Time to apply the newest flows.", _figure("mix_seconds")),
    _gauge(
        "deca_discrepancy_rms",
        "RMS of the discrepancy h over the active block: the neighbours' contribution to the gradient.",
        _figure("h_rms"),
    ),
    _gauge(
        "deca_peer_up",
        "Whether there is a session with the peer (1) or not (0).",
        _peers(lambda p: p.state == "up"),
        ("peer",),
    ),
    _gauge(
        "deca_peer_edge_open",
        "Whether the edge to the peer is open in this visit (1) or not (0).",
        _peers(lambda p: p.edge == "open"),
        ("peer",),
    ),
    _gauge(
        "deca_peer_behind_exchanges",
        "How many exchanges the peer's updates are behind this node's.",
        _peers(lambda p: p.behind),
        ("peer",),
    ),
    _gauge(
        "deca_peer_activation",
        "The peer's current visit, from 0; -1 while the peer does not train.",
        _peers(lambda p: p.activation),
        ("peer",),
    ),
    _gauge(
        "deca_peer_rtt_p50_seconds",
        "Round-trip time of a ping to the peer: recent median.",
        _peers(lambda p: _spread(p.rtt, lambda rtt: rtt.p50)),
        ("peer",),
    ),
    _gauge(
        "deca_peer_rtt_p99_seconds",
        "Round-trip time of a ping to the peer: recent 99th percentile.",
        _peers(lambda p: _spread(p.rtt, lambda rtt: rtt.p99)),
        ("peer",),
    ),
    Metric(
        "deca_peer_sent_bytes_total",
        "counter",
        "Bytes sent to the peer, by kind of message, framing included.",
        _traffic(lambda p: p.sent_bytes),
        ("peer", "kind"),
    ),
    Metric(
        "deca_peer_received_bytes_total",
        "counter",
        "Bytes received from the peer, by kind of message, framing included.",
        _traffic(lambda p: p.received_bytes),
        ("peer", "kind"),
    ),
    _gauge(
        "deca_peer_relayed",
        "Whether the connections with the peer go through a member that relays (1) or not (0).",
        _peers(lambda p: bool(p.relay)),
        ("peer",),
    ),
    Metric(
        "deca_peer_relayed_bytes_total",
        "counter",
        "Bytes that went to the peer and came from it through members that relay.",
        _peers(lambda p: p.relayed_bytes),
        ("peer",),
    ),
    _gauge(
        "deca_relayed_pairs",
        "Pairs of other members whose connections this node relays now.",
        lambda s: [((), len(s.relays))],
    ),
    Metric(
        "deca_relayed_bytes_total",
        "counter",
        "Bytes that this node has relayed for others, in both directions together.",
        lambda s: [((), s.relayed_bytes_total)],
    ),
    Metric(
        "deca_sent_bytes_total",
        "counter",
        "Bytes sent to all peers over all starts of the node in its folder.",
        lambda s: [((), s.sent_bytes_total)],
    ),
    Metric(
        "deca_received_bytes_total",
        "counter",
        "Bytes received from all peers over all starts of the node in its folder.",
        lambda s: [((), s.received_bytes_total)],
    ),
    _gauge("deca_members", "Members of the run by state.", _by_key(lambda s: s.members), ("state",)),
    Metric(
        "deca_exchange_events_total",
        "counter",
        "Events of edges, offers and flows, by kind.",
        _by_key(lambda s: s.counters),
        ("kind",),
    ),
    Metric(
        "deca_refusals_total",
        "counter",
        "Refused messages and callers, by reason.",
        _by_key(lambda s: s.refusals),
        ("reason",),
    ),
    Metric(
        "deca_quarantines_total",
        "counter",
        "Quarantines that this node has imposed on peers which broke the rules repeatedly.",
        _one(lambda s: s.quarantines),
    ),
    _gauge(
        "deca_peer_quarantine_end_timestamp_seconds",
        "End of the peer's quarantine in unix time. Absent for peers that are not in quarantine.",
        _peers(lambda p: p.quarantined_until),
        ("peer",),
    ),
    Metric(
        "deca_tls_handshakes_total",
        "counter",
        "TLS handshakes that callers began, failed ones included. Absent in plaintext.",
        _one(lambda s: s.tls_handshakes),
    ),
    Metric(
        "deca_tls_callers_total",
        "counter",
        "Connections whose caller finished the handshake and named itself. Absent in plaintext.",
        _one(lambda s: s.tls_callers),
    ),
    _gauge(
        "deca_checkpoint_timestamp_seconds",
        "Time of this process's newest checkpoint, in unix time.",
        _one(lambda s: s.checkpoint.written),
    ),
    Metric(
        "deca_checkpoint_failures_total",
        "counter",
        "Checkpoints that could not be written.",
        _one(lambda s: s.checkpoint.failures),
    ),
    _gauge(
        "deca_certificate_expiry_timestamp_seconds",
        "End of the node's certificate, in unix time.",
        _one(lambda s: s.certificate_expires),
    ),
)
