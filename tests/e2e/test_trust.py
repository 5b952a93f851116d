"""Nodes that show each other certificates: provisioned as the page says, renewed under way, and joined late."""

import contextlib
import re
from pathlib import Path
from typing import Any

import pytest

from deca_node.cli.main import main
from deca_node.lab.processes import LOOPBACK, free_ports
from tests.e2e.testbed import DEADLINE_SECONDS, Testbed, ask, largest_difference, look, metrics, until


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
        files = {"tls_cert": folder / f"{name}.crt", "tls_key": folder / f"{name}.key", "tls_ca": folder / "ca.crt"}
        assert all(file.exists() for file in files.values()), sorted(folder.iterdir())
        return {"insecure": None, **files}

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
    assert stranger.process.wait(DEADLINE_SECONDS) != 0
    testbed.nodes.nodes.remove(stranger)
    testbed.wait(3 * DEADLINE_SECONDS)
    assert largest_difference([*nodes, late]) < 1e-3
    assert [metrics(node, "step")[-1].get("edges_lost", 0) for node in nodes] == lost == [0, 0]
    assert all("plaintext" not in node.log_text() for node in [*nodes, late])
