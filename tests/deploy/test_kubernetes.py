"""The manifests: strict validity in several versions of Kubernetes, and the points that a run depends on.

Each point is a line in a table, so that a second test can take it out and see that the first one notices.
"""

import os
import re
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from click import Context

from deca_node import __version__
from deca_node.cli.verbs.start import start
from deca_node.daemon.security.certificates import NodeId, read_secret
from deca_node.daemon.settings.node_settings import NodeSettings
from tests.deploy.manifests import (
    DEPLOY,
    KUBECTL,
    MISSING,
    OVERLAYS,
    ROOT,
    Object,
    base_files,
    containers,
    find,
    get,
    pods,
    rendered,
    single,
    without,
)
from tests.patience import PATIENCE_SECONDS

VERSIONS = ("1.29", "1.31", "1.33", "1.35", "1.37")
"""1.29 is the oldest in which every field that is used means what it does today."""

EXTENSIONS = {"cert-manager.io/v1", "monitoring.coreos.com/v1"}
"""Kinds that an operator defines; the schemas of Kubernetes itself do not know them."""

ANY: Any = object()


@dataclass(frozen=True)
class Point:
    """``target`` (KIND/NAME) must have ``value`` at ``path``; ANY is any value but an empty one."""

    target: str
    path: str
    value: Any = ANY

    def holds(self, objects: list[Object]) -> bool:
        """Whether these objects have it."""
        found = find(get(objects, self.target), self.path)
        return bool(found is not MISSING and found) if self.value is ANY else found == self.value

    def __str__(self) -> str:
        return f"{self.target}:{self.path}"


SET = "StatefulSet/deca"
POD = "spec/template/spec"
NODE = f"{POD}/containers/name=node"
IDENTITY = f"{POD}/initContainers/name=identity"
POLICY = "NetworkPolicy/deca-node"
OURS = {"matchLabels": {"app.kubernetes.io/name": "deca-node"}}


def confined(container: str) -> list[Point]:
    """What every container is denied."""
    return [
        Point(SET, f"{container}/securityContext/allowPrivilegeEscalation", False),
        Point(SET, f"{container}/securityContext/readOnlyRootFilesystem", True),
        Point(SET, f"{container}/securityContext/capabilities/drop/ALL", "ALL"),
        Point(SET, f"{container}/resources/requests"),
        Point(SET, f"{container}/resources/limits/memory"),
    ]


POINTS = [
    # All start at once, and find each other before they are ready.
    Point(SET, "spec/podManagementPolicy", "Parallel"),
    Point(SET, "spec/serviceName", "deca-peers"),
    Point("Service/deca-peers", "spec/clusterIP", "None"),
    Point("Service/deca-peers", "spec/publishNotReadyAddresses", True),
    Point("Service/deca-peers", "spec/selector", OURS["matchLabels"]),
    Point("Service/deca-peers", "spec/ports/name=peers/port", 7000),
    Point(SET, f"{NODE}/args/--join=deca-peers:7000"),
    Point(SET, f"{NODE}/args/--advertise=$(POD_NAME).deca-peers:7000"),
    Point(SET, f"{NODE}/args/--listen=0.0.0.0:7000"),
    Point(SET, f"{NODE}/args/--wait-for=4"),
    Point(SET, f"{NODE}/ports/name=peers/containerPort", 7000),
    # Every ordinal has a name and a certificate of its own.
    Point(SET, f"{NODE}/env/name=POD_NAME/valueFrom/fieldRef/fieldPath", "metadata.name"),
    Point(SET, f"{NODE}/args/--name=$(POD_NAME)"),
    Point(SET, f"{NODE}/args/--data=~inputs~data~$(POD_NAME).jsonl"),
    Point(SET, f"{NODE}/args/--tls-cert=~identity~tls.crt"),
    Point(SET, f"{NODE}/args/--tls-key=~identity~tls.key"),
    Point(SET, f"{NODE}/args/--tls-ca=~identity~ca.crt"),
    Point(SET, f"{NODE}/volumeMounts/name=identity/mountPath", "/identity"),
    Point(SET, f"{NODE}/volumeMounts/name=identity/readOnly", True),
    Point(SET, f"{IDENTITY}/env/name=POD_NAME/valueFrom/fieldRef/fieldPath", "metadata.name"),
    Point(SET, f"{IDENTITY}/volumeMounts/name=certificates/mountPath", "/certificates"),
    Point(SET, f"{POD}/volumes/name=identity/emptyDir/medium", "Memory"),
    # Probes, each for its own purpose; and an end that leaves time for a checkpoint.
    Point(SET, f"{NODE}/args/--http=0.0.0.0:9640"),
    Point(SET, f"{NODE}/ports/name=http/containerPort", 9640),
    Point(SET, f"{NODE}/startupProbe/httpGet", {"path": "/startupz", "port": "http"}),
    Point(SET, f"{NODE}/readinessProbe/httpGet", {"path": "/readyz", "port": "http"}),
    Point(SET, f"{NODE}/livenessProbe/httpGet", {"path": "/livez", "port": "http"}),
    Point(SET, f"{NODE}/lifecycle/preStop/exec/command", ["deca-node", "stop", "--dir=/var/lib/deca"]),
    Point(SET, f"{POD}/terminationGracePeriodSeconds", 300),
    Point(SET, f"{NODE}/args/--checkpoint-every=48"),
    Point(SET, f"{NODE}/args/--after-run=stay"),
    # What was trained stays.
    Point(SET, "spec/volumeClaimTemplates/0/spec/resources/requests/storage"),
    Point(SET, "spec/persistentVolumeClaimRetentionPolicy/whenDeleted", "Retain"),
    Point(SET, "spec/persistentVolumeClaimRetentionPolicy/whenScaled", "Retain"),
    Point(SET, f"{NODE}/volumeMounts/name=node/mountPath", "/var/lib/deca"),
    Point(SET, f"{NODE}/args/--dir=~var~lib~deca"),
    # One node at a time goes, and they do not all stand on one machine.
    Point(SET, "spec/updateStrategy/type", "RollingUpdate"),
    Point("PodDisruptionBudget/deca-node", "spec/maxUnavailable", 1),
    Point("PodDisruptionBudget/deca-node", "spec/selector", OURS),
    Point("PodDisruptionBudget/deca-node", "spec/unhealthyPodEvictionPolicy", "AlwaysAllow"),
    Point(SET, f"{POD}/topologySpreadConstraints/topologyKey=kubernetes.io~hostname/labelSelector", OURS),
    Point(SET, f"{POD}/topologySpreadConstraints/topologyKey=topology.kubernetes.io~zone/labelSelector", OURS),
    # Who may talk to whom.
    Point(POLICY, "spec/podSelector", OURS),
    Point(POLICY, "spec/policyTypes/Ingress"),
    Point(POLICY, "spec/policyTypes/Egress"),
    Point(POLICY, "spec/ingress/0/from", [{"podSelector": OURS}]),
    Point(POLICY, "spec/ingress/0/ports", [{"protocol": "TCP", "port": 7000}]),
    Point(POLICY, "spec/egress/0/to", [{"podSelector": OURS}]),
    Point(POLICY, "spec/egress/0/ports", [{"protocol": "TCP", "port": 7000}]),
    Point(POLICY, "spec/egress/1/to"),
    Point(POLICY, "spec/egress/1/ports", [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]),
    # What a pod may do on its machine and in the cluster.
    Point("Namespace/deca", "metadata/labels/pod-security.kubernetes.io~enforce", "restricted"),
    Point("ServiceAccount/deca-node", "automountServiceAccountToken", False),
    Point(SET, f"{POD}/serviceAccountName", "deca-node"),
    Point(SET, f"{POD}/automountServiceAccountToken", False),
    Point(SET, f"{POD}/enableServiceLinks", False),
    Point(SET, f"{POD}/securityContext/runAsNonRoot", True),
    Point(SET, f"{POD}/securityContext/runAsUser", 10001),
    Point(SET, f"{POD}/securityContext/fsGroup", 10001),
    Point(SET, f"{POD}/securityContext/seccompProfile/type", "RuntimeDefault"),
    *confined(NODE),
    *confined(IDENTITY),
]

MORE_POINTS = {
    "gpu": [
        Point(SET, f"{NODE}/resources/limits/nvidia.com~gpu", "1"),
        Point(SET, f"{NODE}/env/name=DECA_DEVICE/value", "cuda"),
        Point(SET, f"{POD}/tolerations/key=nvidia.com~gpu/operator", "Exists"),
        Point(SET, f"{NODE}/image", f"deca-node:{__version__}-cuda"),
    ],
    "cert-manager": [
        *(Point(f"Certificate/deca-{i}", "spec/uris", [f"spiffe://deca.example/node/deca-{i}"]) for i in range(4)),
        *(Point(f"Certificate/deca-{i}", "spec/usages/client auth", "client auth") for i in range(4)),
        *(Point(f"Certificate/deca-{i}", "spec/usages/server auth", "server auth") for i in range(4)),
        *(Point(f"Certificate/deca-{i}", "spec/renewBefore", "720h") for i in range(4)),
        *(Point(f"Certificate/deca-{i}", "spec/issuerRef/name", "deca-authority") for i in range(4)),
        Point("Certificate/deca-authority", "spec/isCA", True),
        Point("Issuer/deca-authority", "spec/ca/secretName", "deca-authority"),
        Point(SET, f"{IDENTITY}/restartPolicy", "Always"),
        Point(SET, f"{IDENTITY}/startupProbe/exec/command"),
    ],
    "monitoring": [
        Point("PodMonitor/deca-node", "spec/selector", OURS),
        Point("PodMonitor/deca-node", "spec/podMetricsEndpoints/port=http/path", "/metrics"),
        Point("PodMonitor/deca-node", "spec/podMetricsEndpoints/port=http/relabelings/targetLabel=node"),
        Point("PrometheusRule/deca-node", "spec/groups/name=deca-node/rules"),
        Point("ConfigMap/deca-dashboard", "metadata/labels/grafana_dashboard", "1"),
        Point("ConfigMap/deca-dashboard", "data/deca-node.json"),
        Point("NetworkPolicy/deca-metrics", "spec/ingress/0/ports", [{"protocol": "TCP", "port": 9640}]),
        Point("NetworkPolicy/deca-metrics", "spec/ingress/0/from"),
    ],
    "dashboard": [
        Point(SET, f"{NODE}/env/name=DECA_HTTP_TOKEN/value", "/http-token/token"),
        Point(SET, f"{NODE}/volumeMounts/name=http-token/mountPath", "/http-token"),
        Point(SET, f"{POD}/volumes/name=http-token/secret/secretName", "deca-http-token"),
    ],
    "demo": [
        Point("PersistentVolumeClaim/deca-inputs", "spec/accessModes"),
        Point("Job/deca-inputs", f"{POD}/containers/name=inputs/args/deca-3"),
        Point(SET, f"{POD}/initContainers/name=inputs"),
    ],
}

needs_kubectl = pytest.mark.skipif(KUBECTL is None, reason="kubectl, which renders overlays, is not installed")
overlays = pytest.mark.parametrize(
    "overlay", ["base", *(pytest.param(overlay, marks=needs_kubectl) for overlay in OVERLAYS)]
)


FETCH = "fetch.yaml"
"""A pod by itself, that overlays know nothing of."""

everything = pytest.mark.parametrize(
    "overlay", ["base", FETCH, *(pytest.param(overlay, marks=needs_kubectl) for overlay in OVERLAYS)]
)


def manifests(overlay: str) -> list[Object]:
    if overlay.endswith(".yaml"):
        return single(overlay)
    return base_files() if overlay == "base" else rendered(overlay)


def points(overlay: str) -> list[Point]:
    return POINTS + MORE_POINTS.get(overlay, [])


def by_overlay() -> Iterator[Any]:
    """Each point once: in the base, or in the overlay that adds it."""
    yield from (pytest.param("base", point, id=str(point)) for point in POINTS)
    for overlay, added in MORE_POINTS.items():
        yield from (pytest.param(overlay, point, id=f"{overlay}:{point}", marks=needs_kubectl) for point in added)


# --- the points, and each of them taken out ----------------------------------------------------------


@overlays
def test_points_hold(overlay: str) -> None:
    objects = manifests(overlay)
    assert [str(point) for point in points(overlay) if not point.holds(objects)] == []


@pytest.mark.parametrize(("overlay", "point"), list(by_overlay()))
def test_a_missing_point_is_noticed(overlay: str, point: Point) -> None:
    assert not point.holds(without(manifests(overlay), point.target, point.path))


def test_a_missing_object_is_noticed() -> None:
    targets = {point.target for point in POINTS}
    for target in targets:
        kind, name = target.split("/")
        rest = [o for o in base_files() if (o["kind"], o["metadata"]["name"]) != (kind, name)]
        assert not all(point.holds(rest) for point in POINTS), target


# --- validity ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@everything
def test_strictly_valid(overlay: str, version: str) -> None:
    """Every field is one that this version of Kubernetes knows, and of the right type."""
    for each in manifests(overlay):
        if each["apiVersion"] not in EXTENSIONS:
            kubernetes_validate.validate(each, version, strict=True)


def test_strictness_is_strict() -> None:
    objects = base_files()
    get(objects, SET)["spec"]["podManagmentPolicy"] = "Parallel"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(get(objects, SET), VERSIONS[-1], strict=True)


# --- what must fit together --------------------------------------------------------------------------


@everything
def test_every_container_is_confined(overlay: str) -> None:
    """Also those that overlays add."""
    for pod in pods(manifests(overlay)):
        assert find(pod, "securityContext/runAsNonRoot") is True
        assert find(pod, "securityContext/seccompProfile/type") == "RuntimeDefault"
        assert pod["automountServiceAccountToken"] is False
    for container in containers(manifests(overlay)):
        allowed = container["securityContext"]
        assert allowed["allowPrivilegeEscalation"] is False
        assert allowed["readOnlyRootFilesystem"] is True
        assert allowed["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"]
        assert container["resources"]["limits"]


@everything
def test_mounts_have_volumes(overlay: str) -> None:
    for pod in pods(manifests(overlay)):
        volumes = {volume["name"] for volume in pod["volumes"]} | {"node"}
        mounted = {
            mount["name"]
            for each in (*pod.get("initContainers", ()), *pod["containers"])
            for mount in each["volumeMounts"]
        }
        assert mounted <= volumes
    one_kind_each = [set(volume) - {"name"} for pod in pods(manifests(overlay)) for volume in pod["volumes"]]
    assert all(len(kinds) == 1 for kinds in one_kind_each)


@pytest.mark.parametrize("overlay", [FETCH, *(pytest.param(overlay, marks=needs_kubectl) for overlay in OVERLAYS)])
def test_images_are_pinned_to_this_version(overlay: str) -> None:
    for container in containers(manifests(overlay)):
        assert re.fullmatch(rf"deca-node:{re.escape(__version__)}-(cpu|cuda)", container["image"])


def settings_in(objects: list[Object]) -> tuple[set[str], set[str]]:
    """Flags and DECA_* variables that are used anywhere."""
    flags = {
        word.partition("=")[0]
        for each in containers(objects)
        for word in each.get("args", ())
        if str(word).startswith("--")
    }
    variables = {
        variable["name"]
        for each in containers(objects)
        for variable in each.get("env", ())
        if variable["name"].startswith("DECA_")
    }
    return flags, variables


@overlays
def test_settings_exist(overlay: str) -> None:
    flags, variables = settings_in(manifests(overlay))
    known = {name for option in start.params for name in option.opts}
    assert flags
    assert flags <= known
    assert variables <= {f"DECA_{name.upper()}" for name in NodeSettings.__dataclass_fields__}


@overlays
def test_as_many_wait_as_there_are(overlay: str) -> None:
    objects = manifests(overlay)
    replicas = get(objects, SET)["spec"]["replicas"]
    assert f"--wait-for={replicas}" in find(get(objects, SET), f"{NODE}/args")


def test_probes_ask_what_a_node_answers() -> None:
    answered = set(re.findall(r"`(/[a-z0-9]+)`", (ROOT / "docs" / "METRICS.md").read_text()))
    node = find(get(base_files(), SET), NODE)
    asked = {node[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert asked == {"/startupz", "/readyz", "/livez"}
    assert asked <= answered


@needs_kubectl
def test_certificates_carry_the_names_that_nodes_look_for() -> None:
    objects = rendered("cert-manager")
    for ordinal in range(get(objects, SET)["spec"]["replicas"]):
        wanted = get(objects, f"Certificate/deca-{ordinal}")["spec"]
        node = NodeId.parse(wanted["uris"][0])
        assert node.name == f"deca-{ordinal}"
        assert wanted["dnsNames"] == [node.dns_name, node.any_dns_name]
        secrets = find(get(objects, SET), f"{POD}/volumes/name=certificates/projected/sources")
        assert wanted["secretName"] in {source["secret"]["name"] for source in secrets}


@pytest.mark.parametrize("file", ["base/statefulset.yaml", "components/cert-manager/statefulset.yaml"])
def test_a_node_accepts_the_key_that_its_pod_copies(file: str, tmp_path: Path) -> None:
    """The identity container's own script, on files with the modes that Kubernetes gives them."""
    import yaml

    script = find(yaml.safe_load((DEPLOY / file).read_text()), f"{IDENTITY}/args/0")
    secret, own = tmp_path / "certificates", tmp_path / "identity"
    secret.mkdir()
    own.mkdir()
    for name in ("deca-1.key", "deca-1.crt", "deca-2.key", "ca.crt"):
        (secret / name).write_text(name)
        (secret / name).chmod(0o440)
    script = script.replace("/certificates", str(secret)).replace("/identity", str(own))
    once = script.replace("sleep 300 & wait", "exit 0; wait")
    subprocess.run(
        ["/bin/sh", "-euc", once], check=True, env={**os.environ, "POD_NAME": "deca-1"}, timeout=PATIENCE_SECONDS
    )
    assert read_secret(own / "tls.key") == b"deca-1.key"
    assert stat.S_IMODE((own / "tls.key").stat().st_mode) == 0o600
    assert sorted(path.name for path in own.iterdir()) == ["ca.crt", "tls.crt", "tls.key"]


def test_run_files_load() -> None:
    """Every run.toml here has known settings with allowed values."""
    from deca_node.daemon.settings.sources import load_settings

    files = [*DEPLOY.rglob("run.toml"), *(ROOT / "docker").rglob("run.toml")]
    assert len(files) == 3
    for file in files:
        assert load_settings({}, {}, file, None).run.run_name


def test_help_mentions_every_flag() -> None:
    """The flags are taken from the command's options; this is what `deca-node start --help` prints of them."""
    # click keeps a command's help flags from the first context that asks for them, for all tests of this process.
    text = start.get_help(Context(start, help_option_names=["-h", "--help"]))
    flags, _ = settings_in(base_files())
    assert [flag for flag in flags if flag not in text] == []
