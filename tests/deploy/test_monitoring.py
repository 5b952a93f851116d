"""Dashboard and alerts: every expression parses, and every metric and label in it is one that nodes have."""

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml

from deca_node.daemon.status.metrics import METRICS
from deca_node.protocol.node.phases import Phase
from tests.deploy.manifests import DEPLOY, ROOT

DASHBOARD = DEPLOY / "components" / "monitoring" / "dashboard.json"
RULE = DEPLOY / "components" / "monitoring" / "alerts.yaml"
OBSERVABILITY = ROOT / "docker" / "observability"

HISTOGRAM_PARTS = ("_bucket", "_sum", "_count")
FROM_PROMETHEUS = {"up"}
"""What every scraped target has."""

LABELS_ADDED = {"node", "job", "le"}
"""By relabelling, by Prometheus, and in histograms."""

RULES: list[dict[str, Any]] = yaml.safe_load(RULE.read_text())["spec"]["groups"][0]["rules"]
ALERTS = {rule["alert"]: rule["expr"] for rule in RULES}
PANELS: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
QUERIES = {f"{panel['title']}:{q['refId']}": q["expr"] for panel in PANELS for q in panel["targets"]}
EXPRESSIONS = ALERTS | QUERIES

expressions = pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)


def selectors(expression: str) -> Iterator[Any]:
    """Every metric that an expression reads, with its matchers. Raises ValueError where it is no PromQL."""
    found: list[Any] = []

    def visit(node: Any) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        return True

    promql_parser.walk(promql_parser.parse(expression), visit, lambda _: True)
    yield from found


def documented() -> set[str]:
    return set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "METRICS.md").read_text(), re.MULTILINE))


def family(name: str) -> str:
    """A histogram's name without the ending of its series."""
    for ending in HISTOGRAM_PARTS:
        if name.endswith(ending) and name.removesuffix(ending) in documented():
            return name.removesuffix(ending)
    return name


@expressions
def test_metrics_exist(expression: str) -> None:
    names = [family(selector.name) for selector in selectors(expression)]
    assert names
    assert set(names) <= documented() | FROM_PROMETHEUS


@expressions
def test_labels_exist(expression: str) -> None:
    labels = {metric.name: set(metric.labels) for metric in METRICS}
    for selector in selectors(expression):
        matched = {matcher.name for matcher in selector.matchers.matchers}
        assert matched <= labels.get(family(selector.name), set()) | LABELS_ADDED


def test_unknown_metrics_are_noticed() -> None:
    (selector,) = selectors("sum(deca_train_losss)")
    assert family(selector.name) not in documented()
    with pytest.raises(ValueError, match="parenthes"):
        list(selectors("sum(deca_train_loss"))


def test_phases_exist() -> None:
    named = set(re.findall(r'phase="([^"]+)"', " ".join(EXPRESSIONS.values())))
    assert named <= {phase.value for phase in Phase}


@pytest.mark.parametrize("rule", RULES, ids=ALERTS)
def test_alerts_say_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert "{{ $labels.node }}" in rule["annotations"]["summary"]
    assert rule["annotations"]["description"].endswith(".")


@pytest.mark.parametrize("rule", RULES, ids=ALERTS)
def test_alerts_keep_the_labels_that_they_name(rule: dict[str, Any]) -> None:
    """An aggregation drops all labels but those that it is told to keep."""
    used = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
    kept = re.search(r"^sum by \(([^)]*)\)", rule["expr"])
    labels = {metric.name: set(metric.labels) for metric in METRICS}
    first = next(selectors(rule["expr"]))
    there = set(kept[1].split(", ")) if kept else labels.get(first.name, set()) | LABELS_ADDED
    assert used <= there


def test_panels_lie_side_by_side() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        fields = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert not fields & taken
        taken |= fields
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


def test_prometheus_scrapes_the_testbed() -> None:
    config = yaml.safe_load((OBSERVABILITY / "prometheus.yaml").read_text())
    (job,) = config["scrape_configs"]
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
    port = compose["north"]["environment"]["DECA_HTTP"].rpartition(":")[2]
    nodes = [name for name, service in compose.items() if service.get("command", [""])[0] == "start"]
    assert job["static_configs"] == [{"targets": [f"{name}:{port}" for name in nodes]}]
    assert job["job_name"] == "deca-node"
    assert [rule["target_label"] for rule in job["relabel_configs"]] == ["node"]


def test_grafana_is_provisioned() -> None:
    """The files that Grafana is told to read lie where the compose file puts them."""
    mounts = yaml.safe_load((ROOT / "docker" / "compose.observability.yaml").read_text())["services"]["grafana"][
        "volumes"
    ]
    targets = {mount["target"]: mount["source"] for mount in mounts}
    assert (ROOT / "docker" / targets["/var/lib/dashboards/deca-node.json"]).resolve() == DASHBOARD
    provider = yaml.safe_load((OBSERVABILITY / "grafana" / "dashboards" / "deca-node.yaml").read_text())["providers"][0]
    assert provider["options"]["path"] == "/var/lib/dashboards"
    (source,) = yaml.safe_load((OBSERVABILITY / "grafana" / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["type"] == "prometheus"
    assert source["url"] == "http://prometheus:9090"
