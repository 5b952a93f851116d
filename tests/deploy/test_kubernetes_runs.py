"""One run after the other in a namespace, and certificates that are renewed or come late; the documented steps."""

import os
import re
import stat
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deca_node.daemon.security.certificates import read_secret
from tests.deploy.manifests import OVERLAYS, ROOT, base_files, copy_of_deploy, find, get, render, rendered
from tests.deploy.points import ANOTHER_RUN, FETCH, IDENTITY, NODE, POD, SET, needs_kubectl, waits_for
from tests.e2e.testbed import until
from tests.patience import PATIENCE_SECONDS

DEPLOYMENT = ROOT / "docs" / "DEPLOYMENT.md"

# --- one run after the other -------------------------------------------------------------------------


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_run_is_one_immutable_config_map_and_one_folder(overlay: str) -> None:
    """Kubernetes refuses a changed run.toml under the same name, so it cannot roll into nodes that train."""
    objects = rendered(overlay)
    used = find(get(objects, SET), f"{POD}/volumes/name=run/configMap/name")
    settings = get(objects, f"ConfigMap/{used}")
    assert settings["immutable"] is True
    assert "run.toml" in settings["data"]
    assert find(get(objects, SET), f"{NODE}/env/name=DECA_DIR/value") == f"/var/lib/deca/{used.split('-')[-1]}"


@needs_kubectl
def test_a_changed_run_file_changes_no_pod(tmp_path: Path) -> None:
    changed = copy_of_deploy(tmp_path)
    with (changed / "base" / "run.toml").open("a") as file:
        file.write("seed = 7\n")
    before, after = rendered("cpu"), render(changed / "overlays" / "cpu")
    assert get(before, "ConfigMap/deca-run-first")["data"] != get(after, "ConfigMap/deca-run-first")["data"]
    assert get(before, SET) == get(after, SET)


@needs_kubectl
def test_another_run_keeps_what_the_first_one_has() -> None:
    first, second = rendered("cpu"), rendered(ANOTHER_RUN)
    before, after = ({f"{o['kind']}/{o['metadata']['name']}" for o in objects} for objects in (first, second))
    assert after == before - {"ConfigMap/deca-run-first"} | {"ConfigMap/deca-run-second"}
    assert get(first, SET)["spec"]["volumeClaimTemplates"] == get(second, SET)["spec"]["volumeClaimTemplates"]


def documented(after: str, text: str) -> str:
    """The first indented or fenced block of a document after these words."""
    block = re.search(r"^( *)```\w*\n(.*?)^ *```", text[text.index(after) :], re.MULTILINE | re.DOTALL)
    assert block is not None
    return textwrap.dedent(block[2])


@needs_kubectl
def test_the_documented_overlay_renders(tmp_path: Path) -> None:
    folder = copy_of_deploy(tmp_path) / "overlays" / "ours"
    folder.mkdir()
    (folder / "run.toml").write_text('run_name = "ours"\n')
    (folder / "kustomization.yaml").write_text(documented("**Settings of the run.**", DEPLOYMENT.read_text()))
    objects = render(folder)
    assert get(objects, "ConfigMap/deca-run-first")["data"]["run.toml"] == 'run_name = "ours"\n'
    assert get(objects, "ConfigMap/deca-run-first")["immutable"] is True
    assert get(objects, SET)["spec"]["replicas"] == waits_for(objects) == 6


def test_the_documented_steps_make_the_namespace_first_and_start_last() -> None:
    text = DEPLOYMENT.read_text()
    steps = text[text.index("For a run of your own:") : text.index("**The number of nodes.**")]
    commands = re.findall(r"kubectl .*", steps)
    assert "namespace.yaml" in commands[0]
    assert any("create secret" in command for command in commands[1:-1])
    assert "apply --kustomize" in commands[-1]


def test_a_node_leaves_before_the_set_shrinks() -> None:
    """In one line, because Kubernetes restarts the container that has left."""
    fewer = documented("**Fewer nodes.**", DEPLOYMENT.read_text())
    assert re.search(r"deca-node leave &&\n? *kubectl .* scale statefulset deca --replicas 5$", fewer.strip())


def test_a_lost_machine_is_told_to_kubernetes() -> None:
    """A claim of one machine (ReadWriteOnce) is freed only then, and the pod starts elsewhere."""
    assert "node.kubernetes.io/out-of-service=" in documented("**A lost machine.**", DEPLOYMENT.read_text())


@needs_kubectl
def test_the_hint_about_gpus_is_valid_as_it_is_written(tmp_path: Path) -> None:
    folder = copy_of_deploy(tmp_path)
    patch = folder / "components" / "gpu" / "statefulset.yaml"
    patch.write_text(patch.read_text().replace("# runtimeClassName:", "runtimeClassName:"))
    assert find(get(render(folder / "overlays" / "gpu"), SET), f"{POD}/runtimeClassName") == "nvidia"


@needs_kubectl
def test_the_fetching_pod_mounts_the_claim_of_a_node() -> None:
    (pod,) = rendered(FETCH)
    claim = find(get(rendered("cpu"), SET), "spec/volumeClaimTemplates/0/metadata/name")
    assert find(pod, "spec/volumes/name=node/persistentVolumeClaim/claimName") == f"{claim}-deca-0"
    assert pod["metadata"]["namespace"] == "deca"


@pytest.fixture
def identity(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Starts the identity container's own script for a pod and returns the folder that the node sees. The secret is in
    ``tmp_path / "certificates"``, with the modes that Kubernetes gives files."""
    secret = tmp_path / "certificates"
    secret.mkdir()
    running: list[subprocess.Popen[bytes]] = []

    def start(pod: str) -> Path:
        own = tmp_path / f"{pod}-identity"
        own.mkdir()
        script = find(get(base_files(), SET), f"{IDENTITY}/args/0")
        script = script.replace("/certificates", str(secret)).replace("/identity", str(own))
        script = re.sub(r"pause=\d+", "pause=0.05", script)
        running.append(subprocess.Popen(["/bin/sh", "-euc", script], env={**os.environ, "POD_NAME": pod}))
        return own

    yield start
    for process in running:
        process.terminate()
    assert [process.wait(PATIENCE_SECONDS) for process in running] == [0] * len(running)


def fill(secret: Path, *names: str, content: str = "") -> None:
    for name in names:
        (secret / name).unlink(missing_ok=True)
        (secret / name).write_text(content or name)
        (secret / name).chmod(0o440)


def text_of(file: Path) -> str:
    """The file's content; empty while the script replaces the file."""
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""


def test_a_node_accepts_the_key_that_its_pod_copies(identity: Callable[[str], Path], tmp_path: Path) -> None:
    fill(tmp_path / "certificates", "deca-1.key", "deca-1.crt", "deca-2.key", "ca.crt")
    own = identity("deca-1")
    until((own / "ca.crt").exists, "the pair to be copied")
    assert read_secret(own / "tls.key") == b"deca-1.key"
    assert stat.S_IMODE((own / "tls.key").stat().st_mode) == 0o600
    assert sorted(path.name for path in own.iterdir()) == ["ca.crt", "tls.crt", "tls.key"]


def test_a_renewed_pair_reaches_the_node_while_it_runs(identity: Callable[[str], Path], tmp_path: Path) -> None:
    fill(tmp_path / "certificates", "deca-0.key", "deca-0.crt", "ca.crt")
    own = identity("deca-0")
    until((own / "ca.crt").exists, "the pair to be copied")
    fill(tmp_path / "certificates", "deca-0.key", "deca-0.crt", content="renewed")
    until(lambda: text_of(own / "tls.crt") == "renewed", "the renewed pair to be copied")


def test_a_pod_waits_for_a_pair_that_comes_later(identity: Callable[[str], Path], tmp_path: Path) -> None:
    fill(tmp_path / "certificates", "deca-0.key", "deca-0.crt", "ca.crt")
    own = identity("deca-4")
    first = identity("deca-0")
    until((first / "ca.crt").exists, "the other pod's pair to be copied")
    assert not list(own.iterdir())
    fill(tmp_path / "certificates", "deca-4.crt", "deca-4.key")
    until((own / "ca.crt").exists, "the late pair to be copied")
