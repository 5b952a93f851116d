"""Writes the generated files of monitoring; with --check, only says whether they are up to date.

::

    the table below                            -> dashboard.json of deploy/components/monitoring and of deploy/helm
    deploy/components/monitoring/alerts.yaml   -> docker/observability/alerts.yaml

Kubernetes has the alerts inside of a PrometheusRule, and Prometheus itself reads the same groups from a plain file.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
MONITORING = ROOT / "deploy" / "components" / "monitoring"
DASHBOARD = MONITORING / "dashboard.json"
CHART_DASHBOARD = ROOT / "deploy" / "helm" / "dashboard.json"
RULE = MONITORING / "alerts.yaml"
PLAIN_RULES = ROOT / "docker" / "observability" / "alerts.yaml"

SOURCE = {"type": "prometheus", "uid": "${source}"}
NODE = 'node=~"$node"'
WIDTH = 24
"""Columns of a Grafana dashboard."""


@dataclass(frozen=True)
class Panel:
    """``queries`` are (expression, legend) pairs; ``kind``, ``unit``, ``width`` and ``height`` are Grafana's."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    meaning: str = ""
    kind: str = "timeseries"
    width: int = 8
    height: int = 8


PANELS = (
    Panel("Done", "percentunit", (("min(deca_run_steps_done / deca_run_steps)", ""),), kind="gauge", width=4, height=5),
    Panel("Remaining", "s", (("max(deca_remaining_seconds)", ""),), kind="stat", width=4, height=5),
    Panel("Taking part", "none", (("sum(deca_ready)", ""),), "Nodes that are ready.", "stat", 4, 5),
    Panel(
        "Not taking part",
        "none",
        (("count(deca_ready == 0) or vector(0)", ""),),
        "Nodes that load, wait or catch up.",
        "stat",
        4,
        5,
    ),
    Panel("Held-out loss", "none", (("avg(deca_heldout_loss)", ""),), "Nats per token, mean.", "stat", 4, 5),
    Panel(
        "Oldest checkpoint",
        "s",
        (("max(time() - deca_checkpoint_timestamp_seconds)", ""),),
        "The most work that a restart loses.",
        "stat",
        4,
        5,
    ),
    Panel("Loss of the newest batch", "none", ((f"deca_train_loss{{{NODE}}}", "{{node}}"),), "Nats per token."),
    Panel("Held-out loss of each node", "none", ((f"deca_heldout_loss{{{NODE}}}", "{{node}}"),), "Nats per token."),
    Panel(
        "Consensus distance",
        "none",
        ((f"deca_consensus_distance{{{NODE}}}", "{{node}}"),),
        "Distance between the copies of the active block.",
    ),
    Panel("Pace", "none", ((f"deca_steps_per_second{{{NODE}}}", "{{node}}"),), "Steps per second."),
    Panel(
        "A step's time",
        "s",
        (
            ("avg(deca_step_compute_seconds)", "compute"),
            ("avg(deca_step_encode_seconds)", "encode"),
            ("avg(deca_step_mix_seconds)", "mix"),
            (
                "sum(rate(deca_step_duration_seconds_sum[5m])) / sum(rate(deca_step_duration_seconds_count[5m]))",
                "whole step, waiting included",
            ),
        ),
        "Means over the nodes.",
    ),
    Panel(
        "Slow steps (99th percentile)",
        "s",
        ((f"histogram_quantile(0.99, rate(deca_step_duration_seconds_bucket{{{NODE}}}[5m]))", "{{node}}"),),
    ),
    Panel("Sent", "Bps", ((f"sum by (node) (rate(deca_peer_sent_bytes_total{{{NODE}}}[1m]))", "{{node}}"),)),
    Panel("Received", "Bps", ((f"sum by (node) (rate(deca_peer_received_bytes_total{{{NODE}}}[1m]))", "{{node}}"),)),
    Panel(
        "Round trip between peers (99th percentile)",
        "s",
        ((f"deca_peer_rtt_p99_seconds{{{NODE}}}", "{{node}}-{{peer}}"),),
    ),
    Panel("Connections", "none", ((f"sum by (node) (deca_peer_up{{{NODE}}})", "{{node}}"),), "Peers with a session."),
    Panel(
        "Late neighbours",
        "none",
        ((f"deca_peer_behind_exchanges{{{NODE}}} > 0", "{{peer}} as {{node}} sees it"),),
        "Number of exchanges.",
    ),
    Panel(
        "Trouble",
        "none",
        (
            (f"sum by (node, reason) (increase(deca_refusals_total{{{NODE}}}[5m]))", "{{node}} refuses: {{reason}}"),
            (f"increase(deca_checkpoint_failures_total{{{NODE}}}[5m])", "{{node}}: checkpoint failed"),
        ),
    ),
)


def dashboard(panels: Sequence[Panel] = PANELS) -> dict[str, Any]:
    """The dashboard as Grafana's JSON."""
    return {
        "uid": "deca-node",
        "title": "deca-node",
        "tags": ["deca-node"],
        "schemaVersion": 41,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_source_variable(), _node_variable()]},
        "panels": _placed(panels),
    }


def _source_variable() -> dict[str, Any]:
    return {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _node_variable() -> dict[str, Any]:
    return {
        "name": "node",
        "label": "Node",
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": "label_values(deca_ready, node)", "refId": "nodes"},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _placed(panels: Sequence[Panel]) -> list[dict[str, Any]]:
    """Panels from left to right, in rows as high as their first panel."""
    placed: list[dict[str, Any]] = []
    x = y = height = 0
    for number, panel in enumerate(panels, start=1):
        if x + panel.width > WIDTH:
            x, y = 0, y + height
        if x == 0:
            height = panel.height
        placed.append(_panel(panel, number, {"x": x, "y": y, "w": panel.width, "h": panel.height}))
        x += panel.width
    return placed


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit}
    if panel.kind == "gauge":
        defaults |= {"min": 0, "max": 1}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.meaning,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + i), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
            for i, (expression, legend) in enumerate(panel.queries)
        ],
    }


def plain_rules() -> str:
    """The groups of the PrometheusRule as a file for Prometheus."""
    groups = yaml.safe_load(RULE.read_text(encoding="utf-8"))["spec"]
    text: str = yaml.safe_dump(groups, sort_keys=False, width=110, allow_unicode=True)
    return f"# Written by tools/write_monitoring.py from {RULE.relative_to(ROOT)}.\n{text}"


def main(arguments: list[str]) -> int:
    """Write the files, or check them. Returns 1 if one is stale."""
    panels = json.dumps(dashboard(), indent=2) + "\n"
    made = {DASHBOARD: panels, CHART_DASHBOARD: panels, PLAIN_RULES: plain_rules()}
    stale = [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if arguments == ["--check"]:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not what tools/write_monitoring.py writes; run `make docs`")
        return 1 if stale else 0
    for path in stale:
        path.write_text(made[path], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
