"""Metrics keep Prometheus' rules, agree with the status, and are all in docs/METRICS.md."""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

from deca_node.daemon.status.facts import PeerRow, RankRow, Status
from deca_node.daemon.status.history import MEANS, NEWEST
from deca_node.daemon.status.metrics import METRICS, Metric, flat, registry
from tests.daemon.web.fake_admin import STATUS

ROOT = Path(__file__).resolve().parents[3]
LABELS = {"peer", "kind", "reason", "block", "state", "phase", "version", "run", "fingerprint"} | {"rank", "device"}
NOT_BASE_UNITS = ("_ms", "_milliseconds", "_minutes", "_hours", "_kib", "_mib", "_kilobytes", "_percent")
EMPTY = Status(time=0.0, name="north", run="wards", phase="loading")


def scraped(status: Status) -> dict[str, Family]:
    text = generate_latest(registry(lambda: status)).decode()
    return {family.name: family for family in plain_text(text) if family.name.startswith("deca_")}


def value(families: Iterable[Family], sample: str, **labels: str) -> float:
    (found,) = (s.value for family in families for s in family.samples if (s.name, s.labels) == (sample, labels))
    return float(found)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_labels_and_help_keep_the_rules(metric: Metric) -> None:
    """The rules of ``promtool check metrics``, and our own on labels."""
    assert re.fullmatch(r"deca_[a-z][a-z0-9_]*", metric.name)
    assert (metric.kind == "counter") == metric.name.endswith("_total")
    assert metric.kind in ("gauge", "counter", "histogram") and metric.kind not in metric.name.split("_")
    assert not metric.name.removesuffix("_total").endswith((*NOT_BASE_UNITS, "_count", "_sum", "_bucket"))
    assert set(metric.labels) <= LABELS
    assert re.fullmatch(r"[A-Z].*\.", metric.help) and "|" not in metric.help and "\n" not in metric.help


def test_names_are_unique() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("status", [STATUS, EMPTY], ids=["in the middle", "at the start"])
def test_all_metrics_are_there_with_their_type_and_help(status: Status) -> None:
    found = scraped(status)
    for metric in METRICS:
        family = found[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        assert all(sample.labels.keys() - {"le"} == set(metric.labels) for sample in family.samples)


def test_the_stricter_format_is_kept_as_well() -> None:
    text = generate_openmetrics(registry(lambda: STATUS)).decode()
    assert {family.name for family in openmetrics(text)} >= {metric.name.removesuffix("_total") for metric in METRICS}


def test_numbers_are_those_of_the_status() -> None:
    found = scraped(STATUS).values()
    assert value(found, "deca_run_steps_done") == 1417
    assert value(found, "deca_ready") == 1
    assert value(found, "deca_loop_lag_p99_seconds") == 0.0011
    assert value(found, "deca_peer_rtt_p50_seconds", peer="south") == 0.0012
    assert value(found, "deca_peer_up", peer="west") == 0
    assert value(found, "deca_peer_sent_bytes_total", peer="south", kind="update") == 5 * 2**20
    assert value(found, "deca_refusals_total", reason="mismatch") == 2
    assert value(found, "deca_members", state="suspect") == 1
    assert value(found, "deca_learning_rate") == 5e-5
    assert value(found, "deca_block_info", block="layers.1") == 1
    assert value(found, "deca_step_duration_seconds_bucket", le="0.5") == 3
    assert value(found, "deca_step_duration_seconds_bucket", le="+Inf") == 6
    assert value(found, "deca_step_duration_seconds_sum") == 4.5


def test_unknown_values_have_no_sample() -> None:
    found = scraped(EMPTY)
    for name in ("deca_train_loss", "deca_run_steps", "deca_loop_lag_p50_seconds", "deca_block_info", "deca_peer_up"):
        assert found[name].samples == []


def test_names_from_elsewhere_are_escaped() -> None:
    odd = 'a"b\\c\nd'
    status = Status(time=0.0, name="north", run="wards", phase="loading", peers=(PeerRow(name=odd, state="up"),))
    assert value(scraped(status).values(), "deca_peer_up", peer=odd) == 1


def test_a_file_gets_the_same_numbers() -> None:
    """All samples, with the values of their labels."""
    found = flat(STATUS)
    families = scraped(STATUS)
    for metric in METRICS:
        samples = families[metric.name.removesuffix("_total")].samples
        if metric.kind == "histogram":
            assert (found[f"{metric.name}_sum"], found[f"{metric.name}_count"]) == (4.5, 6)
        elif finite := [sample for sample in samples if math.isfinite(sample.value)]:
            by_labels = {" ".join(sample.labels[label] for label in metric.labels): sample.value for sample in finite}
            assert found[metric.name] == (by_labels if metric.labels else finite[0].value)
        else:
            assert metric.name not in found
    assert found["deca_peer_sent_bytes_total"]["south update"] == 5 * 2**20
    assert json.loads(json.dumps(found, allow_nan=False)) == found


LINES_OF_THE_PAGE = {
    "loss": "deca_train_loss",
    "consensus_distance": "deca_consensus_distance",
    "h_rms": "deca_discrepancy_rms",
    "compute_seconds": "deca_step_compute_seconds",
    "encode_seconds": "deca_step_encode_seconds",
    "wait_seconds": "deca_step_wait_seconds",
    "mix_seconds": "deca_step_mix_seconds",
    "sent_bytes": "deca_peer_sent_bytes_total",
    "received_bytes": "deca_peer_received_bytes_total",
}
FACTS_OF_THE_PAGE = {
    "train_loss": "deca_train_loss",
    "heldout_loss": "deca_heldout_loss",
    "heldout_accuracy": "deca_heldout_accuracy",
    "heldout_macro_f1": "deca_heldout_macro_f1",
    "consensus_distance": "deca_consensus_distance",
    "steps_per_second": "deca_steps_per_second",
    "remaining_seconds": "deca_remaining_seconds",
    "checkpoint": "deca_checkpoint_timestamp_seconds",
    "ranks": "deca_rank_compute_seconds",
    "peers": "deca_peer_up",
    "sent_bytes_total": "deca_sent_bytes_total",
    "relayed_bytes_total": "deca_relayed_bytes_total",
}
"""The field of the status that a tile of the page reads, and the metric with the same value."""
PEERS_OF_THE_PAGE = {
    "state": "deca_peer_up",
    "edge": "deca_peer_edge_open",
    "behind": "deca_peer_behind_exchanges",
    "activation": "deca_peer_activation",
    "relay": "deca_peer_relayed",
    "rtt": "deca_peer_rtt_p50_seconds",
    "sent_bytes": "deca_peer_sent_bytes_total",
    "received_bytes": "deca_peer_received_bytes_total",
}
WORDS_OF_THE_PAGE = {"name", "address", "why", "neighbour"}
WORDS_OF_THE_TILES = {"sharded"}


def test_every_number_of_the_nodes_page_is_a_metric() -> None:
    page = (ROOT / "deca_node" / "daemon" / "web" / "dashboard.js").read_text()
    tiles = page.partition("function tellTiles(s) {")[2].partition("const list")[0]
    columns = page.partition("const COLUMNS = [")[2].partition("];")[0]
    assert set(LINES_OF_THE_PAGE) == {*MEANS, *NEWEST} - {"ordinal", "time"}
    assert set(FACTS_OF_THE_PAGE) == set(re.findall(r"\bs\.(\w+)", tiles)) - WORDS_OF_THE_TILES
    assert set(PEERS_OF_THE_PAGE) == set(re.findall(r"\bp\.(\w+)", columns)) - WORDS_OF_THE_PAGE
    named = {*LINES_OF_THE_PAGE.values(), *FACTS_OF_THE_PAGE.values(), *PEERS_OF_THE_PAGE.values()}
    assert named <= {metric.name for metric in METRICS}


def test_ranks_have_samples_if_there_are_several() -> None:
    rows = (RankRow(rank=0, device="cpu", compute_seconds=0.5, peak_bytes=3), RankRow(rank=1, device="cpu"))
    found = scraped(replace(EMPTY, ranks=rows))
    assert [(s.labels, s.value) for s in found["deca_rank_peak_bytes"].samples] == [({"rank": "0", "device": "cpu"}, 3)]
    assert scraped(EMPTY)["deca_rank_compute_seconds"].samples == []


def test_shares_of_clipped_flows_and_the_cost_of_privacy_have_metrics_if_they_are_known() -> None:
    peers = (PeerRow(name="south"), PeerRow(name="west"))
    figures = {"peer.south.clipped_share": 0.25, "peer.unknown.clipped_share": 1.0, "privacy_epsilon": 1.5}
    families = scraped(replace(EMPTY, peers=peers, figures={**figures, "privacy_delta": 1e-5})).values()
    assert value(families, "deca_flows_clipped_share", peer="south") == 0.25
    assert value(families, "deca_privacy_epsilon") == 1.5
    assert not scraped(EMPTY)["deca_privacy_epsilon"].samples
