"""The Helm chart says the same as the overlays of kustomize, rendered by Helm's own engine."""

import re
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy.manifests import DEPLOY, Object, find, get, rendered
from tests.deploy.points import NODE, POD, SET, needs_kubectl

helm = pytest.importorskip("helm_python.chart", reason="Helm's engine has no wheel for this machine")

CHART = DEPLOY / "helm"
VALUES: dict[str, dict[str, Any]] = {
    "cpu": {},
    "gpu": {"gpu": {"enabled": True}},
    "cert-manager": {"certificates": {"certManager": True}},
    "dashboard": {"dashboard": {"enabled": True}},
    "ingress": {"dashboard": {"enabled": True}, "ingress": {"enabled": True}},
    "monitoring": {"monitoring": {"enabled": True}},
}
"""The values that make each overlay."""


def chart(values: dict[str, Any], namespace: str = "deca") -> list[Object]:
    """All objects of a release."""
    made = helm.Chart.load(CHART).render(values, name="deca", namespace=namespace)
    return [each for text in made.values() for each in yaml.safe_load_all(text) if each]


def comparable(objects: list[Object]) -> dict[str, Any]:
    """Objects by kind and name, in one order, without what only one of both programs says."""
    found = {}
    for each in objects:
        each["metadata"].pop("namespace", None)
        if each["kind"] == "StatefulSet":
            each["spec"].pop("replicas", None)
        if each["kind"] != "Namespace":
            found[f"{each['kind']}/{each['metadata']['name']}"] = in_order(each)
    return found


def in_order(thing: Any) -> Any:
    """Members of a list that have names, sorted by them: their order has no meaning."""
    if isinstance(thing, dict):
        return {key: in_order(value) for key, value in thing.items()}
    if not isinstance(thing, list):
        return thing
    members = [in_order(each) for each in thing]
    named = all(isinstance(each, dict) and isinstance(each.get("name"), str) for each in members)
    return sorted(members, key=lambda each: str(each["name"])) if named else members


@needs_kubectl
@pytest.mark.parametrize("overlay", VALUES)
def test_the_chart_says_what_the_overlay_says(overlay: str) -> None:
    wanted, found = comparable(rendered(overlay)), comparable(chart(VALUES[overlay]))
    assert found.keys() == wanted.keys()
    for name, each in wanted.items():
        assert found[name] == each, name


@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_everything_at_once_is_strictly_valid(version: str) -> None:
    everything: dict[str, Any] = {}
    for values in VALUES.values():
        everything |= values
    for each in chart(everything):
        if not re.match(r"cert-manager|monitoring", each["apiVersion"]):
            kubernetes_validate.validate(each, version, strict=True)


def test_helm_finds_no_fault() -> None:
    report = helm.lint(CHART, strict=True)
    assert report["errors"] == []
    assert [each for each in report["messages"] if each["severity"] > 1] == []


def test_values_reach_their_places() -> None:
    values: dict[str, Any] = {
        "replicas": 6,
        "waitFor": 5,
        "image": {"repository": "registry.example/deca-node"},
        "run": {"name": "second", "settings": 'run_name = "second"\n'},
        "model": "/inputs/other",
        "data": "/inputs/own/$(POD_NAME)",
        "inputsClaim": "others",
        "storage": {"size": "1Ti", "className": "fast"},
        "gpu": {"enabled": True, "runtimeClassName": "nvidia", "tag": "mine"},
        "certificates": {"certManager": True, "count": 6, "federation": "wards.example"},
        "dashboard": {"enabled": True, "tokenSecret": "token"},
        "ingress": {"enabled": True, "host": "page.example", "className": "nginx", "controllerNamespace": "edge"},
        "monitoring": {"enabled": True, "namespace": "watch"},
    }
    objects = chart(values)
    ours = get(objects, SET)
    assert ours["spec"]["replicas"] == 6
    assert find(ours, f"{NODE}/env/name=DECA_WAIT_FOR/value") == "5"
    assert find(ours, f"{NODE}/env/name=DECA_DIR/value") == "/var/lib/deca/second"
    assert find(ours, f"{NODE}/image") == "registry.example/deca-node:mine"
    assert {"--model=/inputs/other", "--data=/inputs/own/$(POD_NAME)"} <= set(find(ours, f"{NODE}/args"))
    assert find(ours, f"{POD}/volumes/name=inputs/persistentVolumeClaim/claimName") == "others"
    assert find(ours, f"{POD}/volumes/name=run/configMap/name") == "deca-run-second"
    assert find(ours, f"{POD}/runtimeClassName") == "nvidia"
    assert find(ours, "spec/volumeClaimTemplates/0/spec/storageClassName") == "fast"
    assert get(objects, "ConfigMap/deca-run-second")["data"]["run.toml"].strip() == 'run_name = "second"'
    wanted = get(objects, "Certificate/deca-5")["spec"]
    assert wanted["uris"] == ["spiffe://wards.example/node/deca-5"]
    assert wanted["dnsNames"][0] == "deca-5.node.wards.example.deca.internal"
    assert get(objects, "Ingress/deca-page")["spec"]["rules"][0]["host"] == "page.example"
    assert "edge" in str(get(objects, "NetworkPolicy/deca-page"))
    assert "watch" in str(get(objects, "NetworkPolicy/deca-metrics"))


def test_the_number_of_nodes_may_be_left_to_others() -> None:
    assert "replicas" not in get(chart({"replicas": None}), SET)["spec"]
    assert get(chart({"replicas": 0}), SET)["spec"]["replicas"] == 0


def test_more_nodes_leave_the_pod_template_as_it_is() -> None:
    """Otherwise Kubernetes would restart every node."""
    few, many = (chart({"replicas": count, "certificates": {"certManager": True, "count": count}}) for count in (4, 6))
    assert get(few, SET)["spec"]["template"] == get(many, SET)["spec"]["template"]
    assert get(many, "Certificate/deca-5")
    assert not get(few, "Certificate/deca-5")


def test_the_page_needs_the_dashboard() -> None:
    with pytest.raises(Exception, match=r"set dashboard\.enabled too"):
        chart({"ingress": {"enabled": True}})


def test_every_overlay_but_the_demo_and_another_run_has_its_values() -> None:
    assert {path.name for path in (DEPLOY / "overlays").iterdir()} == {*VALUES, "demo", "second-run"}
