"""A StatefulSet's life without a cluster: pods that come and go, each time with another address, and their DNS.

A pod is a process with a loopback address of its own. The headless service is a file of hosts that each pod sees as
/etc/hosts, in a mount namespace of its own; it lists pods that are not ready too. A pod with a stale resolver keeps
its file as it is.
"""

import functools
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from deca_node.lab.rigs.processes import LOOPBACK, LocalNodes, NodeProcess, free_ports
from tests.deploy.pods import Pods
from tests.e2e.faults import seconds_until
from tests.e2e.testbed import ask
from tests.patience import PATIENCE_SECONDS

WITH_HOSTS = 'mount --bind "$0" /etc/hosts && exec "$@"'


@functools.cache
def private_mounts() -> tuple[str, ...]:
    """The command that runs another one in a mount namespace of its own; empty where this user may not."""
    for command in (("unshare", "--mount"), ("unshare", "--user", "--map-root-user", "--mount")):
        try:
            if subprocess.run([*command, "mount", "--bind", "/etc/hosts", "/etc/hosts"], check=False).returncode == 0:
                return command
        except FileNotFoundError:
            break
    return ()


def addresses() -> Sequence[str]:
    """Loopback addresses that no other test uses at the same time."""
    own = os.getpid() % 0xFFFF
    return [f"127.{16 + (own >> 10)}.{own >> 2 & 0xFF}.{(own & 3) * 60 + number}" for number in range(2, 60)]


class Cluster(Pods):
    """The pods of one StatefulSet."""

    def __init__(self, folder: Path, nodes: LocalNodes, wait_for: int) -> None:
        super().__init__(folder, nodes, wait_for)
        self.pods: dict[str, NodeProcess] = {}
        self.stale: set[str] = set()
        self._run_files: dict[str, Path] = {}
        self._versions: dict[str, Path] = {}
        self._addresses = iter(addresses())
        self._ports = free_ports(2)

    def meanings(self, name: str) -> dict[str, str]:
        """The names of the headless service stay as they are; only its port is another."""
        port, _ = self._ports
        first = {"/etc/deca/run.toml": str(self._run_files.get(name, self.folder / "run.toml"))}
        names = {word: f"{word.partition(':')[0]}:{port}" for word in (f"{name}.deca-peers:7000", "deca-peers:7000")}
        return first | super().meanings(name) | names

    # --- what Kubernetes does ---------------------------------------------------------------------------

    def create(self, name: str, address: str | None = None) -> NodeProcess:
        """Start a pod, under a new address unless one is given."""
        address = address or next(self._addresses)
        self.peers[name], self.http[name] = (f"{address}:{port}" for port in self._ports)
        self.publish()
        hosts = self._hosts(name)
        version = self._versions.get(name)
        self.within = (
            *private_mounts(),
            "sh",
            "-c",
            WITH_HOSTS,
            str(hosts),
            *(("env", "-C", str(version)) if version else ()),
        )
        self.pods[name] = self.start(name)
        return self.pods[name]

    def delete(self, name: str) -> None:
        """End a pod as the kubelet does: preStop, then SIGTERM; exit code 0 within the grace period."""
        node = self.pods[name]
        ask(node, "stop")
        if node.process.poll() is None:
            node.process.send_signal(signal.SIGTERM)
        assert node.process.wait(PATIENCE_SECONDS) == 0, node.log_text(20)
        self._forget(name)

    def lose(self, name: str) -> None:
        """The pod's machine loses power."""
        self.pods[name].process.kill()
        self.pods[name].process.wait(PATIENCE_SECONDS)
        self._forget(name)

    def scale(self, count: int) -> None:
        """Start the pods that lack; end the highest ones first."""
        while len(self.pods) > count:
            self.delete(self.ordered()[-1])
        for name in map("deca-{}".format, range(count)):
            if name not in self.pods:
                self.create(name)

    def roll(self, during: Callable[[str], None] = lambda name: None) -> list[float]:
        """Replace every pod, the highest first, and wait until each is ready; the seconds that each was away."""
        return [self.replace(name, during) for name in reversed(self.ordered())]

    def replace(self, name: str, during: Callable[[str], None] = lambda name: None) -> float:
        """Replace one pod, as a drain and an update do. ``during`` is called while it is away."""
        self.delete(name)
        during(name)
        self.create(name)
        return self.wait_ready(name)

    def publish(self) -> None:
        """The headless service's answer, to every pod whose resolver is not stale."""
        port, _ = self._ports
        hosts = {name: address.removesuffix(f":{port}") for name, address in self.peers.items()}
        lines = [f"{host} {name}.deca-peers deca-peers" for name, host in hosts.items()]
        text = "\n".join([f"{LOOPBACK} localhost", *lines, ""])
        for name in self.peers.keys() - self.stale:
            _write_in_place(self._hosts(name), text)

    def settings_of(self, name: str, run: Path | None) -> None:
        """From its next start on, this pod has other settings of the run; None: the run's own again."""
        self._run_files.pop(name, None)
        if run is not None:
            self._run_files[name] = run

    def image_of(self, name: str, version: Path | None, variables: dict[str, str]) -> None:
        """From its next start on, this pod has the version in a folder, None for this one, and further variables."""
        self._versions.pop(name, None)
        self.variables[name] = variables
        if version is not None:
            self._versions[name] = version
            self.variables[name] = {"PYTHONPATH": str(version), **variables}

    # --- what tests look at -------------------------------------------------------------------------------

    def ordered(self) -> list[str]:
        """The names of the pods that run, the lowest first."""
        return sorted(self.pods, key=lambda name: int(name.rpartition("-")[2]))

    def wait_ready(self, *names: str) -> float:
        """Until these pods are ready; after how many seconds."""
        wanted = names or self.ordered()
        return seconds_until(
            lambda: all(self.probe(name, "readinessProbe") == 200 for name in wanted), f"{wanted} to be ready"
        )

    def others(self, *names: str) -> list[NodeProcess]:
        """The nodes of all other pods."""
        return [node for name, node in self.pods.items() if name not in names]

    def stop_all(self) -> None:
        """End all pods at once, as `kubectl scale --replicas 0`."""
        for node in self.pods.values():
            ask(node, "stop")
        for node in self.pods.values():
            assert node.process.wait(PATIENCE_SECONDS) == 0, node.log_text(20)
        for name in self.ordered():
            self._forget(name)

    def _forget(self, name: str) -> None:
        self.nodes.nodes.remove(self.pods.pop(name))
        del self.peers[name]
        self.publish()

    def _hosts(self, name: str) -> Path:
        return self.folder / f"{name}-hosts"


def _write_in_place(file: Path, text: str) -> None:
    """Write a file that others have mounted. One write replaces the whole, so no reader sees a part."""
    known = file.stat().st_size if file.exists() else 0
    with file.open("r+b" if known else "wb", buffering=0) as raw:
        raw.write(text.encode().ljust(known, b"\n"))
        raw.truncate(len(text))
