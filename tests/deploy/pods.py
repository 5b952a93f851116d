"""The StatefulSet's pods as processes of this machine: its own arguments, scripts, probes and volumes.

Only the places of addresses and volumes differ from a cluster.
"""

import datetime as dt
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

import yaml

from deca_node.daemon.security import authority, enrolment
from deca_node.daemon.security.certificates import NodeId, fingerprint_of
from deca_node.lab.rigs.processes import LOOPBACK, LocalNodes, NodeProcess
from tests.deploy.manifests import DEPLOY, Object
from tests.e2e.testbed import Testbed, make_tiny_model, until
from tests.patience import PATIENCE_SECONDS

POD: Object = yaml.safe_load((DEPLOY / "base" / "statefulset.yaml").read_text())["spec"]["template"]["spec"]
NODE: Object = POD["containers"][0]


def variable(name: str) -> str:
    """The value of a variable of the node's container."""
    return next(str(each["value"]) for each in NODE["env"] if each["name"] == name)


@dataclass
class Pods:
    """The pods' volumes below ``folder``, their processes, and the address (HOST:PORT) of each pod's two ports."""

    folder: Path
    nodes: LocalNodes
    wait_for: int
    peers: dict[str, str] = field(default_factory=dict)
    http: dict[str, str] = field(default_factory=dict)
    identities: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    within: Sequence[str] = ()
    variables: dict[str, dict[str, str]] = field(default_factory=dict)
    """Further variables of a pod's node, by the pod's name."""

    def meanings(self, name: str) -> dict[str, str]:
        """The manifest's words that stand for other words on this machine."""
        return {
            "$(POD_NAME)": name,
            f"{name}.deca-peers:7000": self.peers[name],
            "0.0.0.0:7000": self.peers[name],
            "deca-peers:7000": ",".join(self.peers.values()),
            "0.0.0.0:9640": self.http[name],
            "/etc/deca/": f"{self.folder}/",
            "/inputs/": f"{self.folder}/inputs/",
            "/var/lib/deca": f"{self.folder}/claims/{name}",
            "/identity/": f"{self.folder}/{name}-identity/",
            "/certificates/": f"{self.folder}/certificates/",
        }

    def here(self, text: str, name: str) -> str:
        """A text of the manifest, for this machine."""
        for written, meant in self.meanings(name).items():
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
        environment = {"DECA_THREADS": "1", "DECA_WAIT_FOR": str(self.wait_for), **self.variables.get(name, {})}
        return self.nodes.start(name, self.directory(name), given, environment=environment, within=self.within)

    def directory(self, name: str) -> Path:
        """The node's folder, in the pod's claim."""
        return Path(self.here(variable("DECA_DIR"), name))

    def probe(self, name: str, which: str) -> int:
        """The status that the kubelet would see; 0 where no node answers."""
        host, _, port = self.http[name].rpartition(":")
        connection = HTTPConnection(host, int(port), timeout=PATIENCE_SECONDS)
        try:
            connection.request("GET", NODE[which]["httpGet"]["path"])
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()

    def end(self) -> None:
        """End the identity containers."""
        for identity in self.identities.values():
            identity.terminate()
        assert {identity.wait(PATIENCE_SECONDS) for identity in self.identities.values()} <= {0}


def make_volumes(folder: Path, names: Sequence[str], run: str) -> None:
    """The inputs, the run's settings and the secret of these pods."""
    make_tiny_model(folder / "inputs" / "model")
    (folder / "inputs" / "data").mkdir()
    (folder / "run.toml").write_text(run)
    records = Testbed(folder, folder)
    for name in names:
        records.data(name).rename(folder / "inputs" / "data" / f"{name}.jsonl")
    _make_certificates(folder, names)


def on_ports(names: Sequence[str], ports: Sequence[int]) -> dict[str, str]:
    """An address on loopback for each of these names."""
    return {name: f"{LOOPBACK}:{port}" for name, port in zip(names, ports, strict=True)}


def _make_certificates(folder: Path, names: Sequence[str]) -> None:
    """What the secret holds, with the modes in which Kubernetes mounts it."""
    now, certificates = dt.datetime.now(dt.UTC), folder / "certificates"
    made = authority.init(folder / "authority", "deca.example", now)
    for name in names:
        request = enrolment.request(certificates, NodeId("deca.example", name))
        issued = authority.approve(folder / "authority", request, folder / f"{name}.crt", now)
        enrolment.install(certificates, issued.path, fingerprint_of(made), now)
    for file in certificates.iterdir():
        file.chmod(0o440)
