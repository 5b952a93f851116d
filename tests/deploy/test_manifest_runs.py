"""The StatefulSet's own arguments, scripts, probes and preStop, carried out by processes of this machine.

Two pods instead of four; what differs from a cluster is where addresses and volumes lie, and nothing else.
"""

import datetime as dt
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

import pytest
import yaml

from deca_node.cli.main import main
from deca_node.daemon.security import authority, enrolment
from deca_node.daemon.security.certificates import NodeId, fingerprint_of
from deca_node.lab.rigs.processes import LOOPBACK, LocalNodes, NodeProcess, free_ports
from tests.deploy.manifests import DEPLOY, Object
from tests.e2e.testbed import Testbed, make_tiny_model, until
from tests.patience import PATIENCE_SECONDS

PODS = ("deca-0", "deca-1")
POD: Object = yaml.safe_load((DEPLOY / "base" / "statefulset.yaml").read_text())["spec"]["template"]["spec"]
NODE: Object = POD["containers"][0]
RUN = 'rounds = 1\ninner_steps = 4\nsequence_length = 16\nbatch_size = 2\ntopology = "full"\n'


def variable(name: str) -> str:
    """The value of a variable of the node's container."""
    return next(str(each["value"]) for each in NODE["env"] if each["name"] == name)


ENVIRONMENT = {"DECA_THREADS": "1", "DECA_WAIT_FOR": str(len(PODS))}
"""The variables that differ from the manifest's."""


@dataclass
class Pods:
    """The pods' volumes below ``folder``, their processes, and the ports that stand for their addresses."""

    folder: Path
    nodes: LocalNodes
    peers: dict[str, int]
    http: dict[str, int]
    identities: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def here(self, text: str, name: str) -> str:
        """A text of the manifest, for this machine."""
        everybody = ",".join(f"{LOOPBACK}:{port}" for port in self.peers.values())
        own = f"{LOOPBACK}:{self.peers[name]}"
        meanings = {
            "$(POD_NAME)": name,
            f"{name}.deca-peers:7000": own,
            "0.0.0.0:7000": own,
            "deca-peers:7000": everybody,
            "0.0.0.0:9640": f"{LOOPBACK}:{self.http[name]}",
            "--wait-for=4": f"--wait-for={len(PODS)}",
            "/etc/deca/": f"{self.folder}/",
            "/inputs/": f"{self.folder}/inputs/",
            "/var/lib/deca": f"{self.folder}/{name}",
            "/identity/": f"{self.folder}/{name}-identity/",
            "/certificates/": f"{self.folder}/certificates/",
        }
        for written, meant in meanings.items():
            text = text.replace(written, meant)
        return text

    def start(self, name: str) -> NodeProcess:
        """The identity container, until it has copied the pod's pair; then the node."""
        own = self.folder / f"{name}-identity"
        own.mkdir(exist_ok=True)
        if name not in self.identities:
            script = self.here(POD["initContainers"][0]["args"][0], name).replace("/identity", str(own))
            environment = {**os.environ, "POD_NAME": name}
            self.identities[name] = subprocess.Popen(["/bin/sh", "-euc", script], env=environment)
        until((own / "ca.crt").exists, "the certificate to be copied")
        verb, *flags = (self.here(word, name) for word in NODE["args"])
        assert verb == "start"
        given = dict(flag.split("=", 1) for flag in flags if not flag.startswith("--name="))
        return self.nodes.start(name, self.directory(name), given, environment=ENVIRONMENT)

    def directory(self, name: str) -> Path:
        """The node's folder, in the pod's claim."""
        return Path(self.here(variable("DECA_DIR"), name))

    def probe(self, name: str, which: str) -> int:
        """The status that the kubelet would see; 0 where nobody answers."""
        connection = HTTPConnection(LOOPBACK, self.http[name], timeout=PATIENCE_SECONDS)
        try:
            connection.request("GET", NODE[which]["httpGet"]["path"])
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Pods]:
    ports = free_ports(2 * len(PODS))
    make_tiny_model(tmp_path / "inputs" / "model")
    (tmp_path / "inputs" / "data").mkdir()
    (tmp_path / "run.toml").write_text(RUN)
    records = Testbed(tmp_path, tmp_path)
    for name in PODS:
        records.data(name).rename(tmp_path / "inputs" / "data" / f"{name}.jsonl")
    make_certificates(tmp_path)
    with LocalNodes() as nodes:
        made = Pods(tmp_path, nodes, dict(zip(PODS, ports, strict=False)), dict(zip(PODS, ports[2:], strict=True)))
        yield made
    for identity in made.identities.values():
        identity.terminate()
    assert [identity.wait(PATIENCE_SECONDS) for identity in made.identities.values()] == [0] * len(made.identities)


def make_certificates(folder: Path) -> None:
    """What the secret holds, with the modes in which Kubernetes mounts it."""
    now, certificates = dt.datetime.now(dt.UTC), folder / "certificates"
    made = authority.init(folder / "authority", "deca.example", now)
    for name in PODS:
        request = enrolment.request(certificates, NodeId("deca.example", name))
        issued = authority.approve(folder / "authority", request, folder / f"{name}.crt", now)
        enrolment.install(certificates, issued.path, fingerprint_of(made), now)
    for file in certificates.iterdir():
        file.chmod(0o440)


@pytest.mark.slow
def test_a_pod_is_stopped_and_all_finish(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pods.start("deca-0")
    until(lambda: pods.probe("deca-0", "startupProbe") == 200, "the model to be loaded")
    assert pods.probe("deca-0", "livenessProbe") == 200
    assert pods.probe("deca-0", "readinessProbe") == 503

    # As the kubelet ends a pod: first preStop, then SIGTERM.
    _, *command = NODE["lifecycle"]["preStop"]["exec"]["command"]
    monkeypatch.setenv("DECA_DIR", str(pods.directory("deca-0")))
    assert main(command) == 0
    monkeypatch.delenv("DECA_DIR")
    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(PATIENCE_SECONDS) == 0, first.log_text(20)

    both = [pods.start(name) for name in PODS]
    for node in both:
        until(lambda node=node: "the node stays" in node.log_text(), f"{node.name} to be done")
    assert [pods.probe(name, "readinessProbe") for name in PODS] == [200, 200], "a complete node stays ready"
    for node in both:
        node.process.send_signal(signal.SIGTERM)
    pods.nodes.wait(PATIENCE_SECONDS)
    assert all((node.directory / "final" / "model.safetensors").exists() for node in both)
