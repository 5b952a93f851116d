"""Nodes that show each other certificates: provisioned as the page says, renewed under way, and joined late."""

import contextlib
import re
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from deca_node.cli.main import main
from deca_node.lab.rigs.processes import LOOPBACK, free_ports
from tests.e2e.testbed import Testbed, ask, largest_difference, look, metrics, until
from tests.patience import PATIENCE_SECONDS


class Federation:
    """An authority in ``folder``, and the certificates that it gives out."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._folder = folder
        self._capsys = capsys
        folder.mkdir()
        told = self._run("init", "--federation", "wards.example", "--authority", str(folder / "authority"))
        self._fingerprint = re.findall(r"sha256:[0-9a-fA-F:]+", told)[0]

    def certify(self, name: str, *more: str) -> dict[str, Any]:
        """The flags of a node of this name, with a key and a certificate that are new."""
        folder, authority = self._folder / name, str(self._folder / "authority")
        self._run("request", name, "--federation", "wards.example", "--dir", str(folder))
        crt = folder.with_suffix(".crt")
        with contextlib.chdir(self._folder):
            self._run("approve", str(folder / f"{name}.csr"), "--authority", authority, *more)
        self._run("install", str(crt), "--fingerprint", self._fingerprint, "--dir", str(folder))
        return {"insecure": None, **self.files(name)}

    def files(self, name: str) -> dict[str, Path]:
        """Where the key and the certificates of a node of this name lie."""
        folder = self._folder / name
        files = {"tls_cert": folder / f"{name}.crt", "tls_key": folder / f"{name}.key", "tls_ca": folder / "ca.crt"}
        assert all(file.exists() for file in files.values()), sorted(folder.iterdir())
        return files

    def _run(self, *arguments: str) -> str:
        assert main(["cert", *arguments]) == 0
        return self._capsys.readouterr().out


def test_nodes_with_certificates_train_renew_and_are_joined(
    testbed: Testbed, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two nodes train over TLS; both renew their certificates under way without losing an edge; a third joins late
    and gets everything over TLS; and one without a certificate gets nowhere."""
    federation = Federation(testbed.folder / "wards", capsys)
    testbed.peers("a", "b")
    flags = {"inner_steps": 30, "rounds": 3, "open_timeout_seconds": 10}
    nodes = [testbed.start(name, **flags, **federation.certify(name)) for name in ("a", "b")]
    stranger = testbed.start("stranger", listen=f"{LOOPBACK}:{free_ports(1)[0]}", wait=3, wait_for=2, **flags)
    until(lambda: len(metrics(nodes[0], "step")) > 40, "some steps")
    for node in nodes:
        federation.certify(node.name, "--replace")
        ask(node, "pause")
    for node in nodes:
        look(node, lambda status: status.phase == "paused", "the pause")
    lost = [metrics(node, "step")[-1].get("edges_lost", 0) for node in nodes]
    seed = (testbed.folder / "peers.txt").read_text().splitlines()[0].partition("@")[2]
    late = testbed.join("late", seed, **federation.certify("late"))
    until(lambda: "catching up" in late.log_text(), "the newcomer to catch up")
    for node in nodes:
        ask(node, "resume")
    assert stranger.process.wait(PATIENCE_SECONDS) != 0
    testbed.nodes.nodes.remove(stranger)
    testbed.wait()
    assert largest_difference([*nodes, late]) < 1e-3
    assert [metrics(node, "step")[-1].get("edges_lost", 0) for node in nodes] == lost == [0, 0]
    assert all("plaintext" not in node.log_text() for node in [*nodes, late])


@pytest.mark.slow
def test_all_certificates_of_a_running_run_are_renewed_and_no_update_is_lost(
    testbed: Testbed, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four nodes, none of which pauses: each gets a new key and certificate, twice. New handshakes show the new one,
    sessions that stand go on, and every update of every neighbour is applied, in time, by everybody."""
    names = ("a", "b", "c", "d")
    federation = Federation(testbed.folder / "wards", capsys)
    lines = testbed.peers(*names).read_text().split()
    ports = {line.partition("@")[0]: int(line.rpartition(":")[2]) for line in lines}
    flags = {"inner_steps": 20, "rounds": 4}
    nodes = [testbed.start(name, **flags, **federation.certify(name)) for name in names]
    served = [certificate_of(ports["a"], federation, "a")]
    for wanted in (30, 90):
        until(lambda: all(len(metrics(node, "step")) > wanted for node in nodes), "some steps")  # noqa: B023
        for name in names:
            federation.certify(name, "--replace")
        served += [certificate_of(ports[name], federation, name) for name in names]
    rotated_at = [len(metrics(node, "step")) for node in nodes]
    testbed.wait()
    assert len(set(served)) == 1 + 2 * len(names), "whoever connects anew sees the new certificate"
    for node, at in zip(nodes, rotated_at, strict=True):
        steps = metrics(node, "step")
        counted = steps[-1]
        assert len(steps) > at + 100, "the rotation was not after all is done"
        assert counted["flows_applied"] == 3 * len(steps), "each neighbour's update at every step"
        for lost in ("edges_lost", "edges_dropped", "edges_closed_by_peer", "edges_refused", "updates_unused"):
            assert counted.get(lost, 0) == 0, lost
        assert counted.get("flows_uneven_max", 0) == 0
        assert node.log_text().count("a new certificate is in use") >= 2
    assert largest_difference(nodes) < 1e-3


def certificate_of(port: int, federation: Federation, name: str) -> bytes:
    """What a node shows to whoever connects now, with its own certificate of this moment."""
    files = federation.files(name)
    context = ssl.create_default_context(cafile=str(files["tls_ca"]))
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(files["tls_cert"], files["tls_key"])
    whom = f"{name}.node.wards.example.deca.internal"

    def shown() -> bytes | None:
        try:
            with (
                socket.create_connection((LOOPBACK, port), 20) as plain,
                context.wrap_socket(plain, server_hostname=whom) as secure,
            ):
                return secure.getpeercert(binary_form=True)
        except ConnectionRefusedError:
            return None

    found: bytes = until(shown, "the node to listen")
    return found
