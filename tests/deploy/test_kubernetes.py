"""The manifests: strict validity in several versions of Kubernetes, the points that a run depends on, and what must fit
together.

A second test takes each point out and sees that the first one notices.
"""

import re

import kubernetes_validate
import pytest
from click import Context

from deca_node import __version__
from deca_node.cli.verbs.lend import lend
from deca_node.cli.verbs.start import start
from deca_node.daemon.security.certificates import NodeId
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.trainer.lending import counted
from tests.deploy.manifests import (
    DEPLOY,
    OVERLAYS,
    ROOT,
    Object,
    base_files,
    containers,
    find,
    get,
    pods,
    rendered,
    without,
)
from tests.deploy.points import (
    FETCH,
    NODE,
    POD,
    POINTS,
    SET,
    TWO_SERVERS,
    Point,
    by_overlay,
    everything,
    manifests,
    needs_kubectl,
    overlays,
    points,
    waits_for,
)

VERSIONS = ("1.29", "1.31", "1.33", "1.35", "1.37")
"""1.29 is the oldest in which every field that is used means what it does today."""

EXTENSIONS = {"cert-manager.io/v1", "monitoring.coreos.com/v1"}
"""Kinds that an operator defines; the schemas of Kubernetes itself do not know them."""

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


@needs_kubectl
@pytest.mark.parametrize("overlay", [FETCH, TWO_SERVERS, *OVERLAYS])
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
def test_only_the_demo_sets_the_number_of_nodes(overlay: str) -> None:
    """Where a file sets it, `kubectl apply` undoes `kubectl scale`."""
    objects = manifests(overlay)
    assert get(objects, SET)["spec"].get("replicas") == (waits_for(objects) if overlay == "demo" else None)


def test_probes_ask_what_a_node_answers() -> None:
    answered = set(re.findall(r"`(/[a-z0-9]+)`", (ROOT / "docs" / "METRICS.md").read_text()))
    node = find(get(base_files(), SET), NODE)
    asked = {node[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert asked == {"/startupz", "/readyz", "/livez"}
    assert asked <= answered


CERTIFICATES = f"{POD}/volumes/name=certificates/projected/sources"


@needs_kubectl
def test_certificates_carry_the_names_that_nodes_look_for() -> None:
    objects = rendered("cert-manager")
    for ordinal in range(waits_for(objects)):
        wanted = get(objects, f"Certificate/deca-{ordinal}")["spec"]
        node = NodeId.parse(wanted["uris"][0])
        assert node.name == f"deca-{ordinal}"
        assert wanted["dnsNames"] == [node.dns_name, node.any_dns_name]
        secrets = find(get(objects, SET), CERTIFICATES)
        assert wanted["secretName"] in {source["secret"]["name"] for source in secrets}


@needs_kubectl
def test_a_new_node_leaves_the_pod_template_as_it_is() -> None:
    """Its pair is listed before it exists. Another template would restart every node."""
    sources = [source["secret"] for source in find(get(rendered("cert-manager"), SET), CERTIFICATES)]
    pairs = {source["items"][0]["path"]: source for source in sources if source["items"][0]["path"] != "ca.crt"}
    assert set(pairs) == {f"deca-{ordinal}.crt" for ordinal in range(16)}
    for path, source in pairs.items():
        name = path.removesuffix(".crt")
        assert source["name"] == f"{name}-tls"
        assert source["optional"] is True
        assert [item["path"] for item in source["items"]] == [f"{name}.crt", f"{name}.key"]


def test_run_files_load() -> None:
    """Every run.toml here has known settings with allowed values."""
    from deca_node.daemon.settings.sources import load_settings

    files = [*DEPLOY.rglob("run.toml"), *(ROOT / "docker").rglob("run.toml")]
    assert len(files) == 4
    for file in files:
        assert load_settings({}, {}, file, None).run.run_name


def test_help_mentions_every_flag() -> None:
    """The flags are taken from the command's options; this is what `deca-node start --help` prints of them."""
    # click keeps a command's help flags from the first context that asks for them, for all tests of this process.
    text = start.get_help(Context(start, help_option_names=["-h", "--help"]))
    flags, _ = settings_in(base_files())
    assert [flag for flag in flags if flag not in text] == []


@needs_kubectl
def test_ranks_in_another_pod_fit_to_their_node() -> None:
    """Their number, the address, the secret, and who may reach whom."""
    objects = rendered(TWO_SERVERS)
    node = find(get(objects, SET), NODE)
    (lender,) = find(get(objects, "Deployment/deca-lend"), "spec/template/spec/containers")
    env = {variable["name"]: variable.get("value") for variable in node["env"]}
    flags = dict(arg.removeprefix("--").split("=", 1) for arg in lender["args"][1:])
    assert lender["args"][0] == "lend"
    assert {f"--{name}" for name in flags} <= {name for option in lend.params for name in option.opts}
    assert len(counted(flags["devices"])) == int(env["DECA_RANKS_ELSEWHERE"] or 0)
    assert flags["devices"] == f"cuda*{lender['resources']['limits']['nvidia.com/gpu']}"
    assert env["DECA_DEVICES"] == f"cuda*{node['resources']['limits']['nvidia.com/gpu']}"
    assert "DECA_DEVICE" not in env, "it would contradict DECA_DEVICES"
    assert flags["secret"] == env["DECA_RANKS_SECRET"]
    host, port = flags["to"].split(":")
    assert host == "deca-0.deca-peers"
    assert env["DECA_RANKS_AT"] == f"$(POD_IP):{port}"
    NodeSettings(
        devices=env["DECA_DEVICES"] or "", ranks_elsewhere=4, ranks_at=f"10.1.2.3:{port}", ranks_secret="/ranks/secret"
    )
    for policy, other in (("deca-ranks", "deca-lend"), ("deca-lend", "deca-node")):
        admitted = get(objects, f"NetworkPolicy/{policy}")["spec"]["ingress"]
        names = [
            peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"] for each in admitted for peer in each["from"]
        ]
        assert other in names
