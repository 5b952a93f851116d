"""The points in the manifests that a run depends on, each of them a line in a table, and the marks of their tests."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from deca_node import __version__
from tests.deploy.manifests import KUBECTL, MISSING, OVERLAYS, Object, base_files, find, get, rendered

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


RUN_NAMES = {
    f"{POD}/volumes/name=run/configMap/name": "deca-run-first",
    f"{NODE}/env/name=DECA_DIR/value": "/var/lib/deca/first",
}
"""The places that say which run the nodes take part in."""


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
    Point(SET, f"{NODE}/env/name=DECA_WAIT_FOR/value", "4"),
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
    # Renewed certificates reach the node while it runs.
    Point(SET, f"{IDENTITY}/restartPolicy", "Always"),
    Point(SET, f"{IDENTITY}/startupProbe/exec/command"),
    # Probes, each for its own purpose; and an end that leaves time for a checkpoint.
    Point(SET, f"{NODE}/args/--http=0.0.0.0:9640"),
    Point(SET, f"{NODE}/ports/name=http/containerPort", 9640),
    Point(SET, f"{NODE}/startupProbe/httpGet", {"path": "/startupz", "port": "http"}),
    Point(SET, f"{NODE}/readinessProbe/httpGet", {"path": "/readyz", "port": "http"}),
    Point(SET, f"{NODE}/livenessProbe/httpGet", {"path": "/livez", "port": "http"}),
    Point(SET, f"{NODE}/lifecycle/preStop/exec/command", ["deca-node", "stop"]),
    Point(SET, f"{POD}/terminationGracePeriodSeconds", 300),
    Point(SET, f"{NODE}/args/--checkpoint-every=48"),
    Point(SET, f"{NODE}/args/--after-run=stay"),
    # What was trained stays.
    Point(SET, "spec/volumeClaimTemplates/0/spec/resources/requests/storage"),
    Point(SET, "spec/persistentVolumeClaimRetentionPolicy/whenDeleted", "Retain"),
    Point(SET, "spec/persistentVolumeClaimRetentionPolicy/whenScaled", "Retain"),
    Point(SET, f"{NODE}/volumeMounts/name=node/mountPath", "/var/lib/deca"),
    # Every run has its own settings, which never change, and its own folder.
    Point(SET, f"{NODE}/args/--run=~etc~deca~run.toml"),
    Point(SET, f"{NODE}/volumeMounts/name=run/mountPath", "/etc/deca"),
    *(Point(SET, path, value) for path, value in RUN_NAMES.items()),
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
    "ingress": [
        Point("Ingress/deca-page", "spec/rules/0/http/paths/0/backend/service/name", "deca-page"),
        Point("Ingress/deca-page", "spec/tls/0/secretName"),
        Point("Service/deca-page", "spec/selector", {"statefulset.kubernetes.io/pod-name": "deca-0"}),
        Point("Service/deca-page", "spec/ports/name=http/port", 9640),
        Point("NetworkPolicy/deca-page", "spec/ingress/0/ports", [{"protocol": "TCP", "port": 9640}]),
        Point("NetworkPolicy/deca-page", "spec/ingress/0/from"),
        Point(SET, f"{NODE}/env/name=DECA_HTTP_TOKEN/value", "/http-token/token"),
    ],
    "dashboard": [
        Point(SET, f"{NODE}/env/name=DECA_HTTP_TOKEN/value", "/http-token/token"),
        Point(SET, f"{NODE}/volumeMounts/name=http-token/mountPath", "/http-token"),
        Point(SET, f"{POD}/volumes/name=http-token/secret/secretName", "deca-http-token"),
    ],
    "demo": [
        Point(SET, "spec/replicas", 4),
        Point("PersistentVolumeClaim/deca-inputs", "spec/accessModes"),
        Point("Job/deca-inputs", f"{POD}/containers/name=inputs/args/deca-3"),
        Point(SET, f"{POD}/initContainers/name=inputs"),
    ],
}

needs_kubectl = pytest.mark.skipif(KUBECTL is None, reason="kubectl, which renders overlays, is not installed")
overlays = pytest.mark.parametrize(
    "overlay", ["base", *(pytest.param(overlay, marks=needs_kubectl) for overlay in OVERLAYS)]
)


FETCH = "../fetch"
"""A pod by itself, that overlays know nothing of."""

TWO_SERVERS = "../two-servers"
"""A node whose trainer has ranks in another pod."""

ANOTHER_RUN = "second-run"
"""The overlay whose run is not the first one."""

everything = pytest.mark.parametrize(
    "overlay", ["base", *(pytest.param(overlay, marks=needs_kubectl) for overlay in (FETCH, TWO_SERVERS, *OVERLAYS))]
)


def manifests(overlay: str) -> list[Object]:
    return base_files() if overlay == "base" else rendered(overlay)


def points(overlay: str) -> list[Point]:
    another = RUN_NAMES if overlay == ANOTHER_RUN else {}
    renamed = [Point(SET, path, value.replace("first", "second")) for path, value in another.items()]
    return [each for each in POINTS if each.path not in another] + renamed + MORE_POINTS.get(overlay, [])


def waits_for(objects: list[Object]) -> int:
    """The number of nodes that must meet before the run begins."""
    return int(find(get(objects, SET), f"{NODE}/env/name=DECA_WAIT_FOR/value"))


def by_overlay() -> Iterator[Any]:
    """Each point once: in the base, or in the overlay that adds it."""
    yield from (pytest.param("base", point, id=str(point)) for point in POINTS)
    for overlay, added in MORE_POINTS.items():
        yield from (pytest.param(overlay, point, id=f"{overlay}:{point}", marks=needs_kubectl) for point in added)
